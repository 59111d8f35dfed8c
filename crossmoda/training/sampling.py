"""Loading of training cases and sampling of batches. Imports torch: import this module inside functions only."""

import dataclasses
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from crossmoda import cache, dataset, labels, mind, output, preprocessing, volume
from crossmoda.errors import InputError
from crossmoda.progress import Progress, report
from crossmoda.provenance import checksum
from crossmoda.training import augmentation

if TYPE_CHECKING:
    from crossmoda.training.cases import TrainingCase

#: Bump to invalidate cached volumes.
_REVISION = 1
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

    def to(self, device: str) -> "Example":
        """Return the example with its tensors on a device."""
        return dataclasses.replace(self, image=self.image.to(device), targets=self.targets.to(device))


@dataclasses.dataclass(frozen=True)
class Batch:
    """The crops of a training step."""

    features: torch.Tensor
    """MIND-SSC, (batch, 12, z, y, x)"""
    label: torch.Tensor
    """(batch, z, y, x), int64"""
    confidence: torch.Tensor
    """(batch, z, y, x)"""


def load(
    cases: "Sequence[TrainingCase]",
    preparation: preprocessing.Preparation,
    folder: Path,
    progress: Progress | None = None,
) -> list[Example]:
    """Read, check and prepare the cases; prepared volumes are stored in ``folder``.

    Raises:
        InputError: a file cannot be read, a label or confidence has another grid, a label value is not 0, 1 or 2, or a
            confidence is outside 0 to 1.

    """
    examples = []
    for number, case in enumerate(cases):
        report(progress, number / len(cases), f"preparing {case.name}")
        examples.append(_load(case, preparation, folder))
    return examples


def _load(case: "TrainingCase", preparation: preprocessing.Preparation, folder: Path) -> Example:
    files = [case.image, case.label, *([case.confidence] if case.confidence else [])]
    cached = folder / f"{cache.digest([[checksum(file) for file in files], preparation, _REVISION])[:24]}.npz"
    try:
        with np.load(cached, allow_pickle=False) as stored:
            image, label, confidence, spacing = (stored[name] for name in ("image", "label", "confidence", "spacing"))
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        image, label, confidence, spacing = _prepare(case, preparation)
        with output.atomic(cached) as temporary:
            np.savez(temporary, image=image, label=label, confidence=confidence, spacing=spacing)
    targets = np.stack([label.astype(np.float32), confidence.astype(np.float32)])
    voxels = tuple(np.argwhere(label == structure.value) for structure in labels.structures_in(label))
    return Example(
        case.name,
        torch.from_numpy(image)[None],
        torch.from_numpy(targets),
        tuple(float(value) for value in spacing),  # type: ignore[arg-type]
        voxels,
    )


def _prepare(case: "TrainingCase", preparation: preprocessing.Preparation) -> tuple[np.ndarray, ...]:
    image = volume.read_scan(case.image)
    label = dataset.Case(case.id, "", Path(case.image), Path(case.label)).read_label(image)
    labels.check_values(label.array, Path(case.label).name)
    prepared = preprocessing.prepare(image, label, preparation)
    assert prepared.label is not None
    grid = prepared.image.grid
    confidence = np.ones(grid.shape, np.float16)
    if case.confidence is not None:
        stored = volume.read(case.confidence)
        if not stored.grid.same_as(image.grid):
            raise InputError(
                f"Different grids: {Path(case.confidence).name}, {Path(case.image).name}. Resample the confidence."
            )
        if stored.array.min() < -1e-3 or stored.array.max() > 1 + 1e-3:
            raise InputError(f"Confidence outside 0 to 1: {Path(case.confidence).name}. Rescale it.")
        confidence = volume.resample(stored, grid, outside=1.0).array.clip(0, 1).astype(np.float16)
    return prepared.image.array, prepared.label.array, confidence, np.asarray(grid.spacing_zyx)


def draw(
    examples: Sequence[Example],
    size: tuple[int, int, int],
    strength: augmentation.Strength,
    rngs: Sequence[np.random.Generator],
    around: float,
    device: str,
) -> Batch:
    """Draw a random crop of each example and compute its features.

    Args:
        examples: one per item of the batch.
        size: crop (z, y, x), voxels; the whole volume along axes where that is smaller.
        strength: strength of the augmentation.
        rngs: random generator per item, the only source of randomness.
        around: probability that a crop contains a structure (drawn uniformly) instead of being uniformly distributed.
        device: device of the computation and the features.

    """
    images, targets = [], []
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
        images.append(augmentation.change_intensities(image.to(device), rng, strength))
        targets.append(target.to(device))
    with torch.no_grad():
        inner = slice(augmentation.MARGIN, -augmentation.MARGIN)
        features = mind.mind_ssc(torch.stack(images))[..., inner, inner, inner]
    stacked_targets = torch.stack(targets)
    return Batch(features, stacked_targets[:, 0].long(), stacked_targets[:, 1])


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
