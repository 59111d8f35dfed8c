"""The processor that does the work: its choice, name, cores and memory."""

import ctypes
import functools
import os
import sys
from typing import Any

from crossmoda.errors import InputError

CHOICES = ("auto", "cpu", "cuda")


def choose(device: str = "auto") -> str:
    """Return ``"cuda"`` or ``"cpu"``; ``"auto"`` is CUDA where it is available.

    Without the driver of a graphics card, ``"auto"`` is the CPU, and torch, which takes seconds to import, is left out.

    Raises:
        InputError: CUDA is requested and not available, or ``device`` is not one of :data:`CHOICES`.

    """
    if device not in CHOICES:
        raise InputError(f"Unknown device: {device!r}. Choose one of {', '.join(CHOICES)}.")
    if device == "cpu" or (device == "auto" and "torch" not in sys.modules and not _has_driver()):
        return "cpu"
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if device == "cuda":
        raise InputError("No CUDA device is available: 'cuda'. Choose device 'auto' or 'cpu'.")
    return "cpu"


@functools.cache
def _has_driver() -> bool:
    """Return whether this computer has the driver of a graphics card: NVIDIA's, or on Linux AMD's."""
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return os.path.exists("/dev/kfd")  # noqa: PTH110 (a device)
    return True


def cores() -> int:
    """Return the number of processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def has_fast_bfloat16() -> bool:
    """Return whether the processor multiplies 16-bit floats, twice as fast as 32-bit ones."""
    import torch

    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # newer versions
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def describe(device: str) -> str:
    """Return the device's name for provenance, such as ``"cuda (NVIDIA H200)"`` or ``"cpu (2 threads)"``."""
    if device == "cuda":
        import torch

        return f"cuda ({torch.cuda.get_device_name()})"
    return f"cpu ({cores()} threads)"


def memory_gib(device: str) -> float:
    """Return the memory of the graphics card, or of the computer for ``"cpu"``, GiB; 0 where it is unknown."""
    if device == "cuda":
        import torch

        return float(torch.cuda.get_device_properties(0).total_memory) / 2**30
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    return 0.0


def ran_out_of_memory(error: BaseException) -> bool:
    """Return whether an error of torch means that memory ran out, on the card or the computer.

    Torch's own error of that name comes from its allocator; other libraries use their own words.
    """
    words = ("out of memory", "not enough memory", "ALLOC_FAILED", "can't allocate memory", "bad_alloc")
    named = type(error).__name__ == "OutOfMemoryError" or isinstance(error, MemoryError)
    return named or (isinstance(error, RuntimeError) and any(word in str(error) for word in words))


def free_unused_memory() -> None:
    """Release the card's memory that torch holds and does not use."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()
