"""The ear frames of target and atlases, located once and kept in the folder of the target."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from crossmoda import cache
from crossmoda.anatomy.ear_alignment import labeled_ear_frames
from crossmoda.anatomy.ear_frame import EarFrames, ear_frames
from crossmoda.propagation.atlases import Atlas
from crossmoda.propagation.storage import storing
from crossmoda.volume import Volume

if TYPE_CHECKING:
    from crossmoda.dataset import Case

#: The folder of the frames, in the folder of a target.
FRAMES = "frames"
#: Bump to invalidate cached frames.
_REVISION = 2


def target_frames(image: Volume, key: str, folder: Path) -> EarFrames:
    """Return the frames of a target; they are kept in ``folder``, its own.

    Args:
        image: the target.
        key: checksum of its file.
        folder: the target's.

    """
    return _kept(folder, "target", [key], lambda: ear_frames(image))


def atlas_frames(atlas: Atlas, folder: Path) -> EarFrames:
    """Return the frames of an atlas, confirmed by its labels; they are kept in ``folder``, the target's."""
    image, label, _ = atlas.key()
    return _kept(folder, f"atlas_{atlas.id}", [image, label], lambda: _confirmed(atlas.case, image, label))


def _kept(folder: Path, name: str, content: list[str | None], locate: Callable[[], EarFrames]) -> EarFrames:
    step = cache.CachedStep(folder / FRAMES / name, revision=_REVISION, content=content)
    results = step.results()
    if results is not None:
        return EarFrames.from_json(results)
    frames = locate()
    with storing("the ear frames"):
        step.begin()
        step.finish([], frames.to_json())
    return frames


@functools.lru_cache(maxsize=1024)
def _confirmed(case: "Case", _content: str | None, _label: str | None) -> EarFrames:
    return labeled_ear_frames(case.read_image(), case.read_label())
