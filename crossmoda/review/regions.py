"""Where to look: the places of one case where its label is probably wrong."""

import dataclasses
from pathlib import Path

import numpy as np
from scipy import ndimage

from crossmoda import labels
from crossmoda.review.evidence_sources import nearest_structure, read_evidence_sources
from crossmoda.review.settings import Settings
from crossmoda.volume import Grid, Volume

#: What the structures are called in sentences.
SPOKEN = {"VS": "the tumor", "cochlea": "the cochlea"}
#: The place to jump to is where the doubt is greatest after smoothing over this length (standard deviation), mm.
_SMOOTHING_MM = 1.0
_NEIGHBORS = np.ones((3, 3, 3), bool)


@dataclasses.dataclass(frozen=True)
class Region:
    """A place where the label is probably wrong."""

    number: int
    """from 1, the largest benefit of a correction first"""
    center_lps: tuple[float, float, float]
    """where the doubt is greatest, mm"""
    box: tuple[tuple[int, int], ...]
    """first and last index (excluded) along z, y, x of the place with its margin"""
    volume_mm3: float
    """of what is in doubt, without the margin"""
    peak: float
    """the largest probability that the label is wrong"""
    structure: str
    """the key of the structure concerned"""
    reason: str
    """one sentence"""
    inside: np.ndarray = dataclasses.field(repr=False, compare=False)
    """bool, of the shape of the box: the place with its margin"""

    @property
    def slices(self) -> tuple[slice, ...]:
        """The box as slices of an array (z, y, x)."""
        return tuple(slice(first, stop) for first, stop in self.box)

    def mask(self, shape: tuple[int, ...]) -> np.ndarray:
        """Return the place with its margin in an array (z, y, x)."""
        whole = np.zeros(shape, bool)
        whole[self.slices] = self.inside
        return whole


def doubt(case_folder: Path | str) -> Volume:
    """Return the probability, 0 to 1, that the label to be reviewed is wrong, on the target's grid (float32).

    It is what the atlases and the network hold against the label, whichever of them there are (see
    :mod:`crossmoda.review.evidence_sources`); 0 everywhere if there are none.

    Raises:
        InputError: there is no label to review, or it cannot be read.

    """
    opinions = read_evidence_sources(case_folder)
    return opinions.whole(opinions.wrong)


def find_regions(
    disagreement: Volume,
    label_map: Volume,
    settings: Settings = Settings(),  # noqa: B008 (frozen)
    *,
    network: Volume | None = None,
) -> list[Region]:
    """Return the places where a label map is in doubt, the largest benefit of a correction first.

    The benefit is the volume that is expected to be wrong, relative to the volume of the structure: a small error
    matters more in a cochlea than in a large tumor.

    Args:
        disagreement: the probability that the label is wrong (:func:`doubt`), or another map from 0 to 1.
        label_map: the label map, on the same grid.
        settings: see :class:`Settings`.
        network: the network's label map on the same grid, for the words.

    """
    grid = disagreement.grid
    doubtful = disagreement.array >= settings.threshold
    found = ndimage.find_objects(doubtful.view(np.uint8))
    if not found or found[0] is None:
        return []
    reach = [int(np.ceil(settings.margin_mm / spacing)) + 1 for spacing in grid.spacing_zyx]
    box = tuple(
        slice(max(part.start - more, 0), min(part.stop + more, size))
        for part, more, size in zip(found[0], reach, doubtful.shape, strict=True)
    )
    shown = ndimage.distance_transform_edt(~doubtful[box], grid.spacing_zyx) <= settings.margin_mm
    pieces, _ = ndimage.label(shown, _NEIGHBORS)
    maps = _Maps(
        grid,
        tuple(part.start for part in box),
        np.where(doubtful[box], disagreement.array[box], 0),
        label_map.array[box],
        None if network is None else network.array[box],
    )
    smooth = ndimage.gaussian_filter(maps.doubt, [_SMOOTHING_MM / spacing for spacing in grid.spacing_zyx])
    regions = []
    for number, part in enumerate(ndimage.find_objects(pieces), start=1):
        inside = pieces[part] == number
        if maps.doubtful_mm3(part, inside) >= max(settings.smallest_mm3, 1e-9):
            regions.append(maps.describe(part, inside, smooth))
    regions.sort(key=lambda pair: -pair[0])
    return [
        dataclasses.replace(region, number=number)
        for number, (_, region) in enumerate(regions[: settings.most_regions], start=1)
    ]


