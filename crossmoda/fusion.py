"""Fusion of label maps: STAPLE for several structures at once, and majority vote.

STAPLE (Warfield, Zou and Wells, IEEE TMI 23:903, 2004) estimates the hidden true segmentation together with each
rater's confusion matrix. What plain implementations do to small structures is avoided by four choices:

- the estimate is made where raters disagree and a margin around, so that the mass of agreed background does not make
  every rater look perfect (the cause of grown structures);
- the prior is the local label frequency among raters, not the global one (the cause of vanished structures);
- a rater that says nothing about a structure somewhere (a tumour on the other side, a cochlea drawn on one side only)
  is *missing* there: its background is read as "background or that structure" (EM for coarsened data, Dempster, Laird
  and Rubin 1977), which speaks neither for nor against it;
- all sums run over groups of voxels with the same statements of all raters, in the log domain.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from crossmoda import labels, parameters
from crossmoda.errors import InputError
from crossmoda.parameters import parameter
from crossmoda.progress import Progress, report

_FLOOR = 1e-6  # the smallest probability that enters a logarithm


@dataclasses.dataclass(frozen=True)
class Settings(parameters.Settings):
    """Parameters of STAPLE."""

    prior: str = parameter(
        "local",
        "Prior of each structure: its frequency around each voxel, or in the whole region",
        choices=("local", "global"),
    )
    prior_smoothing: float = parameter(
        1.0,
        "Width (standard deviation) of the smoothing of the local prior",
        unit="voxels",
        minimum=0,
        maximum=20,
        advanced=True,
    )
    margin: int = parameter(
        1,
        "Voxels around the disagreement that are estimated as well",
        unit="voxels",
        minimum=0,
        maximum=10000,
        advanced=True,
    )
    smoothness: float = parameter(
        0.0,
        "Weight of the Markov random field that favours equal labels of neighbours; 0 switches it off",
        minimum=0,
        maximum=5,
    )
    regularization: float = parameter(
        2.0,
        "Strength of the belief that raters are good, counted in voxels",
        unit="voxels",
        minimum=0,
        maximum=1e6,
        advanced=True,
    )
    max_iterations: int = parameter(100, "Largest number of iterations", minimum=1, maximum=10000, advanced=True)
    keep_volume: bool = parameter(
        True, "Keep the volume of each structure within the middle half of the raters' volumes"
    )
    tolerance: float = parameter(
        1e-4, "Change of the confusion matrices at which the iteration ends", minimum=0, maximum=0.1, advanced=True
    )


@dataclasses.dataclass(frozen=True)
class Performance:
    """How one rater compares with the fused truth, over the voxels that were estimated."""

    sensitivity: dict[int, float]
    """label value -> probability of saying the label where it is true; NaN where the rater says nothing about it"""
    specificity: dict[int, float]
    """label value -> probability of not saying the label where it is not true"""
    confusion: np.ndarray
    """(said, true): probability of each statement given the truth; columns sum to 1"""


@dataclasses.dataclass(frozen=True)
class Fusion:
    """The result of :func:`staple`."""

    label_map: np.ndarray
    """(z, y, x) uint8: the most probable label"""
    posterior: np.ndarray
    """(label, z, y, x) float32: probability of each label, background first"""
    performance: tuple[Performance, ...]
    """one per rater, in the order of the input"""
    agreement: np.ndarray
    """(z, y, x) float32: the share of the raters that say the fused label, 0 to 1"""
    disagreement: np.ndarray
    """(z, y, x) float32: entropy of the raters' statements, 0 (all say the same) to 1 (all labels equally often)"""
    iterations: int
    converged: bool
    changes: tuple[float, ...]
    """the largest change of a confusion matrix in each iteration"""
    notes: tuple[str, ...] = ()
    """what a user should know about this result"""


