"""What a trainer is: a model, its optimizer, its loss and its batches; the step loop is ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from torch import Tensor, from_numpy, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from hpsearch.spec.model import Params
from hpsearch.study.trial import Context, Measurement

__all__ = ["Batches", "Context", "Indexable", "Learner", "Measurement", "Params"]

Batch = TypeVar("Batch")
Given = TypeVar("Given", covariant=True)


class Indexable(Protocol[Given]):
    """Anything that gives a batch for a position; the same position always gives the same batch."""

    def __getitem__(self, position: int, /) -> Given: ...


@dataclass(slots=True)
class Learner(Generic[Batch]):
    """What the step loop drives.

    `batches[n]` is what the update after n updates learns from, so the position in the data is the step.
    `loss` is the forward pass and the loss of a batch, a scalar. `evaluate` is called in evaluation mode
    without gradients. `schedule` takes one step per update.
    """

    model: nn.Module
    optimizer: Optimizer
    batches: Indexable[Batch]
    loss: Callable[[Batch], Tensor]
    evaluate: Callable[[], Mapping[str, Any]]
    schedule: LRScheduler | None = None


class Batches:
    """Tensors of equal length, cut into batches without replacement and reshuffled at every pass.

    The order of a pass is a pure function of (seed, number of the pass), so resuming needs no state. The
    examples that do not fill a last batch sit out that pass (others do in the next); a `batch_size` larger
    than the data set means all of it. Raises ValueError where there is nothing to cut.
    """

    def __init__(self, *tensors: Tensor, batch_size: int, seed: int) -> None:
        lengths = {len(tensor) for tensor in tensors}
        if len(lengths) != 1 or 0 in lengths:
            raise ValueError(f"batches need tensors of one length above 0, got {sorted(lengths)}")
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        self.tensors = tensors
        self.length = lengths.pop()
        self.batch_size = min(batch_size, self.length)
        self.seed = seed
        self._pass = -1
        self._order = Tensor()

    def __getitem__(self, position: int) -> tuple[Tensor, ...]:
        """The batch after `position` updates, on the tensors' device."""
        number, place = divmod(position, self.length // self.batch_size)
        if number != self._pass:
            order = np.random.default_rng((self.seed, number)).permutation(self.length)
            self._pass, self._order = number, from_numpy(order).to(self.tensors[0].device)
        chosen = self._order[place * self.batch_size : (place + 1) * self.batch_size]
        return tuple(tensor.index_select(0, chosen) for tensor in self.tensors)
