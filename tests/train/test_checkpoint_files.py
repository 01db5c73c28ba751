"""Checkpoint files are complete or absent, written beside training, and a full disk does not end a trial."""

from __future__ import annotations

import errno
import hashlib
import os
import threading
import time
from pathlib import Path

import pytest
from trial_run import Run

from hpsearch.study.trial import Checkpoint
from hpsearch.train import loop
from hpsearch.train.checkpoint import Writer, write_durably


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_a_checkpoint_is_announced_with_the_proof_of_a_file_that_is_there(
    run: Run, noisy: str, tmp_path: Path
) -> None:
    said = run(noisy)
    newest = said.checkpoints[-1]
    data = (tmp_path / "trial" / newest.name).read_bytes()
    assert newest.name == "checkpoints/step-00000040-attempt-1.pt"
    assert (newest.step, newest.attempt, newest.size) == (40, 1, len(data))
    assert newest.sha256 == hashlib.sha256(data).hexdigest()


def test_each_checkpoint_follows_its_measurement_and_the_ending_follows_all(run: Run, noisy: str) -> None:
    said = run(noisy)
    measured: set[int] = set()
    for report in said.reports:
        if report.measurement:
            measured.add(report.measurement.step)
        if report.checkpoint:
            assert report.checkpoint.step in measured
    assert said.checkpoints[-1].step == 40
    assert said.verdict == ("completed", "reached step 40")


def test_no_file_is_deleted_before_the_driver_knows_a_newer_one(run: Run, noisy: str, tmp_path: Path) -> None:
    said = run(noisy)
    assert names(tmp_path / "trial" / "checkpoints") == [
        Path(checkpoint.name).name for checkpoint in said.checkpoints
    ]


def test_a_newer_checkpoint_replaces_one_that_still_waits_and_nobody_waits_to_offer_it(
    tmp_path: Path,
) -> None:
    announced: list[Checkpoint] = []
    first, go_on = threading.Event(), threading.Event()

    def announce(checkpoint: Checkpoint) -> None:
        announced.append(checkpoint)
        first.set()
        assert go_on.wait(10)

    writer = Writer(tmp_path, 1, announce, pytest.fail)
    writer.offer(1, memoryview(b"one"))
    assert first.wait(10)
    began = time.monotonic()
    for step in (2, 3, 4):
        writer.offer(step, memoryview(b"more"))
    assert time.monotonic() - began < 0.5
    go_on.set()
    writer.close()
    assert [checkpoint.step for checkpoint in announced] == [1, 4]
    assert names(tmp_path / "checkpoints") == ["step-00000001-attempt-1.pt", "step-00000004-attempt-1.pt"]


def test_what_the_announcement_raises_is_raised_when_the_writer_closes(tmp_path: Path) -> None:
    def announce(checkpoint: Checkpoint) -> None:
        raise BrokenPipeError("the parent is gone")

    writer = Writer(tmp_path, 1, announce, pytest.fail)
    writer.offer(1, memoryview(b"one"))
    with pytest.raises(BrokenPipeError):
        writer.close()


def test_closing_a_writer_that_was_never_used_returns(tmp_path: Path) -> None:
    Writer(tmp_path, 1, pytest.fail, pytest.fail).close()
    assert names(tmp_path) == []


@pytest.mark.parametrize("fails_from", [0, 2, 3])
def test_a_full_disk_is_noted_once_and_the_trial_goes_on(
    run: Run, noisy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails_from: int
) -> None:
    sync, calls = os.fsync, 0

    def full(handle: int) -> None:
        nonlocal calls
        calls += 1
        if calls > fails_from:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(handle)

    expected = run(noisy).curve
    for path in (tmp_path / "trial" / "checkpoints").iterdir():
        path.unlink()
    monkeypatch.setattr(os, "fsync", full)
    said = run(noisy, params={"pause": 0.002})
    assert calls > fails_from
    assert said.curve == expected
    assert said.verdict == ("completed", "reached step 40")
    assert said.notes[0].endswith("not written: No space left on device; the trial goes on")
    assert [note for note in said.notes if "No space" in note] == said.notes[:1]
    kept = [Path(checkpoint.name).name for checkpoint in said.checkpoints]
    assert bool(kept) == bool(fails_from)
    assert names(tmp_path / "trial" / "checkpoints") == kept[-2:]


def test_a_directory_that_cannot_be_made_is_a_note(run: Run, noisy: str, tmp_path: Path) -> None:
    (tmp_path / "trial").write_text("not a directory")
    said = run(noisy)
    assert said.checkpoints == []
    assert "not written" in said.notes[0]
    assert said.verdict == ("completed", "reached step 40")


def test_no_name_appears_before_its_content_is_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "checkpoints" / "step.pt"
    seen: list[tuple[str, bool]] = []
    sync = os.fsync

    def watch(handle: int) -> None:
        seen.append((Path(f"/proc/self/fd/{handle}").readlink().name, path.exists()))
        sync(handle)

    monkeypatch.setattr(os, "fsync", watch)
    write_durably(path, memoryview(b"state"))
    assert seen == [(tmp_path.name, False), ("step.writing", False), ("checkpoints", True)]
    assert path.read_bytes() == b"state"


@pytest.mark.parametrize("value", ["__import__('fractions').Fraction(1, 2)", "lambda: 1"])
def test_a_trainer_whose_state_is_not_plain_data_trains_without_checkpoints(
    run: Run, noisy: str, value: str
) -> None:
    odd = f"    optimizer.param_groups[0]['odd'] = {value}\n\n    def loss(batch):"
    said = run(noisy.replace("    def loss(batch):", odd))
    assert said.checkpoints == []
    assert said.notes[0].startswith("checkpoint step 5 not written: the trainer's state is ")
    assert said.notes[1:] == ["checkpoints: 7 more like the first"]
    assert said.verdict == ("completed", "reached step 40")


def test_checkpoints_are_thinned_to_their_share_of_the_time_but_first_and_last_are_made(
    run: Run, noisy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A share of next to nothing: after the first, none is due before the last step.
    monkeypatch.setattr(loop, "CHECKPOINT_SHARE", 1e-9)
    said = run(noisy)
    assert [checkpoint.step for checkpoint in said.checkpoints] == [5, 40]
    assert len(said.measurements) == 8
