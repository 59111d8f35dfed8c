"""What the atlases and the network think of a label: their probabilities, and how wrong it is in their view.

There are two opinions: that of the fused atlases and that of the network. Which of them is right is not known
beforehand, so both count alike. The fused posterior can be nearly 0 or 1 where the atlases are divided; the atlases'
opinion is therefore the mean of the posterior and of the share of atlases on either side, which their disagreement
(an entropy) tells.
"""

import dataclasses
from pathlib import Path

import numpy as np
from scipy import ndimage

from crossmoda import labels, volume
from crossmoda.anatomy.plausibility import BESIDE_MM
from crossmoda.dataset import results
from crossmoda.errors import InputError
from crossmoda.volume import Grid, Volume
from crossmoda.volume.masks import bounding_box, components

#: What is less probable than this is no reason to look there.
_LEAST = 0.02
#: Voxels kept around everything that matters.
_BORDER = 4


@dataclasses.dataclass(frozen=True)
class Opinions:
    """A label to be reviewed and what is thought of it, cut to the part of the scan where anything is."""

    grid: Grid
    """the target's whole grid"""
    box: tuple[slice, ...]
    """the part of it, (z, y, x)"""
    label_map: np.ndarray
    """(z, y, x) uint8"""
    atlases: np.ndarray | None
    """(label, z, y, x) float32: probabilities, background first"""
    network: np.ndarray | None
    """the same of the network"""
    network_label: np.ndarray | None
    """(z, y, x) uint8"""
    notes: tuple[str, ...]
    """what is missing or cannot be used, and what to do about it"""

    @property
    def known(self) -> list[np.ndarray]:
        """The probabilities of those who have an opinion."""
        return [one for one in (self.atlases, self.network) if one is not None]

    @property
    def wrong(self) -> np.ndarray:
        """The probability that the label is wrong, (z, y, x) float32; 0 where nobody has an opinion."""
        total = np.zeros(self.label_map.shape, np.float32)
        for one in self.known:
            total += 1 - np.take_along_axis(one, self.label_map[None].astype(np.intp), axis=0)[0]
        return total / max(len(self.known), 1)

    def whole(self, array: np.ndarray) -> Volume:
        """Return an array of the part on the target's whole grid, with 0 around."""
        full = np.zeros(self.grid.shape, array.dtype)
        full[self.box] = array
        return Volume(full, self.grid)


def read_opinions(case_folder: Path | str) -> Opinions:
    """Read what lies in the results of one target; what is missing or damaged is noted.

    Raises:
        InputError: there is no label to review, or it cannot be read.

    """
    folder = Path(case_folder)
    file = results.label_to_review(folder)
    label_map = volume.read_label_map(file)
    files = _Files(folder, label_map.grid)
    posterior = files.probabilities("")
    disagreement = files.read(results.DISAGREEMENT)
    predicted = files.label(f"{results.PREDICTION}/{results.LABEL_MAP}")
    from_network = files.probabilities(f"{results.PREDICTION}/") if predicted is not None else None
    uncertainty = None if from_network is not None else files.read(f"{results.PREDICTION}/{results.UNCERTAINTY}")
    if file.name != results.NOISY_LABEL:
        files.notes.append("there is no noisy label of atlases: run crossmoda propagate")
    if predicted is None:
        files.notes.append("there is no prediction of the network: run crossmoda predict")
    box = _box(label_map.array, posterior, disagreement, predicted, from_network, uncertainty)
    inside = np.ascontiguousarray(label_map.array[box])
    atlases = None
    if posterior is not None or disagreement is not None:
        atlases = _opinion_of_atlases(inside, _cut(posterior, box), _cut(disagreement, box), label_map.grid)
    network = _cut(from_network, box)
    if predicted is not None and network is None:
        network = _softened(_certain(predicted[box]), predicted[box], _cut(uncertainty, box), label_map.grid)
    network_label = None if predicted is None else np.ascontiguousarray(predicted[box])
    if network is not None and network_label is not None:
        network = _without_strays(network, np.where(inside == labels.BACKGROUND, network_label, inside), label_map.grid)
    return Opinions(label_map.grid, box, inside, atlases, network, network_label, tuple(files.notes))


class _Files:
    """Reads the files of one target's results; notes what cannot be used."""

    def __init__(self, folder: Path, grid: Grid):
        self.folder, self.grid, self.notes = folder, grid, list[str]()

    def read(self, name: str) -> np.ndarray | None:
        return self._read(name, volume.read)

    def label(self, name: str) -> np.ndarray | None:
        found = self._read(name, volume.read_label_map)
        if found is not None and found.max(initial=0) >= len(labels.VALUES):
            self.notes.append(f"{name} holds unknown labels and was left out: make it again")
            return None
        return found

    def probabilities(self, prefix: str) -> np.ndarray | None:
        """Return (structure, z, y, x): the probability map of each structure; None unless all are there."""
        found = [self.read(f"{prefix}{name}") for name in results.PROBABILITIES]
        return None if any(one is None for one in found) else np.stack(found)  # type: ignore[arg-type]

    def _read(self, name: str, reader: object) -> np.ndarray | None:
        if not (self.folder / name).is_file():
            return None
        try:
            found: Volume = reader(self.folder / name)  # type: ignore[operator]
        except InputError:
            self.notes.append(f"{name} cannot be read and was left out: make it again")
            return None
        if not found.grid.same_as(self.grid):
            self.notes.append(f"{name} lies on another grid than the label and was left out: make it again")
            return None
        return found.array


