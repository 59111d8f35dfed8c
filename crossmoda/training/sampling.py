"""Loading of training cases and sampling of batches. Imports torch: import this module inside functions only."""

import dataclasses
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from crossmoda import cache, dataset, labels, network, output, preprocessing, volume
from crossmoda.anatomy.ear_frame import PATCH_SIZE, ear_frames, patch_grid
from crossmoda.errors import InputError
from crossmoda.network.features import CONTRASTS, features, normalized
from crossmoda.progress import Progress, report
from crossmoda.provenance import checksum
from crossmoda.training import augmentation

if TYPE_CHECKING:
    from crossmoda.training.cases import TrainingCase

#: Bump to invalidate cached volumes.
_REVISION = 2
_STORED = ("image", "label", "confidence", "spacing", "contrast")
#: Voxels (x, y, z) around an ear: the patch, and room for the errors of its frame.
_EAR_SIZE = (PATCH_SIZE[0] + 10, PATCH_SIZE[1] + 10, PATCH_SIZE[2] + 10)
#: Minimum distance (voxels) of a sampled structure voxel from the border of its crop.
_BORDER = 6


@dataclasses.dataclass(frozen=True)
class Example:
    """A prepared training case."""

    id: str
    image: torch.Tensor
    """(1, z, y, x), float32"""
    targets: torch.Tensor
    """(2, z, y, x), float32: label values and their confidence"""
    spacing_zyx: tuple[float, float, float]
    voxels: tuple[np.ndarray, ...]
    """voxel indices (n, 3), (z, y, x), of each structure present"""
    contrast: float = 0.0
    """of an ear's scan (:data:`crossmoda.network.features.CONTRASTS`); 0 for a whole scan"""

    def to(self, device: str) -> "Example":
        """Return the example with its tensors on a device."""
        return dataclasses.replace(self, image=self.image.to(device), targets=self.targets.to(device))


@dataclasses.dataclass(frozen=True)
class Batch:
    """The crops of a training step."""

    features: torch.Tensor
    """what the network sees, (batch, channel, z, y, x)"""
    label: torch.Tensor
    """(batch, z, y, x), int64"""
    confidence: torch.Tensor
    """(batch, z, y, x)"""


def load(
    cases: "Sequence[TrainingCase]",
    preparation: preprocessing.Preparation,
    folder: Path,
    progress: Progress | None = None,
    field: str = "scan",
) -> list[Example]:
    """Read, check and prepare the cases; prepared volumes are stored in ``folder``.

    With ``field="ear"`` each ear whose frame is accepted is an example; ears without a tumor teach what a healthy ear
    looks like.

    Raises:
        InputError: a file cannot be read, a label or confidence has another grid, a label value is not 0, 1 or 2, or a
            confidence is outside 0 to 1; no ear is recognized in any of the cases.

    """
    examples: list[Example] = []
    for number, case in enumerate(cases):
        report(progress, number / len(cases), f"preparing {case.name}")
        examples += _load(case, preparation, folder, field)
    if cases and not examples:
        raise InputError("No ear was recognized in any training case. Check the scans, or train with field 'scan'.")
    return examples


def _load(case: "TrainingCase", preparation: preprocessing.Preparation, folder: Path, field: str) -> list[Example]:
    """Return the examples of a case: the scan, or its ears."""
    files = [case.image, case.label, *([case.confidence] if case.confidence else [])]
    cached = folder / f"{cache.digest([[checksum(file) for file in files], preparation, field, _REVISION])[:24]}.npz"
    try:
        with np.load(cached, allow_pickle=False) as stored:
            images, label_maps, confidences, *about = (stored[name] for name in _STORED)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        prepared = (_prepare_ears if field == "ear" else _prepare)(case, preparation)
        images, label_maps, confidences, *about = prepared
        with output.atomic(cached) as temporary:
            content: dict[str, Any] = dict(zip(_STORED, prepared, strict=True))
            np.savez(temporary, **content)
    return [_example(case, *arrays, *about) for arrays in zip(images, label_maps, confidences, strict=True)]


def _example(
    case: "TrainingCase",
    image: np.ndarray,
    label: np.ndarray,
    confidence: np.ndarray,
    spacing: np.ndarray,
    contrast: np.ndarray,
) -> Example:
    targets = np.stack([label.astype(np.float32), confidence.astype(np.float32)])
    voxels = tuple(np.argwhere(label == structure.value) for structure in labels.structures_in(label))
    return Example(
        case.name,
        torch.from_numpy(image)[None],
        torch.from_numpy(targets),
        tuple(float(value) for value in spacing),  # type: ignore[arg-type]
        voxels,
        float(contrast),
    )


def _read(case: "TrainingCase") -> tuple[volume.Volume, volume.Volume, volume.Volume]:
    """Return scan, label map and confidence of a case."""
    image = volume.read_scan(case.image)
    label = dataset.Case(case.id, "", Path(case.image), Path(case.label)).read_label(image)
    labels.check_values(label.array, Path(case.label).name)
    if case.confidence is None:
        return image, label, image.with_array(np.ones(image.grid.shape, np.float32))
    stored = volume.read(case.confidence)
    if not stored.grid.same_as(image.grid):
        raise InputError(
            f"Different grids: {Path(case.confidence).name}, {Path(case.image).name}. Resample the confidence."
        )
    if stored.array.min() < -1e-3 or stored.array.max() > 1 + 1e-3:
        raise InputError(f"Confidence outside 0 to 1: {Path(case.confidence).name}. Rescale it.")
    return image, label, stored


