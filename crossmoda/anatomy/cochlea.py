"""The one definition of the cochlea's label, in the ear frame (docs/cochlea.md).

crossMoDA outlines both cochleae as duct with modiolus. Its label is the mean shape of 79 expert contours of
Vestibular-Schwannoma-SEG (Shapey et al. 2021, doi 10.7937/TCIA.9YTJ-5Q73, CC BY 4.0), enlarged to 80 mm³, its center
at the template's modiolus. Shapes of a population have a size and deviate along modes.
"""

import dataclasses
import functools
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.ndimage import map_coordinates

from crossmoda import volume
from crossmoda.anatomy.ear_frame import EarFrame
from crossmoda.anatomy.sampling import moved, positions
from crossmoda.volume import Grid, Volume
from crossmoda.volume.grid import CORNERS
from crossmoda.volume.resampling import block_means

FOLDER = Path(__file__).parent / "vs_seg"
MEAN, MODE, STATISTICS = "cochlea_mean.nii.gz", "cochlea_mode_{}.nii.gz", "cochlea.json"
#: Volume of the label of the mean shape; the median of the expert contours is 55 mm³.
LABEL_MM3 = 80.0
MODES = 4
#: mm per unit of the stored integers.
MEAN_UNIT_MM, MODE_UNIT_MM = 0.05, 0.02
#: Voxels are divided into samples of at most this size to find which fraction the label covers; their number is odd, so
#: that no voxel is covered by exactly half.
_SAMPLE_MM = 0.3


@dataclasses.dataclass(frozen=True, eq=False)
class CochleaShape:
    """Mean and modes of the cochlea, in canonical space of the ear frame (LPS mm, left ear)."""

    mean: Volume
    """signed distance to the surface of the label, mm, negative inside"""
    modes: tuple[Volume, ...]
    """change of the distance per standard deviation, mm, most frequent first"""
    size_log_deviation: float
    """standard deviation of the logarithm of the linear size among people"""
    contour_level_mm: float
    """signed distance of the surface of the median expert contour; negative: inside the label"""

    @functools.cached_property
    def center(self) -> np.ndarray:
        """The center of the label, canonical LPS mm."""
        return positions(self.mean.grid)[self.mean.array < 0].mean(axis=0)

    def distance(self, points: np.ndarray, size: float = 1.0, weights: Sequence[float] = ()) -> np.ndarray:
        """Return the signed distance to the label at canonical points (..., 3), mm.

        Args:
            points: canonical LPS mm.
            size: linear size relative to the mean; it is scaled about the center.
            weights: of the first modes, standard deviations.

        """
        grid, array = self.mean.grid, self.mean.array
        for weight, mode in zip(weights, self.modes, strict=False):
            array = array + weight * mode.array
        center = self.center if size != 1.0 else np.zeros(3)
        index = moved(grid.physical_to_index, (np.asarray(points) - center) / size + center)
        inside = np.clip(index, 0, np.asarray(grid.size) - 1)
        beyond = np.linalg.norm((index - inside) * grid.spacing, axis=-1)
        values = map_coordinates(array, np.moveaxis(inside[..., ::-1], -1, 0), order=1, mode="nearest")
        return size * (values + beyond)


@functools.lru_cache(maxsize=1)
def mean_cochlea() -> CochleaShape:
    """Return the bundled shape; it stays in memory."""
    statistics = json.loads((FOLDER / STATISTICS).read_text("utf-8"))
    modes = tuple(_read(MODE.format(number), MODE_UNIT_MM) for number in range(1, MODES + 1))
    return CochleaShape(
        _read(MEAN, MEAN_UNIT_MM), modes, statistics["size_log_deviation"], statistics["contour_level_mm"]
    )


def _read(name: str, unit_mm: float) -> Volume:
    stored = volume.read(FOLDER / name)
    return stored.with_array(stored.array.astype(np.float32) * unit_mm)


def cochlea_fraction(
    frame: EarFrame | np.ndarray, grid: Grid, size: float = 1.0, weights: Sequence[float] = ()
) -> np.ndarray:
    """Return which fraction of each voxel the label of one cochlea covers, float32 (z, y, x), 0 to 1.

    Args:
        frame: the frame of an ear, or the 4 x 4 matrix from canonical points to points of the grid's space (LPS mm);
            the unit matrix for a grid in canonical space.
        grid: any grid; thick slices are sampled several times.
        size: linear size relative to the mean.
        weights: of the first modes, standard deviations.

    """
    matrix = frame.matrix if isinstance(frame, EarFrame) else np.asarray(frame, float)
    shape = mean_cochlea()
    reach = 0.5 * np.asarray(shape.mean.grid.spacing) * shape.mean.grid.size * max(size, 1.0)
    box = grid.box_around(moved(matrix, (2 * CORNERS - 1) * reach + shape.center))
    fraction = np.zeros(grid.shape, np.float32)
    if any(side.stop <= side.start for side in box):
        return fraction
    parts = 2 * np.ceil((np.asarray(grid.spacing) / _SAMPLE_MM - 1) / 2).clip(0).astype(int) + 1
    samples = positions(grid.crop(box).refined(parts.tolist()))
    inside = shape.distance(moved(np.linalg.inv(matrix), samples), size, weights) < 0
    fraction[box] = block_means(inside, parts.tolist())
    return fraction


def cochlea_label(
    frame: EarFrame | np.ndarray, grid: Grid, size: float = 1.0, weights: Sequence[float] = ()
) -> np.ndarray:
    """Return the label of one cochlea, bool (z, y, x): the voxels that it covers by at least half.

    The arguments are those of :func:`cochlea_fraction`.
    """
    return cochlea_fraction(frame, grid, size, weights) >= 0.5
