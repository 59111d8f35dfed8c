"""Atlases: labeled scans, checked once."""

import dataclasses
import functools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from crossmoda import labels
from crossmoda.anatomy import laterality
from crossmoda.dataset.label_reading import checksum_of
from crossmoda.errors import CASE_ERRORS, InputError
from crossmoda.provenance import checksum
from crossmoda.volume import Volume

if TYPE_CHECKING:
    from crossmoda.dataset import Case


@dataclasses.dataclass(frozen=True)
class Atlas:
    """A labeled scan whose label map was checked."""

    case: "Case"
    sides: laterality.Sides
    side: str | None
    """tumor side; None without a tumor or with a central one"""
    volumes_mm3: dict[str, float]
    """structure key -> volume"""

    @property
    def id(self) -> str:
        """The ID of its case."""
        return self.case.id

    def key(self) -> list[str | None]:
        """Return the checksums of image and label map, and the tumor side: they identify the content."""
        return [checksum(self.case.image), checksum_of(self.case.label) if self.case.label else None, self.side]

    def load(self, mirrored: bool = False) -> tuple[Volume, Volume]:
        """Read image and label map, both on the image's grid, left and right exchanged if ``mirrored``.

        Raises:
            InputError: a file cannot be read, or the label map lies on another grid than the image.

        """
        image = self.case.read_image()
        label_map = self.case.read_label(image)
        if not image.grid.same_as(label_map.grid):
            difference = label_map.grid.difference_to(image.grid)
            raise InputError(f"{self.id}: label on another grid than its image: {difference}. Resample the label.")
        label_map = Volume(label_map.array, image.grid)
        return (laterality.mirrored(image), laterality.mirrored(label_map)) if mirrored else (image, label_map)


def examine(case: "Case") -> Atlas:
    """Read and check a case's label map.

    Raises:
        InputError: the label map is missing, unreadable or empty, or has an unknown label value.

    """
    return _examine(case, checksum_of(case.label) if case.label is not None and case.label.exists() else "")


@functools.lru_cache(maxsize=1024)
def _examine(case: "Case", _content: str) -> Atlas:
    label_map = case.read_label()
    name = Path(case.label).name if case.label else ""
    if not label_map.array.any():
        raise InputError(f"No labeled voxel in {case.id}: {name}. Label it or leave it out.")
    labels.check_values(label_map.array, f"{case.id}: {name}")
    sides = laterality.find_sides(label_map)
    volumes_mm3 = {
        structure.key: float(np.count_nonzero(label_map.array == structure.value) * label_map.grid.voxel_volume_mm3)
        for structure in labels.STRUCTURES
    }
    return Atlas(case, sides, case.side or sides.tumor, volumes_mm3)


def examine_in_parallel(cases: "Sequence[Case | Atlas]") -> "list[Case | Atlas]":
    """Examine cases on all cores; those with an unusable label map are returned as they are."""
    from crossmoda.threads import thread_count

    def attempt(case: "Case | Atlas") -> "Case | Atlas":
        try:
            return case if isinstance(case, Atlas) else examine(case)
        except CASE_ERRORS:
            return case

    with ThreadPoolExecutor(thread_count(), thread_name_prefix="examination") as pool:
        return list(pool.map(attempt, cases))
