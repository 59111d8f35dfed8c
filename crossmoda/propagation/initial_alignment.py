"""Where the registration of an atlas to a target starts: from the ear frames of both, headers, or centers of mass."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from crossmoda import deeds, labels, volume
from crossmoda.anatomy import ear_alignment, laterality
from crossmoda.anatomy.ear_frame import EarFrames
from crossmoda.errors import InputError
from crossmoda.propagation.atlases import Atlas
from crossmoda.propagation.frames import atlas_frames
from crossmoda.propagation.target import Target
from crossmoda.volume import Grid, Volume
from crossmoda.volume.masks import bounding_box
from crossmoda.volume.transforms import affine_transform

#: Distance around an atlas's labels that belongs to its registered part, mm.
_MARGIN_MM = 8.0


@dataclasses.dataclass(frozen=True)
class InitialAlignment:
    """The start of the registrations to one target."""

    target: Target
    folder: Path
    """the target's; it keeps the frames of the atlases"""
    initialization: str
    """see :class:`crossmoda.propagation.Settings`"""

    def frames_of(self, atlas: Atlas, mirrored_grid: Grid | None = None) -> EarFrames | None:
        """Return the frames of an atlas; None where it is registered without them.

        Args:
            atlas: the atlas.
            mirrored_grid: the grid on which its scan is mirrored; None: it is not.

        Raises:
            InputError: the atlas has no ear in common with the target, and the initialization demands one.

        """
        if self.target.frames is None:
            return None
        frames = atlas_frames(atlas, self.folder)
        if mirrored_grid is not None:
            frames = ear_alignment.mirrored(frames, mirrored_grid)
        if ear_alignment.alignment(self.target.frames, frames) is not None:
            return frames
        if self.initialization == "frames":
            raise InputError(f"{atlas.id} has no ear in common with the target. {' '.join(frames.notes)}")
        return None

    def registered_part(self, image: Volume, label_map: Volume, frames: EarFrames | None) -> Volume:
        """Return the registered part of an atlas: around its ears and its labels where the target's is."""
        if frames is None or self.target.region == "whole":
            return image
        labeled = bounding_box(label_map.array > 0, image.grid.voxels(_MARGIN_MM))
        both = zip(labeled, ear_alignment.ears_box(frames, image.grid), strict=True)
        return image.crop(tuple(slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in both))

    def transform(self, frames: EarFrames | None, moving: Volume) -> sitk.Transform | None:
        """Return the linear transform from target points to points of an atlas, LPS mm; None: the headers."""
        if frames is not None and self.target.frames is not None:
            matrix = ear_alignment.alignment(self.target.frames, frames)
            return None if matrix is None else affine_transform(matrix)
        if self.initialization == "center":
            return deeds.center_alignment(self.target.part, moving)
        return None

    def mirror_image(self) -> sitk.Transform | None:
        """Return the linear transform from the target to its mirror image, LPS mm; None: they lie on each other.

        Raises:
            InputError: one ear is missing.

        """
        frames = self.target.frames
        if frames is None:
            return None
        matrix = ear_alignment.alignment(frames, ear_alignment.mirrored(frames, self.target.part.grid))
        if matrix is None:
            raise InputError("One ear is missing in the scan.")
        return affine_transform(matrix)

    def tumor_votes(self, atlases: Sequence[Atlas]) -> dict[str, np.ndarray]:
        """Return the fraction of the atlases with tumor at each voxel of the target, before any registration.

        Args:
            atlases: with the tumor on the left or on the right; each counts for both sides, once mirrored.

        Returns:
            Side -> (z, y, x) float32 on the registered part of the target.

        """
        grid = self.target.part.grid
        votes = {side: np.zeros(grid.shape, np.float32) for side in laterality.SIDES}
        for atlas in atlases:
            label_map = atlas.case.read_label()
            tumor = label_map.with_array((label_map.array == labels.VS).astype(np.uint8))
            for side in laterality.SIDES:
                is_mirrored = side != atlas.side
                moving = laterality.mirrored(tumor) if is_mirrored else tumor
                frames = self.frames_of(atlas, tumor.grid if is_mirrored else None)
                labeled = moving.crop(bounding_box(moving.array > 0))
                votes[side] += volume.resample(labeled, grid, self.transform(frames, moving), "label").array
        return {side: vote / max(len(atlases), 1) for side, vote in votes.items()}
