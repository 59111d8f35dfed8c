"""Evidence sources of a label: the probability maps of the fused atlases and of the network, with equal weight.

The posterior of label fusion can be nearly 0 or 1 where atlases disagree. The probability of the atlases is therefore
the mean of the posterior and of the vote fractions derived from their disagreement (an entropy).
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy import ndimage

from crossmoda import labels, volume
from crossmoda.anatomy.plausibility import BESIDE_MM
from crossmoda.dataset import results
from crossmoda.errors import InputError
from crossmoda.volume import Grid, Volume
from crossmoda.volume.masks import bounding_box, components

#: Probabilities up to this are ignored.
_MIN_PROBABILITY = 0.02
#: Margin of the evaluated box, voxels.
_MARGIN = 4


@dataclasses.dataclass(frozen=True)
class EvidenceSources:
    """A label to review and its evidence sources, cropped to the voxels with a label or a probability."""

    grid: Grid
    """the target's grid"""
    box: tuple[slice, ...]
    """the cropped part of the grid, (z, y, x)"""
    label_map: np.ndarray
    """(z, y, x) uint8"""
    atlas_probabilities: np.ndarray | None
    """(label, z, y, x) float32, background first"""
    network_probabilities: np.ndarray | None
    """(label, z, y, x) float32, background first"""
    network_label: np.ndarray | None
    """(z, y, x) uint8"""
    notes: tuple[str, ...]
    """missing and unusable files, with the remedy"""

    @property
    def probability_maps(self) -> list[np.ndarray]:
        """The available probability maps."""
        return [item for item in (self.atlas_probabilities, self.network_probabilities) if item is not None]

    @property
    def error_probability(self) -> np.ndarray:
        """The probability that the label is wrong, (z, y, x) float32; 0 without evidence sources."""
        total = np.zeros(self.label_map.shape, np.float32)
        for probabilities in self.probability_maps:
            total += 1 - np.take_along_axis(probabilities, self.label_map[None].astype(np.intp), axis=0)[0]
        return total / max(len(self.probability_maps), 1)

    def uncropped(self, array: np.ndarray) -> Volume:
        """Return a cropped array on the target's grid, 0 outside the box."""
        full = np.zeros(self.grid.shape, array.dtype)
        full[self.box] = array
        return Volume(full, self.grid)


def read_evidence_sources(case_folder: Path | str) -> EvidenceSources:
    """Read the label to review and its evidence sources from the results of a target.

    Raises:
        InputError: the label to review is missing or cannot be read.

    """
    folder = Path(case_folder)
    file = results.label_to_review(folder)
    label_map = volume.read_label_map(file)
    files = _ResultFiles(folder, label_map.grid)
    posterior = files.probabilities("")
    disagreement = files.read(results.DISAGREEMENT)
    predicted = files.label(f"{results.PREDICTION}/{results.LABEL_MAP}")
    predicted_probabilities = files.probabilities(f"{results.PREDICTION}/") if predicted is not None else None
    uncertainty = (
        None if predicted_probabilities is not None else files.read(f"{results.PREDICTION}/{results.UNCERTAINTY}")
    )
    if file.name != results.NOISY_LABEL:
        files.notes.append("no noisy label: run crossmoda propagate")
    if predicted is None:
        files.notes.append("no prediction of the network: run crossmoda predict")
    box = _box(label_map.array, posterior, disagreement, predicted, predicted_probabilities, uncertainty)
    cropped_label = np.ascontiguousarray(label_map.array[box])
    atlas_probabilities = None
    if posterior is not None or disagreement is not None:
        atlas_probabilities = _atlas_probabilities(
            cropped_label, _crop(posterior, box), _crop(disagreement, box), label_map.grid
        )
    network_probabilities = _crop(predicted_probabilities, box)
    if predicted is not None and network_probabilities is None:
        network_probabilities = _with_entropy(
            _one_hot(predicted[box]), predicted[box], _crop(uncertainty, box), label_map.grid
        )
    network_label = None if predicted is None else np.ascontiguousarray(predicted[box])
    if network_probabilities is not None and network_label is not None:
        combined_label = np.where(cropped_label == labels.BACKGROUND, network_label, cropped_label)
        network_probabilities = _without_implausible_tumors(network_probabilities, combined_label, label_map.grid)
    return EvidenceSources(
        label_map.grid,
        box,
        cropped_label,
        atlas_probabilities,
        network_probabilities,
        network_label,
        tuple(files.notes),
    )


class _ResultFiles:
    """Reader of the results of a target, with notes about unusable files."""

    def __init__(self, folder: Path, grid: Grid):
        self.folder, self.grid, self.notes = folder, grid, list[str]()

    def label(self, name: str) -> np.ndarray | None:
        label_map = self.read(name, volume.read_label_map)
        if label_map is not None and label_map.max(initial=0) >= len(labels.VALUES):
            self.notes.append(f"{name} was ignored (unknown label values): recompute it")
            return None
        return label_map

    def probabilities(self, prefix: str) -> np.ndarray | None:
        """Return the probability maps (structure, z, y, x); None unless all are available."""
        maps = [self.read(f"{prefix}{name}") for name in results.PROBABILITIES]
        return None if any(item is None for item in maps) else np.stack(maps)  # type: ignore[arg-type]

    def read(self, name: str, reader: Callable[[Path], Volume] = volume.read) -> np.ndarray | None:
        if not (self.folder / name).is_file():
            return None
        try:
            image = reader(self.folder / name)
        except InputError:
            self.notes.append(f"{name} was ignored (unreadable): recompute it")
            return None
        if not image.grid.same_as(self.grid):
            self.notes.append(f"{name} was ignored (grid differs from the label): recompute it")
            return None
        return image.array


