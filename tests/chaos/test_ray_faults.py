"""Faults of hooks, workers and places on a real Ray that studies join, one after another."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from drivers import wait_for
from ray_studies import Telling, ledger, life, steady, stored, worker_of, zoo

from hpsearch.errors import Interrupted
from hpsearch.run import cluster, vigil
from hpsearch.run.desk import ERROR_FILE, Desk
from hpsearch.study.search import Search
from hpsearch.study.trial import Attempt, Cause, Entry, Measurement, Outcome, State

Fired = Callable[..., None]


def close(search: Search, journal: Telling) -> None:
    search.conclude(9)
    journal.store.close()


@pytest.fixture
def hold(tmp_path: Path) -> Path:
    """While it is there, the steady learner trains in slow motion."""
    path = tmp_path / "hold"
    path.touch()
    return path


def broken(true: Callable[..., Any], turn: int, raised: Counter[str]) -> Callable[..., Any]:
    """A hook that raises once, at one of its calls."""
    calls: Counter[str] = Counter()

    def hook(*given: Any, **more: Any) -> Any:
        calls[true.__name__] += 1
        if calls[true.__name__] == turn:
            raised[true.__name__] += 1
            raise LookupError(f"{true.__name__} has a bug")
        return true(*given, **more)

    return hook


# Hooks that Ray calls in each of its ways, and at which of their calls they raise. A worker is lost in the
# first attempt alone, which "suggest" does not use up. The other hooks are guarded as these are.
HOOKS = {"suggest": 1, "recover": 1, "release": 1}


@pytest.mark.fault("F14")
@pytest.mark.timeout(500)
def test_an_exception_in_any_hook_costs_a_life_of_the_study_and_no_fact(
    tmp_path: Path, ray_address: str, monkeypatch: pytest.MonkeyPatch, fired: Fired
) -> None:
    text = zoo("loses_worker", "good", "fine")
    raised: Counter[str] = Counter()
    for hook, turn in HOOKS.items():
        search, journal = life(tmp_path / "study", text)
        before = {t.number: t.measurements for t in stored(search)}
        with monkeypatch.context() as patch:
            patch.setattr(Desk, hook, broken(getattr(Desk, hook), turn, raised))
            with pytest.raises(Interrupted, match=f"{hook} has a bug") as caught:
                cluster.run(search, address=ray_address)
        assert caught.value.exit_code == 75
        trace = search.study.directory / ERROR_FILE
        assert f"{hook} has a bug" in trace.read_text()
        assert "in hook" in trace.read_text()
        assert trace.stat().st_mode & 0o777 == 0o600
        close(search, journal)
        for number, measurements in before.items():
            assert stored(search)[number].measurements[: len(measurements)] == measurements
    fired(raised == dict.fromkeys(HOOKS, 1))

    search, journal = life(tmp_path / "study", text)
    cluster.run(search, address=ray_address)
    assert search.conclude(9).outcome is Outcome.COMPLETED
    journal.store.close()
    trials = stored(search)
    assert sorted(str(t.params["kind"]) for t in trials) == ["fine", "good", "loses_worker"]
    for trial in trials:
        assert trial.state is State.COMPLETED
        assert [m.step for m in trial.measurements] == [100, 200, 300]


@pytest.mark.fault("F15", "F61")
@pytest.mark.timeout(500)
def test_a_killed_worker_and_a_preempted_one_cost_an_attempt_each_and_only_the_first_counts(
    tmp_path: Path, ray_address: str, hold: Path, fired: Fired
) -> None:
    search, journal = life(tmp_path / "study", steady(2, parallel=2))
    workers: dict[int, int] = {}

    def act(entry: Entry) -> None:
        number, fact = entry.trial, entry.fact
        if isinstance(fact, Measurement) and number is not None and number not in workers and fact.step >= 30:
            workers[number] = worker_of(search, number)
            os.kill(workers[number], (signal.SIGKILL, signal.SIGTERM)[number])
        again = [t for t in search.trials.values() if len(t.attempts) > 1]
        if isinstance(fact, Measurement) and len(again) == 2 and all(seen_again(search, n) for n in (0, 1)):
            hold.unlink(missing_ok=True)

    journal.when = act
    cluster.run(search, address=ray_address)
    close(search, journal)
    killed, preempted = stored(search)
    assert sorted(workers) == [0, 1]
    assert workers[0] != workers[1]
    fired(not alive(workers[0]), "F15")
    wait_for(lambda: not alive(workers[1]), 60)  # it leaves once it has told of its checkpoint
    fired(not alive(workers[1]), "F61")

    assert killed.state is preempted.state is State.COMPLETED
    assert [a.cause for a in killed.attempts] == [Cause.FIRST, Cause.CRASHED]
    assert [a.cause for a in preempted.attempts] == [Cause.FIRST, Cause.PREEMPTED]
    for trial in (killed, preempted):
        steps = [m.step for m in trial.measurements]
        assert steps == list(range(10, 2001, 10))
        resumed = trial.attempts[1].resumed_from
        assert resumed is not None, "it began anew in spite of its checkpoints"
        assert min(s for a, s, *_ in ledger(search, trial.number) if a == 2) == resumed + 10
    # What was told of its end has lost nothing at all: no step was trained twice.
    done = [s for _, s, *_ in ledger(search, 1)]
    assert len(done) == len(set(done)) == 200


def seen_again(search: Search, number: int) -> bool:
    return any(attempt == 2 for attempt, *_ in ledger(search, number))


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.mark.fault("F64")
@pytest.mark.parametrize("way", ["deadline", "TERM"])
def test_a_study_that_waits_for_what_no_node_has_says_so_and_can_be_stopped(
    way: str,
    tmp_path: Path,
    ray_address: str,
    fired: Fired,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(vigil, "QUIET", 0.5)  # nobody is there to say anything
    limits = {"limits": "{studyTimeout: 1s}"} if way == "deadline" else {}
    search, journal = life(tmp_path / "study", steady(2, resources="{cpu: 1, gpu: 8}", **limits))
    suggested: list[float] = []

    def act(entry: Entry) -> None:
        if isinstance(entry.fact, Attempt):
            suggested.append(time.monotonic())
            if way == "TERM":
                os.kill(os.getpid(), signal.SIGTERM)

    journal.when = act
    with caplog.at_level(logging.WARNING):
        # Without a time to wait for nodes it would be refused: this Ray does not grow by itself.
        cluster.run(search, address=ray_address, start_timeout=600.0)
    took = time.monotonic() - suggested[0]
    ending = search.conclude(9)
    journal.store.close()
    fired("waiting for 8 GPU, 0 exist" in caplog.text and not ledger(search, 0))
    assert ending.outcome is (Outcome.DEADLINE if way == "deadline" else Outcome.INTERRUPTED)
    assert search.counts()[State.RUNNING] == len(search.trials) == 1
    assert took < 20, "it waited for a result that nobody sends"


@pytest.mark.fault("F58")
@pytest.mark.timeout(300)
def test_trials_of_a_killed_node_go_on_elsewhere_within_half_a_minute(
    tmp_path: Path, ray_cluster: Any, hold: Path, fired: Fired
) -> None:
    nodes = [ray_cluster.add_node(num_cpus=4) for _ in range(2)]
    search, journal = life(tmp_path / "study", steady(1, resources="{cpu: 3}"))
    lost: list[tuple[Any, float]] = []
    again: list[float] = []

    def act(entry: Entry) -> None:
        if isinstance(entry.fact, Measurement) and entry.fact.step >= 30 and not lost:
            raylet = parent(worker_of(search, 0))
            (node,) = [n for n in nodes if n.all_processes["raylet"][0].process.pid == raylet]
            lost.append((node, time.monotonic()))
            ray_cluster.remove_node(node, allow_graceful=False)
        if isinstance(entry.fact, Attempt) and entry.attempt == 2:
            again.append(time.monotonic())
        if isinstance(entry.fact, Measurement) and again:
            hold.unlink(missing_ok=True)

    journal.when = act
    try:
        cluster.run(search, address=ray_cluster.address)
    finally:
        for node in nodes:
            if not lost or node is not lost[0][0]:
                ray_cluster.remove_node(node)
    close(search, journal)
    [trial] = stored(search)
    fired(lost and lost[0][0].all_processes.get("raylet") is None)
    assert trial.state is State.COMPLETED
    assert [a.cause for a in trial.attempts] == [Cause.FIRST, Cause.PREEMPTED]
    assert again[0] - lost[0][1] < 30
    assert trial.attempts[1].resumed_from is not None
    assert [m.step for m in trial.measurements] == list(range(10, 2001, 10))


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
