"""What every runner must do, with real processes, a real store, and a real Ray where the runner has one."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
from zoo_studies import study_of

from hpsearch.run import cluster, local
from hpsearch.study.history import StoreReader
from hpsearch.study.search import Search
from hpsearch.study.trial import Outcome, State, Trial

Runner = Callable[[Search], None]
Make = Callable[..., Search]

# What every runner bears, and what only one with a process for each trial does.
ANYWHERE = ("good", "raises", "nan", "text", "silent", "huge_step", "broken_text", "minus_zero", "fine")
ON_RAY = ("killed_once", "segfaults", "exits", "hangs", "always_loses_worker", "more")
LIMITS = "{maxFailedTrials: 100}"
LIMITS_ON_RAY = "{maxFailedTrials: 100, maxAttempts: 2, trialTimeout: 5s}"


@pytest.fixture(params=["local", pytest.param("cluster", marks=pytest.mark.xdist_group("ray"))])
def runner(request: pytest.FixtureRequest) -> Runner:
    if request.param == "local":
        return local.run
    address = request.getfixturevalue("ray_address")
    return lambda search: cluster.run(search, address=address)


@pytest.fixture
def on_ray(ray_address: str) -> Runner:
    return lambda search: cluster.run(search, address=ray_address)


def by_kind(trials: Iterable[Trial]) -> dict[str, Trial]:
    return {str(trial.params["kind"]): trial for trial in trials}


def close(search: Search) -> None:
    search._journal.store.close()  # type: ignore[attr-defined]


def endings(trials: Iterable[Trial]) -> dict[str, tuple[State, str]]:
    return {k: (t.state, t.ending.reason if t.ending else "") for k, t in by_kind(trials).items()}


def table(trials: Sequence[Trial]) -> list[Any]:
    """What trials were and measured, but for times."""
    return [
        (t.number, t.params, t.state, [(m.step, m.metrics) for m in t.measurements])
        for t in trials
        if t.params["kind"] in ANYWHERE
    ]


def the_zoo(run: Runner, directory: Path, *kinds: str, limits: str) -> list[Trial]:
    """What the store says of a study of these kinds once it has run to its end."""
    search = study_of(directory, *kinds, limits=limits)
    run(search)
    assert search.conclude(9).outcome is Outcome.COMPLETED
    stored = StoreReader(search.study.directory).history().trials
    close(search)
    assert states(stored) == states(list(search.trials.values())), "the search knows something else"
    return stored


def states(trials: Sequence[Trial]) -> list[tuple[Any, ...]]:
    return [(t.number, t.uid, t.params, t.attempts, t.ending) for t in trials]


@pytest.fixture(scope="module")
def zoo_here(tmp_path_factory: pytest.TempPathFactory) -> list[Trial]:
    return the_zoo(local.run, tmp_path_factory.mktemp("here"), *ANYWHERE, limits=LIMITS)


@pytest.fixture(scope="module")
def ray_zoo(ray_address: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Trial]]:
    """One study on Ray of all that can go wrong there: each start of a worker takes long."""
    directory = tmp_path_factory.mktemp("on-ray")

    def run(search: Search) -> None:
        cluster.run(search, address=ray_address)

    return directory, the_zoo(run, directory, *ANYWHERE, *ON_RAY, limits=LIMITS_ON_RAY)


def test_each_bad_trial_ends_with_its_reason_and_the_others_finish(
    zoo_here: list[Trial], ray_zoo: tuple[Path, list[Trial]]
) -> None:
    for trials in (zoo_here, ray_zoo[1]):
        found = endings(trials)
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


def test_both_runners_give_the_same_table(zoo_here: list[Trial], ray_zoo: tuple[Path, list[Trial]]) -> None:
    assert repr(table(zoo_here)) == repr(table(ray_zoo[1]))  # as text: NaN equals nothing
    assert [m.step for m in zoo_here[0].measurements] == [100, 200, 300]
    assert [m.metrics["loss"] for m in zoo_here[0].measurements] == [9.0, 8.0, 7.0]
    assert all(m.time > 1_600_000_000_000 for m in zoo_here[0].measurements)


def test_a_killed_trial_gets_another_attempt_and_a_hopeless_one_fails(
    ray_zoo: tuple[Path, list[Trial]],
) -> None:
    trials, found = by_kind(ray_zoo[1]), endings(ray_zoo[1])
    assert trials["killed_once"].state is State.COMPLETED
    assert len(trials["killed_once"].attempts) == 2
    assert [m.step for m in trials["killed_once"].measurements] == [100, 200, 300]
    assert trials["segfaults"].state is State.FAILED
    assert len(trials["segfaults"].attempts) == 2
    assert "signal 11" in found["segfaults"][1]
    assert found["exits"] == (
        State.FAILED,
        "its process exited with code 3 before the trial was finished: trial 11 is exits",
    )


def test_a_trial_over_its_time_fails_and_the_next_one_runs(ray_zoo: tuple[Path, list[Trial]]) -> None:
    assert endings(ray_zoo[1])["hangs"] == (State.FAILED, "trialTimeout: not finished after 5 s")


def test_a_trial_that_always_loses_its_worker_fails_and_costs_no_other_trial_anything(
    ray_zoo: tuple[Path, list[Trial]],
) -> None:
    directory, trials = ray_zoo
    lost = by_kind(trials)["always_loses_worker"]
    killed = directory / f"study/trials/{lost.number:04d}/worker"
    assert "ray::" in killed.read_text(), "it was no Ray worker that was killed"
    found = endings(trials)
    assert found["always_loses_worker"] == (State.FAILED, "its worker was lost, in attempt 2 of 2")
    assert found["more"] == (State.COMPLETED, "reached step 300")
    assert len(by_kind(trials)["more"].attempts) == 1


def test_a_pruned_trial_stops_at_the_deciding_step(search_for: Make) -> None:
    search = search_for("good", "fine", pruner="{type: THRESHOLD, upper: 8.5, minSteps: 200}")
    local.run(search)
    first, second = search.trials.values()
    close(search)
    assert first.state is State.COMPLETED
    assert second.state is State.PRUNED
    assert second.step == 200
    assert second.ending
    assert "loss 9 at step 200" in second.ending.reason


def test_an_interrupted_study_goes_on_where_it_stopped(search_for: Make, runner: Runner) -> None:
    kinds = ("good", "fine", "more", "last")
    pruner = "{type: THRESHOLD, upper: 9.5, minSteps: 300}"  # the last one has 10
    search = search_for(*kinds, pruner=pruner)
    search._journal.at[5] = lambda: os.kill(os.getpid(), signal.SIGINT)  # type: ignore[attr-defined]
    runner(search)
    assert search.conclude(9).outcome is Outcome.INTERRUPTED
    before = search.counts()
    close(search)
    assert before[State.COMPLETED] < 4, "the interrupt came too late to test anything"

    again = search_for(*kinds, pruner=pruner)
    runner(again)
    assert again.conclude(9).outcome is Outcome.COMPLETED
    close(again)
    trials = StoreReader(again.study.directory).history().trials
    assert [t.state for t in trials] == [State.COMPLETED] * 3 + [State.PRUNED]
    assert sorted(str(t.params["kind"]) for t in trials) == sorted(kinds)
    assert all([m.step for m in t.measurements] == [100, 200, 300] for t in trials)


def test_a_study_timeout_ends_the_study_resumable(search_for: Make) -> None:
    search = search_for("good", "fine", "more", limits="{studyTimeout: 0.001s}")
    local.run(search)
    ending = search.conclude(9)
    close(search)
    assert ending.outcome is Outcome.DEADLINE
    assert search.counts()[State.COMPLETED] < 3


def test_two_slots_are_used_at_once_even_by_short_trials(search_for: Make, on_ray: Runner) -> None:
    kinds = [f"meets{n}" for n in range(6)]
    search = search_for(*kinds, parallel=2)
    on_ray(search)
    found = endings(search.trials.values())
    close(search)
    assert set(found.values()) == {(State.COMPLETED, "reached step 300")}
