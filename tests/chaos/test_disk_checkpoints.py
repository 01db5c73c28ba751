"""Checkpoints that are damaged, gone, planted or superfluous: what a trial goes on from, and what stays."""

from __future__ import annotations

import os
import random
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import alone
import pytest

from hpsearch import faults, sweep
from hpsearch.errors import Interrupted
from hpsearch.spec.model import Keep, Selection
from hpsearch.spec.reading import parse
from hpsearch.study.home import Home
from hpsearch.study.retention import Retention
from hpsearch.study.trial import Checkpoint, Ending, Entry, Measurement, State, Study, Trial
from hpsearch.train import checkpoint, loop, snapshot

Fired = Callable[..., None]

LEARNER = """\
trainingInput:
  pythonModule: hpsearch.trainers.linear_regression
  args: ["--batch_size=6"]
  hyperparameters:
    goal: MINIMIZE
    hyperparameterMetricTag: rmse
    maxTrials: 2
    params:
      - {parameterName: learning_rate, type: DOUBLE, minValue: 0.001, maxValue: 0.01}
hpsearch:
  maxSteps: 60
  measureEvery: 10
  sampler: {type: RANDOM}
"""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody tells MLflow, and a checkpoint follows each measurement, written when the next one is due."""
    monkeypatch.setattr(sweep, "following", alone.unheard)
    monkeypatch.setattr(loop, "CHECKPOINT_SHARE", 1e9)
    offer = checkpoint.Writer.offer

    def at_once(self: checkpoint.Writer, step: int, data: memoryview) -> None:
        self._save(step, data)

    assert offer
    monkeypatch.setattr(checkpoint.Writer, "offer", at_once)


@pytest.fixture
def interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The directory of a study whose first trial was stopped at step 40, with checkpoints of 20 and 30."""
    file = alone.lay(tmp_path, LEARNER)
    # Commits: the launch, then a measurement and a checkpoint for each ten steps.
    monkeypatch.setattr(faults._board, "faults", faults.parse("store.commit:9:before=RAISE EIO"))
    faults._board.counts.clear()
    with pytest.raises(Interrupted):
        alone.play(file, tmp_path / "home")
    monkeypatch.setattr(faults._board, "faults", ())
    yield tmp_path / "home/s"
    faults._board.counts.clear()


def rows(study: Path, query: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(study / "study.db")) as connection:
        return connection.execute(query).fetchall()


def files(study: Path) -> list[str]:
    return sorted(
        path.relative_to(study / "trials").as_posix() for path in study.glob("trials/*/checkpoints/*")
    )


