"""Fusion of label maps: STAPLE for several structures at once, majority vote, and locally weighted votes.

STAPLE (Warfield, Zou and Wells, IEEE TMI 23:903, 2004) estimates the hidden true segmentation together with each
rater's confusion matrix. What plain implementations do to small structures is avoided by four choices:

- the estimate is made where raters disagree and a margin around, so that the mass of agreed background does not make
  every rater look perfect (the cause of grown structures);
- the prior is the local label frequency among raters, not the global one (the cause of vanished structures);
- a rater that says nothing about a structure somewhere (a tumor on the other side, a cochlea drawn on one side only)
  is *missing* there: its background is read as "background or that structure" (EM for coarsened data, Dempster, Laird
  and Rubin 1977), which speaks neither for nor against it;
- all sums run over groups of voxels with the same statements of all raters, in the log domain.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from crossmoda import labels, parameters
from crossmoda.errors import InputError
from crossmoda.fusion.staple_em import FLOOR, Statements
from crossmoda.parameters import parameter
from crossmoda.progress import Progress, report

#: The share of a volume outside its limits that counts like a change of a confusion matrix.
_VOLUME_TOLERANCE = 0.01


@dataclasses.dataclass(frozen=True)
class Settings(parameters.Settings):
    """Parameters of the fusion."""

    weighting: str = parameter(
        "local",
        "Which atlases are believed where their images are known: at each place those that look like the target there "
        "(local), or everywhere those that STAPLE finds reliable (global)",
        choices=("local", "global"),
        advanced=True,
    )
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
        "Weight of the Markov random field that favors equal labels of neighbors; 0 switches it off",
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
    free_volumes: bool = parameter(
        False, "Do not keep the volume of each structure within the middle half of the raters' volumes"
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
    """label value -> probability of not saying the label where it is not true; NaN likewise"""
    confusion: np.ndarray
    """(said, true): probability of each statement given the truth; columns sum to 1"""


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
    where: np.ndarray | None = None,
    values: Sequence[int] = labels.VALUES,
) -> Fusion:
    """Estimate how each rater compares with a truth that is known otherwise.

    Args:
        label_maps: one integer array (z, y, x) per rater.
        posterior: probability of each label, (label, z, y, x), background first; what it says where all raters agree,
            farther than the margin from any disagreement, is not asked for.
        settings: parameters of the estimate.
        missing: see :func:`staple`.
        where: voxels, (z, y, x) bool, whose posterior is asked for even if all raters agree there.
        values: the label values, background first; at most 8.

    Raises:
        InputError: no label maps, different shapes, or a label that is none of ``values``.

    """
    statements = _statements(label_maps, missing, None, values, settings, where)
    confusion = _good_raters(statements)
    changes: list[float] = []
    if statements.count:
        statements.use_posterior(posterior)
        belief = settings.regularization * _good_rater(len(values))
        while len(changes) < settings.max_iterations and (not changes or changes[-1] > settings.tolerance):
            updated = statements.estimate_confusion(confusion, belief)
            changes.append(float(np.abs(updated - confusion).max()))
            confusion = updated
    return _assemble(statements, confusion, changes, settings)


def _statements(
    label_maps: Sequence[np.ndarray],
    missing: Sequence[np.ndarray | int] | None,
    weights: Sequence[float] | None,
    values: Sequence[int],
    settings: Settings,
    where: np.ndarray | None = None,
) -> Statements:
    """Return what the raters say; see :func:`staple` for arguments and errors."""
    maps = _checked(label_maps, values)
    trust = _checked_weights(weights, len(maps))
    missing = absent_structures(maps, values) if missing is None else missing
    if len(missing) != len(maps):
        raise InputError(f"missing must have one entry per label map: {len(maps)}; got {len(missing)}.")
    return Statements(maps, missing, trust, values, settings.margin, where)


def _iterate(
    statements: Statements, confusion: np.ndarray, settings: Settings, progress: Progress | None
) -> tuple[np.ndarray, list[float]]:
    """Alternate the estimates of performance and truth until the performance stands still."""
    belief = settings.regularization * _good_rater(statements.label_count)
    confusion = statements.estimate_confusion(confusion, belief + _good_rater(statements.label_count))
    changes: list[float] = []
    for iteration in range(settings.max_iterations):
        report(progress, iteration / settings.max_iterations, f"STAPLE, iteration {iteration + 1}")
        statements.update_posterior(confusion)
        outside = 0.0 if settings.free_volumes else statements.balance_volumes()
        updated = statements.estimate_confusion(confusion, belief)
        changes.append(max(float(np.abs(updated - confusion).max()), _VOLUME_TOLERANCE * outside))
        confusion = updated
        if changes[-1] <= settings.tolerance:
            break
    statements.update_posterior(confusion)
    return confusion, changes


def absent_structures(label_maps: Sequence[np.ndarray], values: Sequence[int] = labels.VALUES) -> list[int]:
    """Return per rater the bits of the structures that others have and it has nowhere, for :func:`staple`."""
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


def _good_raters(statements: Statements) -> np.ndarray:
    """Return a good rater's confusion matrix for each rater, to begin with: (rater, said, true)."""
    return np.repeat(_good_rater(statements.label_count)[None], statements.rater_count, axis=0)


def _good_rater(label_count: int) -> np.ndarray:
    """Return the confusion matrix of a rater that is right nine times in ten."""
    return np.full((label_count, label_count), 0.1 / (label_count - 1)) + np.eye(label_count) * (
        0.9 - 0.1 / (label_count - 1)
    )


def _assemble(statements: Statements, confusion: np.ndarray, changes: list[float], settings: Settings) -> Fusion:
    """Put the estimates of the region and the consensus around it together."""
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
        notes.append(f"The fusion had not converged after {len(changes)} iterations (last change {changes[-1]:.2g}).")
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
    # (rater, label, true): over how many voxels of each truth a rater has a say about each label
    spoken = np.einsum("rst,sk->rkt", statements.counts(), statements.decides)
    result = []
    for rater, matrix in enumerate(confusion):
        sensitivity, specificity = {}, {}
        for k, value in enumerate(values):
            others = np.arange(len(values)) != k
            hits = float(matrix[k, k])
            rejections = float(np.average(1 - matrix[k, others], weights=mass[others]))
            sensitivity[value] = hits if spoken[rater, k, k] > 0.5 else float("nan")
            specificity[value] = rejections if spoken[rater, k, others].sum() > 0.5 else float("nan")
        result.append(Performance(sensitivity, specificity, matrix))
    return tuple(result)