def _crop(array: np.ndarray | None, box: tuple[slice, ...]) -> np.ndarray | None:
    """Crop an array; probabilities of the structures are preceded by that of the background."""
    if array is None:
        return None
    if array.ndim == 3:
        return array[box]
    structures = np.clip(array[(slice(None), *box)], 0, 1)
    background = np.clip(1 - structures.sum(axis=0, keepdims=True), 0, 1)
    probabilities = np.concatenate([background, structures])
    return probabilities / np.maximum(probabilities.sum(axis=0, keepdims=True), 1e-6)


def _box(label_map: np.ndarray, *maps: np.ndarray | None) -> tuple[slice, ...]:
    """Return the box of all voxels with a label or a probability, with a margin."""
    relevant = label_map > 0
    for item in maps:
        if item is not None:
            relevant = relevant | ((item if item.ndim == 3 else item.max(axis=0)) > _MIN_PROBABILITY)
    return bounding_box(relevant if relevant.any() else np.ones_like(relevant), _MARGIN)


def _without_implausible_tumors(probabilities: np.ndarray, label_map: np.ndarray, grid: Grid) -> np.ndarray:
    """Return the network's probabilities without unlabeled schwannoma components far from the labeled cochleae.

    :func:`~crossmoda.anatomy.plausibility.plausible` removes such components from the network's label map only.
    """
    cochleae = label_map == labels.COCHLEA
    if not cochleae.any():
        return probabilities
    numbers, count = components(probabilities[labels.VS] > _MIN_PROBABILITY)
    distance_mm = ndimage.distance_transform_edt(~cochleae, grid.spacing_zyx)
    index = np.arange(1, count + 1)
    implausible = ndimage.minimum(distance_mm, numbers, index) > BESIDE_MM
    implausible &= ndimage.maximum(label_map == labels.VS, numbers, index) == 0
    result, mask = probabilities.copy(), np.isin(numbers, index[implausible])
    result[labels.BACKGROUND, mask] += result[labels.VS, mask]
    result[labels.VS, mask] = 0
    return result


def _atlas_probabilities(
    label_map: np.ndarray, posterior: np.ndarray | None, disagreement: np.ndarray | None, grid: Grid
) -> np.ndarray:
    probabilities = posterior if posterior is not None else _one_hot(label_map)
    votes = _with_entropy(probabilities, label_map, disagreement, grid)
    return (probabilities + votes) / 2 if posterior is not None else votes


def _one_hot(label_map: np.ndarray) -> np.ndarray:
    """Return a label map as probabilities of 0 and 1, (label, z, y, x)."""
    return np.stack([(label_map == value).astype(np.float32) for value in labels.VALUES])


def _with_entropy(
    probabilities: np.ndarray, label_map: np.ndarray, entropy: np.ndarray | None, grid: Grid
) -> np.ndarray:
    """Return probabilities with the same most probable labels and the given entropy.

    The second label is the background, or the nearest structure where the background is most probable.
    """
    if entropy is None:
        return probabilities
    minority = minority_fraction(entropy)
    first = probabilities.argmax(axis=0)
    second = np.where(first == labels.BACKGROUND, nearest_structure(label_map, grid), labels.BACKGROUND)
    result = np.zeros_like(probabilities)
    np.put_along_axis(result, first[None], (1 - minority)[None], axis=0)
    np.put_along_axis(result, second[None], minority[None], axis=0)
    return result


_FRACTIONS = np.linspace(0.0, 0.5, 501)
_ENTROPIES = -(_FRACTIONS * np.log(np.maximum(_FRACTIONS, 1e-12)) + (1 - _FRACTIONS) * np.log(1 - _FRACTIONS)) / np.log(
    len(labels.VALUES)
)


def minority_fraction(entropy: np.ndarray) -> np.ndarray:
    """Return the vote fraction of the minority between two labels from the entropy, float32, 0 to 0.5.

    ``entropy`` is divided by the logarithm of the number of labels. Values above the maximum of two labels give 0.5.
    """
    return np.interp(entropy, _ENTROPIES, _FRACTIONS).astype(np.float32)


def nearest_structure(label_map: np.ndarray, grid: Grid) -> np.ndarray:
    """Return the label value of the structure nearest to each voxel, (z, y, x); the first one if all are absent."""
    min_distance_mm = np.full(label_map.shape, np.inf, np.float32)
    nearest = np.full(label_map.shape, labels.STRUCTURES[0].value, np.intp)
    for structure in labels.structures_in(label_map):
        distance = ndimage.distance_transform_edt(label_map != structure.value, grid.spacing_zyx).astype(np.float32)
        closer = distance < min_distance_mm
        min_distance_mm[closer], nearest[closer] = distance[closer], structure.value
    return nearest


def expected_dice(mask: np.ndarray, probability: np.ndarray) -> float:
    """Return the expected Dice of a mask with a random truth of independent voxels.

    The expected quotient is a second-order expansion about the quotient of the means. Dice of two empty masks is 1.

    Args:
        mask: bool, any shape.
        probability: of each voxel to belong to the truth, same shape.

    """
    if not mask.any():
        return float(np.exp(np.log1p(-np.clip(probability, 0, 1 - 1e-7), dtype=np.float64).sum()))
    inside = probability[mask].astype(np.float64)
    outside = probability[~mask].astype(np.float64)
    overlap, missed = inside.sum(), outside.sum()
    overlap_variance, missed_variance = (inside * (1 - inside)).sum(), (outside * (1 - outside)).sum()
    total = mask.sum() + overlap + missed
    curvature = 4 * overlap / total**3
    correction = overlap_variance * (curvature - 4 / total**2) + missed_variance * curvature
    return float(np.clip(2 * overlap / total + correction / 2, 0, 1))
