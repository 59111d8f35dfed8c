"""The ears of target and atlases, located once: frames in the folder of the target, atlases for the user as well."""

import contextlib
import functools
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from crossmoda import cache, user_cache
from crossmoda.anatomy.ear_alignment import labeled_ear_frames
from crossmoda.anatomy.ear_frame import EarFrames, ear_frames
from crossmoda.propagation.atlases import Atlas
from crossmoda.propagation.canonical_ears import AtlasEars, atlas_ears
from crossmoda.propagation.storage import storing
from crossmoda.volume import Volume

if TYPE_CHECKING:
    from crossmoda.dataset import Case

#: The folder of the frames, in the folder of a target.
FRAMES = "frames"
#: Bump to invalidate cached frames.
_REVISION = 2


class LocatedAtlas(NamedTuple):
    """The ears of an atlas."""

    frames: EarFrames
    """confirmed by its labels"""
    ears: AtlasEars


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
    return _kept(folder, f"atlas_{atlas.id}", [image, label], lambda: located(atlas).frames)


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


def located(atlas: Atlas) -> LocatedAtlas:
    """Return the ears of an atlas; for the next target they are kept in the user's cache.

    Raises:
        InputError: a file cannot be read.

    """
    image, label, _ = atlas.key()
    return _located(atlas.case, image, label)


@functools.lru_cache(maxsize=256)
def _located(case: "Case", image_key: str | None, label_key: str | None) -> LocatedAtlas:
    program = user_cache.code_digest("anatomy", "deeds", "volume", "propagation")
    key = cache.digest([image_key, label_key, program])
    earlier = user_cache.recall("atlas_ears", key)
    if earlier is not None:
        with contextlib.suppress(AttributeError, LookupError, TypeError, ValueError, zlib.error):  # damaged
            return LocatedAtlas(EarFrames.from_json(earlier["frames"]), AtlasEars.from_json(earlier["ears"]))
    image, label_map = case.read_image(), case.read_label()
    frames = labeled_ear_frames(image, label_map)
    ears = atlas_ears(image, label_map, frames)
    user_cache.keep("atlas_ears", key, {"frames": frames.to_json(), "ears": ears.to_json()})
    return LocatedAtlas(frames, ears)
