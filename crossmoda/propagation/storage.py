"""Writing of intermediate results."""

import contextlib
from collections.abc import Iterator

from crossmoda.errors import InputError
from crossmoda.output import CannotWrite


@contextlib.contextmanager
def storing(name: str) -> Iterator[None]:
    """Raise :class:`CannotWrite` where writing fails: a full disk is not the fault of an image."""
    try:
        yield
    except (InputError, OSError) as cause:
        raise CannotWrite(
            f"Cannot write {name}: {cause} Free some disk space and run again; finished registrations are reused."
        ) from cause
