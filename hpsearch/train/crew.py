"""A trial's processes as they learn together: each from its part of every batch, all with the same result.

The first leads: it evaluates, writes checkpoints, and says when all stop. A trial of one process leads none.
"""

from __future__ import annotations

import hashlib
import socket
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Protocol

import torch
from torch import Tensor, distributed, nn

from hpsearch.study.trial import Team
from hpsearch.train import snapshot
from hpsearch.train.learner import Learner
from hpsearch.train.reporter import Reporter

# Between two measurements it is asked so often whether the trial must stop (seconds).
LOOK = 0.5
# One that waits for another is not impatient: who watches the processes from outside knows when one is lost.
PATIENCE = timedelta(days=7)
COMING = timedelta(minutes=5)
WAITING = 16  # processes that may ask for the first one before it answers
# What is never freed before the process ends. A group that goes joins its threads without letting go of the
# interpreter's lock, for which one of them may wait that frees the tensor of its last message.
_KEPT: list[object] = []


class Crew(Protocol):
    """What the step loop asks of the processes of a trial, of which this is one."""

    leads: bool

    def share(self, state: bytes | None) -> bytes | None:
        """The bytes that the leading process has, in all of them."""
        ...

    def join(self, learner: Learner[Any], seed: int) -> None:
        """Learn with a learner that is as the seed or a checkpoint made it."""
        ...

    def loss(self, batch: Any, step: int) -> Tensor:
        """The loss of this process's part of a batch, to go backwards from."""
        ...

    def mean(self, loss: Tensor) -> float:
        """The loss of the whole batch."""
        ...

    def stops(self, step: int, reporter: Reporter) -> bool:
        """Whether all must stop after this step; looks only as often as is worth it."""
        ...

    def agree(self, going: bool) -> bool:
        """What the leading process says."""
        ...


class Alone:
    """The only process of a trial."""

    leads = True

    def __init__(self) -> None:
        self._learner: Learner[Any] | None = None
        self._look = time.perf_counter() + LOOK

    def share(self, state: bytes | None) -> bytes | None:
        """They are here."""
        return state

    def join(self, learner: Learner[Any], seed: int) -> None:
        """Learn alone."""
        self._learner = learner

    def loss(self, batch: Any, step: int) -> Tensor:
        """The loss of the whole batch."""
        assert self._learner
        return self._learner.loss(batch)

    def mean(self, loss: Tensor) -> float:
        """That of the batch."""
        return float(loss.detach())

    def stops(self, step: int, reporter: Reporter) -> bool:
        """Whether the trial must stop."""
        if time.perf_counter() >= self._look:
            reporter.push()
            self._look = time.perf_counter() + LOOK
        return reporter.stopped

    def agree(self, going: bool) -> bool:
        """What this one says."""
        return going


class Together:
    """One of several processes, which have found each other."""

    def __init__(self, team: Team) -> None:
        self.leads = team.rank == 0
        self._team = team
        self._seed = 0
        self._whole: nn.Module | None = None
        self._weight = 1.0
        self._looked: tuple[float, int] | None = None  # when, and after which step
        self._next = 0

    def share(self, state: bytes | None) -> bytes | None:
        """The leading process's bytes: the others need no disk that has them."""
        size = torch.tensor([-1 if state is None else len(state)])
        distributed.broadcast(size, src=0)
        if size.item() < 0:
            return None
        # A tensor of its own: bytes cannot be written to.
        data = torch.frombuffer(bytearray(state or int(size.item())), dtype=torch.uint8)
        distributed.broadcast(data, src=0)
        return state if self.leads else data.numpy().tobytes()

    def join(self, learner: Learner[Any], seed: int) -> None:
        """Wrap the model, so that its gradients are those of the whole batch."""
        self._seed = seed
        # The model is called within the trainer's own loss, so that this is what is wrapped. A parameter
        # without a part in a loss must not keep all others waiting.
        self._whole = nn.parallel.DistributedDataParallel(Whole(learner), find_unused_parameters=True)

    def loss(self, batch: Any, step: int) -> Tensor:
        """The loss of this part, weighted so that the mean over processes is the mean over the batch."""
        assert self._whole
        if not self.leads:
            # Each draws its own, and the same when it goes on from a checkpoint, which holds the first's.
            snapshot.seed_everything(_seed_of(self._seed, self._team.rank, step))
        part, self._weight = part_of(batch, self._team.rank, self._team.size)
        loss: Tensor = self._whole(part)
        return loss * (self._weight * self._team.size)

    def mean(self, loss: Tensor) -> float:
        """The sum of all weighted parts."""
        total = loss.detach().double().cpu() / self._team.size
        distributed.all_reduce(total)
        return float(total)

    def stops(self, step: int, reporter: Reporter) -> bool:
        """What the leading process says, at a step that it has named before: no other needs a clock."""
        if step < self._next:
            return False
        told = torch.zeros(2, dtype=torch.int64)
        if self.leads:
            reporter.push()
            told = torch.tensor([int(reporter.stopped), step + self._steps_until_look(step)])
        distributed.broadcast(told, src=0)
        stopped, self._next = (int(each) for each in told)
        return bool(stopped)

    def _steps_until_look(self, step: int) -> int:
        before, self._looked = self._looked, (time.perf_counter(), step)
        if before is None:
            return 1
        pace = (step - before[1]) / max(1e-9, self._looked[0] - before[0])  # steps a second
        return max(1, int(LOOK * pace))

    def agree(self, going: bool) -> bool:
        """What the leading process says."""
        told = torch.tensor([int(going)])
        distributed.broadcast(told, src=0)
        return bool(told.item())