def majority_vote(label_maps: Sequence[np.ndarray], values: Sequence[int] = labels.VALUES) -> np.ndarray:
    """Return the label that most raters say at each voxel, (z, y, x) uint8; ties go to the earlier of ``values``.

    Raises:
        InputError: no label maps, different shapes, or a label that is none of ``values``.

    """
    maps = _checked(label_maps, values)
    votes = np.zeros((len(values), *maps[0].shape), np.int32)
    for label_map in maps:
        for index, value in enumerate(values):
            votes[index] += label_map == value
    return np.asarray(values, np.uint8)[votes.argmax(axis=0)]


def staple(
    label_maps: Sequence[np.ndarray],
    settings: Settings = Settings(),  # noqa: B008 (frozen)
    *,
    missing: Sequence[np.ndarray | int] | None = None,
    weights: Sequence[float] | None = None,
    values: Sequence[int] = labels.VALUES,
    progress: Progress | None = None,
) -> Fusion:
    """Estimate the true label map from those of several raters (STAPLE).

    Args:
        label_maps: one integer array (z, y, x) per rater.
        settings: parameters of the estimate.
        missing: per rater, about which structures it says nothing where: an array of bits, (z, y, x) or broadcastable
            to it, or one number for all voxels. Bit ``k`` set means that the rater's background does not exclude the
            ``k``-th of ``values`` there; bit 0 set means that it says nothing at all (outside its field of view).
            None: everyone speaks about everything, except that a rater without a single voxel of a structure that
            others have says nothing about that structure.
        weights: trust in each rater, 0 (ignored) to 1: the weight of its statements.
        values: the label values, background first; at most 8.
        progress: is told the iteration; may cancel.

    Returns:
        The fusion. Where all raters say the same, farther than the margin from any disagreement, it is exactly that.

    Raises:
        InputError: no label maps, different shapes, or a label that is none of ``values``.

    References:
        Warfield, Zou, Wells: Simultaneous truth and performance level estimation (STAPLE), IEEE TMI 23, 2004.
        Commowick, Warfield: Incorporating priors on expert performance parameters (MAP STAPLE), MICCAI 2010.

    """
    maps = _checked(label_maps, values)
    trust = _checked_weights(weights, len(maps))
    missing = absent_structures(maps, values) if missing is None else missing
    if len(missing) != len(maps):
        raise InputError(f"missing must have one entry per label map: {len(maps)}; got {len(missing)}.")
    statements = _Statements(maps, missing, trust, len(values), values, settings)
    confusion, changes = _initial_confusion(statements, settings), []
    for iteration in range(settings.max_iterations if statements.count else 0):
        report(progress, iteration / settings.max_iterations, f"STAPLE, iteration {iteration + 1}")
        statements.update_posterior(confusion, settings.smoothness)
        outside = statements.balance_volumes() if settings.keep_volume else 0.0
        updated = statements.estimate_confusion(confusion, settings.regularization)
        changes.append(max(float(np.abs(updated - confusion).max()), 0.01 * outside))
        confusion = updated
        if changes[-1] <= settings.tolerance:
            break
    statements.update_posterior(confusion, settings.smoothness)
    report(progress, 1.0, "STAPLE done")
    return _assemble(statements, confusion, changes, settings)


def absent_structures(label_maps: Sequence[np.ndarray], values: Sequence[int] = labels.VALUES) -> list[int]:
    """Return per rater the bits of the structures that others have and it has nowhere (see ``missing`` of :func:`staple`)."""
    present = [_values_in(label_map) for label_map in label_maps]
    anywhere = set().union(*present)
    return [
        sum(1 << index for index, value in enumerate(values) if index and value in anywhere and value not in own)
        for own in present
    ]


def _values_in(label_map: np.ndarray) -> set[int]:
    """Return the label values of a map, 0 always among them."""
    return {0, *np.unique(label_map[label_map != 0]).tolist()}


