"""The template of the ear frame: a symmetric average head around both petrous bones, with landmarks.

Template space is LPS mm with the midplane at x = 0. A template is a folder with the left half (x >= 0) of four images,
``slab_T1``, ``slab_T2`` (the skull base, 2 mm) and ``ears_T1``, ``ears_T2`` (the petrous bone, 1 mm), all ``.nii.gz``,
and ``landmarks.csv`` with the landmarks of the left ear.

The bundled one is the ICBM152 2009c symmetric average (Fonov et al. 2011, NeuroImage 54:313; MNI's notice beside it).
Landmark definitions follow IE-Map (Ahmadi et al. 2021, Sci Rep 11:3893).
"""

import csv
import dataclasses
import functools
from pathlib import Path

import numpy as np

from crossmoda import volume
from crossmoda.anatomy.sampling import smoothed
from crossmoda.errors import InputError
from crossmoda.volume import Grid, Volume

#: The bundled template.
FOLDER = Path(__file__).parent / "icbm152"
CONTRASTS = ("T2", "T1")
LANDMARKS = "landmarks.csv"
#: Blur and threshold by which the T1 separates the head from the air.
_HEAD_BLUR_MM, _HEAD_THRESHOLD = 12.0, 60.0
#: The landmarks that every template has.
NAMES = ("modiolus", "cochlear_apex", "vestibule", "lateral_canal", "fundus", "porus", "brainstem_entry")


@dataclasses.dataclass(frozen=True, eq=False)
class Template:
    """Images of the skull base and the landmarks of its left ear."""

    slab: dict[str, Volume]
    """contrast -> the skull base, both sides, about 2 mm"""
    ears: dict[str, Volume]
    """contrast -> the petrous bones, both sides, about 1 mm"""
    landmarks: dict[str, np.ndarray]
    """name -> position of the left ear, LPS mm; the right ear's is mirrored about x = 0"""

    @property
    def modiolus(self) -> np.ndarray:
        """The center of the left cochlea, LPS mm."""
        return self.landmarks["modiolus"]

    @functools.cached_property
    def head(self) -> np.ndarray:
        """Which voxels of the slab lie in the head, bool (z, y, x)."""
        return smoothed(self.slab["T1"], _HEAD_BLUR_MM).array > _HEAD_THRESHOLD


@functools.lru_cache(maxsize=2)
def load(folder: Path = FOLDER) -> Template:
    """Read a template; it stays in memory.

    Raises:
        InputError: an image or a landmark is missing.

    """
    slab, ears = (
        {contrast: _mirrored(volume.read(folder / f"{region}_{contrast}.nii.gz")) for contrast in CONTRASTS}
        for region in ("slab", "ears")
    )
    return Template(slab, ears, _landmarks(folder / LANDMARKS))


def _mirrored(half: Volume) -> Volume:
    """Return both sides of an image whose first column lies on the midplane."""
    grid = half.grid
    if abs(grid.origin[0]) > 1e-3 or not np.allclose(grid.direction, np.eye(3).ravel()):
        raise InputError(f"Template image does not begin at the midplane: x = {grid.origin[0]:g} mm. Crop it at x = 0.")
    array = np.concatenate([half.array[:, :, :0:-1], half.array], axis=2)
    origin = (-grid.spacing[0] * (grid.size[0] - 1), *grid.origin[1:])
    return Volume(array, Grid((2 * grid.size[0] - 1, *grid.size[1:]), grid.spacing, origin, grid.direction))


def _landmarks(path: Path) -> dict[str, np.ndarray]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = {row["name"]: np.array([float(row[f"{axis}_mm"]) for axis in "xyz"]) for row in csv.DictReader(file)}
    except (OSError, KeyError, ValueError) as cause:
        raise InputError(
            f"Landmark table cannot be read: {path}. It needs the columns name, x_mm, y_mm, z_mm."
        ) from cause
    missing = [name for name in NAMES if name not in rows]
    if missing:
        raise InputError(f"Landmarks missing in {path}: {', '.join(missing)}. Add them.")
    return rows
