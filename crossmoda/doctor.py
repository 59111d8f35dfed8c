"""The check of an installation: Python, packages, device, memory, cache, disk, weights; each fine or one sentence."""

import dataclasses
import importlib.metadata
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from crossmoda import device, weights
from crossmoda.errors import InputError

#: Packages without which nothing is segmented, and what the others are for.
REQUIRED = ("numpy", "scipy", "SimpleITK", "pydicom", "torch", "numba", "safetensors", "nibabel", "pynrrd", "isal")
OPTIONAL = {"highdicom": "DICOM segmentations", "matplotlib": "reports and demo", "distributed": "studies"}
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
    return [_python(), *_packages(), *_devices(), _memory(), _cache(), _disk(Path(folder)), _weights()]


def _python() -> Check:
    version = platform.python_version()
    if sys.version_info < _OLDEST_PYTHON:
        return Check("Python", False, f"{version} is too old. Install Python 3.11 or newer.")
    return Check("Python", True, f"{version}, {platform.system()} {platform.machine()}")


def _packages() -> Iterator[Check]:
    for name in (*REQUIRED, *OPTIONAL):
        try:
            yield Check(name, True, importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            if name in OPTIONAL:
                yield Check(name, True, f"not installed; needed for {OPTIONAL[name]} only")
            else:
                yield Check(name, False, f"Package not installed: {name}. Run: pip install {name}.")


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


def _cache() -> Check:
    """Return whether compiled code can be kept: else every start compiles again."""
    folder = Path(tempfile.gettempdir())
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError:
        return Check("temporary folder", False, f"Cannot write {folder}. Set TMPDIR to a folder that can be written.")
    return Check("temporary folder", True, str(folder))


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
