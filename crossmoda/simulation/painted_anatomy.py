"""The painted anatomy of a subject: a base with a tumor in one ear."""

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from crossmoda.simulation.lesion import BEHIND, PORUS, Lesion
from crossmoda.simulation.tissues import Tissue

if TYPE_CHECKING:
    from crossmoda.simulation.bases import Base

#: Signed distance to the tumor outside its box, mm.
_FAR_MM = 9.0


@dataclasses.dataclass(frozen=True)
class PaintedAnatomy:
    """A base with the tumor of a subject."""

    material: "Base"
    side: str | None
    """side of the tumor"""
    ears: dict
    """side -> painting, with the tumor"""
    cochlea: np.ndarray
    lesion: np.ndarray
    """(z, y, x) signed distance on the ear's grid, mm"""

    @classmethod
    def healthy(cls, material: "Base") -> "PaintedAnatomy":
        """Return a base without a tumor."""
        ears = {name: ear.painting for name, ear in material.ears.items()}
        left = material.ears["left"]
        return cls(material, None, ears, left.cochlea, np.full(left.painting.shape, _FAR_MM, np.float32))

    @classmethod
    def of(cls, material: "Base", lesion: Lesion, side: str) -> "PaintedAnatomy":
        """Paint a tumor into a copy of the ear on its side."""
        from crossmoda.simulation.painting import Painting

        ears = {name: ear.painting for name, ear in material.ears.items()}
        clean = ears[side]
        painting = Painting(clean.first.copy(), clean.second.copy(), clean.fraction.copy(), clean.origin, clean.step)
        start, stop = painting.box(*lesion.reach)
        x, y, z = painting.coordinates(start, stop)
        # The ear's grid contains the anatomy before the mass effect, and the lesion has its final shape. Every second
        # voxel is evaluated, since the surface is smooth.
        coarse = [np.append(axis.ravel()[::2], axis.ravel()[-1] + painting.step) for axis in (z, y, x)]
        points = np.stack(np.meshgrid(*coarse, indexing="ij")[::-1], axis=-1)
        grown = lesion.mass.push(points)
        shape = tuple((stop - start)[::-1])
        near = _upsampled(lesion.distance(grown), shape)
        distance = np.full(painting.shape, _FAR_MM, np.float32)
        distance[start[2] : stop[2], start[1] : stop[1], start[0] : stop[0]] = near
        # A CSF cleft separates the cisternal part of the tumor from the displaced brain.
        free = _upsampled((grown - PORUS) @ BEHIND, shape)
        uneven = _upsampled(
            0.6 + 0.4 * np.sin(0.5 * grown.sum(-1)) * np.cos(0.45 * (grown[..., 1] - grown[..., 2])), shape
        )
        painting.paint(Tissue.CSF, np.maximum(near - uneven, 1.0 - free), start)
        painting.paint(Tissue.TUMOR, near, start)
        for center, radius in lesion.cysts:
            cyst = _upsampled(np.linalg.norm(grown - center, axis=-1) - radius, shape)
            painting.paint(Tissue.TUMOR_CYST, np.maximum(cyst, near + 1.2), start)
        ears[side] = painting
        return cls(material, side, ears, material.ears[side].cochlea, distance)


def _upsampled(half: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Interpolate an array of every second voxel (and one beyond the end) linearly to ``shape``."""
    half = np.asarray(half, np.float32)
    for axis, count in enumerate(shape):
        half = np.moveaxis(half, axis, 0)
        full = np.empty((count, *half.shape[1:]), np.float32)
        full[0::2] = half[: len(full[0::2])]
        full[1::2] = (half[: len(full[1::2])] + half[1 : len(full[1::2]) + 1]) / 2
        half = np.moveaxis(full, 0, axis)
    return np.ascontiguousarray(half)
