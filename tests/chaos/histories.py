"""Histories of faults: drawn from a seed, written as one line, played, and shrunk to what still fails.

A line is a scene, then the faults of each life: `seed=3 pruner=ASHA | store.commit:9:inside=KILL | ...`.
LOST is a reply, LATE a kill after the driver has committed once more. Between two steps of a study, by their
number (`between:4=RIVAL`): a driver of another host that a partition let in; BUSY, one of this host, which
the lock keeps out; STALE, a report of an attempt that is over; STOP, as by SIGTERM; DOWN, a server that
refuses its next requests.
"""

from __future__ import annotations

import errno
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from unittest import mock

from checker import violations
from lives import reference
from scenes import Scene
from simulation import Killed, Place, Snapshot, Violation, World, places, world_of

from hpsearch.errors import Interrupted, StudyBusy
from hpsearch.faults import ReplyLost
from hpsearch.study import store as stores
from hpsearch.study.sqlite import SqliteFile
from hpsearch.study.store import Store
from hpsearch.study.trial import Checkpoint, Measurement, Outcome, Report

RESUMABLE = {Interrupted.exit_code, StudyBusy.exit_code}
MOST_LIVES = 12
_FAULT = re.compile(r"(?P<point>[a-z_.]+):(?P<count>\d+)(:(?P<phase>[a-z]+))?=(?P<action>[A-Z]+)")
COUNTS = dict.fromkeys(("store.begin", "store.commit"), 40)
COUNTS |= dict.fromkeys(("ckpt.write", "ckpt.sync", "ckpt.rename", "ckpt.row"), 12)
COUNTS |= dict.fromkeys(("spawn.fork", "trial.start", "sampler.ask", "outbox.create_run", "outbox.read"), 8)
COUNTS |= {"trial.report": 25, "tune.report": 25, "prune.decide": 15, "trial.end": 4, "outbox.send": 20}
COUNTS |= {"outbox.offset": 6, "lease.take": 1, "cleanup.begin": 1}
REPLIES = ("outbox.create_run", "outbox.send")

Life = tuple[str, ...]
History = tuple[Scene, tuple[Life, ...]]


def drawn(seed: int) -> History:
    """A history as a seed has it."""
    dice = random.Random(seed)
    scene = Scene(
        seed=dice.randrange(8),
        trials=8,
        steps=4,
        parallel=3,
        sampler="TPE" if dice.random() < 0.1 else "RANDOM",
        pruner=dice.choice(["ASHA", "ASHA", "MEDIAN", "HYPERBAND"]),
        jumps=dice.random() < 0.25,
    )
    lives = (
        tuple(_drawn_fault(dice) for _ in range(dice.choice([1, 1, 2])))
        for _ in range(dice.choice([1, 2, 3]))
    )
    return scene, tuple(lives)


def _drawn_fault(dice: random.Random) -> str:
    kind = dice.random()
    if kind < 0.5:
        point = dice.choice(list(COUNTS))
        return f"{point}:{dice.randint(1, COUNTS[point])}:{dice.choice(['before', 'inside', 'after'])}=KILL"
    if kind < 0.6:
        return (
            f"store.commit:{dice.randint(2, 40)}:{dice.choice(['before=ENOSPC', 'before=EIO', 'after=EIO'])}"
        )
    if kind < 0.7:
        point = dice.choice(["ckpt.write", "ckpt.sync", "ckpt.rename"])
        what = dice.choice(["before=ENOSPC", "before=EIO", "after=ENOSPC", "after=EIO"])
        return f"{point}:{dice.randint(1, 12)}:{what}"
    if kind < 0.75:
        return f"outbox.send:{dice.randint(1, 20)}:{dice.choice(['before', 'inside', 'after'])}=LATE"
    if kind < 0.8:
        point = dice.choice(REPLIES)
        return f"{point}:{dice.randint(1, COUNTS[point])}:{dice.choice(['inside', 'after'])}=LOST"
    return f"between:{dice.randint(1, 20)}={dice.choice(['RIVAL', 'BUSY', 'STALE', 'STOP', 'DOWN'])}"


def written(history: History) -> str:
    """It as one line."""
    scene, lives = history
    plain = Scene(seed=0)
    words = [
        f"{f.name}={getattr(scene, f.name)}"
        for f in fields(Scene)
        if f.name == "seed" or getattr(scene, f.name) != getattr(plain, f.name)
    ]
    return " | ".join([" ".join(words), *(" ".join(life) for life in lives)])


def parsed(line: str) -> History:
    """What a line says."""
    words, *lives = (part.split() for part in line.split("|"))
    scene = Scene(seed=0)
    for word in words:
        name, text = word.split("=")
        kind = type(getattr(scene, name))
        scene = replace(scene, **{name: text == "True" if kind is bool else kind(text)})
    return scene, tuple(tuple(life) for life in lives)


class Played:
    """What came of a history: what was wrong, and how often each action really happened."""

    def __init__(self) -> None:
        self.wrong: list[str] = []
        self.fired: list[str] = []
        self.lives = 0


