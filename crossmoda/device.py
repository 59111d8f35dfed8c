"""Which processor does the work."""

from crossmoda.errors import InputError

CHOICES = ("auto", "cpu", "cuda")


def choose(device: str = "auto") -> str:
    """Return ``"cuda"`` or ``"cpu"``: what ``device`` asks for, or the best there is for ``"auto"``.

    Raises:
        InputError: CUDA is asked for and there is none, or ``device`` is none of :data:`CHOICES`.

    """
    if device not in CHOICES:
        raise InputError(f"device must be one of {', '.join(CHOICES)}; got {device!r}.")
    if device == "cpu":
        return "cpu"
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if device == "cuda":
        raise InputError("No CUDA device was found; choose device 'auto' or 'cpu'.")
    return "cpu"


def describe(device: str) -> str:
    """Return the device's name for provenance, such as ``"cuda (NVIDIA H200)"`` or ``"cpu (2 threads)"``."""
    if device == "cuda":
        import torch

        return f"cuda ({torch.cuda.get_device_name()})"
    import os

    return f"cpu ({len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()} threads)"


def memory_gib(device: str) -> float:
    """Return the memory of the graphics card, or of the computer for ``"cpu"``; 0 where it cannot be found out."""
    if device == "cuda":
        import torch

        return float(torch.cuda.get_device_properties(0).total_memory) / 2**30
    import os

    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    return 0.0


def ran_out_of_memory(error: BaseException) -> bool:
    """Return whether an error of torch means that memory ran out, the card's or the computer's.

    Torch's own error of that name comes from its allocator; libraries beside it use their own words.
    """
    words = ("out of memory", "not enough memory", "ALLOC_FAILED")
    named = type(error).__name__ == "OutOfMemoryError"
    return named or (isinstance(error, RuntimeError) and any(word in str(error) for word in words))


def free_unused_memory() -> None:
    """Give back the card's memory that torch holds and does not use."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()