def _prepare(case: "TrainingCase", preparation: preprocessing.Preparation) -> tuple[np.ndarray, ...]:
    """Return image, label and confidence of the prepared scan, (1, z, y, x) each, its spacing, and no contrast."""
    image, label, stored = _read(case)
    prepared = preprocessing.prepare(image, label, preparation)
    assert prepared.label is not None
    grid = prepared.image.grid
    confidence = volume.resample(stored, grid, outside=1.0).array.clip(0, 1).astype(np.float16)
    arrays = (prepared.image.array[None], prepared.label.array[None], confidence[None])
    return *arrays, np.asarray(grid.spacing_zyx), np.zeros(())


def _prepare_ears(case: "TrainingCase", _: preprocessing.Preparation) -> tuple[np.ndarray, ...]:
    """Return image, label and confidence of each recognized ear, (ear, z, y, x) each, their spacing and contrast."""
    image, label, stored = _read(case)
    grid = patch_grid(_EAR_SIZE)
    images, label_maps, confidences = [], [], []
    frames = ear_frames(image)
    for frame in frames.accepted:
        images.append(frame.sample(image, grid).array)
        label_maps.append(frame.sample(label, grid, "label").array)
        confidences.append(frame.sample(stored, grid).array.clip(0, 1))
    shape = (len(images), *grid.shape)
    return (
        np.array(images, np.float32).reshape(shape),
        np.array(label_maps, np.uint8).reshape(shape),
        np.array(confidences, np.float16).reshape(shape),
        np.asarray(grid.spacing_zyx),
        np.asarray(CONTRASTS[frames.contrast]),
    )


def draw(
    examples: Sequence[Example],
    size: tuple[int, int, int],
    strength: augmentation.Strength,
    rngs: Sequence[np.random.Generator],
    around: float,
    device: str,
    seen: network.Settings = network.Settings(),  # noqa: B008 (frozen)
) -> Batch:
    """Draw a random crop of each example and compute its features.

    Args:
        examples: one per item of the batch.
        size: crop (z, y, x), voxels; the whole volume along axes where that is smaller.
        strength: strength of the augmentation.
        rngs: random generator per item, the only source of randomness.
        around: probability that a crop contains a structure (drawn uniformly) instead of being uniformly distributed.
        device: device of the computation and the features.
        seen: what the network sees.

    """
    images, targets, contrasts = [], [], []
    for example, rng in zip(examples, rngs, strict=True):
        center = _center(example, size, rng, around)
        matrix = None
        if strength.pose > 0 and rng.random() < strength.pose:
            matrix = augmentation.random_affine(rng, strength, example.spacing_zyx)
        padded_size = tuple(extent + 2 * augmentation.MARGIN for extent in size)
        image = augmentation.cut(example.image, center, padded_size, matrix, "bilinear")[0]  # type: ignore[arg-type]
        target = augmentation.cut(example.targets, center, size, matrix, "nearest")
        if strength.mirror > 0 and rng.random() < strength.mirror:
            image, target = image.flip(-1), target.flip(-1)
        image, is_new = augmentation.change_intensities(image.to(device), rng, strength, example.spacing_zyx)
        images.append(image)
        contrasts.append(0.0 if is_new else example.contrast)
        targets.append(target.to(device))
    if seen.field == "ear":
        images = [standardized(image) for image in images]
    with torch.no_grad():
        inner = slice(augmentation.MARGIN, -augmentation.MARGIN)
        stacked = features(torch.stack(images), seen.inputs, torch.tensor(contrasts))[..., inner, inner, inner]
    stacked_targets = torch.stack(targets)
    return Batch(stacked, stacked_targets[:, 0].long(), stacked_targets[:, 1])


def standardized(image: torch.Tensor) -> torch.Tensor:
    """Return an image (z, y, x) with the intensities that the network sees."""
    return torch.from_numpy(normalized(image.cpu().numpy())).to(image.device)


def central(example: Example, size: tuple[int, int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return image and label (z, y, x) of the middle of an example."""
    middle = np.asarray(example.image.shape[1:]) // 2
    image, target = (augmentation.cut(item, middle, size, None, "nearest") for item in (example.image, example.targets))
    return image[0], target[0]


def _center(example: Example, size: tuple[int, ...], rng: np.random.Generator, around: float) -> np.ndarray:
    """Return the center voxel of a random crop."""
    extent = np.asarray(example.image.shape[1:])
    half = np.asarray(size) // 2
    low, high = np.minimum(half, extent // 2), np.maximum(extent - (np.asarray(size) - half), extent // 2)
    if rng.random() < around and example.voxels:
        voxels = example.voxels[rng.integers(len(example.voxels))]
        reach = np.maximum(half - _BORDER, 0)
        middle = voxels[rng.integers(len(voxels))] + rng.integers(-reach, reach + 1)
    else:
        middle = rng.integers(low, high + 1)
    return np.clip(middle, low, high)
