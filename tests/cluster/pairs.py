"""A trainer for several workers, which notes its processes; trials of kind `held` go on as tests let them.

Files in the studies' home say how: slowly while there is one called `hold`, not at all while there is
`pause`. In a process that is not one of several it notes nothing.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pairs_parts
import torch
from torch import Tensor, nn

from hpsearch.train.learner import Batches, Context, Learner, Params

SLOW = 0.3  # seconds a measurement then


class Counted:
    """Batches, and how many of them were taken."""

    def __init__(self, batches: Batches) -> None:
        self._batches, self.seen = batches, 0

    def __getitem__(self, position: int) -> tuple[Tensor, ...]:
        self.seen = position + 1
        return self._batches[position]


def build(params: Params, context: Context) -> Learner[Any]:
    """A small network; each process and each evaluation is a line in a file of the trial's."""
    who = [os.environ.get(name) for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR")]
    note(context, "processes", context.attempt, os.getpid(), pairs_parts.__file__, *who)
    inputs, targets = pairs_parts.examples()
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))

    def loss(batch: tuple[Tensor, Tensor]) -> Tensor:
        return nn.functional.mse_loss(model(batch[0]), batch[1])

    def evaluate() -> dict[str, float]:
        found = float(loss((inputs, targets)))
        note(context, "ledger", context.attempt, batches.seen)
        if params["kind"] == "held":
            wait(context.directory.parents[2])
        return {"loss": found}

    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    batches = Counted(Batches(inputs, targets, batch_size=7, seed=context.seed))
    return Learner(model, optimizer, batches, loss, evaluate)


def note(context: Context, file: str, *words: object) -> None:
    if "RANK" not in os.environ:
        return
    descriptor = os.open(context.directory / file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(descriptor, f"{' '.join(map(str, words))}\n".encode())
    os.close(descriptor)


def wait(home: Path) -> None:
    until = time.monotonic() + SLOW
    while (home / "pause").exists() or ((home / "hold").exists() and time.monotonic() < until):
        time.sleep(0.02)
