"""The scan to be labeled: its preparation, and the registered part of its grid, which receives the labels."""

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from crossmoda import preprocessing
from crossmoda.volume import Grid, Volume
from crossmoda.volume.grid import CORNERS, Box

if TYPE_CHECKING:
    from crossmoda.dataset import Case


@dataclasses.dataclass(frozen=True)
class Target:
    """The scan to be labeled."""

    id: str
    key: str
    """checksum of its file"""
    image: Volume
    prepared: Volume
    """the image that is registered: cropped, resampled, normalized"""
    box: Box
    """the part of the image's array that receives labels"""
    part: Volume
    """that part of the image"""
    codes: np.ndarray
    """MIND-SSC of that part, packed"""


def load_target(case: "Case", key: str, region: str, has_cochlea: bool) -> tuple[Target, preprocessing.Preparation]:
    """Read a target with checksum ``key``; return it and the preparation of it and its atlases."""
    from crossmoda.deeds import mind_codes

    image = case.read_image()
    preparation = preprocessing.preparation_for_registration(region, image.grid, has_cochlea)
    prepared = preprocessing.prepare(image, None, preparation).image
    box = _covered_box(image.grid, prepared.grid)
    cropped = image.crop(box)
    return Target(case.id, key, image, prepared, box, cropped, mind_codes.codes(cropped.array)), preparation


def _covered_box(grid: Grid, inner: Grid) -> Box:
    """Return the slices (z, y, x) of ``grid`` that cover the grid ``inner``."""
    index = grid.to_index(inner.to_lps(CORNERS * inner.size - 0.5))
    low = np.clip(np.ceil(index.min(axis=0) - 1e-3), 0, None).astype(int)
    high = np.clip(np.floor(index.max(axis=0) + 1e-3) + 1, None, grid.size).astype(int)
    return tuple(slice(int(a), int(b)) for a, b in zip(low[::-1], high[::-1], strict=True))
