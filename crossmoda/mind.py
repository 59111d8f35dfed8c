"""MIND-SSC: image features independent of the contrast.

The modality independent neighborhood descriptor with self-similarity context describes a voxel by the similarity of
the patches around it *to each other*: the squared differences of the 12 pairs of its six neighbors that are not
opposite, averaged over a patch, divided by their mean, and mapped by ``exp(-distance)``. The descriptor is invariant to
any change ``a * intensity + b``, also with negative ``a`` (inverted contrast), and nearly invariant to a monotone
change of contrast and to the slowly varying bias of a coil.

References:
    M. P. Heinrich, M. Jenkinson, B. W. Papież, M. Brady, J. A. Schnabel: Towards Realtime Multimodal Fusion for
    Image-Guided Interventions Using Self-Similarities. MICCAI 2013.
    M. P. Heinrich, M. Jenkinson, M. Brady, J. A. Schnabel: MRF-Based Deformable Registration and Ventilation Estimation
    of Lung CT. IEEE TMI 2013 (quantization to 6 levels and the Hamming distance of unary codes).

"""

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

from crossmoda.errors import InputError

if TYPE_CHECKING:
    import torch

#: The six neighbors of a voxel, (z, y, x).
NEIGHBORS = ((0, 0, -1), (0, 0, 1), (0, -1, 0), (0, 1, 0), (-1, 0, 0), (1, 0, 0))


def _pairs() -> tuple[tuple[tuple[int, ...], ...], tuple[tuple[int, tuple[int, ...]], ...]]:
    """Return the distinct directions between neighbors that are not opposite, and each pair as (direction, start)."""
    directions: list[tuple[int, ...]] = []
    pairs: list[tuple[int, tuple[int, ...]]] = []
    for first, second in itertools.combinations(NEIGHBORS, 2):
        direction, start = tuple(b - a for a, b in zip(first, second, strict=True)), first
        if max(map(abs, direction)) == 1:
            reverse = tuple(-step for step in direction)
            if reverse in directions:
                direction, start = reverse, second
            if direction not in directions:
                directions.append(direction)
            pairs.append((directions.index(direction), start))
    return tuple(directions), tuple(pairs)


#: The 6 directions (z, y, x) between neighbors at a distance of sqrt(2), and the 12 pairs: the direction and the
#: neighbor it starts from. Two pairs share a direction, so 6 difference images serve all 12.
DIRECTIONS, PAIRS = _pairs()

#: Features above the k-th threshold have at least k + 1 bits set in their unary code: 6 levels in 5 bits.
THRESHOLDS = tuple((level + 1.5) / 6 for level in range(5))

#: Bits used of the 64: 12 channels of 5.
BITS = 60


def mind_ssc(array: Any, radius: int = 1, dilation: int = 1) -> Any:
    """Return the MIND-SSC features of an image.

    Args:
        array: the image, (z, y, x); a NumPy array, or a torch tensor with any leading dimensions (batch, ...) on any
            device.
        radius: the radius of the box patch over which squared differences are averaged, voxels.
        dilation: the distance of the six neighbors from the voxel, voxels.

    Returns:
        Features in (0, 1], float32, of shape (..., 12, z, y, x); an array for an array, a tensor for a tensor.
        Flat regions are 1 in all channels.

    Raises:
        InputError: ``radius`` or ``dilation`` is not positive, or the image has fewer than three axes.

    """
    import torch

    if radius < 1 or dilation < 1:
        raise InputError(f"MIND radius and dilation must be at least 1 voxel; got {radius} and {dilation}.")
    if array.ndim < 3:
        raise InputError(f"MIND needs a 3D image; got {array.ndim} axes.")
    if isinstance(array, torch.Tensor):
        return _features(array.to(torch.float32), radius, dilation)
    with torch.no_grad():
        return _features(torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32)), radius, dilation).numpy()


