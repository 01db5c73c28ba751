"""Jobs as people see them: a line for each, or all that is known of one."""

from __future__ import annotations

from typing import Any

from hpsearch.show import jobs

LOCAL: dict[str, Any] = {
    "name": "mpg-1a2b3c4d",
    "target": "local",
    "study": "mpg",
    "home": "/studies",
    "job_status": "RUNNING",
    "reason": None,
    "pid": 41,
    "counts": {"completed": 7, "pruned": 2, "failed": 0, "infeasible": 0, "running": 1},
    "final": False,
    "outcome": None,
    "exit_code": None,
}
RAYJOB: dict[str, Any] = {
    "name": "night",
    "target": "kuberay",
    "study": "night",
    "home": None,
    "namespace": "hpsearch",
    "cluster": "night-x",
    "phase": "Running",
    "job_status": "RUNNING",
    "attempt": 2,
    "attempts": 3,
    "age": 3725.2,
    "deleting": True,
    "reason": "",
    "message": "",
    "final": False,
    "outcome": None,
    "exit_code": None,
}


def test_a_job_that_runs_says_where_it_is_how_far_and_how_to_watch_it() -> None:
    assert jobs.facts(LOCAL) == [
        "job      mpg-1a2b3c4d, local (process 41)",
        "state    running",
        "study    mpg in /studies",
        "trials   7 completed, 2 pruned, 1 running",
        "log      hpsearch logs mpg-1a2b3c4d --follow",
    ]
    assert jobs.facts(RAYJOB) == [
        "job      night, kuberay (in namespace hpsearch, cluster night-x)",
        "state    running, attempt 2 of 3, being deleted, 1h 02m old",
        "study    night",
        "log      hpsearch logs night --follow",
    ]


def test_a_job_that_ended_says_how_and_why() -> None:
    ended = {"final": True, "outcome": "failed", "exit_code": 3, "reason": "AppFailed", "message": "a\nb"}
    assert jobs.facts({**RAYJOB, **ended, "deleting": False, "seconds": 61})[1:] == [
        "state    failed (exit code 3) after 1m 01s",
        "study    night",
        "reason   AppFailed",
        "message  a",
        "         b",
        "log      hpsearch logs night",
    ]
    assert jobs.facts({**LOCAL, "counts": dict.fromkeys(LOCAL["counts"], 0)})[3] == "trials   none yet"


def test_jobs_stand_below_each_other_with_their_reasons() -> None:
    ended = {"final": True, "outcome": "failed", "exit_code": 3, "reason": "no trial\ncompleted"}
    assert jobs.table([LOCAL, {**RAYJOB, **ended}]) == [
        "mpg-1a2b3c4d  local    running",
        "night         kuberay  failed (exit code 3): no trial completed",
    ]
    assert jobs.table([]) == []