def _cut(array: np.ndarray | None, box: tuple[slice, ...]) -> np.ndarray | None:
    """Return a part of an array; probabilities of the structures get that of the background before them."""
    if array is None:
        return None
    if array.ndim == 3:
        return array[box]
    part = np.clip(array[(slice(None), *box)], 0, 1)
    background = np.clip(1 - part.sum(axis=0, keepdims=True), 0, 1)
    full = np.concatenate([background, part])
    return full / np.maximum(full.sum(axis=0, keepdims=True), 1e-6)


def _box(label_map: np.ndarray, *maps: np.ndarray | None) -> tuple[slice, ...]:
    """Return the part of the grid where there is anything, with a border."""
    matters = label_map > 0
    for one in maps:
        if one is not None:
            matters = matters | ((one if one.ndim == 3 else one.max(axis=0)) > _LEAST)
    return bounding_box(matters if matters.any() else np.ones_like(matters), _BORDER)


def _without_strays(network: np.ndarray, drawn: np.ndarray, grid: Grid) -> np.ndarray:
    """Return the network's probabilities without a schwannoma where none can be: far from the cochleae drawn.

    The network's label map leaves such places out (:func:`~crossmoda.anatomy.plausibility.plausible`), its
    probabilities do not.
    """
    cochleae = drawn == labels.COCHLEA
    if not cochleae.any():
        return network
    pieces, count = components(network[labels.VS] > _LEAST)
    distance = ndimage.distance_transform_edt(~cochleae, grid.spacing_zyx)
    number = np.arange(1, count + 1)
    stray = ndimage.minimum(distance, pieces, number) > BESIDE_MM
    stray &= ndimage.maximum(drawn == labels.VS, pieces, number) == 0
    kept, there = network.copy(), np.isin(pieces, number[stray])
    kept[labels.BACKGROUND, there] += kept[labels.VS, there]
    kept[labels.VS, there] = 0
    return kept


def _opinion_of_atlases(
    label_map: np.ndarray, posterior: np.ndarray | None, disagreement: np.ndarray | None, grid: Grid
) -> np.ndarray:
    certain = posterior if posterior is not None else _certain(label_map)
    votes = _softened(certain, label_map, disagreement, grid)
    return (certain + votes) / 2 if posterior is not None else votes


def _certain(label_map: np.ndarray) -> np.ndarray:
    """Return the probabilities of somebody who is sure of a label map."""
    return np.stack([(label_map == value).astype(np.float32) for value in labels.VALUES])


def _softened(certain: np.ndarray, label_map: np.ndarray, entropy: np.ndarray | None, grid: Grid) -> np.ndarray:
    """Return probabilities whose most probable label is that of ``certain`` and whose entropy is ``entropy``.

    Two labels share the probability: background and the structure that lies nearest.
    """
    if entropy is None:
        return certain
    minority = share_of_minority(entropy)
    best = certain.argmax(axis=0)
    nearest = nearest_structure(label_map, grid)
    second = np.where(best == labels.BACKGROUND, nearest, labels.BACKGROUND)
    soft = np.zeros_like(certain)
    np.put_along_axis(soft, best[None], (1 - minority)[None], axis=0)
    np.put_along_axis(soft, second[None], minority[None], axis=0)
    return soft


_SHARES = np.linspace(0.0, 0.5, 501)
_ENTROPIES = -(_SHARES * np.log(np.maximum(_SHARES, 1e-12)) + (1 - _SHARES) * np.log(1 - _SHARES)) / np.log(
    len(labels.VALUES)
)


def share_of_minority(entropy: np.ndarray) -> np.ndarray:
    """Return the share of the minority of two that has this entropy, float32, 0 to 0.5.

    ``entropy`` is divided by the logarithm of the number of labels, as those of the fusion and of the network are;
    values that two labels cannot reach give 0.5.
    """
    return np.interp(entropy, _ENTROPIES, _SHARES).astype(np.float32)


def nearest_structure(label_map: np.ndarray, grid: Grid) -> np.ndarray:
    """Return the value of the structure that lies nearest to each voxel, (z, y, x); the first one if there is none."""
    best = np.full(label_map.shape, np.inf, np.float32)
    nearest = np.full(label_map.shape, labels.STRUCTURES[0].value, np.intp)
    for structure in labels.structures_in(label_map):
        distance = ndimage.distance_transform_edt(label_map != structure.value, grid.spacing_zyx).astype(np.float32)
        closer = distance < best
        best[closer], nearest[closer] = distance[closer], structure.value
    return nearest


def expected_dice(mask: np.ndarray, probability: np.ndarray) -> float:
    """Return the Dice that a mask is expected to have with a truth of independent voxels.

    The mean of the quotient is expanded to second order about the quotient of the means. Two empty masks agree (1).

    Args:
        mask: bool, any shape.
        probability: that each voxel belongs to the truth, the same shape.

    """
    if not mask.any():
        return float(np.exp(np.log1p(-np.clip(probability, 0, 1 - 1e-7), dtype=np.float64).sum()))
    inside = probability[mask].astype(np.float64)
    outside = probability[~mask].astype(np.float64)
    common, beyond = inside.sum(), outside.sum()
    common_variance, beyond_variance = (inside * (1 - inside)).sum(), (outside * (1 - outside)).sum()
    total = mask.sum() + common + beyond
    curvature = 4 * common / total**3
    correction = common_variance * (curvature - 4 / total**2) + beyond_variance * curvature
    return float(np.clip(2 * common / total + correction / 2, 0, 1))
