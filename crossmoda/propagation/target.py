"""The scan to be labeled: its ears, and the registered part of its grid, which receives the labels."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from crossmoda.anatomy.ear_alignment import ears_box
from crossmoda.anatomy.ear_frame import EarFrames
from crossmoda.errors import InputError
from crossmoda.propagation.frames import target_frames
from crossmoda.volume import Volume
from crossmoda.volume.grid import Box, box_from

if TYPE_CHECKING:
    from crossmoda.dataset import Case


@dataclasses.dataclass(frozen=True)
class Target:
    """The scan to be labeled."""

    id: str
    key: str
    """checksum of its file"""
    image: Volume
    frames: EarFrames | None
    """where its ears are; None where registrations do not start from them"""
    box: Box
    """the part of the image's array that is registered and receives labels"""
    part: Volume
    """that part of the image"""
    codes: np.ndarray
    """MIND-SSC of that part, packed"""
    note: str = ""
    """what a user should know"""

    @property
    def region(self) -> str:
        """The registered region: ``"ears"`` or ``"whole"``."""
        return "whole" if self.part.grid == self.image.grid else "ears"


def load_target(case: "Case", key: str, initialization: str, region: str, folder: Path) -> Target:
    """Read a target.

    Args:
        case: the target.
        key: checksum of its image.
        initialization: see :class:`crossmoda.propagation.Settings`.
        region: likewise.
        folder: keeps its frames.

    Raises:
        InputError: the scan cannot be used, or shows no ears where registrations start from them.

    """
    from crossmoda.deeds import mind_codes

    image = case.read_image()
    if image.array.min() == image.array.max():
        raise InputError(f"The image has the same value everywhere: {image.array.flat[0]:g}. Select a scan.")
    frames, note = None, ""
    if initialization in ("auto", "frames"):
        frames = target_frames(image, key, folder)
        if not frames.shows_head:
            raise InputError(
                f"{case.id} shows no skull base (similarity {frames.base_similarity:.2f}): choose a scan of the head, "
                "check the orientation in its header, or set initialization 'image' for other anatomy."
            )
        if initialization == "frames" and not frames.accepted:
            raise InputError(f"{case.id} shows no ears. {frames.notes[0]} Or set initialization 'image'.")
        if not frames.accepted:
            note = f"The scan is aligned by its header. {frames.notes[0]}"
            frames = None
    ears = frames is not None and region != "whole"
    box = ears_box(frames, image.grid) if frames is not None and ears else box_from((0, 0, 0), image.grid.shape)
    part = image.crop(box) if ears else image
    return Target(case.id, key, image, frames, box, part, mind_codes.codes(part.array), note)
