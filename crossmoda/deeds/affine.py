"""The linear stage: block matches in both directions, and a robust affine or rigid fit to them."""

import functools

import numpy as np

from crossmoda.deeds import cost
from crossmoda.deeds.backend_cpu import threads
from crossmoda.deeds.pyramid import Level, Pyramid
from crossmoda.errors import InputError
from crossmoda.jit_cache import compiled

#: A linear registration that changes volumes by more than this factor has failed.
_MOST_CHANGE = 10.0

_compiled = compiled(nogil=True, boundscheck=False)


@_compiled
def _squared_residuals(matrix, source, target, residuals):
    for row in range(len(source)):
        x, y, z = source[row, 0], source[row, 1], source[row, 2]
        total = 0.0
        for axis in range(3):
            mapped = matrix[axis, 0] * x + matrix[axis, 1] * y + matrix[axis, 2] * z + matrix[axis, 3]
            total += (mapped - target[row, axis]) ** 2
        residuals[row] = total


@_compiled
def _moments(source, target, residuals, most, sums, products):
    """Sum the pairs whose residual is at most ``most``, and the products of their coordinates; return how many.

    ``sums`` (2, 3): of source and target; ``products`` (2, 3, 3): of source and target with source.
    """
    count = 0
    sums[:] = 0
    products[:] = 0
    for row in range(len(source)):
        if residuals[row] <= most:
            count += 1
            for axis in range(3):
                sums[0, axis] += source[row, axis]
                sums[1, axis] += target[row, axis]
                for column in range(3):
                    products[0, axis, column] += source[row, axis] * source[row, column]
                    products[1, axis, column] += target[row, axis] * source[row, column]
    return count


def _fit(source: np.ndarray, target: np.ndarray, residuals: np.ndarray, most: float, rigid: bool) -> np.ndarray:
    """Return the 4 x 4 matrix that maps the pairs whose residual is at most ``most`` with least squares.

    Affine by the normal equations, which are well conditioned about the center; rigid after W. Kabsch (1976).
    """
    sums, products = np.empty((2, 3)), np.empty((2, 3, 3))
    count = _moments(source, target, residuals, most, sums, products)
    center, goal = sums / count
    spread, cross = products - count * np.stack([np.outer(center, center), np.outer(goal, center)])
    matrix = np.eye(4)
    if rigid:
        left, _, right = np.linalg.svd(cross)
        matrix[:3, :3] = left @ np.diag([1, 1, np.linalg.det(left @ right)]) @ right
    else:
        ridge = (1e-9 * np.trace(spread) + 1e-12) * np.eye(3)
        spread += ridge
        if np.linalg.eigvalsh(spread)[0] < 10 * ridge[0, 0]:
            cross += ridge  # points in a plane do not determine the direction across it: it stays unchanged
        matrix[:3, :3] = np.linalg.solve(spread, cross.T).T
    matrix[:3, 3] = goal - matrix[:3, :3] @ center
    return matrix


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

    def fit_all(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return _fit(a, b, np.zeros(len(a)), 0.0, rigid)

    def concentrate(matrix: np.ndarray, a: np.ndarray, b: np.ndarray, rounds: int) -> tuple[float, np.ndarray]:
        count = max(int(keep * len(a)), 4)
        residuals = np.empty(len(a))
        _squared_residuals(matrix, a, b, residuals)
        least = np.partition(residuals, count - 1)[:count]
        previous = np.inf
        for _ in range(rounds):
            matrix = _fit(a, b, residuals, least[-1], rigid)
            _squared_residuals(matrix, a, b, residuals)
            least = np.partition(residuals, count - 1)[:count]
            objective = float(least.sum())
            if objective > previous * (1 - 1e-6):
                break
            previous = objective
        return previous, matrix

    candidates = [concentrate(fit_all(few, few_target), few, few_target, 3)]
    for _ in range(starts):
        subset = rng.choice(len(few), 6, replace=False) if len(few) > 6 else np.arange(len(few))
        candidates.append(concentrate(fit_all(few[subset], few_target[subset]), few, few_target, 2))
    candidates.sort(key=lambda candidate: candidate[0])
    finals = [concentrate(matrix, source, target, 30) for _, matrix in candidates[:3]]
    best = min(finals, key=lambda final: final[0])[1]
    best[:3, 3] += middle - best[:3, :3] @ middle
    return best


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