def _checked(label_maps: Sequence[np.ndarray], values: Sequence[int]) -> list[np.ndarray]:
    """Return the label maps as uint8 arrays of one shape."""
    maps = [np.asarray(label_map) for label_map in label_maps]
    if not maps:
        raise InputError("There are no label maps to fuse; give at least one.")
    if not 2 <= len(values) <= 8:
        raise InputError(f"Between 2 and 8 label values can be fused; got {len(values)}.")
    for number, label_map in enumerate(maps, 1):
        if label_map.shape != maps[0].shape:
            raise InputError(
                f"Label map {number} has the shape {label_map.shape}, the first {maps[0].shape}; put all on one grid."
            )
        if label_map.min() >= 0 and label_map.max() < len(values) and list(values) == list(range(len(values))):
            continue
        strange = sorted(_values_in(label_map) - set(values))
        if strange:
            raise InputError(
                f"Label map {number} has the label value {strange[0]}; expected {', '.join(map(str, values))}."
            )
    return [np.ascontiguousarray(label_map, dtype=np.uint8) for label_map in maps]


def _checked_weights(weights: Sequence[float] | None, count: int) -> np.ndarray:
    trust = np.ones(count, np.float32) if weights is None else np.asarray(weights, np.float32)
    if trust.shape != (count,) or not np.all((trust >= 0) & (trust <= 1)) or not trust.any():
        raise InputError(f"weights must be {count} numbers between 0 and 1, not all 0; got {weights}.")
    return trust


