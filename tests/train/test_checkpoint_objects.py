"""A trial whose checkpoints are objects of a bucket: the same curve, whatever becomes of them."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable

import pytest
from trial_run import Run

from hpsearch.study.storage import Bucket
from hpsearch.study.trial import Report
from hpsearch.train import checkpoint


def test_checkpoints_are_objects_and_a_resume_from_one_repeats_the_curve(
    run: Run, noisy: str, bucket: str
) -> None:
    whole = run(noisy)
    first = run(noisy, storage=bucket, stop_after=4)
    there = Bucket(bucket)
    assert there.keys() == {each.name for each in first.checkpoints}
    newest = first.checkpoints[-1]
    data = there.read(newest.name)
    assert (newest.size, newest.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    second = run(noisy, storage=bucket, attempt=2, resume=newest)
    assert first.curve + second.curve == whole.curve
    assert second.verdict == whole.verdict


@pytest.mark.parametrize("how", ["damaged", "gone"])
def test_a_spoilt_object_means_the_one_before_it(run: Run, noisy: str, bucket: str, how: str) -> None:
    whole = run(noisy)
    first = run(noisy, storage=bucket, stop_after=4)
    *_, before, newest = first.checkpoints
    there = Bucket(bucket)
    if how == "damaged":
        there.write(newest.name, there.read(newest.name)[:-7])
    else:
        there.remove([newest.name])
    second = run(noisy, storage=bucket, attempt=2, resume=newest, earlier=before)
    assert [report.resumed_from for report in second.reports if report.resumed_from] == [before.step]
    why = "sha256 is" if how == "damaged" else "not found: "
    assert why in second.notes[0]
    assert second.curve == [pair for pair in whole.curve if pair[0] > before.step]


def test_a_bucket_that_refuses_costs_checkpoints_and_not_the_trial(run: Run, noisy: str, bucket: str) -> None:
    said = run(noisy, storage=bucket.replace("s3://", "s3://no-"))
    assert said.curve == run(noisy).curve
    assert said.verdict == ("completed", "reached step 40")
    assert said.checkpoints == []
    assert "checkpoint step 5 not written: not found: " in said.notes[0]
    assert said.notes[0].endswith("the trial goes on")


def failing(monkeypatch: pytest.MonkeyPatch, times: float) -> list[str]:
    """A service that fails so often when it is asked for an object; for which ones it was."""
    read, asked = Bucket.read, list[str]()

    def fails(self: Bucket, key: str) -> bytes:
        asked.append(key)
        if len(asked) <= times:
            raise OSError(5, "503 Slow Down")
        return read(self, key)

    monkeypatch.setattr(Bucket, "read", fails)
    monkeypatch.setattr(checkpoint, "FIRST_PAUSE", 0.0)
    return asked


@pytest.mark.fault("F44")
def test_what_an_outage_hides_is_waited_for_and_not_trained_again(
    run: Run, noisy: str, bucket: str, monkeypatch: pytest.MonkeyPatch, fired: Callable[..., None]
) -> None:
    whole = run(noisy)
    first = run(noisy, storage=bucket, stop_after=4)
    asked = failing(monkeypatch, 3)
    second = run(noisy, storage=bucket, attempt=2, resume=first.checkpoints[-1])
    fired(asked == [first.checkpoints[-1].name] * 4)
    assert first.curve + second.curve == whole.curve
    assert not [report for report in second.reports if report.resumed_from is not None]


def test_a_trial_that_is_to_stop_meanwhile_neither_begins_again_nor_says_so(
    run: Run, noisy: str, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(noisy, storage=bucket, stop_after=4)
    failing(monkeypatch, math.inf)
    monkeypatch.setattr(checkpoint, "FIRST_PAUSE", 60.0)
    second = run(noisy, storage=bucket, attempt=2, resume=first.checkpoints[-1], stop_after=0)
    assert [report for report in second.reports if report != Report()] == []
    assert Bucket(bucket).keys() == {each.name for each in first.checkpoints}


def test_an_outage_that_lasts_means_the_start(
    run: Run, noisy: str, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(noisy, storage=bucket, stop_after=4)
    failing(monkeypatch, math.inf)
    monkeypatch.setattr(checkpoint, "PATIENCE", 0.0)
    second = run(noisy, storage=bucket, attempt=2, resume=first.checkpoints[-1])
    assert "cannot be used (503 Slow Down): starting from step 0" in second.notes[0]
    assert second.verdict == ("completed", "reached step 40")
