"""The check of an installation: Python, packages, device, memory, folders, disk, weights; each fine or one sentence."""

import dataclasses
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from crossmoda import device, requirements, weights
from crossmoda.errors import InputError

#: What the extras of the package are for; those of tests are not checked.
_EXTRAS = {"app": "evaluation, reports, demo and DICOM SEG", "study": "studies", "training": "curves of a training"}
_OLDEST_PYTHON = (3, 11)
#: Memory of a segmentation, and disk of a run with some results, GiB.
_MEMORY_GIB, _DISK_GIB = 4.0, 2.0


@dataclasses.dataclass(frozen=True)
class Check:
    """One line of the report."""

    name: str
    is_ok: bool
    text: str
    """what was found; for a problem, one sentence with its remedy"""


def checks(folder: Path | str = ".") -> list[Check]:
    """Return all checks; ``folder`` is where results are to be written."""
    return [
        _python(),
        *_packages(),
        *_devices(),
        _memory(),
        _temporary(),
        _compiled_code(),
        _disk(Path(folder)),
        _weights(),
    ]


def _python() -> Check:
    version = platform.python_version()
    if sys.version_info < _OLDEST_PYTHON:
        return Check("Python", False, f"{version} is too old. Install Python 3.11 or newer.")
    return Check("Python", True, f"{version}, {platform.system()} {platform.machine()}")


def _packages() -> Iterator[Check]:
    for item in requirements.declared():
        if item.extra and item.extra not in _EXTRAS:
            continue
        if item.is_met:
            yield Check(item.name, True, item.version)
        elif item.extra and not item.version:
            yield Check(item.name, True, f"not installed; needed for {_EXTRAS[item.extra]} only")
        else:
            problem = f"Package too old: {item.version}" if item.version else f"Package not installed: {item.name}"
            yield Check(item.name, False, f'{problem}. Run: pip install "{item.text}".')


def _devices() -> Iterator[Check]:
    try:
        chosen = device.choose()
    except ImportError as cause:
        yield Check("processor", False, f"PyTorch cannot be loaded ({cause}). Install it again.")
        return
    yield Check("processor", True, device.describe(chosen))


def _memory() -> Check:
    total = device.memory_gib("cpu")
    if 0 < total < _MEMORY_GIB:
        return Check(
            "memory", False, f"{total:.1f} GiB, less than {_MEMORY_GIB:.0f}. Crop scans, or use another computer."
        )
    return Check("memory", True, f"{total:.1f} GiB" if total else "not known on this system")


def _temporary() -> Check:
    """Return whether temporary files can be written."""
    folder = Path(tempfile.gettempdir())
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError:
        return Check("temporary folder", False, f"Cannot write {folder}. Set TMPDIR to a folder that can be written.")
    return Check("temporary folder", True, str(folder))


def _compiled_code() -> Check:
    """Return where compiled code is kept; without a folder for it everything works, but starts slowly."""
    try:
        from crossmoda import jit_cache
    except ImportError as cause:
        return Check("compiled code", False, f"Numba cannot be loaded ({cause}). Install it again.")
    folder = jit_cache.folder()
    return Check("compiled code", True, f"not kept; {jit_cache.NOT_KEPT}" if folder is None else str(folder))


def _disk(folder: Path) -> Check:
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    free = shutil.disk_usage(folder).free / 2**30
    if free < _DISK_GIB:
        return Check("disk", False, f"{free:.1f} GiB free, less than {_DISK_GIB:.0f}. Make room.")
    return Check("disk", True, f"{free:.0f} GiB free")


def _weights() -> Check:
    try:
        _, card = weights.read_tensors(weights.bundled())
    except (InputError, ImportError) as cause:
        return Check("bundled weights", False, str(cause))
    return Check("bundled weights", True, f"{weights.bundled().name}, {card.get('crossmoda', 'unknown version')}")