class _Statements:
    """What the raters say in the region of disagreement, grouped, and the posterior there.

    A rater's statement at a voxel is the set of labels it allows, as bits. Voxels with the same statements of all
    raters share a *pattern* (pattern, rater); sums over voxels become sums over patterns.
    """

    def __init__(
        self,
        maps: list[np.ndarray],
        missing: Sequence[np.ndarray | int],
        trust: np.ndarray,
        label_count: int,
        values: Sequence[int],
        settings: Settings,
    ):
        self.maps, self.trust, self.label_count, self.values = maps, trust, label_count, values
        self.box, self.region = _region(maps, settings.margin)
        self.shape = maps[0].shape
        index_of = np.zeros(256, np.uint8)
        index_of[list(values)] = np.arange(label_count)
        self.index_of = index_of
        voxels = np.flatnonzero(self.region)
        inside = np.bincount(index_of[maps[0][self.box][self.region]], minlength=label_count)
        everywhere = [np.count_nonzero(maps[0] == value) for value in values]
        #: voxels of each label outside the region, where all agree
        self.agreed = np.asarray(everywhere) - inside
        self.count = len(voxels)
        said = np.empty((len(maps), self.count), np.uint8)
        for rater, (label_map, gaps) in enumerate(zip(maps, missing, strict=True)):
            said[rater] = 1 << index_of[label_map[self.box].ravel()[voxels]]
            if np.any(gaps):
                here = np.broadcast_to(np.asarray(gaps, np.uint8), self.shape)[self.box].ravel()[voxels]
                said[rater] |= np.where(said[rater] == 1, here, 0).astype(np.uint8)
                said[rater][(here & 1) != 0] = (1 << label_count) - 1
        self.patterns, self.pattern_of = _group(said)
        self._prepare_sums()
        self._prepare_prior(settings)

    def _prepare_sums(self) -> None:
        """Make the one-hot matrix (pattern, rater x set) that turns sums over raters into matrix products."""
        sets, codes = np.unique(self.patterns, return_inverse=True)
        codes = codes.reshape(self.patterns.shape)
        #: (set, label): which labels each set allows
        self.allows = ((sets[:, None] >> np.arange(self.label_count)) & 1).astype(np.float32)
        raters = len(self.maps)
        self.one_hot = np.zeros((len(self.patterns), raters * len(sets)), np.float32)
        columns = np.arange(raters) * len(sets) + codes
        np.put_along_axis(self.one_hot, columns, 1.0, axis=1)
        self.sizes = np.bincount(self.pattern_of, minlength=len(self.patterns)).astype(np.float32)

    def _prepare_prior(self, settings: Settings) -> None:
        """Make the votes per pattern, the prior per voxel or for all, and the first posterior."""
        single = np.isin(self.allows.sum(axis=1), 1)[:, None] * self.allows  # statements that name one label
        votes = self._sum_over_raters(single)
        speakers = self._sum_over_raters(1.0 - self.allows + single)  # who has a say about each label
        votes[:, 1:] /= np.maximum(speakers[:, 1:], _FLOOR)
        votes[:, 0] = np.maximum(1.0 - votes[:, 1:].sum(axis=1), 0.0)
        self.frequency = votes / np.maximum(votes.sum(axis=1, keepdims=True), _FLOOR)
        self.local = settings.prior == "local"
        if not self.count:
            return
        if self.local:
            self.prior = self._smooth(self.frequency[self.pattern_of], settings.prior_smoothing)
        else:
            self.prior = np.average(self.frequency, axis=0, weights=self.sizes)[None]
        self.volume_bias = np.zeros(self.label_count, np.float32)
        self.log_prior = np.log(np.maximum(self.prior, _FLOOR)).astype(np.float32)
        # One row per voxel where priors or neighbours differ from voxel to voxel, else one per pattern.
        self.by_voxel = self.local or settings.smoothness > 0
        self.posterior = self.frequency[self.pattern_of] if self.by_voxel else self.frequency

    def _sum_over_raters(self, per_set: np.ndarray) -> np.ndarray:
        """Sum a quantity (set, label) over the raters' statements, weighted with trust: (pattern, label)."""
        return self.one_hot @ (self.trust[:, None, None] * per_set[None]).reshape(-1, self.label_count).astype(
            np.float32
        )

    def in_box(self, rows: np.ndarray) -> np.ndarray:
        """Put values (voxel of the region, label) on the box (label, z, y, x); the consensus fills the rest."""
        consensus = self.index_of[self.maps[0][self.box]]
        full = np.stack([(consensus == label).astype(np.float32) for label in range(self.label_count)])
        full[:, self.region] = rows.T
        return full

    def _smooth(self, rows: np.ndarray, sigma: float) -> np.ndarray:
        if sigma == 0:
            return rows
        full = self.in_box(rows)
        return np.stack(
            [ndimage.gaussian_filter(part, sigma, mode="nearest", truncate=2.5)[self.region] for part in full], axis=1
        )

    def update_posterior(self, confusion: np.ndarray, smoothness: float) -> None:
        """E step: the probability of each label, given the confusion matrices (rater, said, true)."""
        if not self.count:
            return
        likelihood = np.einsum("sj,rjt->rst", self.allows, confusion)
        log_likelihood = self._sum_over_raters_of(np.log(np.maximum(likelihood, _FLOOR)))
        logits = (log_likelihood[self.pattern_of] if self.by_voxel else log_likelihood) + (
            self.log_prior + self.volume_bias
        )
        if smoothness > 0:
            logits = logits + smoothness * self._neighbours()
        logits -= logits.max(axis=1, keepdims=True)
        np.exp(logits, out=logits)
        self.posterior = logits / logits.sum(axis=1, keepdims=True)

    def _sum_over_raters_of(self, per_rater: np.ndarray) -> np.ndarray:
        weighted = (self.trust[:, None, None] * per_rater).reshape(-1, self.label_count)
        return self.one_hot @ weighted.astype(np.float32)

    def _neighbours(self) -> np.ndarray:
        """Sum the posterior over the six neighbours (mean field of the Potts model): (voxel, label)."""
        cross = ndimage.generate_binary_structure(3, 1).astype(np.float32)
        cross[1, 1, 1] = 0
        full = self.in_box(self.posterior)
        return np.stack([ndimage.convolve(part, cross, mode="nearest")[self.region] for part in full], axis=1)

    def _mass(self) -> np.ndarray:
        """Sum the posterior over the voxels of each pattern: (pattern, label)."""
        if not self.by_voxel:
            return self.posterior * self.sizes[:, None]
        columns = [np.bincount(self.pattern_of, column, len(self.sizes)) for column in self.posterior.T]
        return np.stack(columns, axis=1).astype(np.float32)

    def balance_volumes(self) -> float:
        """Shift the prior of structures whose fused volume leaves the middle half of the raters' volumes.

        Misplaced copies of a small structure look to EM like insensitive, perfectly specific raters of a large one; the
        copies' volumes tell otherwise. Each rater is compared where it has a say. Returns how far (log ratio) the worst
        structure was outside.
        """
        outside = np.zeros(self.label_count)
        sizes = 1.0 if self.by_voxel else self.sizes[:, None]
        slopes = (sizes * self.posterior * (1 - self.posterior)).sum(axis=0)
        counts, single = self.counts(), self.allows.sum(axis=1) == 1
        for label in range(1, self.label_count):
            says = single & (self.allows[:, label] == 1)
            drawn = counts[:, says].sum(axis=(1, 2)) + self.agreed[label]
            fused = counts[:, single, label].sum(axis=1) + self.agreed[label]
            speaks = (fused > 0.5) & (drawn > 0) & (self.trust > 0)
            if speaks.any():
                low, high = np.quantile(drawn[speaks] / fused[speaks], (0.25, 0.75))
                outside[label] = np.log(low if low > 1 else high if high < 1 else 1.0)
                step = (
                    outside[label] * fused.max() / max(slopes[label], 1.0)
                )  # Newton: d volume / d bias = sum p (1 - p)
                self.volume_bias[label] += np.clip(step, -2.0, 2.0)
        return float(np.abs(outside).max())

    def counts(self) -> np.ndarray:
        """Return how often each rater makes each statement where each label is true: (rater, set, true)."""
        return (self.one_hot.T @ self._mass()).reshape(len(self.maps), -1, self.label_count)

    def estimate_confusion(self, confusion: np.ndarray, regularization: float) -> np.ndarray:
        """M step: confusion matrices (rater, said, true) from the posterior; statements that allow several labels are shared out."""
        likelihood = np.einsum("sj,rjt->rst", self.allows, confusion)
        per_set = self.counts() / np.maximum(likelihood, _FLOOR)
        expected = confusion * np.einsum("sj,rst->rjt", self.allows, per_set)
        expected += regularization * _good_rater(self.label_count)
        return (expected / np.maximum(expected.sum(axis=1, keepdims=True), _FLOOR)).astype(np.float64)


