"""Label maps that already lie on the target, judged by the images warped with them.

What :func:`crossmoda.propagation.propagate` knows of its registrations is found again from files: which atlases fit the
target, on which side their tumors lie, where they have voxels.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from crossmoda import volume
from crossmoda.anatomy import laterality
from crossmoda.anatomy.contralateral import ContralateralComparison
from crossmoda.dataset import Case
from crossmoda.deeds import Registration
from crossmoda.errors import InputError
from crossmoda.progress import Progress, part, report
from crossmoda.propagation.atlases import Atlas
from crossmoda.propagation.label_fusion import NoisyLabel, fuse, midplane
from crossmoda.propagation.registrations import RegisteredAtlas
from crossmoda.propagation.settings import Settings as PropagationSettings
from crossmoda.propagation.similarity import OUTSIDE, compare
from crossmoda.propagation.target import Target, as_target
from crossmoda.volume import Volume

#: How far around the labels the target is looked at, mm.
_AROUND_MM = 20.0


def find_images(folder: Path | str, label_maps: Sequence[Path]) -> list[Path]:
    """Return the warped images of a folder: each has the name of its label map.

    Raises:
        InputError: the folder is missing, or lacks one.

    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; give the folder of the warped images.")
    missing = next((path.name for path in label_maps if not (folder / path.name).is_file()), None)
    if missing:
        raise InputError(f"{folder} holds no warped image named {missing}; name each image as its label map.")
    return [folder / path.name for path in label_maps]


def judge(
    target: Volume,
    paths: Sequence[Path],
    images: Sequence[Path],
    maps: Sequence[np.ndarray],
    progress: Progress | None = None,
) -> tuple[list[RegisteredAtlas], Target]:
    """Compare each warped image with the target around its labels.

    Args:
        target: the target.
        paths: the label maps' files, which name the atlases.
        images: their warped images.
        maps: the label maps on the target's grid, (z, y, x).
        progress: is told what is compared; may cancel.

    Raises:
        InputError: an image cannot be read.

    """
    grid = target.grid
    middle_mm = midplane(maps, grid)
    box = _around(np.logical_or.reduce([label_map > 0 for label_map in maps]), grid.spacing_zyx)
    here = grid.crop(box)
    cropped = Volume(np.ascontiguousarray(target.array[box]), here)
    whole = dataclasses.replace(as_target("target", "", cropped, lambda image, _label: image), box=box)
    there = sitk.Transform(3, sitk.sitkIdentity)
    judged = []
    for number, (path, image_path, label_map) in enumerate(zip(paths, images, maps, strict=True)):
        report(progress, number / len(paths), f"comparing {path.name} with the target")
        image = volume.resample(volume.read(image_path), here)
        own = np.ascontiguousarray(label_map[box])
        bits, intensity, quality = compare(whole, image, Registration(there, there, here, here), own)
        beyond = _beyond(image.array) & (own == 0)
        bits, intensity = np.where(beyond, np.uint8(OUTSIDE), bits), np.where(beyond, np.uint16(0), intensity)
        sides = laterality.find_sides(Volume(own, here), middle_mm)
        atlas = Atlas(Case(path.name.partition(".")[0], "ceT1", image_path), sides, sides.tumor, {})
        judged.append(RegisteredAtlas(atlas, False, own, bits, intensity, quality, 0.0, False))
    return judged, whole


def _around(mask: np.ndarray, spacing_mm: Sequence[float]) -> tuple[slice, ...]:
    """Return the box of a mask and what lies around it."""
    box = ndimage.find_objects(mask.view(np.uint8))[0]
    return tuple(
        slice(max(side.start - more, 0), min(side.stop + more, size))
        for side, size, more in zip(
            box, mask.shape, (int(np.ceil(_AROUND_MM / value)) for value in spacing_mm), strict=True
        )
    )


def _beyond(image: np.ndarray) -> np.ndarray:
    """Return where a warped image has no voxels: its least value, from the border inwards."""
    pieces, _ = ndimage.label(image == image.min())
    border = [np.take(pieces, end, axis=axis).ravel() for axis in range(3) for end in (0, -1)]
    found = np.unique(np.concatenate(border))
    return np.isin(pieces, found[found > 0])


def fuse_judged(
    judged: Sequence[RegisteredAtlas],
    target: Target,
    shape: tuple[int, ...],
    side: str | None,
    share: float,
    settings: Any,
    progress: Progress | None = None,
    *,
    compared: ContralateralComparison | None = None,
) -> NoisyLabel:
    """Fuse what the atlases say about what they fit best, on the target's whole grid of ``shape``."""
    step = part(progress, 0.0, 1.0)
    how = PropagationSettings(contributing_fraction=share, weighting=settings.weighting)
    consensus, _speakers = fuse(judged, target.part, side, how, settings, comparison=compared, progress=step)

    def whole(array: np.ndarray, outside: float) -> np.ndarray:
        full = np.full((*array.shape[:-3], *shape), outside, array.dtype)
        full[..., target.box[0], target.box[1], target.box[2]] = array
        return full

    posterior = whole(consensus.posterior, 0.0)
    posterior[0] = whole(consensus.posterior[0], 1.0)
    fused = dataclasses.replace(
        consensus.fusion,
        agreement=whole(consensus.fusion.agreement, 1.0),
        disagreement=whole(consensus.fusion.disagreement, 0.0),
    )
    return dataclasses.replace(consensus, label_map=whole(consensus.label_map, 0), posterior=posterior, fusion=fused)
