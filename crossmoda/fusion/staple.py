"""STAPLE for several structures at once (Warfield, Zou and Wells, IEEE TMI 23:903, 2004).

STAPLE estimates the hidden true segmentation together with each rater's confusion matrix. Four choices keep small
structures, which plain implementations lose or enlarge:

- The estimate covers the voxels where raters disagree and a margin around them; otherwise the mass of agreed background
  would make every rater look perfect (the cause of enlarged structures).
- The prior is the local label frequency among raters, not the global one (the cause of lost structures).
- A rater that does not contribute to a structure at some place (a contralateral tumor, one labeled cochlea) is
  *missing* there: its background is read as "background or that structure" (EM for coarsened data, Dempster, Laird and
  Rubin 1977), which is evidence neither for nor against it.
- All sums run over groups of voxels with the same statements of all raters, in the log domain.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from crossmoda import labels
from crossmoda.errors import InputError
from crossmoda.fusion.raters import absent_structures, checked_label_maps, checked_weights
from crossmoda.fusion.settings import Settings
from crossmoda.fusion.staple_em import FLOOR, Statements
from crossmoda.progress import Progress, report

#: The fraction of a volume outside its limits that counts like a change of a confusion matrix.
_VOLUME_TOLERANCE = 0.01
#: The probability that a good rater is right, and wrong, to begin with.
_RIGHT, _WRONG = 0.9, 0.1


@dataclasses.dataclass(frozen=True)
class Performance:
    """The performance of one rater against the fused truth, over the estimated voxels."""

    sensitivity: dict[int, float]
    """label value -> probability of the label where it is true; NaN where the rater does not contribute to it"""
    specificity: dict[int, float]
    """label value -> probability of another label where it is not true; NaN likewise"""
    confusion: np.ndarray
    """(stated, true): probability of each statement given the truth; columns sum to 1"""


@dataclasses.dataclass(frozen=True)
class Fusion:
    """The result of :func:`staple` or :func:`rate`."""

    label_map: np.ndarray
    """(z, y, x) uint8: the most probable label"""
    posterior: np.ndarray
    """(label, z, y, x) float32: probability of each label, background first"""
    performance: tuple[Performance, ...]
    """one per rater, in the order of the input"""
    agreement: np.ndarray
    """(z, y, x) float32: fraction of the raters with the fused label, 0 to 1"""
    disagreement: np.ndarray
    """(z, y, x) float32: entropy of the raters' labels, 0 (all the same) to 1 (all labels equally often)"""
    iterations: int
    converged: bool
    changes: tuple[float, ...]
    """the largest change of a confusion matrix in each iteration"""
    notes: tuple[str, ...] = ()
    """what a user should know about this result"""


