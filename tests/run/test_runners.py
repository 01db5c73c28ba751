"""What every runner must do, with real processes, a real store, and a real Ray where the runner has one."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hpsearch.run import cluster, local
from hpsearch.study.history import StoreReader
from hpsearch.study.search import Search
from hpsearch.study.trial import Outcome, State, Trial

Runner = Callable[[Search], None]
Make = Callable[..., Search]


@pytest.fixture(params=["local", pytest.param("cluster", marks=pytest.mark.xdist_group("ray"))])
def runner(request: pytest.FixtureRequest) -> Runner:
    if request.param == "local":
        return local.run
    address = request.getfixturevalue("ray_address")
    return lambda search: cluster.run(search, address=address)


@pytest.fixture
def on_ray(ray_address: str) -> Runner:
    return lambda search: cluster.run(search, address=ray_address)


def by_kind(search: Search) -> dict[str, Trial]:
    return {str(trial.params["kind"]): trial for trial in search.trials.values()}


def close(search: Search) -> None:
    search._journal.store.close()  # type: ignore[attr-defined]


def endings(search: Search) -> dict[str, tuple[State, str]]:
    return {k: (t.state, t.ending.reason if t.ending else "") for k, t in by_kind(search).items()}


def test_each_bad_trial_ends_with_its_reason_and_the_others_finish(search_for: Make, runner: Runner) -> None:
    kinds = ("good", "raises", "nan", "text", "silent", "huge_step", "broken_text", "minus_zero", "fine")
    search = search_for(*kinds, limits="{maxFailedTrials: 100}")
    runner(search)
    assert search.conclude(9).outcome is Outcome.COMPLETED
    found = endings(search)
    close(search)
    assert found["good"] == found["fine"] == (State.COMPLETED, "reached step 300")
    assert found["raises"][0] is State.FAILED
    assert found["raises"][1].startswith("ValueError: no good (zoo.py:")
    assert found["nan"] == (State.INFEASIBLE, "loss is nan at step 300")
    assert found["text"][0] is State.FAILED
    assert "loss" in found["text"][1]
    assert "'high'" in found["text"][1]
    assert found["huge_step"][0] is found["minus_zero"][0] is State.COMPLETED
    assert found["broken_text"][1].startswith("FileNotFoundError: no \\udcff")
    assert found["silent"] == (State.FAILED, "metric loss never reported; tags seen: other")


def test_the_store_holds_what_the_search_knows(search_for: Make, runner: Runner) -> None:
    search = search_for("good", "raises", "fine", limits="{maxFailedTrials: 100}")
    runner(search)
    stored = StoreReader(search.study.directory).history().trials
    close(search)
    assert stored == list(search.trials.values())
    assert [m.step for m in stored[0].measurements] == [100, 200, 300]
    assert [m.metrics["loss"] for m in stored[0].measurements] == [9.0, 8.0, 7.0]
    assert all(m.time > 1_600_000_000_000 for m in stored[0].measurements)


def test_a_pruned_trial_stops_at_the_deciding_step(search_for: Make, runner: Runner) -> None:
    search = search_for("good", "fine", pruner="{type: THRESHOLD, upper: 8.5, minSteps: 200}")
    runner(search)
    first, second = search.trials.values()
    close(search)
    assert first.state is State.COMPLETED
    assert second.state is State.PRUNED
    assert second.step == 200
    assert second.ending
    assert "loss 9 at step 200" in second.ending.reason


def test_an_interrupted_study_goes_on_where_it_stopped(search_for: Make, runner: Runner) -> None:
    kinds = ("good", "fine", "more", "last")
    search = search_for(*kinds)
    search._journal.at[5] = lambda: os.kill(os.getpid(), signal.SIGINT)  # type: ignore[attr-defined]
    runner(search)
    assert search.conclude(9).outcome is Outcome.INTERRUPTED
    before = search.counts()
    close(search)
    assert before[State.COMPLETED] < 4, "the interrupt came too late to test anything"

    again = search_for(*kinds)
    runner(again)
    assert again.conclude(9).outcome is Outcome.COMPLETED
    trials = list(again.trials.values())
    close(again)
    assert [t.state for t in trials] == [State.COMPLETED] * 4
    assert sorted(str(t.params["kind"]) for t in trials) == sorted(kinds)
    assert all([m.step for m in t.measurements] == [100, 200, 300] for t in trials)


def test_a_study_timeout_ends_the_study_resumable(search_for: Make, runner: Runner) -> None:
    search = search_for("good", "fine", "more", limits="{studyTimeout: 0.001s}")
    runner(search)
    ending = search.conclude(9)
    close(search)
    assert ending.outcome is Outcome.DEADLINE
    assert search.counts()[State.COMPLETED] < 3


def test_a_killed_trial_gets_another_attempt_and_a_hopeless_one_fails(
    search_for: Make, on_ray: Runner
) -> None:
    search = search_for("good", "killed_once", "segfaults", "exits", "fine", limits="{maxFailedTrials: 100}")
    on_ray(search)
    trials = by_kind(search)
    close(search)
    assert trials["killed_once"].state is State.COMPLETED
    assert len(trials["killed_once"].attempts) == 2
    assert [m.step for m in trials["killed_once"].measurements] == [100, 200, 300]
    assert trials["segfaults"].state is State.FAILED
    assert len(trials["segfaults"].attempts) == 3
    assert "signal 11" in endings(search)["segfaults"][1]
    assert endings(search)["exits"] == (
        State.FAILED,
        "its process exited with code 3 before the trial was finished: trial 3 is exits",
    )
    assert trials["fine"].state is State.COMPLETED


def test_a_lost_worker_costs_its_trial_an_attempt_and_no_other_trial_anything(
    search_for: Make, on_ray: Runner
) -> None:
    search = search_for("loses_worker", "good")
    on_ray(search)
    trials = by_kind(search)
    close(search)
    killed = search.study.directory / "trials/0000/worker"
    assert "ray::" in killed.read_text(), "it was no Ray worker that was killed"
    assert trials["loses_worker"].state is State.COMPLETED
    assert len(trials["loses_worker"].attempts) == 2
    assert [m.step for m in trials["loses_worker"].measurements] == [100, 200, 300]
    assert len(trials["good"].attempts) == 1


def test_a_trial_that_always_loses_its_worker_fails_and_the_study_ends(
    search_for: Make, on_ray: Runner
) -> None:
    search = search_for("always_loses_worker", "good", limits="{maxAttempts: 1}")
    on_ray(search)
    found = endings(search)
    close(search)
    assert found["always_loses_worker"] == (State.FAILED, "its worker was lost, in attempt 1 of 1")
    assert found["good"][0] is State.COMPLETED


def test_two_slots_are_used_at_once_even_by_short_trials(search_for: Make, on_ray: Runner) -> None:
    kinds = [f"meets{n}" for n in range(6)]
    search = search_for(*kinds, parallel=2)
    on_ray(search)
    found = endings(search)
    close(search)
    assert set(found.values()) == {(State.COMPLETED, "reached step 300")}


def test_a_trial_over_its_time_fails_and_the_next_one_runs(search_for: Make, on_ray: Runner) -> None:
    search = search_for("hangs", "good", limits="{maxFailedTrials: 100, trialTimeout: 2s}")
    on_ray(search)
    found = endings(search)
    close(search)
    assert found["hangs"] == (State.FAILED, "trialTimeout: not finished after 2 s")
    assert found["good"][0] is State.COMPLETED


def test_both_runners_give_the_same_table(search_for: Make, ray_address: str, tmp_path: Path) -> None:
    tables: list[Any] = []
    for run in (local.run, lambda s: cluster.run(s, address=ray_address)):
        search = search_for("good", "raises", "fine", limits="{maxFailedTrials: 100}")
        run(search)
        rows = [
            (t.number, t.params, t.state, [(m.step, m.metrics) for m in t.measurements])
            for t in search.trials.values()
        ]
        tables.append(rows)
        close(search)
        search.study.directory.rename(tmp_path / f"study-{len(tables)}")
    assert tables[0] == tables[1]