def _shifted(image: "torch.Tensor", offset: tuple[int, ...], margin: int) -> "torch.Tensor":
    """Return the view of a padded image moved by ``offset`` (z, y, x) voxels; ``margin`` is its padding."""
    for axis, step in zip((-3, -2, -1), offset, strict=True):
        image = image.narrow(axis, margin + step, image.shape[axis] - 2 * margin)
    return image


def _directions_at_once(image: "torch.Tensor") -> int:
    """Return the number of directions computed at once: all on a GPU for speed, one on a CPU for memory."""
    return len(DIRECTIONS) if image.is_cuda else 1


def _mean_along(image: "torch.Tensor", axis: int, count: int) -> "torch.Tensor":
    """Return the means of ``count`` neighbors along an axis of (batch, channel, z, y, x)."""
    import torch

    if image.is_cuda:
        window = [count if a == axis else 1 for a in range(3)]
        return torch.nn.functional.avg_pool3d(image, window, stride=1)
    # On a CPU the pooling takes ten times as long as sums of whole arrays.
    views = [image.narrow(axis + 2, first, image.shape[axis + 2] - count + 1) for first in range(count)]
    total = views[0] + views[1]
    for view in views[2:]:
        total += view
    return total.div_(count)


def _features(image: "torch.Tensor", radius: int, dilation: int) -> "torch.Tensor":
    import torch

    lead, shape = image.shape[:-3], image.shape[-3:]
    image = image.reshape(-1, 1, *shape)
    pad = torch.nn.functional.pad
    distances = torch.empty((image.shape[0], 12, *shape), dtype=torch.float32, device=image.device)
    padded = pad(image, (dilation,) * 6, mode="replicate")
    at_once = _directions_at_once(image)
    for first in range(0, len(DIRECTIONS), at_once):
        squares = torch.empty((image.shape[0], at_once, *shape), dtype=torch.float32, device=image.device)
        for number, direction in enumerate(DIRECTIONS[first : first + at_once]):
            moved = _shifted(padded, tuple(dilation * step for step in direction), dilation)
            torch.sub(moved, image, out=squares.narrow(1, number, 1))
        squares.square_()
        for axis in range(3):  # three short sums instead of one over the cube
            margin = [0] * 6
            margin[5 - 2 * axis] = margin[4 - 2 * axis] = radius
            squares = _mean_along(pad(squares, margin, mode="replicate"), axis, 2 * radius + 1)
        squares = pad(squares, (dilation,) * 6, mode="replicate")
        for channel, (which, start) in enumerate(PAIRS):
            if first <= which < first + at_once:
                moved = _shifted(squares, tuple(dilation * step for step in start), dilation)
                distances[:, channel] = moved[:, which - first]
    distances -= distances.amin(dim=1, keepdim=True)
    noise = distances.mean(dim=1, keepdim=True).clamp_min_(1e-6)
    return distances.div_(noise).neg_().exp_().reshape(*lead, 12, *shape)


def pack(features: np.ndarray) -> np.ndarray:
    """Quantize features (12, z, y, x) to 6 levels and pack their unary codes: (z, y, x) uint64, 60 bits used.

    The number of bits in which two codes differ is the sum over the channels of the differences of their levels.
    """
    packed = np.zeros(features.shape[1:], np.uint64)
    for channel in range(12):
        for level, threshold in enumerate(THRESHOLDS):
            bit = np.uint64(5 * channel + level)
            packed |= (features[channel] > np.float32(threshold)).astype(np.uint64) << bit
    return packed


def hamming(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the number of bits in which two arrays of codes differ."""
    return np.bitwise_count(first ^ second) if hasattr(np, "bitwise_count") else _bit_count(first ^ second)


def _bit_count(words: np.ndarray) -> np.ndarray:
    """Count bits where NumPy is older than 2.0."""
    octets = np.ascontiguousarray(words).view(np.uint8).reshape(*words.shape, 8)
    return np.unpackbits(octets, axis=-1).sum(axis=-1, dtype=np.uint8)