def staple(
    label_maps: Sequence[np.ndarray],
    settings: Settings = Settings(),
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
        missing: per rater, the labels it leaves open: an array of bits, (z, y, x) or broadcastable to it, or one number
            for all voxels. Bit ``k`` set: the rater's background does not exclude the ``k``-th of ``values``; bit 0
            set: it excludes no label (outside its field of view). None: a rater without a voxel of a structure that
            others have leaves that structure open, everything else counts.
        weights: weight of each rater's statements, 0 (ignored) to 1.
        values: the label values, background first; at most 8.
        progress: callback(fraction, message); raise Cancelled to abort.

    Returns:
        The fusion. Where all raters agree, farther than the margin from any disagreement, it is their label.

    Raises:
        InputError: no label maps, different shapes, or a label value that is not in ``values``.

    References:
        Warfield, Zou, Wells: Simultaneous truth and performance level estimation (STAPLE), IEEE TMI 23, 2004.
        Commowick, Warfield: Incorporating priors on expert performance parameters (MAP STAPLE), MICCAI 2010.

    """
    statements = _statements(label_maps, missing, weights, values, settings)
    confusion = _good_raters(statements)
    changes: list[float] = []
    if statements.count:
        statements.use_prior(settings.prior, settings.prior_smoothing, settings.smoothness)
        confusion, changes = _iterate(statements, confusion, settings, progress)
    report(progress, 1.0, "STAPLE done")
    return _assemble(statements, confusion, changes, settings)


def rate(
    label_maps: Sequence[np.ndarray],
    posterior: np.ndarray,
    settings: Settings = Settings(),
    *,
    missing: Sequence[np.ndarray | int] | None = None,
    region: np.ndarray | None = None,
    values: Sequence[int] = labels.VALUES,
) -> Fusion:
    """Estimate the performance of each rater against a truth from another source.

    Args:
        label_maps: one integer array (z, y, x) per rater.
        posterior: probability of each label, (label, z, y, x), background first; ignored where all raters agree,
            farther than the margin from any disagreement.
        settings: parameters of the estimate.
        missing: see :func:`staple`.
        region: mask, (z, y, x) bool, of voxels whose posterior counts even if all raters agree there.
        values: the label values, background first; at most 8.

    Raises:
        InputError: no label maps, different shapes, or a label value that is not in ``values``.

    """
    statements = _statements(label_maps, missing, None, values, settings, region)
    confusion = _good_raters(statements)
    changes: list[float] = []
    if statements.count:
        statements.use_posterior(posterior)
        prior = settings.regularization * _good_rater(len(values))
        while len(changes) < settings.max_iterations and (not changes or changes[-1] > settings.tolerance):
            updated = statements.estimate_confusion(confusion, prior)
            changes.append(float(np.abs(updated - confusion).max()))
            confusion = updated
    return _assemble(statements, confusion, changes, settings)


def _statements(
    label_maps: Sequence[np.ndarray],
    missing: Sequence[np.ndarray | int] | None,
    weights: Sequence[float] | None,
    values: Sequence[int],
    settings: Settings,
    region: np.ndarray | None = None,
) -> Statements:
    """Return the raters' statements; see :func:`staple` for arguments and errors."""
    maps = checked_label_maps(label_maps, values)
    checked = checked_weights(weights, len(maps))
    missing = absent_structures(maps, values) if missing is None else missing
    if len(missing) != len(maps):
        raise InputError(f"Length of missing: {len(missing)}. Use one entry per label map: {len(maps)}.")
    return Statements(maps, missing, checked, values, settings.margin, region)


def _iterate(
    statements: Statements, confusion: np.ndarray, settings: Settings, progress: Progress | None
) -> tuple[np.ndarray, list[float]]:
    """Alternate the estimates of performance and truth until the performance converges."""
    prior = settings.regularization * _good_rater(statements.label_count)
    confusion = statements.estimate_confusion(confusion, prior + _good_rater(statements.label_count))
    changes: list[float] = []
    for iteration in range(settings.max_iterations):
        report(progress, iteration / settings.max_iterations, f"STAPLE, iteration {iteration + 1}")
        statements.update_posterior(confusion)
        outside = 0.0 if settings.free_volumes else statements.balance_volumes()
        updated = statements.estimate_confusion(confusion, prior)
        changes.append(max(float(np.abs(updated - confusion).max()), _VOLUME_TOLERANCE * outside))
        confusion = updated
        if changes[-1] <= settings.tolerance:
            break
    statements.update_posterior(confusion)
    return confusion, changes


def _good_raters(statements: Statements) -> np.ndarray:
    """Return the initial confusion matrix of each rater, (rater, stated, true)."""
    return np.repeat(_good_rater(statements.label_count)[None], statements.rater_count, axis=0)


def _good_rater(label_count: int) -> np.ndarray:
    """Return the confusion matrix of a good rater, (stated, true)."""
    error = _WRONG / (label_count - 1)
    return np.full((label_count, label_count), error) + np.eye(label_count) * (_RIGHT - error)


def _assemble(statements: Statements, confusion: np.ndarray, changes: list[float], settings: Settings) -> Fusion:
    """Combine the estimates of the region with the agreed labels around it."""
    values, shape = statements.values, statements.shape
    label_map = statements.consensus.copy()
    posterior = np.zeros((len(values), *shape), np.float32)
    for index, value in enumerate(values):
        posterior[index][label_map == value] = 1.0
    agreement, disagreement = np.ones(shape, np.float32), np.zeros(shape, np.float32)
    notes = []
    if statements.count:
        box, region, pattern_of = statements.box, statements.region, statements.pattern_of
        rows = statements.posterior if statements.by_voxel else statements.posterior[pattern_of]
        best = rows.argmax(axis=1)
        label_map[box][region] = np.asarray(values, np.uint8)[best]
        for index in range(len(values)):
            posterior[index][box][region] = rows[:, index]
        frequency = statements.frequency
        entropy = -(frequency * np.log(np.maximum(frequency, FLOOR))).sum(axis=1) / np.log(len(values))
        agreement[box][region] = frequency[pattern_of, best]
        disagreement[box][region] = np.clip(entropy, 0.0, 1.0)[pattern_of]
    converged = not statements.count or changes[-1] <= settings.tolerance
    if not converged:
        notes.append(f"The fusion did not converge within {len(changes)} iterations (last change {changes[-1]:.2g}).")
    if statements.rater_count == 1:
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


def _performance(statements: Statements, confusion: np.ndarray) -> tuple[Performance, ...]:
    """Derive sensitivity and specificity from the confusion matrices and the fused label frequencies."""
    values = statements.values
    if not statements.count:
        present = [1.0 if (statements.consensus == value).any() else float("nan") for value in values]
        perfect = dict(zip(values, present, strict=True))
        return tuple(
            Performance(perfect, dict.fromkeys(values, 1.0), np.eye(len(values))) for _ in range(len(confusion))
        )
    mass = statements.mass().sum(axis=0) + FLOOR
    # (rater, label, true): number of voxels of each true label where a rater contributes to each label
    voxels = np.einsum("rst,sk->rkt", statements.counts(), statements.decides)
    result = []
    for rater, matrix in enumerate(confusion):
        sensitivity, specificity = {}, {}
        for k, value in enumerate(values):
            others = np.arange(len(values)) != k
            hits = float(matrix[k, k])
            rejections = float(np.average(1 - matrix[k, others], weights=mass[others]))
            sensitivity[value] = hits if voxels[rater, k, k] > 0.5 else float("nan")
            specificity[value] = rejections if voxels[rater, k, others].sum() > 0.5 else float("nan")
        result.append(Performance(sensitivity, specificity, matrix))
    return tuple(result)
