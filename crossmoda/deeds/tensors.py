"""The operations of the registration as torch tensors, for CUDA; they run on any torch device."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from crossmoda.deeds.sampling import taps
from crossmoda.mind import THRESHOLDS, mind_ssc
from crossmoda.volume.geometry import Grid

#: Working memory of one step of the data cost, bytes.
_CHUNK = 1 << 28


def _bit_count(words: torch.Tensor) -> torch.Tensor:
    """Count the set bits of non-negative 64-bit words by adding neighbouring bits, pairs, nibbles and bytes."""
    words = words - ((words >> 1) & 0x5555555555555555)
    words = (words & 0x3333333333333333) + ((words >> 2) & 0x3333333333333333)
    words = (words + (words >> 4)) & 0x0F0F0F0F0F0F0F0F
    return (words * 0x0101010101010101) >> 56


def _along(matrix: torch.Tensor, image: torch.Tensor, axis: int) -> torch.Tensor:
    """Apply a matrix (new, old) along one axis."""
    return torch.movedim(torch.movedim(image, axis, -1) @ matrix.T, -1, axis)


class TensorKernels:
    """See :class:`crossmoda.deeds.kernels.Kernels`."""

    def __init__(self, device: str):
        """Work on the torch device ``device``."""
        self.device = torch.device(device)

    def send(self, array: np.ndarray) -> torch.Tensor:
        """Bring an image to the device, float32."""
        return torch.from_numpy(np.ascontiguousarray(array, np.float32)).to(self.device)

    def receive(self, array: torch.Tensor) -> np.ndarray:
        """Bring an array back."""
        return array.cpu().numpy()

    def resize(self, image: torch.Tensor, grid: Grid, new: Grid) -> torch.Tensor:
        """See :func:`crossmoda.deeds.sampling.resize`."""
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
        """See :func:`crossmoda.deeds.sampling.upsample`."""
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
        """See :func:`crossmoda.deeds.sampling.warp`."""
        axes = [torch.arange(size, dtype=torch.float32, device=self.device) for size in shape]
        points = torch.stack(torch.meshgrid(*axes, indexing="ij"))
        if field is not None:
            points = points + field
        flipped = self.send(matrix[:3][::-1][:, [2, 1, 0, 3]])
        points = torch.einsum("ij,jzyx->zyxi", flipped[:, :3], points) + flipped[:, 3]
        # grid_sample wants (x, y, z) from -1 to 1 between the centres of the first and the last voxel
        last = torch.tensor([max(size - 1, 1) for size in image.shape], dtype=torch.float32, device=self.device)
        points = (points * 2 / last - 1).flip(-1)
        return torch.nn.functional.grid_sample(
            image[None, None], points[None], mode="bilinear", padding_mode="border", align_corners=True
        )[0, 0]

    def codes(self, image: torch.Tensor, step: int) -> torch.Tensor:
        """See :func:`crossmoda.mind.codes`; int64 with the same bits."""
        features = mind_ssc(image, step, step)
        packed = torch.zeros(image.shape, dtype=torch.int64, device=self.device)
        for channel in range(12):
            for level, threshold in enumerate(THRESHOLDS):
                packed |= (features[channel] > threshold).to(torch.int64) << (5 * channel + level)
        return packed

    def data_cost(
        self,
        fixed: torch.Tensor,
        moving: torch.Tensor,
        *,
        block: tuple[int, int, int],
        radius: tuple[int, int, int],
        quantisation: tuple[int, int, int],
        skip: tuple[int, int, int] = (1, 1, 1),
        scale: float = 1.0,
        mask: np.ndarray | None = None,
    ) -> torch.Tensor:
        """See :func:`crossmoda.deeds.cost.data_cost`."""
        counts = [-(-size // step) for size, step in zip(fixed.shape, block, strict=True)]
        whole = [count * step for count, step in zip(counts, block, strict=True)]
        reach = [steps * step for steps, step in zip(radius, quantisation, strict=True)]
        keep = torch.zeros(whole, dtype=torch.int64, device=self.device)
        counted = -1 if mask is None else -torch.from_numpy(mask.astype(np.int64)).to(self.device)
        keep[: fixed.shape[0], : fixed.shape[1], : fixed.shape[2]] = counted
        here = torch.zeros_like(keep)
        here[: fixed.shape[0], : fixed.shape[1], : fixed.shape[2]] = fixed
        surrounded = moving
        for axis in range(3):
            index = torch.arange(-reach[axis], whole[axis] + reach[axis], device=self.device)
            surrounded = surrounded.index_select(axis, index.clamp(0, moving.shape[axis] - 1))

        def sampled(image: torch.Tensor) -> torch.Tensor:
            """Divide into blocks along z and y and keep the voxels that are compared: (nz, sz, ny, sy, x, ...)."""
            parts = image.unflatten(1, (counts[1], block[1])).unflatten(0, (counts[0], block[0]))
            return parts[:, :: skip[0], :, :: skip[1]]

        here, keep = sampled(here)[..., None, :], sampled(keep)[..., None, :]
        labels = [2 * steps + 1 for steps in radius]
        costs = torch.empty((*counts, *labels), dtype=torch.float32, device=self.device)
        for z in range(labels[0]):
            for y in range(labels[1]):
                start_z, start_y = z * quantisation[0], y * quantisation[1]
                area = surrounded[start_z : start_z + whole[0], start_y : start_y + whole[1]]
                there = sampled(area).unfold(4, whole[2], quantisation[2])
                for low, high in _chunks(counts[0], there[0].numel() * 8):
                    bits = _bit_count((here[low:high] ^ there[low:high]) & keep[low:high])
                    sums = bits.sum(dim=(1, 3)).unflatten(-1, (counts[2], block[2])).sum(dim=-1)
                    costs[low:high, ..., z, y, :] = sums.transpose(-1, -2)
        samples = -(-block[0] // skip[0]) * -(-block[1] // skip[1]) * block[2]
        return costs.flatten(3).mul_(scale / samples)

    def smoothed_minima(self, costs: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        """See :func:`crossmoda.deeds.cost.smoothed_minima`."""
        for axis in range(3):
            size = costs.shape[axis]
            index = torch.arange(size, device=self.device)
            before, after = (costs.index_select(axis, (index + step).clamp(0, size - 1)) for step in (-1, 1))
            costs = 0.5 * costs + 0.25 * (before + after)
        lowest, best = costs.min(dim=-1)
        return self.receive(best), self.receive(lowest)

    def block_differences(self, image: torch.Tensor, block: tuple[int, int, int]) -> np.ndarray:
        """See :func:`crossmoda.deeds.tree.block_differences`."""
        counts = [-(-size // step) for size, step in zip(image.shape, block, strict=True)]
        out = torch.zeros((3, *counts), dtype=torch.float32, device=self.device)
        for axis in range(3):
            size = image.shape[axis] - block[axis]
            if size <= 0:
                continue
            change = (image.narrow(axis, block[axis], size) - image.narrow(axis, 0, size)).abs()
            rest = [(0, step * count - have) for step, count, have in zip(block, counts, change.shape, strict=True)]
            pads = [pad for pair in reversed(rest) for pad in pair]
            total = self._block_sums(torch.nn.functional.pad(change, pads), block)
            number = self._block_sums(torch.nn.functional.pad(torch.ones_like(change), pads), block)
            out[axis] = total / number.clamp(min=1)
        return self.receive(out)

    @staticmethod
    def _block_sums(image: torch.Tensor, block: Sequence[int]) -> torch.Tensor:
        for axis in range(3):
            image = image.unflatten(axis, (image.shape[axis] // block[axis], block[axis])).sum(dim=axis + 1)
        return image


def _chunks(count: int, size: int) -> Any:
    """Yield (low, high) parts of ``range(count)`` such that items of ``size`` bytes fit the working memory."""
    most = max(_CHUNK // max(size, 1), 1)
    return ((low, min(low + most, count)) for low in range(0, count, most))
