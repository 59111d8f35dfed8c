"""The packages that CrossModa needs: those its installation declares, inside Slicer those of ``requirements.txt``."""

import dataclasses
import importlib.metadata
import re
from pathlib import Path

_ENGINE = Path(__file__).resolve().parent
#: The extension's file in a checkout, and beside the engine in Slicer.
_FILES = (_ENGINE.parent / "CrossModaSeg/Resources/requirements.txt", _ENGINE.parent / "Resources/requirements.txt")


@dataclasses.dataclass(frozen=True)
class Requirement:
    """A package with its oldest version, as in ``numba>=0.60``."""

    text: str
    extra: str = ""
    """the extra of CrossModa that needs it; empty where everything does"""

    @property
    def name(self) -> str:
        """The name of the package, in lower case with hyphens."""
        return normalized(re.split(r"[<>=!~;\[ ]", self.text)[0])

    @property
    def version(self) -> str:
        """The installed version; empty where there is none."""
        try:
            return importlib.metadata.version(self.name)
        except importlib.metadata.PackageNotFoundError:
            return ""

    @property
    def is_met(self) -> bool:
        """Whether the package is installed and not too old."""
        oldest = re.search(r">=\s*([\d.]+)", self.text)
        return bool(self.version) and (oldest is None or _release(self.version) >= _release(oldest[1]))


def normalized(name: str) -> str:
    """Return the name of a package as registries compare it.

    Example:
        >>> normalized("surface_distance"), normalized("SimpleITK")
        ('surface-distance', 'simpleitk')

    """
    return re.sub(r"[-_.]+", "-", name).lower()


def declared() -> list[Requirement]:
    """Return what the installed package declares; in Slicer, where it is not installed, :func:`in_slicer`."""
    try:
        lines = importlib.metadata.requires("crossmoda") or []
    except importlib.metadata.PackageNotFoundError:
        return in_slicer()
    extras = (re.search(r"""extra\s*==\s*['"]([\w-]+)""", line) for line in lines)
    return [
        Requirement(line.partition(";")[0].strip(), "" if extra is None else extra[1])
        for line, extra in zip(lines, extras, strict=True)
    ]


def in_slicer() -> list[Requirement]:
    """Return what is needed in Slicer beyond the packages that it bundles; torch, of its own extension, comes first."""
    path = next(path for path in _FILES if path.is_file())
    lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    return [Requirement("torch"), *(Requirement(line) for line in lines if line and not line.startswith("#"))]


def _release(version: str) -> list[int]:
    """Return the numbers of a version without its suffix: 2.13.0 of 2.13.0+cpu."""
    return [int(number) for number in re.findall(r"\d+", re.split(r"[^\d.]", version)[0])]
