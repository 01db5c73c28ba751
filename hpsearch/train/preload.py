"""What the fork server imports and does once, so that no trial's process has to."""

from __future__ import annotations

import gc

import torch
import torch._dynamo  # the first optimizer imports it, which costs a second
from torch import nn

import hpsearch.train.trial  # noqa: F401
from hpsearch.train import loop, snapshot
from hpsearch.train.learner import Batches, Learner


def rehearse() -> None:
    """Touch what every trial touches first, so that its lazy imports and tables are there at the fork.

    No backward pass: autograd may start threads, and a fork must copy only one.
    """
    snapshot.seed_everything(0)
    data = torch.zeros(2, 1)
    for make in (torch.optim.SGD, torch.optim.Adam, torch.optim.RMSprop):
        model = nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 1))
        optimizer = make(model.parameters(), lr=0.1)
        batches = Batches(data, data, batch_size=1, seed=0)
        learner = Learner(model, optimizer, batches, lambda batch: nn.MSELoss()(*batch), dict)
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loop.evaluate(learner)
        with torch.no_grad():
            learner.loss((model(batches[0][0]), data[:1]))
        snapshot.parse(snapshot.take(learner, 0, {}))


rehearse()
# A collection in a child would touch, and so copy, every page of the modules above.
gc.collect()
gc.freeze()
