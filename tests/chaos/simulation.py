"""A whole world in one process: a study's driver, its trials, its files, a tracking server, and kills.

The driver is the product's own (`sweep._drive` and all below it); only time, the trials' processes and the
server are simulated. A kill never unwinds into what counts: what is durable is copied at the point, the life
goes on or is thrown away, and the next one starts from the copy.
"""

from __future__ import annotations

import contextlib
import functools
import os
import random
import shutil
import threading
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import scenes
import sqlalchemy
from mlflow_double import ENTITIES, Server
from scenes import Scene

from hpsearch import faults, revising, sweep
from hpsearch.errors import HpsearchError
from hpsearch.run.simulated import Clock, Stage
from hpsearch.study import sampling, sqlite, wal
from hpsearch.study.birth import versions
from hpsearch.study.history import History
from hpsearch.study.home import Home
from hpsearch.study.journal import Waiting
from hpsearch.study.launching import trial_key
from hpsearch.study.search import Search
from hpsearch.study.trial import Attempt, Checkpoint, Context, Ending, Entry, Launch, Outcome, Study, Trial
from hpsearch.track import following, outbox
from hpsearch.track.delivery import Forgotten
from hpsearch.track.runs import Runs
from hpsearch.train import checkpoint

NAME, URI = "sim", "http://mlflow.invalid"
SHM = Path("/dev/shm")
UNCOPIED = {"study.db-shm", "lock"}  # made anew from the log; gone with its process
WAL = "study.db-wal"
FLUSH = 6  # events between two looks of the outbox
VERSIONS = versions()

Hook = Callable[[str, int, str], None]


class Killed(BaseException):
    """SIGKILL: nothing that happens while it passes counts any more."""


class Violation(AssertionError):
    """What a life did that no life may do."""


@dataclass(slots=True)
class Witness:
    """What the outside has seen, which no kill takes back: facts that were acknowledged, and kills."""

    endings: dict[int, Ending] = field(default_factory=dict)
    attempts: set[tuple[int, int]] = field(default_factory=set)
    suggested: dict[int, Any] = field(default_factory=dict)
    kills: int = 0
    refused: int = 0  # checkpoints that could not be written
    exits: tuple[int, ...] = ()

    def copy(self) -> Witness:
        """The same, to go on from."""
        return Witness(
            dict(self.endings), set(self.attempts), dict(self.suggested), self.kills, self.refused, self.exits
        )


@dataclass(slots=True)
class Snapshot:
    """All that outlives a kill: files of the study, the server, the trials' ledger, time, and the witness."""

    files: dict[str, bytes]
    server: bytes
    ledger: bytes
    now: int
    births: dict[int, int]
    witness: Witness
    version: int = 0

    def key(self) -> tuple[object, ...]:
        """Equal for states from which the same follows."""
        files = tuple((name, len(data), zlib.crc32(data)) for name, data in sorted(self.files.items()))
        return files, self.version, len(self.ledger)


