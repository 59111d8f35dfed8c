"""Training steps recorded as CUDA graphs. Imports torch.

A step on small crops is about a thousand short operations, which take longer to launch than to compute. A CUDA graph
launches them at once.
"""

import warnings
from collections.abc import Callable

import torch

from crossmoda.training.sampling import Batch

#: Steps before the recording, in which libraries select kernels and allocate memory.
_WARM_UP_STEPS = 3


class Recording:
    """A recorded step for batches of the same shape."""

    def __init__(
        self,
        network: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        work: Callable[[Batch], torch.Tensor],
        batch: Batch,
    ):
        """Record ``work``, which takes a step on a batch and returns its loss.

        Network and optimizer are restored afterwards, without gradients. The memory of the gradients must not be freed
        from then on, and the optimizer must hold all its changing values on the GPU.
        """
        self._batch = Batch(batch.features.clone(), batch.label.clone(), batch.confidence.clone())
        state = *network.buffers(), *network.parameters(), *_moments(optimizer)
        backup = {id(item): (item, item.detach().clone()) for item in state}
        try:
            self._record(network, work)
        finally:
            with torch.no_grad():
                for item, before in backup.values():
                    item.copy_(before)
                for item in _moments(optimizer):
                    if id(item) not in backup:  # created by the warm-up: an optimizer starts with zeros
                        item.zero_()

    def _record(self, network: torch.nn.Module, work: Callable[[Batch], torch.Tensor]) -> None:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream), warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*capturable.*")
            for _ in range(_WARM_UP_STEPS):
                network.zero_grad(set_to_none=True)
                work(self._batch)
        torch.cuda.current_stream().wait_stream(stream)
        network.zero_grad(set_to_none=True)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._loss = work(self._batch)

    def fits(self, batch: Batch) -> bool:
        """Whether a batch has the recorded shape."""
        return batch.features.shape == self._batch.features.shape

    def __call__(self, batch: Batch) -> torch.Tensor:
        """Take a step on a batch and return its loss, which is valid until the next call."""
        self._batch.features.copy_(batch.features)
        self._batch.label.copy_(batch.label)
        self._batch.confidence.copy_(batch.confidence)
        self._graph.replay()
        return self._loss


def _moments(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    """Return the state tensors of an optimizer."""
    return [item for state in optimizer.state.values() for item in state.values() if isinstance(item, torch.Tensor)]