def play(history: History) -> Played:
    """Play a history to its end: life after life, those that it names with their faults, then one without."""
    scene, lives = history
    played = Played()
    left: Snapshot | None = None
    for number in range(MOST_LIVES):
        with world_of(scene, left) as world:
            nemesis = _Nemesis(world, lives[number] if number < len(lives) else (), played)
            played.lives += 1
            try:
                code = world.live(nemesis.hook)
            except Killed:
                assert nemesis.left is not None
                left = nemesis.left
                left.witness.kills = world.witness.kills
                continue
            except Violation as violation:
                played.wrong = [str(violation)]
                return played
            if nemesis.fenced and code != StudyBusy.exit_code:
                played.wrong = [f"I8: exit code {code} of a driver whose lease was taken"]
                return played
            if code not in RESUMABLE:
                played.wrong = violations(world, code, reference(scene))
                return played
            if not nemesis.excuses:
                played.wrong = [f"I9: exit code {code} without a reason: {world.error}"]
                return played
            left = world.snapshot()
    played.wrong = [f"not at its end after {MOST_LIVES} lives"]
    return played


def shrunk(history: History) -> History:
    """The least of it that still fails."""
    scene, lives = history
    for candidate in _smaller(lives):
        if play((scene, candidate)).wrong:
            return shrunk((scene, candidate))
    return history


def _smaller(lives: Sequence[Life]) -> list[tuple[Life, ...]]:
    fewer = [(*lives[:n], *lives[n + 1 :]) for n in range(len(lives))]
    for n, life in enumerate(lives):
        fewer += [
            (*lives[:n], (*life[:k], *life[k + 1 :]), *lives[n + 1 :])
            for k in range(len(life))
            if len(life) > 1
        ]
    return fewer


class _Nemesis:
    """Makes the faults of one life happen; `excuses` are those that may end it with a resumable exit."""

    def __init__(self, world: World, life: Life, played: Played) -> None:
        self.left: Snapshot | None = None
        self.excuses = 0
        self.fenced = False
        self._world = world
        self._played = played
        self._due: dict[tuple[str, int, str], str] = {}
        for fault in life:
            found = _FAULT.fullmatch(fault)
            assert found is not None, fault
            self._due[found["point"], int(found["count"]), found["phase"] or ""] = found["action"]
        deadly = {"KILL", "LATE"} & set(self._due.values())
        self._places = places(world, self._visit) if deadly else None
        world.stale = self._between

    def hook(self, point: str, count: int, phase: str) -> None:
        """An event of the product."""
        if self._world.dead:
            return
        if self._places is not None and (point, count) in {key[:2] for key in self._due}:
            self._places(point, count, phase)
        action = self._due.get((point, count, phase))
        if action in ("EIO", "ENOSPC"):
            self._fire(action)
            if point.startswith("ckpt."):
                self._world.witness.refused += 1
            self.excuses += point.startswith("store.")
            raise OSError(getattr(errno, action), "by a fault")
        if action == "LOST":
            self._fire(action)
            raise ReplyLost(errno.ECONNRESET, "by a fault")

    def _visit(self, place: Place, snapshot: Callable[[], Snapshot]) -> None:
        action = self._due.get((place.point, place.count, place.phase))
        if action in ("KILL", "LATE"):
            if action == "LATE" and self._world.search is not None:
                # The outbox has a thread of its own: the driver may commit at any time, its offset too.
                self._world.search._journal.commit(())
            self._fire(action)
            self.left = snapshot()
            self._world.dead = True
            raise Killed(str(place))

    def _between(self, world: World) -> None:
        action = self._due.get(("between", world.events, ""))
        if action is not None:
            done = {"RIVAL": _rival, "BUSY": _busy, "STALE": _stale, "STOP": _stop, "DOWN": _down}[action](
                world
            )
            self.excuses += action in ("RIVAL", "STOP")
            self.fenced |= action == "RIVAL"
            if done:
                self._fire(action)

    def _fire(self, action: str) -> None:
        self._played.fired.append(action)


def _rival(world: World) -> bool:
    """Another host's driver takes the study, as if our lock were not there, and is gone again."""
    with mock.patch.object(SqliteFile, "claim", lambda database: mock.Mock()):
        rival = Store(world.directory)
        rival.take(world.clock.read())
        rival._epoch = 0  # it leaves no other trace
        rival._connection.close()
        rival._engine.dispose()
    return True


def _busy(world: World) -> bool:
    """A second driver of this host is told to wait."""
    with mock.patch("hpsearch.study.sqlite.GLANCE", 0.0):
        try:
            stores.Store.open(world.directory).close()
        except StudyBusy:
            return True
    raise Violation("R16: a second driver got in while the first one worked")


def _stale(world: World) -> bool:
    """A node that was cut off is back: an attempt that is over reports, values and a checkpoint."""
    search = world.search
    assert search is not None
    for trial in search.trials.values():
        if trial.ending is None and len(trial.attempts) > 1:
            step = (trial.step or 0) + 1
            reports = [
                Report(Measurement(step, {"loss": 0.0, "accuracy": 1.0}, world.clock.read())),
                Report(
                    checkpoint=Checkpoint(step, 1, f"checkpoints/step-{step:08d}-attempt-1.pt", 1, "0" * 64)
                ),
            ]
            if search.measure(trial.number, 1, reports, world.clock.read()):
                raise Violation(f"D6: an old attempt of trial {trial.number} was told to go on")
            return True
    return False


def _stop(world: World) -> bool:
    """What a SIGTERM asks of the search."""
    assert world.search is not None
    world.search.stop(Outcome.INTERRUPTED, "interrupted by SIGTERM", world.clock.read())
    return True


def _down(world: World) -> bool:
    """The server refuses its next requests."""
    world.server.down = 5
    return True