def spoil(path: Path, how: str) -> None:
    data = path.read_bytes()
    path.unlink()
    if how == "flipped":
        path.write_bytes(data[:100] + bytes([data[100] ^ 4]) + data[101:])
    elif how == "cut":
        path.write_bytes(data[:-7])
    elif how == "half uploaded":
        path.with_suffix(".writing").write_bytes(data[: len(data) // 2])


@pytest.mark.fault("F42", "F43")
@pytest.mark.parametrize("how", ["flipped", "cut", "deleted", "half uploaded"])
def test_a_spoilt_checkpoint_means_the_one_before_it_and_the_facts_say_so(
    tmp_path: Path, interrupted: Path, how: str, fired: Fired, caplog: pytest.LogCaptureFixture
) -> None:
    newest, before = rows(
        interrupted, "SELECT step, name FROM checkpoint WHERE trial = 0 ORDER BY step DESC LIMIT 2"
    )
    spoil(interrupted / "trials/0000" / newest[1], how)
    history = alone.play(tmp_path / "alone.yaml", interrupted.parent)
    told = [record.getMessage() for record in caplog.records]
    fired(any(f"{Path(newest[1]).name} cannot be used" in line for line in told))
    attempt = history.trials[0].attempts[1]
    assert attempt.resumed_from == before[0]
    [(trial, number, step, reason)] = rows(interrupted, "SELECT trial, attempt, step, reason FROM resumption")
    assert (trial, number, step) == (0, 2, before[0])
    assert f"going on from step {before[0]}" in reason
    assert all(trial.state is State.COMPLETED for trial in history.trials)


@pytest.mark.fault("F43")
def test_without_any_usable_checkpoint_a_trial_starts_again_and_says_so(
    tmp_path: Path, interrupted: Path, fired: Fired, caplog: pytest.LogCaptureFixture
) -> None:
    for path in interrupted.glob("trials/0000/checkpoints/*"):
        path.unlink()
    measured = rows(interrupted, "SELECT step, metric, value, time FROM measurement WHERE trial = 0")
    history = alone.play(tmp_path / "alone.yaml", interrupted.parent)
    fired(any("starting from step 0" in record.getMessage() for record in caplog.records))
    assert history.trials[0].attempts[1].resumed_from is None
    assert [row[:1] for row in rows(interrupted, "SELECT step FROM resumption")] == [(0,)]
    again = rows(interrupted, "SELECT step, metric, value, time FROM measurement WHERE trial = 0")
    assert set(measured) <= set(again), "what had been measured stays as it was"
    assert history.trials[0].state is State.COMPLETED


def test_an_attempt_after_a_fresh_start_goes_on_from_its_own_checkpoints(tmp_path: Path) -> None:
    from hpsearch.study.launching import newest

    spoilt = [Checkpoint(step, 1, f"a{step}", 1, "x") for step in (100, 200, 300)]
    good = Checkpoint(100, 2, "b100", 1, "x")
    assert newest([*spoilt, good]) == good


@pytest.mark.fault("F42")
def test_10000_flips_and_cuts_of_a_checkpoint_are_found_before_it_is_parsed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fired: Fired
) -> None:
    from hpsearch.trainers import linear_regression

    context = replace_context(tmp_path)
    learner = linear_regression.build({"learning_rate": 0.05, "batch_size": 6}, context)
    data = bytes(snapshot.take(learner, 10, {}))
    path = tmp_path / "step.pt"
    path.write_bytes(data)
    proof = checkpoint.hashlib.sha256(data).hexdigest()
    assert checkpoint.read(path, proof) == data
    monkeypatch.setattr(snapshot.torch, "load", lambda *_, **__: pytest.fail("it was parsed"))
    draw = random.Random(4)
    read, held, found = checkpoint.beneath.read, [b""], 0
    monkeypatch.setattr(checkpoint.beneath, "read", lambda *names: held[0] or read(*names))
    for number in range(10_000):
        if number % 10:
            place, bit = draw.randrange(len(data)), 1 << draw.randrange(8)
            damaged = data[:place] + bytes([data[place] ^ bit]) + data[place + 1 :]
        else:
            damaged = data[: draw.randrange(1, len(data))]
        held[0] = damaged
        if number % 100 == 0:  # and some on a disk
            path.write_bytes(damaged)
            held[0] = b""
        try:
            snapshot.parse(checkpoint.read(path, proof))
        except checkpoint.CheckpointError as error:
            found += "sha256 is" in str(error)
    fired(found == 10_000)


def replace_context(directory: Path) -> Any:
    from hpsearch.study.trial import Context

    return Context(0, 1, 0, 60, 10, directory)


# -- what stays -----------------------------------------------------------------------------------------


def study_of(directory: Path, keep: Keep = Keep.BEST, selection: Selection = Selection.LAST) -> Study:
    spec = parse(LEARNER, "x.yaml").spec
    assert spec
    return Study("s", "u", 1, replace(spec, checkpoints=keep, selection=selection), directory)


class Life:
    """A study's facts as they become durable, and the files that its trials write."""

    def __init__(
        self, directory: Path, keep: Keep = Keep.BEST, selection: Selection = Selection.LAST
    ) -> None:
        self.study, self.trials = study_of(directory, keep, selection), dict[int, Trial]()
        self.retention = Retention(self.study, self.trials)

    def begin(self, number: int) -> None:
        self.trials[number] = Trial(number, f"u-{number}", {"learning_rate": 0.05}, 1)

    def step(self, number: int, step: int, value: float, attempt: int = 1) -> None:
        trial = self.trials[number]
        name = f"checkpoints/step-{step:08d}-attempt-{attempt}.pt"
        path = self.study.directory / "trials" / f"{number:04d}" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
        made = Checkpoint(step, attempt, name, 1, "x")
        trial.measurements.append(Measurement(step, {"rmse": value}, 1))
        trial.checkpoints.append(made)
        self.retention.take([Entry(number, made)])

    def end(self, number: int, state: State = State.COMPLETED) -> None:
        ending = Ending(state, "so", 1)
        self.retention.take([Entry(number, ending)])
        self.trials[number].ending = ending

    def left(self) -> list[str]:
        return [
            name.replace("checkpoints/step-0000", "").replace(".pt", "")
            for name in files(self.study.directory)
        ]


def test_while_a_trial_runs_its_newest_two_stay(tmp_path: Path) -> None:
    life = Life(tmp_path)
    life.begin(0)
    for step in (10, 20, 30, 40):
        life.step(0, step, 1.0)
    assert life.left() == ["0000/0030-attempt-1", "0000/0040-attempt-1"]


def test_the_best_value_so_far_keeps_its_checkpoint_where_the_best_counts(tmp_path: Path) -> None:
    life = Life(tmp_path, selection=Selection.BEST)
    life.begin(0)
    for step, value in ((10, 3.0), (20, 1.0), (30, 2.0), (40, 4.0), (50, 5.0)):
        life.step(0, step, value)
    assert life.left() == ["0000/0020-attempt-1", "0000/0040-attempt-1", "0000/0050-attempt-1"]
    life.end(0)
    assert life.left() == ["0000/0020-attempt-1"]


@pytest.mark.parametrize(
    ("keep", "left"),
    [
        (Keep.BEST, ["0001/0020-attempt-1"]),
        (Keep.EACH, ["0000/0020-attempt-1", "0001/0020-attempt-1", "0003/0020-attempt-1"]),
        (Keep.NONE, []),
        (Keep.ALL, [f"000{n}/00{s}-attempt-1" for n in range(4) for s in (10, 20)]),
    ],
)
def test_of_ended_trials_stays_what_the_file_asks_for(tmp_path: Path, keep: Keep, left: list[str]) -> None:
    life = Life(tmp_path, keep)
    for number, value in enumerate((2.0, 1.0, 0.5, 3.0)):
        life.begin(number)
        life.step(number, 10, value)
        life.step(number, 20, value)
        life.end(number, State.PRUNED if number == 2 else State.COMPLETED)
    if keep is Keep.EACH:
        left = [*left[:2], "0002/0020-attempt-1", left[2]]
    assert life.left() == left
    Retention(life.study, life.trials)
    assert life.left() == left, "the next start comes to the same"


def test_a_start_sweeps_only_files_of_ours_that_no_fact_speaks_of(tmp_path: Path) -> None:
    life = Life(tmp_path)
    life.begin(0)
    life.step(0, 10, 1.0)
    place = tmp_path / "trials/0000/checkpoints"
    for name in ("step-00000020-attempt-1.pt", "step-00000030-attempt-1.writing"):
        (place / name).write_bytes(b"half")
    own = ["best.ckpt", "step-1-attempt-1.pt", "step-00000020-attempt-1.pt.bak", "model"]
    for name in own:
        (place / name).write_bytes(b"the user's")
    Retention(life.study, life.trials)
    assert {path.name for path in place.iterdir()} == {*own, "step-00000010-attempt-1.pt"}


def test_files_of_rows_that_are_gone_are_not_what_a_best_trial_keeps(tmp_path: Path) -> None:
    life = Life(tmp_path)
    life.begin(0)
    life.step(0, 10, 1.0)
    life.step(0, 20, 1.0)
    (tmp_path / "trials/0000/checkpoints/step-00000020-attempt-1.pt").unlink()
    life.trials[0].ending = Ending(State.COMPLETED, "so", 1)
    Retention(life.study, life.trials)
    assert life.left() == ["0000/0010-attempt-1"], "the only one there is stays"


@pytest.mark.parametrize("planted", ["trials", "trials/0000", "trials/0000/checkpoints", "the file"])
def test_nothing_is_deleted_through_a_link(tmp_path: Path, planted: str) -> None:
    outside = tmp_path / "outside"
    life = Life(tmp_path / "study")
    life.begin(0)
    life.step(0, 10, 1.0)
    own = tmp_path / "study/trials/0000/checkpoints/step-00000010-attempt-1.pt"
    if planted == "the file":
        outside.mkdir()
        canary = outside / own.name
        canary.write_bytes(b"canary")
        own.unlink()
        own.symlink_to(canary)
    else:
        (tmp_path / "study" / planted).rename(outside)
        (tmp_path / "study" / planted).symlink_to(outside)
        [canary] = outside.rglob("*.pt")
    life.end(0, State.FAILED)
    Retention(life.study, life.trials)
    assert canary.exists()


def test_a_row_comes_before_the_file_that_it_supersedes_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []
    unlink = os.unlink

    def look(name: Any, **where: Any) -> None:
        if str(name).endswith(".pt"):
            known = {
                Path(n).name: s for n, s in rows(tmp_path / "home/s", "SELECT name, step FROM checkpoint")
            }
            ended = rows(tmp_path / "home/s", "SELECT count(*) FROM ending")[0][0]
            later = [step for step in known.values() if step > known[str(name)]]
            seen.append(len(later) >= 2 or ended > 0)
        unlink(name, **where)

    monkeypatch.setattr(os, "unlink", look)
    alone.play(alone.lay(tmp_path, LEARNER), tmp_path / "home")
    assert len(seen) > 5
    assert all(seen)


def test_an_ended_study_holds_one_checkpoint_and_a_running_one_two_for_each_trial(tmp_path: Path) -> None:
    text = LEARNER.replace("maxTrials: 2", "maxTrials: 6")
    history = alone.play(alone.lay(tmp_path, text), tmp_path / "home")
    [left] = files(tmp_path / "home/s")
    from hpsearch.study.front import best_of

    best = best_of(history.trials, history.study)
    assert best is not None
    assert left == f"{best.number:04d}/checkpoints/step-00000060-attempt-1.pt"
    assert len(rows(tmp_path / "home/s", "SELECT name FROM checkpoint")) == 36
    assert Home(tmp_path / "home").history("s").ending is not None
