"""The operations of a training step recorded once and started all together. Imports torch.

A step on small crops is about a thousand short operations: to start them one by one takes longer than a graphics card
needs to do them. CUDA records them as a graph, which is then started as one.
"""

import warnings
from collections.abc import Callable

import torch

from crossmoda.training.sampling import Batch

#: Runs before the recording, in which libraries choose their kernels and take their memory.
_WARM_UP = 3


class Recording:
    """A step on one batch after the other, of batches as large as the first."""

    def __init__(
        self,
        network: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        work: Callable[[Batch], torch.Tensor],
        batch: Batch,
    ):
        """Record ``work``, which learns from a batch and returns its loss.

        Network and optimizer are as before afterwards, without gradients; nothing may drop the memory of the gradients
        from then on. The optimizer keeps all numbers that change from step to step on the card.
        """
        self._batch = Batch(batch.features.clone(), batch.label.clone(), batch.confidence.clone())
        held = *network.buffers(), *network.parameters(), *_moments(optimizer)
        kept = {id(item): (item, item.detach().clone()) for item in held}
        try:
            self._record(network, work)
        finally:
            with torch.no_grad():
                for item, before in kept.values():
                    item.copy_(before)
                for item in _moments(optimizer):
                    if id(item) not in kept:  # made on the way: an optimizer begins with zeros
                        item.zero_()

    def _record(self, network: torch.nn.Module, work: Callable[[Batch], torch.Tensor]) -> None:
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside), warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*capturable.*")  # of what is not recorded yet
            for _ in range(_WARM_UP):
                network.zero_grad(set_to_none=True)
                work(self._batch)
        torch.cuda.current_stream().wait_stream(aside)
        network.zero_grad(set_to_none=True)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._loss = work(self._batch)

    def fits(self, batch: Batch) -> bool:
        """Return whether a batch is as large as the recorded one."""
        return batch.features.shape == self._batch.features.shape

    def __call__(self, batch: Batch) -> torch.Tensor:
        """Learn from a batch and return its loss, which is valid until the next call."""
        self._batch.features.copy_(batch.features)
        self._batch.label.copy_(batch.label)
        self._batch.confidence.copy_(batch.confidence)
        self._graph.replay()
        return self._loss


def _moments(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    """Return what an optimizer remembers."""
    return [item for own in optimizer.state.values() for item in own.values() if isinstance(item, torch.Tensor)]
