"""The ears of target and atlases in their canonical frames, where they are compared before any registration."""

import base64
import dataclasses
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from crossmoda.anatomy.ear_alignment import ears_box
from crossmoda.anatomy.ear_frame import SIDES, EarFrame, EarFrames, patch_grid
from crossmoda.anatomy.sampling import averaged
from crossmoda.volume import Volume
from crossmoda.volume.masks import grown
from crossmoda.volume.resampling import field_of_view
from crossmoda.volume.transforms import affine_transform

_SPACING_MM = 1.0
#: Voxels (x, y, z) of one ear: canal, labyrinth and cerebellopontine angle.
_SIZE = (56, 56, 45)
_EAR = patch_grid(_SIZE, _SPACING_MM)
#: Both ears as one image: the left one, and beside it the right one, which looks like a left one in its frame.
GRID = patch_grid((2 * _SIZE[0], *_SIZE[1:]), _SPACING_MM)
#: Mask of the left ear, to be broadcast to (z, y, x).
ON_LEFT = np.arange(GRID.size[0]) < _SIZE[0]
#: Distance around the labels of an atlas in which it is compared with a target, mm.
_COMPARED_MM = 2.0


@dataclasses.dataclass(frozen=True)
class TargetEars:
    """The ears of a target, those with an accepted frame."""

    image: Volume
    """on :data:`GRID`; the least value of the scan beyond its field of view"""
    codes: np.ndarray
    """(z, y, x) uint64: MIND-SSC"""
    inside: np.ndarray
    """(z, y, x) bool: the field of view"""


@dataclasses.dataclass(frozen=True)
class AtlasEars:
    """The ears of an atlas near its labels, those with an accepted frame."""

    voxels: np.ndarray
    """(n,) int32: flat indices on :data:`GRID`, inside the field of view"""
    label: np.ndarray
    """(n,) uint8"""
    codes: np.ndarray
    """(n,) uint64: MIND-SSC"""

    def places(self, mirrored: bool) -> tuple[np.ndarray, ...]:
        """Return the indices z, y and x of the voxels; in a mirrored atlas each ear takes the place of the other."""
        z, y, x = np.unravel_index(self.voxels, GRID.shape)
        return z, y, (x + _SIZE[0]) % GRID.size[0] if mirrored else x

    def to_json(self) -> dict[str, str]:
        """Return the ears in JSON's types."""
        arrays = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: base64.b85encode(zlib.compress(array.tobytes())).decode() for name, array in arrays.items()}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "AtlasEars":
        """Return the ears of :meth:`to_json`.

        Raises:
            LookupError, TypeError, ValueError, zlib.error: the content is damaged.

        """
        kinds = {"voxels": np.int32, "label": np.uint8, "codes": np.uint64}
        arrays = {
            name: np.frombuffer(zlib.decompress(base64.b85decode(content[name])), kind) for name, kind in kinds.items()
        }
        if len({len(array) for array in arrays.values()}) > 1:
            raise ValueError("arrays of different lengths")
        return cls(**arrays)


def target_ears(image: Volume, frames: EarFrames) -> TargetEars:
    """Return the ears of a target."""
    patch, inside = _patch(image, frames)
    return TargetEars(patch, _codes(patch), inside)


def atlas_ears(image: Volume, label_map: Volume, frames: EarFrames) -> AtlasEars:
    """Return the ears of an atlas.

    Args:
        image: the atlas.
        label_map: its labels, on any grid in the same space.
        frames: its ears.

    """
    if not frames.accepted:
        return AtlasEars(np.zeros(0, np.int32), np.zeros(0, np.uint8), np.zeros(0, np.uint64))
    patch, inside = _patch(image, frames)
    label = np.zeros(GRID.shape, np.uint8)
    for frame, half in _halves(frames):
        label[..., half] = frame.sample(label_map, _EAR, "label").array
    near = grown(label > 0, _COMPARED_MM, GRID) & inside
    return AtlasEars(np.flatnonzero(near).astype(np.int32), label[near], _codes(patch)[near])


def _halves(frames: EarFrames) -> Iterator[tuple[EarFrame, slice]]:
    """Yield each accepted frame and the columns of its ear."""
    for frame in frames.accepted:
        start = SIDES.index(frame.side) * _SIZE[0]
        yield frame, slice(start, start + _SIZE[0])


def _patch(image: Volume, frames: EarFrames) -> tuple[Volume, np.ndarray]:
    """Return both ears of a scan on :data:`GRID`, and the mask of its field of view there."""
    image = image.crop(ears_box(frames, image.grid))
    coarse = averaged(image, _SPACING_MM)  # without aliasing
    array, inside = np.full(GRID.shape, coarse.array.min(), np.float32), np.zeros(GRID.shape, bool)
    for frame, half in _halves(frames):
        array[..., half] = frame.sample(coarse, _EAR).array
        inside[..., half] = field_of_view(image, _EAR, affine_transform(frame.matrix))
    return Volume(array, GRID), inside


def _codes(patch: Volume) -> np.ndarray:
    """Return the MIND-SSC codes of both ears, each by itself."""
    from crossmoda.deeds import mind_codes

    return np.concatenate([mind_codes.codes(ear) for ear in np.split(patch.array, 2, axis=-1)], axis=-1)
