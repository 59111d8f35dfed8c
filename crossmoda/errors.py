"""The two ways in which work ends early without being a bug."""


class InputError(Exception):
    """The user's input cannot be used.

    The message is ``<What failed>: <value>. <What to do>.`` in the user's words. Each door (command, CLI module, panel)
    shows it as it is, without a traceback. Every exception of another type is a bug.
    """


def cannot_read(path: object, reason: str, remedy: str) -> InputError:
    """Return the error of a file that cannot be used: ``Cannot read PATH: REASON. REMEDY.``"""
    one_line = " ".join(str(reason).split())  # a reason may quote a damaged file
    return InputError(f"Cannot read {path}: {one_line}. {remedy}.")


def reason_of(error: Exception) -> str:
    """Return the reason that the system or a library states for an error, without its period."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return (str(error).strip().splitlines() or [type(error).__name__])[-1].strip().rstrip(".")


#: What a door says of a MemoryError.
NOT_ENOUGH_MEMORY = "Not enough memory. Close other programs, crop the scan, or use a computer with more memory."
#: The errors of one case, which do not stop the others.
CASE_ERRORS = (InputError, MemoryError)


def sentence_of(error: BaseException) -> str:
    """Return what a door says of one of :data:`CASE_ERRORS`."""
    return NOT_ENOUGH_MEMORY if isinstance(error, MemoryError) else str(error)


class Cancelled(Exception):
    """The user asked to stop. Raised by a progress callback (see :mod:`crossmoda.progress`)."""


#: What a command or CLI module exits with: a bug, bad input, interrupted by the user.
BUG, BAD_INPUT, INTERRUPTED = 1, 2, 130