def _good_rater(label_count: int) -> np.ndarray:
    """Return the confusion matrix of a rater that is right nine times in ten."""
    return np.full((label_count, label_count), 0.1 / (label_count - 1)) + np.eye(label_count) * (
        0.9 - 0.1 / (label_count - 1)
    )


def _initial_confusion(statements: _Statements, settings: Settings) -> np.ndarray:
    """Start from the comparison of each rater with the local label frequencies."""
    good = np.repeat(_good_rater(statements.label_count)[None], len(statements.maps), axis=0)
    return statements.estimate_confusion(good, max(settings.regularization, 1.0)) if statements.count else good


def _region(maps: list[np.ndarray], margin: int) -> tuple[tuple[slice, ...], np.ndarray]:
    """Return the box around what is estimated and, inside it, where raters disagree or come within the margin."""
    differs = np.zeros(maps[0].shape, bool)
    for other in maps[1:]:
        differs |= other != maps[0]
    found = ndimage.find_objects(differs.view(np.uint8))
    if not found:
        nothing = tuple(slice(0, 1) for _ in differs.shape)
        return nothing, np.zeros(tuple(1 for _ in differs.shape), bool)
    reach = margin + 4  # so that the smoothing of the prior and the neighbours see the consensus around
    box = tuple(
        slice(max(part.start - reach, 0), min(part.stop + reach, size))
        for part, size in zip(found[0], differs.shape, strict=True)
    )
    region = differs[box]
    if margin:
        for axis in range(region.ndim):
            region = ndimage.maximum_filter1d(
                region.view(np.uint8), 2 * min(margin, region.shape[axis]) + 1, axis=axis, mode="constant"
            ).astype(bool)
    return box, region


