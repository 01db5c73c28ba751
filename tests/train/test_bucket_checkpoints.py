"""A trial whose checkpoints are objects of a bucket: the same curve, whatever becomes of them."""

from __future__ import annotations

import hashlib

import pytest
from trial_run import Run

from hpsearch.study.storage import Bucket


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
