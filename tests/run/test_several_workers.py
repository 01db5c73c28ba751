"""Trials of several workers on a real Ray: one study in which all that can go wrong does."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from zoo_studies import study_of

from hpsearch.errors import UsageError
from hpsearch.run import cluster, local, nodes
from hpsearch.run.place import Place
from hpsearch.run.ranks import Whereabouts
from hpsearch.run.team import Team
from hpsearch.run.wire import decode
from hpsearch.spec.model import Resources
from hpsearch.study.history import StoreReader
from hpsearch.study.trial import Cause, Launch, Outcome, State, Trial

pytestmark = pytest.mark.slow
HERE = Whereabouts("here", "127.0.0.1")
KINDS = ("fine", "process_killed", "worker_killed", "raises", "pruned", "last")


@pytest.fixture(scope="module")
def shared(ray_address: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Trial]]:
    """Each kind's directory and trial, after a study of all of them has ended."""
    base = tmp_path_factory.mktemp("shared")
    search = study_of(
        base,
        *KINDS,
        module="shared_zoo",
        resources="{workers: 2, cpu: 1}",
        pruner="{type: THRESHOLD, upper: 50, minSteps: 200}",
        limits="{maxFailedTrials: 100}",
        checkpoints="{keep: ALL}",
    )
    awaited: list[str | None] = []
    search._journal.at[1] = lambda: awaited.append(nodes.awaited(Resources(workers=2)))  # type: ignore[attr-defined]
    cluster.run(search, address=ray_address)
    assert awaited == [None], "a trial that has its place waits for none, whatever is free"
    assert search.conclude(9).outcome is Outcome.COMPLETED
    trials = StoreReader(search.study.directory).history().trials
    search._journal.store.close()  # type: ignore[attr-defined]
    return {str(t.params["kind"]): (base / f"study/trials/{t.number:04d}", t) for t in trials}


def pids(directory: Path) -> list[int]:
    return [int(line) for path in directory.glob("pids-*") for line in path.read_text().split()]


def ending(trial: Trial) -> tuple[State, str]:
    assert trial.ending
    return trial.state, trial.ending.reason


def test_two_workers_train_a_trial_and_each_prints_to_a_file_of_its_own(shared) -> None:
    directory, trial = shared["fine"]
    assert ending(trial) == (State.COMPLETED, "reached step 300")
    assert [m.step for m in trial.measurements] == [100, 200, 300]
    assert {m.metrics["size"] for m in trial.measurements} == {2}
    assert len(pids(directory)) == len(set(pids(directory))) == 2
    assert "rank 0 of 2 prints" in (directory / "output.log").read_text()
    assert "rank 1 of 2 prints" in (directory / "output.rank-1.log").read_text()
    assert ending(shared["last"][1]) == (State.COMPLETED, "reached step 300"), "the workers serve to the end"


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("process_killed", "rank 1: its process was killed by signal 9 (SIGKILL)"),
        ("worker_killed", "rank 1: its worker was lost"),
    ],
)
def test_where_one_worker_is_lost_all_go_on_from_the_checkpoint(shared, kind: str, reason: str) -> None:
    directory, trial = shared[kind]
    assert ending(trial) == (State.COMPLETED, "reached step 300")
    second = trial.attempts[-1]
    assert len(trial.attempts) == 2
    assert (second.cause, second.reason, second.resumed_from) == (Cause.CRASHED, reason, 100)
    assert [m.step for m in trial.measurements] == [100, 200, 300]
    assert len(set(pids(directory))) == 4, "both processes of the first attempt were replaced"


def test_what_a_worker_raises_fails_the_trial_and_names_its_rank(shared) -> None:
    state, reason = ending(shared["raises"][1])
    assert state is State.FAILED
    assert reason.startswith("rank 1: ValueError: no such batch (shared_zoo.py:")
    assert len(shared["raises"][1].attempts) == 1, "an error of the trainer is not tried again"


def test_nothing_is_left_of_any_trial_however_it_ended(shared) -> None:
    assert shared["pruned"][1].state is State.PRUNED
    everyone = [pid for directory, _ in shared.values() for pid in pids(directory)]
    assert len(everyone) == 2 * (len(KINDS) + 2)
    assert [pid for pid in everyone if Path(f"/proc/{pid}").exists()] == []


class Beside:
    """Another process of a trial, on this machine and without Ray."""

    def __init__(self) -> None:
        self._place = Place(every=0.05, leads=False)

    def where(self) -> Whereabouts:
        return HERE

    def start(self, launch: Launch) -> None:
        self._place.relaunch({"launch": json.dumps(launch.to_json())})

    def hear(self) -> Mapping[str, Any]:
        return self._place.step()

    def is_cut_off(self) -> bool:
        return False

    def part(self) -> None:
        self._place.part()

    def end(self) -> None:
        self._place.abandon()

    def gone(self, seconds: float) -> bool:
        return True


def test_an_unmodified_program_finds_the_other_workers_and_ends_with_the_first(tmp_path: Path) -> None:
    search = study_of(tmp_path, "lingers", module="programs.finds_the_others", resources="{workers: 2}")
    launch = search.suggest(1)
    assert launch
    place = Place(slot=lambda: Team(2, HERE, lambda rank: Beside()))
    place.relaunch({"launch": json.dumps(launch.to_json()), "by": [0, 1, 1]})
    [trial] = search.trials.values()
    while trial.ending is None:
        result = place.step()
        assert not result["lost"], result
        search.measure(0, 1, [decode(line) for line in result["lines"]], 2)
    place.abandon()
    search._journal.store.close()  # type: ignore[attr-defined]
    assert ending(trial) == (State.COMPLETED, "finished at step 1")
    assert [m.metrics for m in trial.measurements] == [{"loss": 3.0}], "1 of the first, 2 of the second"
    directory = tmp_path / "study/trials/0000"
    assert "rank 0 of 2 local 0" in (directory / "output.log").read_text()
    assert "rank 1 of 2 local 1" in (directory / "output.rank-1.log").read_text()


def test_local_runs_say_that_a_trial_is_one_process_there(tmp_path: Path) -> None:
    search = study_of(tmp_path, "fine", module="shared_zoo", resources="{workers: 2}")
    with pytest.raises(UsageError, match=r"resources\.workers is 2, and with --local a trial is one process"):
        local.run(search)
    assert search.trials == {}
    search._journal.store.close()  # type: ignore[attr-defined]
