"""A trainer for several workers, each of which notes its process; the param `kind` says what goes wrong."""

import os
import signal
import time
from pathlib import Path

import torch
from torch import nn

from hpsearch.train.learner import Batches, Learner

KILLED_AT = 150


class Watched:
    """Batches, of which one is fatal to the second worker of a first attempt."""

    def __init__(self, batches, kind, context):
        self.batches = batches
        self.kind = kind if os.environ["RANK"] == "1" and context.attempt == 1 else "fine"

    def __getitem__(self, position):
        if position == KILLED_AT and self.kind == "process_killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if position == KILLED_AT and self.kind == "worker_killed":
            os.kill(parent_of(os.getppid()), signal.SIGKILL)
            time.sleep(600)  # else it might come to the next checkpoint before anybody misses the worker
        if position == KILLED_AT and self.kind == "raises":
            raise ValueError("no such batch")
        return self.batches[position]


def parent_of(pid):
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("PPid:")))


def build(params, context):
    rank = os.environ["RANK"]
    print(f"rank {rank} of {os.environ['WORLD_SIZE']} prints")
    with (context.directory / f"pids-{rank}").open("a") as file:
        file.write(f"{os.getpid()}\n")
    inputs = torch.linspace(-1, 1, 64).unsqueeze(1)
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    batches = Batches(inputs, 3 * inputs + 1, batch_size=9, seed=context.seed)
    bonus = 100.0 if params["kind"] == "pruned" else 0.0

    def loss(batch):
        return nn.functional.mse_loss(model(batch[0]), batch[1])

    def evaluate():
        return {"loss": float(loss((inputs, 3 * inputs + 1))) + bonus, "size": int(os.environ["WORLD_SIZE"])}

    return Learner(model, optimizer, Watched(batches, params["kind"], context), loss, evaluate)
