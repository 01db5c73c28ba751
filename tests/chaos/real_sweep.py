"""A sweep of real drivers that are killed again and again, and what must be true after each kill."""

from __future__ import annotations

import random
import sqlite3
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zygote import Zygote

from hpsearch.show.answers import state
from hpsearch.study.history import History, StoreReader
from hpsearch.study.trial import State

sys.path.insert(0, str(Path(__file__).parents[1]))
from test_sweep import assert_mlflow_equals_store

STUDY = "s"
WORDS = ("run", "toy.yaml", "--local", "--study", STUDY, "--resume", "auto")
ORPHANS = 10.0  # seconds after which nothing may be left

Event = tuple[str, str, str, bool]  # point, count, phase, whether in the driver


@dataclass
class Sweep:
    """One study in one directory, and all faults that fired in its lives."""

    zygote: Zygote
    directory: Path
    fired: list[str] = field(default_factory=list)
    lives: int = 0
    kept: dict[int, Any] = field(default_factory=dict)

    @property
    def home(self) -> Path:
        return self.directory / "studies"

    def live(self, *faults: str, trace: Path | None = None) -> int:
        """One life of the study's driver, with faults; its exit code."""
        self.lives += 1
        said = self.directory / f"fired-{self.lives}"
        environment = {"HPSEARCH_TESTING": "1", "HPSEARCH_FAIL": ",".join(faults)}
        environment |= {"HPSEARCH_FAIL_FIRED": str(said)}
        if trace:
            environment["HPSEARCH_FAIL_TRACE"] = str(trace)
        driver = self.zygote.start(*WORDS, cwd=self.directory, environment=environment)
        code = driver.wait(60)
        self.fired += said.read_text().splitlines() if said.exists() else []
        assert code in (0, -9), f"exit {code} after {faults}:\n{driver.said()}"
        return code

    def history(self) -> History | None:
        """All that the store knows, every row of it proven; None before there is a study."""
        if not (self.home / STUDY / "study.db").exists():
            return None
        try:
            reader = StoreReader(self.home / STUDY)
        except Exception as error:  # a file without tables is no study yet
            assert "no study" in str(error), error
            return None
        try:
            return reader.history()
        finally:
            reader.close()

    def ledger(self, trial: int) -> list[tuple[int, int, int]]:
        """What really ran of a trial: (attempt, step, pid)."""
        path = self.home / STUDY / f"trials/{trial:04d}/ledger"
        lines = path.read_text().splitlines() if path.exists() else []
        return [tuple(map(int, line.split())) for line in lines]  # type: ignore[misc]

    def check_after_a_kill(self) -> None:
        """Nothing that was acknowledged is gone or changed, nothing is there twice, nobody lives on."""
        self._no_orphans()
        history = self.history()
        if history is None:
            assert not self.kept
            return
        endings = {t.number: t.ending for t in history.trials if t.ending}
        assert self.kept.items() <= endings.items(), "an ending was lost or changed"
        self.kept = endings
        assert len({t.uid for t in history.trials}) == len(history.trials)
        assert state(history, owned=False) in ("interrupted", "completed")
        for trial in history.trials:
            self._check_ledger(trial, history)

    def _check_ledger(self, trial: Any, history: History) -> None:
        """No step up to a checkpoint that the store knew is trained again, and no completed trial at all."""
        ran = self.ledger(trial.number)
        starts = {each.number: each.resumed_from or 0 for each in trial.attempts}
        if (self.directory / "programs").exists():
            return
        for attempt, step, _ in ran:
            assert step > starts[attempt], f"trial {trial.number}, attempt {attempt} ran step {step} again"
        for earlier, later in zip(trial.attempts, trial.attempts[1:], strict=False):
            known = [c.step for c in trial.checkpoints if c.attempt <= earlier.number]
            assert starts[later.number] == max(known, default=0), "it did not go on from the last checkpoint"

    def again(self) -> int:
        """How many steps ran more than once, in all trials."""
        history = self.history()
        assert history
        steps = [[step for _, step, _ in self.ledger(t.number)] for t in history.trials]
        return sum(len(each) - len(set(each)) for each in steps)

    def _no_orphans(self) -> None:
        pids = {pid for path in self.home.glob(f"{STUDY}/trials/*/ledger") for *_, pid in _lines(path)}
        deadline = time.monotonic() + ORPHANS
        while left := [pid for pid in pids if _is_ours(pid, self.directory)]:
            assert time.monotonic() < deadline, f"processes {left} live on"
            time.sleep(0.02)

    def outcome(self) -> list[tuple[Any, ...]]:
        """The params and the final value of each trial, whatever its number."""
        history = self.history()
        assert history
        assert all(t.state is State.COMPLETED for t in history.trials)
        found = [(t.params["x"], t.params["layers"], t.step, t.values("loss")[-1]) for t in history.trials]
        return sorted(found)

    def check_the_end(self, expected: Sequence[tuple[Any, ...]]) -> None:
        """As if nothing had happened."""
        self.check_after_a_kill()
        assert self.outcome() == list(expected)
        assert_mlflow_equals_store(self.home, STUDY, len(expected))
        connection = sqlite3.connect(self.home / "mlflow.db")
        running = connection.execute("SELECT count(*) FROM runs WHERE status = 'RUNNING'").fetchone()
        connection.close()
        assert running == (0,)


def events(trace: Path) -> list[Event]:
    """What happened in an uninterrupted run, in order; the driver is the process that began."""
    lines = [line.split() for line in trace.read_text().splitlines()]
    driver = lines[0][3]
    return [(point, count, phase, pid == driver) for point, count, phase, pid in lines]


def kill_often(sweep: Sweep, trace: Sequence[Event], kills: int, seed: int) -> None:
    """Kill the drivers of a sweep, and trials' processes where it has them, at events drawn from a trace."""
    drawn = random.Random(seed)
    drivers = [each[:3] for each in trace if each[3]]
    workers = [each[:3] for each in trace if not each[3]]
    while True:
        history = sweep.history()
        ended = sum(t.ending is not None for t in history.trials) if history else 0
        total = history.study.spec.max_trials if history else 24
        missing = kills - len(sweep.fired)
        if missing <= 0:
            break
        # So early that what is left of the sweep is enough for the kills that are still to come.
        window = max(8, int(len(drivers) * (total - ended) / total / (missing + 1) * 1.5))
        faults = ["{}:{}:{}=KILL".format(*drawn.choice(drivers[:window]))]
        if workers and drawn.random() < 0.5:
            faults.append("{}:{}:{}=KILL".format(*drawn.choice(workers)))
        if sweep.live(*faults) == 0:
            return
        sweep.check_after_a_kill()
    assert sweep.live() == 0


def _lines(path: Path) -> list[list[int]]:
    return [list(map(int, line.split())) for line in path.read_text().splitlines()]


def _is_ours(pid: int, directory: Path) -> bool:
    """Whether a living process is of this sweep, and not one that got its number later."""
    try:
        return Path(f"/proc/{pid}/cwd").readlink().is_relative_to(directory)
    except OSError:
        return False
