"""Checkpoints in a bucket that are damaged, gone or not listed: what a trial goes on from, and what stays."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import alone
import pytest
from test_disk_checkpoints import LEARNER, Life, quick, rows, study_of

from hpsearch import faults, sweep
from hpsearch.errors import Interrupted
from hpsearch.spec.model import Keep, Selection
from hpsearch.study.history import History
from hpsearch.study.retention import Retention
from hpsearch.study.storage import Bucket
from hpsearch.study.trial import Checkpoint, Entry, Measurement, State, Trial

__all__ = ["quick"]

Fired = Callable[..., None]


def play(tmp_path: Path, bucket: str) -> History:
    """Run or go on with a study whose trials keep their files in a bucket."""
    options = sweep.Options(tmp_path / "home", "s", "auto", local=True, storage=bucket)
    return sweep.run(tmp_path / "alone.yaml", options, alone.Quiet()).history


def in_bucket(tmp_path: Path) -> Bucket:
    """Where the study's trials keep them."""
    [(storage,)] = rows(tmp_path / "home/s", "SELECT storage FROM study")
    return Bucket(storage)


def left(there: Bucket) -> list[str]:
    found = there.keys()
    return sorted(key.partition("/checkpoints/")[2] for key in found if "/checkpoints/" in key)


@pytest.fixture
def interrupted(tmp_path: Path, bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """The files of a study whose first trial was stopped at step 40, with checkpoints of 20 and 30."""
    alone.lay(tmp_path, LEARNER)
    # Commits: the launch, then a measurement and a checkpoint for each ten steps.
    monkeypatch.setattr(faults._board, "faults", faults.parse("store.commit:9:before=RAISE EIO"))
    faults._board.counts.clear()
    with pytest.raises(Interrupted):
        play(tmp_path, bucket)
    monkeypatch.setattr(faults._board, "faults", ())
    yield in_bucket(tmp_path)
    faults._board.counts.clear()


def spoil(there: Bucket, key: str, how: str) -> None:
    data = there.read(key)
    there.remove([key])
    if how == "flipped":
        there.write(key, data[:100] + bytes([data[100] ^ 4]) + data[101:])
    elif how == "half uploaded":
        there.write(key, data[: len(data) // 2])


@pytest.mark.fault("F42", "F43")
@pytest.mark.parametrize("how", ["flipped", "half uploaded", "deleted"])
def test_a_spoilt_object_means_the_checkpoint_before_it_and_the_facts_say_so(
    tmp_path: Path,
    bucket: str,
    interrupted: Bucket,
    how: str,
    fired: Fired,
    caplog: pytest.LogCaptureFixture,
) -> None:
    newest, before = rows(
        tmp_path / "home/s", "SELECT step, name FROM checkpoint WHERE trial = 0 ORDER BY step DESC LIMIT 2"
    )
    spoil(interrupted, f"trials/0000/{newest[1]}", how)
    history = play(tmp_path, bucket)
    told = [record.getMessage() for record in caplog.records]
    fired(any(f"{Path(newest[1]).name} cannot be used" in line for line in told))
    assert history.trials[0].attempts[1].resumed_from == before[0]
    assert all(trial.state is State.COMPLETED for trial in history.trials)
    assert len(left(interrupted)) == 1, "the best trial's checkpoint stays, and it alone"


@pytest.mark.fault("F43")
def test_without_any_usable_object_a_trial_starts_again_and_says_so(
    tmp_path: Path, bucket: str, interrupted: Bucket, fired: Fired, caplog: pytest.LogCaptureFixture
) -> None:
    interrupted.remove(interrupted.keys())
    history = play(tmp_path, bucket)
    fired(any("starting from step 0" in record.getMessage() for record in caplog.records))
    assert history.trials[0].attempts[1].resumed_from is None
    assert history.trials[0].state is State.COMPLETED


@pytest.mark.fault("F44")
@pytest.mark.parametrize("listing", ["stale", "refused"])
def test_a_resume_goes_on_from_what_no_listing_shows(
    tmp_path: Path,
    bucket: str,
    interrupted: Bucket,
    listing: str,
    monkeypatch: pytest.MonkeyPatch,
    fired: Fired,
) -> None:
    asked = spoilt_listing(monkeypatch, listing)
    history = play(tmp_path, bucket)
    fired(asked != [])
    assert history.trials[0].attempts[1].resumed_from == 30
    assert all(trial.state is State.COMPLETED for trial in history.trials)


def spoilt_listing(monkeypatch: pytest.MonkeyPatch, how: str) -> list[str]:
    """The first listing shows nothing, or is an error; the others are true. Which were asked for."""
    keys, asked = Bucket.keys, list[str]()

    def listed(self: Bucket, below: str = "") -> set[str]:
        asked.append(below)
        if len(asked) > 1:
            return keys(self, below)
        if how == "refused":
            raise OSError("503")
        return set()

    monkeypatch.setattr(Bucket, "keys", listed)
    return asked


class Bucketful(Life):
    """The facts of a study whose trials have their files in a bucket."""

    def __init__(self, url: str, directory: Path, selection: Selection = Selection.LAST) -> None:
        super().__init__(directory, Keep.BEST, selection)
        self.study = replace(study_of(directory, Keep.BEST, selection), storage=url)
        self.there = Bucket(url)
        self.again()

    def again(self) -> None:
        """The next life."""
        self.retention = Retention(self.study, self.trials)

    def step(self, number: int, step: int, value: float, attempt: int = 1) -> None:
        name = f"checkpoints/step-{step:08d}-attempt-{attempt}.pt"
        self.there.write(f"trials/{number:04d}/{name}", b"x")
        made = Checkpoint(step, attempt, name, 1, "x")
        self.trials[number].measurements.append(Measurement(step, {"rmse": value}, 1))
        self.trials[number].checkpoints.append(made)
        self.retention.take([Entry(number, made)])

    def left(self) -> list[str]:
        self.retention.finish()
        return left(self.there)


@pytest.mark.fault("F44")
@pytest.mark.parametrize("listing", ["stale", "refused"])
def test_what_a_listing_hid_at_the_start_is_kept_when_its_trial_ends(
    tmp_path: Path, bucket: str, listing: str, monkeypatch: pytest.MonkeyPatch, fired: Fired
) -> None:
    """A trial was killed between its last checkpoint and its ending: the next attempt writes none."""
    life = Bucketful(bucket, tmp_path)
    life.trials[0] = Trial(0, "u-0", {"learning_rate": 0.05}, 1)
    for step in (40, 50, 60):
        life.step(0, step, 1.0)
    life.retention.finish()
    asked = spoilt_listing(monkeypatch, listing)
    life.again()
    life.end(0)
    assert life.left() == ["step-00000060-attempt-1.pt"]
    fired(len(asked) > 1)


@pytest.mark.fault("F44")
def test_the_best_step_that_a_listing_hid_keeps_its_checkpoint(
    tmp_path: Path, bucket: str, monkeypatch: pytest.MonkeyPatch, fired: Fired
) -> None:
    life = Bucketful(bucket, tmp_path, Selection.BEST)
    life.trials[0] = Trial(0, "u-0", {"learning_rate": 0.05}, 1)
    for step, value in ((10, 3.0), (20, 1.0), (30, 2.0), (40, 4.0)):
        life.step(0, step, value)
    life.retention.finish()
    asked = spoilt_listing(monkeypatch, "stale")
    life.again()
    life.step(0, 50, 5.0, attempt=2)
    life.end(0)
    assert life.left() == ["step-00000020-attempt-1.pt"]
    fired(len(asked) > 1)


@pytest.mark.fault("F43")
def test_a_checkpoint_that_is_gone_is_not_what_a_running_trial_ends_with(
    tmp_path: Path, bucket: str, fired: Fired
) -> None:
    life = Bucketful(bucket, tmp_path)
    life.trials[0] = Trial(0, "u-0", {"learning_rate": 0.05}, 1)
    for step in (50, 60):
        life.step(0, step, 1.0)
    life.retention.finish()
    life.there.remove(["trials/0000/checkpoints/step-00000060-attempt-1.pt"])
    fired(left(life.there) == ["step-00000050-attempt-1.pt"])
    life.again()
    life.end(0)
    assert life.left() == ["step-00000050-attempt-1.pt"], "the only one there is stays"
