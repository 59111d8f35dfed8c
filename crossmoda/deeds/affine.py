"""The linear stage: block matches in both directions, and a robust affine or rigid fit to them."""

import functools

import numpy as np

from crossmoda import threads
from crossmoda.deeds import cost
from crossmoda.deeds.pyramid import Level, Pyramid
from crossmoda.errors import InputError
from crossmoda.jit_cache import compiled

#: A linear registration that changes volumes by more than this factor has failed.
_MOST_CHANGE = 10.0

_compiled = compiled(nogil=True, boundscheck=False)


@_compiled
def _squared_residuals(matrices, source, target, residuals):
    """Write the squared residual of each pair under each matrix, (matrices, pairs)."""
    for number in range(len(matrices)):
        matrix = matrices[number]
        for row in range(len(source)):
            x, y, z = source[row, 0], source[row, 1], source[row, 2]
            total = 0.0
            for axis in range(3):
                mapped = matrix[axis, 0] * x + matrix[axis, 1] * y + matrix[axis, 2] * z + matrix[axis, 3]
                total += (mapped - target[row, axis]) ** 2
            residuals[number, row] = total


@_compiled
def _moments(source, target, residuals, most, counts, sums, products):
    """Sum the pairs whose residual is at most ``most``, and the products of their coordinates, for each fit.

    ``source`` and ``target`` have the pairs of each fit, or those of all of them. ``sums`` (fits, 2, 3): of source and
    target; ``products`` (fits, 2, 3, 3): of source and target with source.
    """
    for number in range(len(residuals)):
        pairs = min(number, len(source) - 1)
        for row in range(source.shape[1]):
            if residuals[number, row] <= most[number]:
                counts[number] += 1
                for axis in range(3):
                    sums[number, 0, axis] += source[pairs, row, axis]
                    sums[number, 1, axis] += target[pairs, row, axis]
                    for column in range(3):
                        products[number, 0, axis, column] += source[pairs, row, axis] * source[pairs, row, column]
                        products[number, 1, axis, column] += target[pairs, row, axis] * source[pairs, row, column]


def _fits(source: np.ndarray, target: np.ndarray, residuals: np.ndarray, most: np.ndarray, rigid: bool) -> np.ndarray:
    """Return the 4 x 4 matrices (n, 4, 4) that map the pairs whose residual is at most ``most`` with least squares.

    Affine by the normal equations, which are well conditioned about the center; rigid after W. Kabsch (1976).

    Args:
        source: points (n, pairs, 3), or (1, pairs, 3) for all fits.
        target: the points they should be mapped to, likewise.
        residuals: (n, pairs).
        most: (n,).
        rigid: rotation and translation only.

    """
    fits = len(residuals)
    counts, sums, products = np.zeros(fits), np.zeros((fits, 2, 3)), np.zeros((fits, 2, 3, 3))
    _moments(source, target, residuals, most, counts, sums, products)
    means = sums / counts[:, None, None]
    center, goal = means[:, 0], means[:, 1]
    spread, cross = np.moveaxis(
        products - counts[:, None, None, None] * (means[..., None] * center[:, None, None]), 1, 0
    )
    matrices = np.tile(np.eye(4), (fits, 1, 1))
    if rigid:
        left, _, right = np.linalg.svd(cross)
        left[:, :, 2] *= np.linalg.det(left @ right)[:, None]
        matrices[:, :3, :3] = left @ right
    else:
        ridge = (1e-9 * np.trace(spread, axis1=1, axis2=2) + 1e-12)[:, None, None] * np.eye(3)
        spread = spread + ridge
        is_flat = np.linalg.eigvalsh(spread)[:, 0] < 10 * ridge[:, 0, 0]
        # points in a plane do not determine the direction across it: it stays unchanged
        cross = cross + np.where(is_flat[:, None, None], ridge, 0)
        matrices[:, :3, :3] = np.swapaxes(np.linalg.solve(spread, np.swapaxes(cross, 1, 2)), 1, 2)
    matrices[:, :3, 3] = goal - (matrices[:, :3, :3] @ center[..., None])[..., 0]
    return matrices