def _group(said: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the different columns of ``said`` (rater, voxel) as rows (pattern, rater), and the pattern of each voxel."""
    table = np.random.default_rng(0).integers(0, 2**63, (len(said), 256), np.uint64)
    code = np.zeros(said.shape[1], np.uint64)
    for rater, statements in enumerate(said):
        code ^= table[rater][statements]
    _, first, pattern_of = np.unique(code, return_index=True, return_inverse=True)
    patterns = np.ascontiguousarray(said[:, first].T)
    if not np.array_equal(patterns.T[:, pattern_of], said):  # two columns with one code: practically never
        patterns, pattern_of = np.unique(said.T, axis=0, return_inverse=True)
    return patterns, pattern_of.reshape(-1)


def _assemble(statements: _Statements, confusion: np.ndarray, changes: list[float], settings: Settings) -> Fusion:
    """Put the estimates of the region and the consensus around it together."""
    maps, box, region = statements.maps, statements.box, statements.region
    label_map = maps[0].copy()
    shape = statements.shape
    posterior = np.zeros((statements.label_count, *shape), np.float32)
    for index, value in enumerate(statements.values):
        np.equal(label_map, value, out=posterior[index], casting="unsafe")
    agreement, disagreement = np.ones(shape, np.float32), np.zeros(shape, np.float32)
    if statements.count:
        rows = statements.posterior if statements.by_voxel else statements.posterior[statements.pattern_of]
        best = rows.argmax(axis=1)
        label_map[box][region] = np.asarray(statements.values, np.uint8)[best]
        for index in range(statements.label_count):
            posterior[index][box][region] = rows[:, index]
        frequency = statements.frequency
        entropy = -(frequency * np.log(np.maximum(frequency, _FLOOR))).sum(axis=1) / np.log(statements.label_count)
        agreement[box][region] = frequency[statements.pattern_of, best]
        disagreement[box][region] = np.maximum(entropy, 0)[statements.pattern_of]
    converged = not statements.count or (bool(changes) and changes[-1] <= settings.tolerance)
    notes = (
        []
        if converged
        else [f"STAPLE had not converged after {len(changes)} iterations (last change {changes[-1]:.2g})."]
    )
    if len(maps) == 1:
        notes.append("Only one label map: the fusion is that label map.")
    performance = _performance(statements, confusion)
    return Fusion(
        label_map,
        posterior,
        performance,
        agreement,
        disagreement,
        len(changes),
        converged,
        tuple(changes),
        tuple(notes),
    )


def _performance(statements: _Statements, confusion: np.ndarray) -> tuple[Performance, ...]:
    """Derive sensitivity and specificity from the confusion matrices and the fused label frequencies."""
    values, count = statements.values, len(statements.values)
    if not statements.count:
        perfect = Performance(dict.fromkeys(values, 1.0), dict.fromkeys(values, 1.0), np.eye(count))
        return tuple(perfect for _ in statements.maps)
    mass = statements._mass().sum(axis=0)
    single = statements.allows.sum(axis=1) == 1
    named = statements.counts()[:, single].sum(axis=1)
    result = []
    for rater, matrix in enumerate(confusion):
        sensitivity = {
            value: float(matrix[k, k]) if named[rater, k] > 0.5 else float("nan") for k, value in enumerate(values)
        }
        specificity = {}
        for k, value in enumerate(values):
            others = np.arange(count) != k
            specificity[value] = float(np.average(1 - matrix[k, others], weights=mass[others] + _FLOOR))
        result.append(Performance(sensitivity, specificity, matrix))
    return tuple(result)
