"""What a RayJob's object tells, and what each of its ends means."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from hpsearch.ship import kuberay

RAY = (
    "Job entrypoint command failed with exit code {}, last available logs (truncated to 20,000 chars):\nboom"
)


def rayjob(
    phase: str = "", job: str = "", reason: str = "", message: str = "", **more: Any
) -> dict[str, Any]:
    status = {"jobDeploymentStatus": phase, "jobStatus": job, "reason": reason, "message": message} | more
    return {
        "metadata": {"name": "one", "namespace": "n", "uid": "u"},
        "status": status,
        "spec": {"backoffLimit": 2},
    }


@pytest.mark.parametrize(
    ("phase", "job", "reason", "word", "code"),
    [
        ("Complete", "SUCCEEDED", "", "succeeded", 0),
        # The operator decided without the submitter, and the job had succeeded.
        ("Complete", "SUCCEEDED", "JobDeploymentStatusTransitionGracePeriodExceeded", "succeeded", 0),
        ("Complete", "STOPPED", "", "stopped", 3),
        ("Complete", "", "", "failed", 3),
        ("Failed", "FAILED", "AppFailed", "failed", 3),
        ("Failed", "", "SubmissionFailed", "failed", 3),
        ("Failed", "RUNNING", "JobStatusCheckTimeoutExceeded", "failed", 3),
        ("Failed", "FAILED", "JobDeploymentStatusTransitionGracePeriodExceeded", "failed", 3),
        ("Failed", "RUNNING", "JobDeploymentStatusTransitionGracePeriodExceeded", "failed", 3),
        ("Failed", "RUNNING", "DeadlineExceeded", "deadline", 4),
        ("Failed", "", "PreRunningDeadlineExceeded", "deadline", 4),
        ("Failed", "", "SomethingNew", "failed", 3),
        ("ValidationFailed", "", "ValidationFailed", "invalid", 2),
    ],
)
def test_each_end_of_a_rayjob_has_its_code(phase: str, job: str, reason: str, word: str, code: int) -> None:
    found = kuberay.outcome(rayjob(phase, job, reason))
    assert found is not None
    assert (found.word, found.code) == (word, code)


@pytest.mark.parametrize(
    ("phase", "job"),
    [
        ("", ""),
        ("Initializing", ""),
        ("Running", "PENDING"),
        ("Running", "RUNNING"),
        ("Running", "SUCCEEDED"),  # the submitter has not ended yet
        ("Running", "FAILED"),
        ("Retrying", "FAILED"),
        ("Suspending", "RUNNING"),
        ("Suspended", ""),
        ("Waiting", ""),
    ],
)
def test_what_is_no_end_is_waited_on(phase: str, job: str) -> None:
    assert kuberay.outcome(rayjob(phase, job)) is None
    assert not kuberay.life(rayjob(phase, job)).is_final


def test_an_object_that_the_operator_has_not_seen_is_no_end() -> None:
    assert kuberay.outcome({"metadata": {"name": "new"}}) is None


@pytest.mark.parametrize("code", [2, 3, 4, 69, 73, 74, 75])
def test_a_driver_whose_exit_code_means_something_is_believed(code: int) -> None:
    found = kuberay.outcome(rayjob("Failed", "FAILED", "AppFailed", RAY.format(code)))
    assert found is not None
    assert found.code == code


@pytest.mark.parametrize("code", [1, 5, 127, 137, 0])
def test_any_other_exit_code_is_no_success(code: int) -> None:
    found = kuberay.outcome(rayjob("Failed", "FAILED", "AppFailed", RAY.format(code)))
    assert found is not None
    assert found.code == 3


def test_a_log_that_speaks_of_exit_codes_is_not_believed() -> None:
    said = "Job entrypoint command failed with exit code 1, last available logs:\n" + RAY.format(4)
    for reason, message in (
        ("AppFailed", said),
        ("AppFailed", f"x\n{RAY.format(4)}"),
        ("SubmissionFailed", RAY.format(4)),
    ):
        found = kuberay.outcome(rayjob("Failed", "FAILED", reason, message))
        assert found is not None
        assert found.code == 3


def test_a_deletion_is_no_success_unless_the_end_was_reached_before() -> None:
    gone = kuberay.deleted(rayjob("Running", "RUNNING"))
    assert (gone.word, gone.code) == ("deleted", 3)
    assert kuberay.deleted(rayjob("Complete", "SUCCEEDED")).code == 0


def test_attempts_are_counted_from_one() -> None:
    lives = [
        kuberay.life(rayjob("Initializing")),
        kuberay.life(rayjob("Retrying", failed=1)),
        kuberay.life(rayjob("", failed=1)),
        kuberay.life(rayjob("Running", failed=2)),
        kuberay.life(rayjob("Failed", failed=3)),
        kuberay.life(rayjob("Complete", failed=1, succeeded=1)),
    ]
    assert [life.attempt for life in lives] == [1, 1, 2, 3, 3, 2]
    assert {life.attempts for life in lives} == {3}


def test_messages_are_short_and_without_secrets() -> None:
    long = kuberay.life(rayjob(message="begin password=hunter2hunter2 " + "x" * 20_000 + " end")).message
    assert long.startswith("begin ")
    assert long.endswith(" end")
    assert len(long) < 1100
    assert "hunter2" not in long


def test_the_age_of_the_head_comes_from_its_condition() -> None:
    ready = {"type": "HeadPodReady", "status": "True", "lastTransitionTime": "2026-11-25T02:00:00Z"}
    found = kuberay.life(rayjob("Running", rayClusterStatus={"conditions": [ready]}))
    now = datetime(2026, 11, 25, 3, 0, tzinfo=UTC)
    assert kuberay.age(found.head_since, now) == 3600
    lost = rayjob("Running", rayClusterStatus={"conditions": [ready | {"status": "False"}]})
    assert kuberay.age(kuberay.life(lost).head_since, now) is None