def _concentrated(
    matrices: np.ndarray, source: np.ndarray, target: np.ndarray, *, keep: float, rounds: int, rigid: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return the objectives (n,) and the matrices (n, 4, 4) after so many rounds of choosing pairs and fitting."""
    count = max(int(keep * len(source)), 4)
    pairs = source[None], target[None]
    objectives, matrices = np.full(len(matrices), np.inf), matrices.copy()
    active = np.arange(len(matrices))
    residuals = np.empty((len(matrices), len(source)))
    _squared_residuals(matrices, source, target, residuals)
    for _ in range(rounds):
        most = np.partition(residuals, count - 1, axis=1)[:, count - 1]
        moved = _fits(*pairs, residuals, most, rigid)
        _squared_residuals(moved, source, target, residuals)
        objective = np.partition(residuals, count - 1, axis=1)[:, :count].sum(axis=1)
        matrices[active] = moved
        is_better = objective <= objectives[active] * (1 - 1e-6)
        active, residuals = active[is_better], residuals[is_better]
        objectives[active] = objective[is_better]
        if not len(active):
            break
    return objectives, matrices


def least_trimmed_squares(
    source: np.ndarray, target: np.ndarray, rigid: bool = False, keep: float = 0.5, starts: int = 40
) -> np.ndarray:
    """Return the transform that fits the best ``keep`` fraction of the point pairs; the rest are outliers.

    Fast LTS (P. J. Rousseeuw, K. Van Driessen, 2006): from the fit to all pairs and from fits to small random subsets,
    alternate between choosing the pairs with the least residuals and fitting to them; the best fit wins. The random
    subsets are the same on every call.

    Args:
        source: points (n, 3).
        target: the points they should be mapped to (n, 3).
        rigid: rotation and translation only.
        keep: fraction of pairs that must agree; at most ``1 - keep`` of them may be outliers.
        starts: number of random subsets.

    """
    middle = source.mean(axis=0)  # near zero, products of coordinates lose nothing
    source, target = np.ascontiguousarray(source - middle), np.ascontiguousarray(target - middle)
    rng = np.random.default_rng(0)
    sample = np.arange(len(source)) if len(source) <= 600 else np.sort(rng.choice(len(source), 600, replace=False))
    few, few_target = source[sample], target[sample]
    size = min(6, len(few))
    subsets = np.stack(
        [rng.choice(len(few), size, replace=False) if len(few) > size else np.arange(size) for _ in range(starts)]
    )

    def fit_all(points: np.ndarray, goals: np.ndarray) -> np.ndarray:
        return _fits(points, goals, np.zeros(points.shape[:2]), np.zeros(len(points)), rigid)

    candidates = [
        _concentrated(first, few, few_target, keep=keep, rounds=rounds, rigid=rigid)
        for first, rounds in (
            (fit_all(few[None], few_target[None]), 3),
            (fit_all(few[subsets], few_target[subsets]), 2),
        )
    ]
    objectives, matrices = (np.concatenate(parts) for parts in zip(*candidates, strict=True))
    best = np.argsort(objectives, kind="stable")[:3]
    objectives, matrices = _concentrated(matrices[best], source, target, keep=keep, rounds=30, rigid=rigid)
    matrix: np.ndarray = matrices[np.argmin(objectives)]
    matrix[:3, 3] += middle - matrix[:3, :3] @ middle
    return matrix


def _matches(
    blocks: Pyramid, searched: Pyramid, matrix: np.ndarray, level: Level
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the block centers of ``blocks``, their best matches in ``searched`` (LPS mm), and the matches' costs."""
    backend, grid = blocks.backend, blocks.grid(level)
    to_searched = searched.grid(level).physical_to_index @ matrix @ grid.index_to_physical
    warped = backend.warp(searched.image(level), to_searched, grid.shape)
    block, radius, quantization = level.block(grid), level.radius(grid), level.quantization(grid)
    costs = backend.data_cost(
        blocks.codes(level),
        backend.codes(warped, level.patch()),
        block=block,
        radius=radius,
        quantization=quantization,
        skip=level.skip(grid),
        mask=blocks.mask(level),
    )
    best, lowest = backend.smoothed_minima(costs)
    usable = blocks.filled_blocks(level, block)
    index = np.argwhere(usable)
    if len(index) == 0:
        return np.empty((0, 3)), np.empty((0, 3)), np.empty(0)
    shift = cost.displacements(radius, quantization)[best[usable]]
    center = index * np.array(block) + (np.array(block) - 1) / 2
    points = center[:, ::-1] @ grid.index_to_physical[:3, :3].T + grid.index_to_physical[:3, 3]
    moved = (center + shift)[:, ::-1] @ grid.index_to_physical[:3, :3].T + grid.index_to_physical[:3, 3]
    return points, moved @ matrix[:3, :3].T + matrix[:3, 3], lowest[usable]


def refine(fixed: Pyramid, moving: Pyramid, matrix: np.ndarray, level: Level, rigid: bool) -> np.ndarray:
    """Return the improved 4 x 4 matrix from fixed to moving points (LPS mm), from block matches in both directions.

    The half of the matches with the least cost is taken from each direction, as in deedsBCV; of these, least trimmed
    squares uses the half that agrees best.

    Raises:
        InputError: fewer than 8 blocks can be matched, or the fit collapses.

    """
    matches = threads.both(
        functools.partial(_matches, fixed, moving, matrix, level),
        functools.partial(_matches, moving, fixed, np.linalg.inv(matrix), level),
        at_once=fixed.backend.at_once,
    )
    sources, targets = [], []
    for is_forward, (points, matched, lowest) in zip((True, False), matches, strict=True):
        if len(points) == 0:
            continue
        good = lowest <= np.median(lowest)
        sources.append((points if is_forward else matched)[good])
        targets.append((matched if is_forward else points)[good])
    source = np.concatenate(sources) if sources else np.empty((0, 3))
    if len(source) < 8:
        raise InputError(
            "The images hold too little for the linear registration: fewer than 8 blocks of either image "
            "lie in the foreground; check the masks or choose linear 'none'."
        )
    refined = least_trimmed_squares(source, np.concatenate(targets), rigid=rigid)
    if not 1 / _MOST_CHANGE < np.linalg.det(refined[:3, :3]) < _MOST_CHANGE:
        raise InputError(
            "The images have too little in common for the linear registration: it collapsed. Check that they show "
            "the same part of the body, or choose linear 'rigid'."
        )
    return refined
