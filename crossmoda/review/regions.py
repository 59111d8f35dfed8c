"""Regions of a case where its label is probably wrong."""

import dataclasses
from pathlib import Path

import numpy as np
from scipy import ndimage

from crossmoda import labels
from crossmoda.review.evidence_sources import nearest_structure, read_evidence_sources
from crossmoda.review.settings import Settings
from crossmoda.volume import Grid, Volume
from crossmoda.volume.masks import bounding_box, components

#: The structures in sentences.
STRUCTURE_PHRASES = {"VS": "the tumor", "cochlea": "the cochlea"}
#: Standard deviation of the smoothing before the maximum of a region is located.
_SMOOTHING_MM = 1.0


@dataclasses.dataclass(frozen=True)
class Region:
    """A region where the label is probably wrong."""

    number: int
    """rank by benefit of a correction, from 1"""
    center_lps: tuple[float, float, float]
    """location of the highest error probability, mm"""
    box: tuple[tuple[int, int], ...]
    """first index and stop index along z, y, x, including the margin"""
    volume_mm3: float
    """volume without the margin"""
    peak: float
    """maximum error probability"""
    structure: str
    """key of the affected structure"""
    reason: str
    """one sentence"""
    inside: np.ndarray = dataclasses.field(repr=False, compare=False)
    """bool mask within the box, including the margin"""

    @property
    def slices(self) -> tuple[slice, ...]:
        """The box as slices (z, y, x)."""
        return tuple(slice(first, stop) for first, stop in self.box)

    def mask(self, shape: tuple[int, ...]) -> np.ndarray:
        """Return the region, including its margin, as a mask (z, y, x)."""
        mask = np.zeros(shape, bool)
        mask[self.slices] = self.inside
        return mask


def doubt(case_folder: Path | str) -> Volume:
    """Return the probability (0 to 1, float32) that the label to review is wrong, on the target's grid.

    It is the mean over the evidence sources (see :mod:`crossmoda.review.evidence_sources`), 0 without any.

    Raises:
        InputError: the label to review is missing or cannot be read.

    """
    sources = read_evidence_sources(case_folder)
    return sources.uncropped(sources.error_probability)


def find_regions(
    disagreement: Volume,
    label_map: Volume,
    settings: Settings = Settings(),  # noqa: B008 (frozen)
    *,
    network: Volume | None = None,
) -> list[Region]:
    """Return the regions where a label map is in doubt, by decreasing benefit of a correction.

    The benefit is the expected volume of errors relative to the volume of the structure.

    Args:
        disagreement: error probability (:func:`doubt`), or any map from 0 to 1.
        label_map: the label map, on the same grid.
        network: the network's label map on the same grid, for the reasons.

    """
    grid = disagreement.grid
    doubtful = disagreement.array >= settings.threshold
    if not doubtful.any():
        return []
    box = bounding_box(doubtful, [count + 1 for count in grid.voxels(settings.margin_mm)])
    dilated = ndimage.distance_transform_edt(~doubtful[box], grid.spacing_zyx) <= settings.margin_mm
    numbers, _ = components(dilated)
    maps = _Maps(
        grid,
        tuple(part.start for part in box),
        np.where(doubtful[box], disagreement.array[box], 0),
        label_map.array[box],
        None if network is None else network.array[box],
    )
    smooth = ndimage.gaussian_filter(maps.doubt, [_SMOOTHING_MM / spacing for spacing in grid.spacing_zyx])
    regions = []
    for number, part in enumerate(ndimage.find_objects(numbers), start=1):
        inside = numbers[part] == number
        if maps.doubtful_mm3(part, inside) >= max(settings.smallest_mm3, 1e-9):
            regions.append(maps.describe(part, inside, smooth))
    regions.sort(key=lambda pair: -pair[0])
    return [
        dataclasses.replace(region, number=number)
        for number, (_, region) in enumerate(regions[: settings.most_regions], start=1)
    ]


class _Maps:
    """Error probability and label maps, cropped to the doubtful voxels."""

    def __init__(
        self,
        grid: Grid,
        corner: tuple[int, ...],
        doubt: np.ndarray,
        label_map: np.ndarray,
        network: np.ndarray | None,
    ):
        self.grid, self.corner, self.doubt, self.label_map, self.network = grid, corner, doubt, label_map, network
        combined = label_map if network is None else np.where(label_map == 0, network, label_map)
        self.nearest = nearest_structure(combined, grid)
        sizes = np.bincount(label_map.ravel(), minlength=len(labels.VALUES))
        self.size_mm3 = {value: max(sizes[value] * grid.voxel_volume_mm3, 1.0) for value in labels.VALUES}

    def doubtful_mm3(self, part: tuple[slice, ...], inside: np.ndarray) -> float:
        return float(np.count_nonzero((self.doubt[part] > 0) & inside)) * self.grid.voxel_volume_mm3

    def describe(self, part: tuple[slice, ...], inside: np.ndarray, smooth: np.ndarray) -> tuple[float, Region]:
        """Return the benefit of correcting a region, and the region."""
        doubt = np.where(inside, self.doubt[part], 0)
        voxel_mm3 = self.grid.voxel_volume_mm3
        mass = np.bincount(self.nearest[part].ravel(), doubt.ravel() * voxel_mm3, minlength=len(labels.VALUES))
        benefits = {item: mass[item.value] / self.size_mm3[item.value] for item in labels.STRUCTURES}
        structure = max(labels.STRUCTURES, key=lambda item: benefits[item])
        benefit = sum(benefits.values())
        maximum = np.unravel_index(np.argmax(np.where(doubt > 0, smooth[part], -1)), doubt.shape)
        first = np.array([item.start for item in part]) + self.corner
        index = (first + maximum)[::-1]
        center = self.grid.to_lps(index)
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
        name, voxel_mm3 = STRUCTURE_PHRASES[structure.key], self.grid.voxel_volume_mm3
        labeled = (self.label_map[part] == structure.value) & inside
        if self.network is not None:
            predicted = (self.network[part] == structure.value) & inside
            added_mm3, removed_mm3 = (
                float(np.count_nonzero(mask)) * voxel_mm3 for mask in (predicted & ~labeled, labeled & ~predicted)
            )
            if not labeled.any() and added_mm3:
                return f"Only the network finds {name} here ({added_mm3:.0f} mm³)."
            if not predicted.any() and removed_mm3:
                return f"The network does not find {name} here ({removed_mm3:.0f} mm³ in the label)."
            if added_mm3 + removed_mm3 >= 1:
                return f"The network outlines {name} differently: {added_mm3:.0f} mm³ more, {removed_mm3:.0f} mm³ less."
        if labeled.any():
            return f"The outline of {name} is uncertain (error probability up to {100 * peak:.0f} %)."
        return f"{name.capitalize()} may be missing here (probability up to {100 * peak:.0f} %)."