class World:
    """One study in a directory of its own on a memory file system, and all that is around it."""

    def __init__(self, scene: Scene, root: Path) -> None:
        self.scene = scene
        self.root = root
        self.home = root / "studies"
        self.directory = self.home / NAME
        self.server = Server()
        self.clock = Clock(scenes.START)
        self.witness = Witness()
        self.search: Search | None = None
        self.sampler: Any = None
        self.pruner: Any = None
        self.outbox: Any = None
        self.history: History | None = None
        self.error: HpsearchError | None = None
        self.dead = False
        self.broken: AssertionError | None = None
        self.patience = 300
        self.stale: Callable[[World], None] | None = None
        self.events = 0
        self.flush = FLUSH
        self.together = scene.together
        self._ledger = os.open(root / "ledger", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    # lives ------------------------------------------------------------------------------------------

    def live(self, hook: Hook | None = None) -> int:
        """One life of the driver, to its end; its exit code. Raises Killed where the hook does."""
        # Acknowledged long ago, by a life that may be another process's.
        with self._staged(), faults.watched(hook or (lambda point, count, phase: None)):
            try:
                result = self._drive()
            except HpsearchError as error:
                code, self.error = error.exit_code, error
            except BaseException:
                if not self.dead:
                    raise
            else:
                code = sweep.EXIT_CODES[result.ending.outcome]
                self.history = result.history
        if self.broken is not None:
            raise self.broken
        if self.dead:
            # The kill has passed through the product's own clean-up, which may have raised something else.
            self.witness.kills += 1
            raise Killed
        self.witness.exits = (*self.witness.exits, code)
        return code

    def _drive(self) -> sweep.Result:
        options = sweep.Options(home=self.home, local=True)
        if (self.directory / "study.db").exists():
            return sweep.resume(NAME, options, self)
        spec = scenes.spec_of(self.scene)
        study = Study(NAME, f"uid{self.scene.seed}", self.clock.read(), spec, self.directory, None, VERSIONS)
        return sweep._drive(Home(self.home).create(study, URI), options, self, resumed=False)

    @contextlib.contextmanager
    def _staged(self) -> Iterator[None]:
        """Within it the product meets this world in place of the real one."""

        def sampler(spec: Any) -> Any:
            self.sampler = _Sampler(spec, self)
            return self.sampler

        def make_pruner(spec: Any) -> Any:
            self.pruner = _make_pruner(spec)
            return self.pruner

        _make_pruner = sweep.make_pruner
        with (
            mock.patch.multiple(
                sweep,
                now=self.clock.read,
                _execute=self._execute,
                _check_trainer=lambda *_: None,
                heard_signals=lambda stop: contextlib.nullcontext(),
                OptunaSampler=sampler,
                make_pruner=make_pruner,
                Waiting=lambda unwanted: Waiting(self.patience, 1.0, unwanted, *_time()),
            ),
            mock.patch.object(following, "Outbox", self._make_outbox),
            mock.patch.object(wal, "_add", swiftly_added),
            mock.patch.object(sqlite, "create_engine", _engine),
            mock.patch.object(revising, "versions", lambda: VERSIONS),
        ):
            yield

    def _make_outbox(self, *args: Any, **options: Any) -> Any:
        self.outbox = _Outbox(self, *args, **options)
        return self.outbox

    def _execute(self, search: Search, options: object) -> None:
        self.search = search
        stage = Stage(search, self._cast, self.clock, self._executed, self._between)
        stage.play()

    def _cast(self, launch: Launch) -> Any:
        number, attempt = launch.context.number, launch.context.attempt
        if (number, attempt) not in self.witness.attempts:
            raise Violation(f"D1: attempt {attempt} of trial {number} was launched before it was committed")
        return replace(scenes.part_of(self.scene, launch), together=self.together)

    def _executed(self, context: Context, step: int) -> None:
        os.write(self._ledger, f"{context.number} {context.attempt} {step}\n".encode())

    def _between(self) -> None:
        self.events += 1
        if self.stale is not None:
            self.stale(self)
        if self.events % self.flush == 0:
            self.outbox.pump()

    # the driver's onlooker --------------------------------------------------------------------------

    def warned(self, file: str, warnings: Sequence[object]) -> None:
        """Nothing to tell."""

    def started(self, study: Study, search: Search, tracking_uri: str, resumed: bool) -> None:
        """What was acknowledged before a kill must be there after it, not only be found again later."""
        for number, ending in self.witness.endings.items():
            there = search.trials[number].ending if number in search.trials else None
            if there != ending:
                raise Violation(f"D1: trial {number} was acknowledged as {ending} before that was durable")
        for number, attempt in self.witness.attempts:
            if number not in search.trials or len(search.trials[number].attempts) < attempt:
                raise Violation(
                    f"D1: attempt {attempt} of trial {number} was acknowledged before it was durable"
                )

    def stopped(self) -> None:
        """Nothing to tell."""

    def committed(self, entries: Sequence[Entry]) -> None:
        """Facts are acknowledged."""
        for entry in entries:
            if isinstance(entry.fact, Trial):
                self.witness.suggested[entry.fact.number] = dict(entry.fact.params)
            elif isinstance(entry.fact, Attempt) and entry.trial is not None:
                self.witness.attempts.add((entry.trial, entry.fact.number))
            elif isinstance(entry.fact, Ending) and entry.trial is not None:
                self.witness.endings[entry.trial] = entry.fact
            elif isinstance(entry.fact, Checkpoint) and entry.trial is not None:
                self._see(self.directory / trial_key(entry.trial) / entry.fact.name, entry.fact.sha256)

    def _see(self, path: Path, sha256: str) -> None:
        try:
            checkpoint.read(path, sha256)
        except checkpoint.CheckpointError as error:
            raise Violation(f"D1: the row of {path.name} was committed before its file: {error}") from None

    # copies -----------------------------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        """What a SIGKILL at this moment would leave."""
        files = {}
        for directory, _, names in os.walk(self.directory):
            below = os.path.relpath(directory, self.directory)
            for name in set(names) - UNCOPIED:
                path = f"{below}/{name}" if below != "." else name
                files[path] = (self.directory / path).read_bytes()
        clock = self.clock
        return Snapshot(
            files,
            self.server.snapshot(),
            (self.root / "ledger").read_bytes(),
            clock.now,
            dict(clock.births),
            self.witness.copy(),
            self.server.version,
        )

    def close(self) -> None:
        """Give it back."""
        os.close(self._ledger)
        shutil.rmtree(self.root, ignore_errors=True)


@contextlib.contextmanager
def world_of(scene: Scene, snapshot: Snapshot | None = None) -> Iterator[World]:
    """A fresh world, or one as a kill left it."""
    root = SHM / f"hpsearch-sim-{os.getpid()}-{next(_numbers)}"
    root.mkdir(mode=0o700)
    if snapshot is not None:
        _write(root / "studies" / NAME, snapshot.files)
        (root / "ledger").write_bytes(snapshot.ledger)
    world = World(scene, root)
    world.clock.stamp = scenes.stamp_of(scene)
    if snapshot is not None:
        world.server = Server.of(snapshot.server)
        world.clock.now, world.clock.births = snapshot.now, dict(snapshot.births)
        world.witness = snapshot.witness.copy()
    try:
        yield world
    finally:
        world.close()


_numbers = iter(range(10**9))


def _write(directory: Path, files: dict[str, bytes]) -> None:
    for parent in {(directory / name).parent for name in files}:
        parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name, data in files.items():
        (directory / name).touch(mode=0o600)
        (directory / name).write_bytes(data)


# doubles around the product ----------------------------------------------------------------------------


def _time() -> tuple[Callable[[], float], Callable[[float], None]]:
    """A clock that only sleeping moves."""
    slept: list[float] = []
    return lambda: sum(slept), slept.append


class _Sampler(sampling.OptunaSampler):
    """The real sampler, which must be told of no ending that was not acknowledged."""

    def __init__(self, spec: Any, world: World) -> None:
        super().__init__(spec)
        self.world = world

    def ended(self, trial: Trial) -> None:
        if trial.number not in self.world.witness.endings:
            raise Violation(
                f"D1: the sampler heard of the end of trial {trial.number} before it was committed"
            )
        super().ended(trial)


class _Runs(Runs):
    """The real door, with a server in memory behind it."""

    def connect(self) -> None:
        self._entities = ENTITIES

    def keep_text(self, run_id: str, text: str, name: str) -> None:
        pass

    def settle(self) -> None:
        pass


class _Instant(threading.Event):
    """An event that nobody waits for: what a pause is for has happened."""

    def wait(self, timeout: float | None = None) -> bool:
        return self.is_set()


class _Outbox(outbox.Outbox):
    """The real outbox without its thread: its body is called between the events of a study."""

    def __init__(self, world: World, *args: Any, **options: Any) -> None:
        with mock.patch.object(outbox, "Runs", _Runs):
            super().__init__(*args, **options)
        self._world = world
        self._runs._client = world.server
        self._patience.closing = _Instant()
        self._found = False

    def _keeper(self) -> threading.Thread:
        return mock.Mock(spec=threading.Thread)

    def start(self) -> None:
        pass

    def pump(self) -> int:
        """Tell the server what was committed since the last time."""
        while True:
            try:
                if not self._found:
                    self._open()
                    self._found = True
                return self._step()
            except Forgotten:
                self._found, self._offset, self._parent_run_id = False, 0, None

    def close(self, timeout: float, *_: object) -> bool:
        if self._world.dead:
            return False
        while self.pump():
            pass
        return True


_first: list[Any] = []


def _engine(*args: Any, **options: Any) -> Any:
    """An engine that compiles no statement which another life has compiled before."""
    engine = sqlalchemy.create_engine(*args, **options)
    if not _first:
        _first.append(engine)
    engine.dialect, engine._compiled_cache = _first[0].dialect, _first[0]._compiled_cache
    return engine


@functools.cache
def _weights(pairs: int) -> Any:
    """What each pair of words adds to the two sums of a log's checksum, which is linear modulo 2^32."""
    step, power = np.array([[1, 1], [1, 2]], dtype=np.uint32), np.eye(2, dtype=np.uint32)
    rows = np.empty((pairs, 2, 2), dtype=np.uint32)
    for row in range(pairs - 1, -1, -1):
        rows[row] = power
        power = power @ step
    first, second = rows[:, :, 0], rows[:, :, 1]  # of the pair's (x, x + y)
    return np.ascontiguousarray((first + second).T), np.ascontiguousarray(second.T), power


def swiftly_added(seed: tuple[int, int], content: bytes, order: str) -> tuple[int, int]:
    """`wal._add`, a hundred times as fast: a simulation opens a log of megabytes at each kill."""
    words = np.frombuffer(content, dtype=f"{order}u4").astype(np.uint32)
    x, y, power = _weights(len(words) // 2)
    sums = x @ words[0::2] + y @ words[1::2] + power @ np.array(seed, dtype=np.uint32)
    return int(sums[0]), int(sums[1])


# kills -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Place:
    """One phase of one event of a life: the unit of what can be killed."""

    point: str
    count: int
    phase: str
    torn: str = ""

    def __str__(self) -> str:
        return f"{self.point}:{self.count}:{self.phase}{self.torn and f' ({self.torn})'}"


Visit = Callable[[Place, Callable[[], Snapshot]], None]


def places(world: World, visit: Visit) -> Hook:
    """A hook that shows every place of a life, with what a kill there would leave.

    Inside of a commit that is the log with a part of the last transaction's bytes, cut at a drawn place.
    """
    before: dict[str, bytes] = {}
    draw = random.Random(world.scene.seed)

    def hook(point: str, count: int, phase: str) -> None:
        nonlocal before
        if world.dead:
            return
        if point == "store.commit" and phase == "before":
            before = world.snapshot().files
        if point == "store.commit" and phase == "after":
            for torn in _torn(before, world.snapshot(), draw):
                show(Place(point, count, "inside", torn[0]), lambda torn=torn: torn[1])
        show(Place(point, count, phase), world.snapshot)

    def show(place: Place, snapshot: Callable[[], Snapshot]) -> None:
        try:
            visit(place, snapshot)
        except AssertionError as error:
            world.broken = world.broken or error
            world.dead = True
            raise

    return hook


def _torn(before: dict[str, bytes], after: Snapshot, draw: random.Random) -> Iterator[tuple[str, Snapshot]]:
    """What a kill in the middle of a commit leaves: a part of its log, or all and a part of the database."""
    old, new = before.get(WAL, b""), after.files.get(WAL, b"")
    low, high = _changed(old, new)
    if low < high:
        cut = draw.randrange(low, high)
        files = {**before, WAL: new[:cut] + old[cut:]}
        # What the commit would have acknowledged is not: it happens after.
        yield f"log cut at byte {cut - low} of {high - low}", _with(after, files)
    old, new = before.get("study.db", b""), after.files["study.db"]
    if old != new:
        low, high = _changed(old, new)
        cut = draw.randrange(low, high)
        yield (
            f"checkpoint cut at byte {cut}",
            _with(after, {**after.files, "study.db": new[:cut] + old[cut:]}),
        )


def _with(snapshot: Snapshot, files: dict[str, bytes]) -> Snapshot:
    return Snapshot(
        files,
        snapshot.server,
        snapshot.ledger,
        snapshot.now,
        snapshot.births,
        snapshot.witness,
        snapshot.version,
    )


def _changed(old: bytes, new: bytes) -> tuple[int, int]:
    """The first byte that differs and the one behind the last, of the new bytes."""
    if new[: len(old)] == old:
        return len(old), len(new)
    block = 4096
    starts = range(0, len(new), block)
    differ = [start for start in starts if old[start : start + block] != new[start : start + block]]
    if not differ:
        return 0, 0
    return differ[0], min(differ[-1] + block, len(new))


def killed_at(world: World, number: int) -> Snapshot | None:
    """Kill a life at its n-th place; what is left, None if it ended before."""
    left: list[Snapshot] = []
    seen = 0

    def visit(place: Place, snapshot: Callable[[], Snapshot]) -> None:
        nonlocal seen
        seen += 1
        if seen == number:
            left.append(snapshot())
            world.dead = True
            raise Killed(str(place))

    try:
        world.live(places(world, visit))
    except Killed:
        left[0].witness.kills = world.witness.kills
        return left[0]
    return None


def trace(scene: Scene) -> list[Place]:
    """All the places of a study that nobody kills, in their order."""
    seen: list[Place] = []
    with world_of(scene) as world:
        world.live(lambda point, count, phase: seen.append(Place(point, count, phase)))
    return seen


def counts(seen: Sequence[Place]) -> Counter[str]:
    """How many events of each point there are."""
    return Counter(place.point for place in seen if place.phase == "before")


FINAL = {sweep.EXIT_CODES[outcome] for outcome in (Outcome.COMPLETED, Outcome.FAILED)}