class _Maps:
    """The doubt and the label maps of the part of the grid where there is doubt."""

    def __init__(
        self,
        grid: Grid,
        corner: tuple[int, ...],
        doubt: np.ndarray,
        label_map: np.ndarray,
        network: np.ndarray | None,
    ):
        self.grid, self.corner, self.doubt, self.label_map, self.network = grid, corner, doubt, label_map, network
        drawn = label_map if network is None else np.where(label_map == 0, network, label_map)
        self.nearest = nearest_structure(drawn, grid)
        sizes = np.bincount(label_map.ravel(), minlength=len(labels.VALUES))
        self.size_mm3 = {value: max(sizes[value] * grid.voxel_volume_mm3, 1.0) for value in labels.VALUES}

    def doubtful_mm3(self, part: tuple[slice, ...], inside: np.ndarray) -> float:
        return float(np.count_nonzero((self.doubt[part] > 0) & inside)) * self.grid.voxel_volume_mm3

    def describe(self, part: tuple[slice, ...], inside: np.ndarray, smooth: np.ndarray) -> tuple[float, Region]:
        """Return the benefit of correcting a place, and the place."""
        doubt = np.where(inside, self.doubt[part], 0)
        voxel = self.grid.voxel_volume_mm3
        mass = np.bincount(self.nearest[part].ravel(), doubt.ravel() * voxel, minlength=len(labels.VALUES))
        structure = max(labels.STRUCTURES, key=lambda one: mass[one.value] / self.size_mm3[one.value])
        benefit = sum(mass[one.value] / self.size_mm3[one.value] for one in labels.STRUCTURES)
        place = np.unravel_index(np.argmax(np.where(doubt > 0, smooth[part], -1)), doubt.shape)
        first = np.array([one.start for one in part]) + self.corner
        index = (first + place)[::-1]
        center = (self.grid.index_to_physical @ [*index, 1.0])[:3]
        return benefit, Region(
            number=0,
            center_lps=(float(center[0]), float(center[1]), float(center[2])),
            box=tuple((int(low), int(low + size)) for low, size in zip(first, inside.shape, strict=True)),
            volume_mm3=self.doubtful_mm3(part, inside),
            peak=float(doubt.max()),
            structure=structure.key,
            reason=self._reason(part, inside, structure, float(doubt.max())),
            inside=inside,
        )

    def _reason(self, part: tuple[slice, ...], inside: np.ndarray, structure: labels.Structure, peak: float) -> str:
        name, voxel = SPOKEN[structure.key], self.grid.voxel_volume_mm3
        drawn = (self.label_map[part] == structure.value) & inside
        if self.network is not None:
            seen = (self.network[part] == structure.value) & inside
            more, less = (float(np.count_nonzero(one)) * voxel for one in (seen & ~drawn, drawn & ~seen))
            if not drawn.any() and more:
                return f"The network sees {more:.0f} mm³ of {name} where the label has none."
            if not seen.any() and less:
                return f"The network sees nothing of {name} here ({less:.0f} mm³ in the label)."
            if more + less >= 1:
                return f"The network draws {name} differently: {more:.0f} mm³ more, {less:.0f} mm³ less."
        if drawn.any():
            return f"The outline of {name} is uncertain (wrong with up to {100 * peak:.0f} %)."
        return f"Possibly a part of {name} that was missed (up to {100 * peak:.0f} %)."
