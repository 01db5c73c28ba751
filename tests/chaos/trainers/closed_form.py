"""A trainer whose curve is a closed form of params and step; each step is a line in a ledger of its own."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping

import torch
from torch import Tensor

from hpsearch.train.learner import Context, Learner, Params


class Positions:
    """The batch after n updates is n."""

    def __getitem__(self, position: int) -> int:
        return position


class Counter(torch.nn.Module):
    """Its only state is how many steps it took, so that a wrong resume shows in its curve."""

    def __init__(self) -> None:
        super().__init__()
        self.taken = torch.nn.Parameter(torch.zeros(()))


def build(params: Params, context: Context) -> Learner[int]:
    model = Counter()
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
    ledger = os.open(context.directory / "ledger", flags, 0o600)
    x, layers, pause = float(params["x"]), int(params["layers"]), float(params.get("pause", 0))

    def loss(position: int) -> Tensor:
        os.write(ledger, f"{context.attempt} {position + 1} {os.getpid()}\n".encode())
        time.sleep(pause)
        return -model.taken  # whose gradient is -1: each update adds 1

    def evaluate() -> Mapping[str, float]:
        taken = float(model.taken)
        return {"loss": (x - 0.3) ** 2 + layers / 100 + math.exp(-taken), "taken": taken}

    return Learner(model, torch.optim.SGD(model.parameters(), lr=1.0), Positions(), loss, evaluate)