class Whole(nn.Module):
    """A trainer's loss as a module, of which its model is a part."""

    def __init__(self, learner: Learner[Any]) -> None:
        super().__init__()
        self.model = learner.model
        self._loss: Callable[[Any], Tensor] = learner.loss

    def forward(self, batch: Any) -> Tensor:
        """The loss of a batch."""
        return self._loss(batch)


@contextmanager
def gathered(team: Team, gpus: float) -> Iterator[Crew]:
    """The processes of a trial, found and, afterwards, left."""
    if team.size == 1:
        yield Alone()
        return
    with warnings.catch_warnings():
        # Of torch, whenever all parameters have a part in the first loss.
        warnings.filterwarnings("ignore", message="find_unused_parameters=True was specified")
        _meet(team, gpus)
        try:
            yield Together(team)
        finally:
            distributed.destroy_process_group()


def _meet(team: Team, gpus: float) -> None:
    store = distributed.TCPStore(  # type: ignore[attr-defined]
        team.address,
        team.port,
        team.size,
        is_master=team.rank == 0,
        timeout=COMING,
        # Torch itself would listen on every address of this machine.
        master_listen_fd=_listening(team) if team.rank == 0 else None,
    )
    backend = "gloo"
    if gpus:
        own = team.local_rank if team.devices is not None else 0
        torch.cuda.set_device(own)
        # NCCL refuses two processes on one GPU; gloo takes the long way through the host's memory.
        backend = "cpu:gloo,cuda:nccl" if gpus >= 1 else "gloo"
    distributed.init_process_group(
        backend, store=store, rank=team.rank, world_size=team.size, timeout=PATIENCE
    )
    _KEPT.extend((store, distributed.group.WORLD))


def _listening(team: Team) -> int:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((team.address, team.port))
    listener.listen(max(WAITING, team.size))
    return listener.detach()


def part_of(batch: Any, rank: int, size: int) -> tuple[Any, float]:
    """One process's examples of a batch, and which share of the batch they are.

    Parts differ by one example at most; where there are more processes than examples, one without gets the
    first at no weight. Raises TypeError for a batch without tensors, ValueError for one of several lengths.
    """
    lengths = set(_lengths(batch))
    if len(lengths) != 1:
        found = f"tensors of lengths {sorted(lengths)}" if lengths else f"a {type(batch).__name__}"
        raise (ValueError if lengths else TypeError)(
            f"a batch for several workers needs tensors of one length, in tuples, lists or dicts; got {found}"
        )
    [length] = lengths
    start, end = (length * rank // size, length * (rank + 1) // size) if length else (0, 0)
    if start == end:
        return _cut(batch, slice(0, 1)), 0.0
    return _cut(batch, slice(start, end)), (end - start) / length


def _lengths(batch: Any) -> Iterator[int]:
    if isinstance(batch, Tensor):
        if batch.dim():
            yield len(batch)
    elif isinstance(batch, Mapping):
        for each in batch.values():
            yield from _lengths(each)
    elif isinstance(batch, Sequence) and not isinstance(batch, str):
        for each in batch:
            yield from _lengths(each)


def _cut(batch: Any, part: slice) -> Any:
    """The same structure with each tensor's part; what has no length, a number or a text, is everybody's."""
    if isinstance(batch, Tensor):
        return batch[part] if batch.dim() else batch
    if isinstance(batch, Mapping):
        return {name: _cut(each, part) for name, each in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(_cut(each, part) for each in batch))
    if isinstance(batch, list | tuple):
        return type(batch)(_cut(each, part) for each in batch)
    return batch


def _seed_of(seed: int, rank: int, step: int) -> int:
    digest = hashlib.sha256(f"{seed}/{rank}/{step}".encode()).digest()
    return int.from_bytes(digest[:4], "big")
