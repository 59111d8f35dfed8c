"""The operations of the registration as torch tensors, for CUDA; they run on any torch device.

A graphics card needs some microseconds to begin an operation, however small: there are few operations, each on all
displacements, channels or axes at once.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from crossmoda.deeds.backend_cpu.sampling import taps
from crossmoda.mind import THRESHOLDS, mind_ssc
from crossmoda.volume.grid import Grid

#: Working memory of one step of the data cost, bytes; twice as much where the card cannot count bits by itself.
_CHUNK = 1 << 28
#: Bits that differ between two codes where the third is set, in one operation: compiled by torch for the card at hand.
_COUNT_ON_CARD = "template <typename T> T differing(T one, T other, T keep) { return __popcll((one ^ other) & keep); }"


def _differing_bits(one: torch.Tensor, other: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    """Count the bits that differ where ``keep`` is set, by adding neighboring bits, pairs, nibbles and bytes.

    The words are not negative.
    """
    words = (one ^ other).bitwise_and_(keep)
    words -= (words >> 1).bitwise_and_(0x5555555555555555)
    pairs = (words >> 2).bitwise_and_(0x3333333333333333)
    words = words.bitwise_and_(0x3333333333333333).add_(pairs)
    words += words >> 4
    return words.bitwise_and_(0x0F0F0F0F0F0F0F0F).mul_(0x0101010101010101).bitwise_right_shift_(56)


@functools.cache
def _bit_counter(device: torch.device) -> Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]:
    """Return the fastest function on a device that does what :func:`_differing_bits` does."""
    if device.type != "cuda":
        return _differing_bits
    try:
        from torch.cuda.jiterator import _create_jit_fn

        compiled = _create_jit_fn(_COUNT_ON_CARD)
        sample = torch.arange(1, 1 << 60, (1 << 60) // 97, dtype=torch.int64, device=device)
        operands = sample[:, None], sample[None], torch.full((1, 1), (1 << 59) - 1, device=device)
        if torch.equal(compiled(*operands), _differing_bits(*operands)):
            return compiled
    except Exception:  # a beta feature of torch that needs NVIDIA's run-time compiler: whatever fails, there is another
        pass
    return _differing_bits


def _along(matrix: torch.Tensor, image: torch.Tensor, axis: int) -> torch.Tensor:
    """Apply a matrix (new, old) along one axis."""
    return torch.movedim(torch.movedim(image, axis, -1) @ matrix.T, -1, axis)


def _repeated(image: torch.Tensor, margins: Sequence[tuple[int, int]]) -> torch.Tensor:
    """Return an image with its border repeated so many voxels (before, after) along each axis."""
    for axis, (before, after) in enumerate(margins):
        if before or after:
            size = image.shape[axis]
            index = torch.arange(-before, size + after, device=image.device).clamp_(0, size - 1)
            image = image.index_select(axis, index)
    return image


class CudaBackend:
    """See :class:`crossmoda.deeds.backend.Kernels`."""

    at_once = True

    def __init__(self, device: str):
        """Work on the torch device ``device``."""
        self.device = torch.device(device)
        self._thresholds = torch.tensor(THRESHOLDS, dtype=torch.float32, device=self.device)
        self._unary = torch.tensor([(1 << level) - 1 for level in range(6)], device=self.device)
        self._places = torch.arange(0, 60, 5, device=self.device)[:, None, None, None]

    def send(self, array: np.ndarray) -> torch.Tensor:
        """Bring an image to the device, float32; the work that a card is at goes on meanwhile."""
        return torch.from_numpy(np.ascontiguousarray(array, np.float32)).to(self.device, non_blocking=True)

    def receive(self, array: torch.Tensor) -> np.ndarray:
        """Bring an array back, through memory that a card can write to directly."""
        if array.device.type == "cpu":
            return array.numpy()
        pinned = torch.empty(array.shape, dtype=array.dtype, pin_memory=True)
        return pinned.copy_(array).numpy()

    def resize(self, image: torch.Tensor, grid: Grid, new: Grid) -> torch.Tensor:
        """See :func:`crossmoda.deeds.backend_cpu.sampling.resize`."""
        if new is grid:
            return image
        for axis in range(3):
            number = 2 - axis
            first, weights = taps(grid.size[number], grid.spacing[number], new.size[number], new.spacing[number])
            matrix = np.zeros((new.size[number], grid.size[number]), np.float32)
            rows = np.arange(new.size[number])[:, None]
            np.add.at(matrix, (rows, first[:, None] + np.arange(weights.shape[1])), weights)
            image = _along(self.send(matrix), image, axis)
        return image.contiguous()

    def upsample(
        self, field: np.ndarray, origin: np.ndarray, step: np.ndarray, shape: tuple[int, int, int]
    ) -> torch.Tensor:
        """See :func:`crossmoda.deeds.backend_cpu.sampling.upsample`."""
        dense = self.send(field)
        for axis in range(3):
            size = field.shape[axis + 1]
            position = np.clip(origin[axis] + np.arange(shape[axis]) * step[axis], 0, size - 1)
            matrix = np.maximum(1 - np.abs(position[:, None] - np.arange(size)), 0)
            dense = _along(self.send(matrix), dense, axis + 1)
        return dense

    def warp(
        self,
        image: torch.Tensor,
        matrix: np.ndarray,
        shape: tuple[int, int, int],
        field: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """See :func:`crossmoda.deeds.backend_cpu.sampling.warp`."""
        # grid_sample wants (x, y, z) from -1 to 1 between the centers of the first and the last voxel
        scale = 2 / np.maximum(np.array(image.shape[::-1]) - 1, 1)
        linear = matrix[:3, :3][:, ::-1] * scale[:, None]
        lines = [linear[:, [axis]] * np.arange(size) for axis, size in enumerate(shape)]
        lines[0] += (matrix[:3, 3] * scale - 1)[:, None]
        z, y, x = self.send(np.concatenate(lines, axis=1)).split(list(shape), dim=1)
        points = z[:, :, None, None] + y[:, None, :, None] + x[:, None, None, :]
        if field is not None:  # sums of products, not a matrix product: that may be less precise (TF32)
            columns = self.send(linear)
            for axis in range(3):
                points.addcmul_(columns[:, axis, None, None, None], field[axis])
        return torch.nn.functional.grid_sample(
            image[None, None],
            points.permute(1, 2, 3, 0)[None],
            mode="bilinear",
            padding_mode="border",
            align_corners=True,
        )[0, 0]

    def codes(self, image: torch.Tensor, step: int) -> torch.Tensor:
        """See :func:`crossmoda.deeds.mind_codes.codes`; int64 with the same bits."""
        levels = torch.bucketize(mind_ssc(image, step, step), self._thresholds)
        return (self._unary[levels] << self._places).sum(dim=0)

    def data_cost(
        self,
        fixed: torch.Tensor,
        moving: torch.Tensor,
        *,
        block: tuple[int, int, int],
        radius: tuple[int, int, int],
        quantization: tuple[int, int, int],
        skip: tuple[int, int, int] = (1, 1, 1),
        scale: float = 1.0,
        mask: np.ndarray | None = None,
    ) -> torch.Tensor:
        """See :func:`crossmoda.deeds.cost.data_cost`."""
        counts = [-(-size // step) for size, step in zip(fixed.shape, block, strict=True)]
        missing = [count * step - size for count, step, size in zip(counts, block, fixed.shape, strict=True)]
        pads = [pad for rest in reversed(missing) for pad in (0, rest)]
        inside = torch.ones(fixed.shape, dtype=torch.bool) if mask is None else torch.from_numpy(mask)
        keep = torch.nn.functional.pad(-inside.to(self.device, non_blocking=True).to(torch.int64), pads)
        reach = [steps * step for steps, step in zip(radius, quantization, strict=True)]
        around = _repeated(moving, [(far, far + more) for far, more in zip(reach, missing, strict=True)])

        def samples(image: torch.Tensor) -> torch.Tensor:
            """Divide into blocks and keep the voxels that are compared: (nz, sz, ny, sy, nx, sx, 1, 1, 1)."""
            for axis in (2, 1, 0):
                image = image.unflatten(axis, (counts[axis], block[axis]))
            return image[:, :: skip[0], :, :: skip[1], ..., None, None, None]

        fixed_blocks, keep = samples(torch.nn.functional.pad(fixed, pads)), samples(keep)
        labels = [2 * steps + 1 for steps in radius]
        strides = around.stride()
        steps = [
            count * stride
            for step, every, stride in zip(block, (*skip[:2], 1), strides, strict=True)
            for count in (step, every)
        ]
        steps += [step * stride for step, stride in zip(quantization, strides, strict=True)]
        moving_windows = around.as_strided((*fixed_blocks.shape[:6], *labels), steps)
        costs = torch.empty((*counts, *labels), dtype=torch.float32, device=self.device)
        count_bits = _bit_counter(self.device)
        for low, high in _chunks(counts[0], moving_windows[0].numel() * 8):
            bits = count_bits(fixed_blocks[low:high], moving_windows[low:high], keep[low:high])
            costs[low:high] = bits.sum(dim=(1, 3, 5))
        compared = fixed_blocks.shape[1] * fixed_blocks.shape[3] * fixed_blocks.shape[5]
        return costs.flatten(3).mul_(scale / compared)

    def smoothed_minima(self, costs: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        """See :func:`crossmoda.deeds.cost.smoothed_minima`."""
        for axis in range(3):
            wide, size = _repeated(costs, [(int(axis == other),) * 2 for other in range(3)]), costs.shape[axis]
            costs = 0.5 * costs + 0.25 * (wide.narrow(axis, 0, size) + wide.narrow(axis, 2, size))
        lowest, best = costs.min(dim=-1)
        return self.receive(best), self.receive(lowest)

    def block_differences(self, image: torch.Tensor, block: tuple[int, int, int]) -> np.ndarray:
        """See :func:`crossmoda.deeds.tree.block_differences`."""
        counts = [-(-size // step) for size, step in zip(image.shape, block, strict=True)]
        sums, numbers = [], np.ones((3, *counts), np.float32)
        for axis in range(3):
            size = max(image.shape[axis] - block[axis], 0)
            change = (image.narrow(axis, image.shape[axis] - size, size) - image.narrow(axis, 0, size)).abs()
            rest = [(0, step * count - have) for step, count, have in zip(block, counts, change.shape, strict=True)]
            sums.append(
                self._block_sums(torch.nn.functional.pad(change, [p for pair in rest[::-1] for p in pair]), block)
            )
            for other, (step, count, have) in enumerate(zip(block, counts, change.shape, strict=True)):
                voxels = np.clip(have - step * np.arange(count), 0, step)
                numbers[axis] *= np.expand_dims(voxels, [place for place in range(3) if place != other])
        return self.receive(torch.stack(sums)) / np.maximum(numbers, 1)

    @staticmethod
    def _block_sums(image: torch.Tensor, block: Sequence[int]) -> torch.Tensor:
        for axis in range(3):
            image = image.unflatten(axis, (image.shape[axis] // block[axis], block[axis])).sum(dim=axis + 1)
        return image


def _chunks(count: int, size: int) -> Any:
    """Yield (low, high) parts of ``range(count)`` such that items of ``size`` bytes fit the working memory."""
    most = max(_CHUNK // max(size, 1), 1)
    return ((low, min(low + most, count)) for low in range(0, count, most))
