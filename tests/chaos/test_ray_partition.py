"""A node that is cut off and comes back: what its old attempt says is refused, and it ends itself."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from drivers import wait_for
from ray_studies import ledger, life, steady

from hpsearch.run.desk import Desk
from hpsearch.run.place import SILENCE, Place
from hpsearch.run.wire import decode, encode
from hpsearch.study.trial import Cause, Checkpoint, Ending, Measurement, Report, State

Fired = Callable[..., None]


class Actor:
    """Notes what is asked of it."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return SimpleNamespace(remote=lambda *given: self.asked.append(name))


def tune_trial(name: str) -> Any:
    return SimpleNamespace(trial_id=name, temporary_state=SimpleNamespace(ray_actor=Actor()))


def lines(*reports: Report) -> list[str]:
    return [encode(report) for report in reports]


def measured(step: int, loss: float) -> Report:
    return Report(Measurement(step, {"loss": loss}, 1))


@pytest.mark.fault("F59")
def test_what_an_attempt_says_after_its_successor_began_changes_nothing(tmp_path: Path, fired: Fired) -> None:
    """The rootless twin of the partition: both attempts speak, as they do after the link is up again."""
    search, journal = life(tmp_path / "study", steady(1))
    desk, trial = Desk(search), tune_trial("t")
    config = desk.suggest("t")
    assert config is not None
    old = config["by"]
    assert desk.hear(trial, {"by": old, "lines": lines(measured(10, 1.0))})

    new = desk.recover("t", node_lost=True)["by"]
    assert (old, new) == ([0, 1, search.epoch], [0, 2, search.epoch])
    told = len(journal.told)
    late = lines(
        measured(20, 66.0),
        Report(checkpoint=Checkpoint(20, 1, "late", 1, "0" * 64)),
        Report(ending=Ending(State.COMPLETED, "reached step 2000")),
    )
    earlier_life = [0, 2, search.epoch - 1]
    for stale in (old, earlier_life, [0, 3, search.epoch], [1, 2, search.epoch]):
        assert desk.hear(trial, {"by": stale, "lines": late, "lost": "nobody"}), "it stopped the new attempt"
    fired(desk.refused == 4)
    assert journal.told[told:] == []
    assert trial.temporary_state.ray_actor.asked == []

    assert desk.hear(trial, {"by": new, "lines": lines(measured(20, 0.5))})
    assert [(m.step, m.metrics["loss"]) for m in search.trials[0].measurements] == [(10, 1.0), (20, 0.5)]
    assert search.trials[0].attempts[1].cause is Cause.PREEMPTED
    assert search.trials[0].checkpoints == []
    journal.store.close()


@pytest.mark.fault("F59")
def test_a_trial_whose_driver_is_silent_for_long_keeps_its_state_and_ends_itself(
    tmp_path: Path, fired: Fired
) -> None:
    silence = 6.0  # a busy machine may keep it waiting for seconds
    assert SILENCE >= 30, "a driver that was stopped or waited for its disk must not lose its trials"
    (tmp_path / "hold").touch()
    search, journal = life(tmp_path / "study", steady(1))
    launch = search.suggest(1)
    assert launch is not None
    place = Place(silence)
    place.relaunch({"launch": json.dumps(launch.to_json()), "by": [0, 1, 1]})
    said: list[str] = []
    while not said:
        result = place.step()
        assert not result["lost"], result
        said += result["lines"]
    pid = ledger(search, 0)[-1][2]

    time.sleep(silence / 2)  # a shorter silence than that is none
    assert not place.step()["lost"]
    os.kill(pid, 0)

    began = time.monotonic()
    wait_for(lambda: not Path(f"/proc/{pid}").exists(), 4 * silence)
    fired(time.monotonic() - began > silence / 2)
    result = place.step()
    assert result["lost"] == f"no driver asked for it for {silence:g} s"
    assert result["cause"] == Cause.PREEMPTED
    assert result["by"] == [0, 1, 1]
    kept = [checkpoint for line in result["lines"] if (checkpoint := decode(line).checkpoint)]
    steps = [step for _, step, *_ in ledger(search, 0)]
    assert kept[-1].step == steps[-1], "what it had done since its last checkpoint is lost"
    place.abandon()
    journal.store.close()


def test_a_node_that_does_not_see_the_study_says_so_and_makes_no_directory_of_its_own(tmp_path: Path) -> None:
    """One that joined later than the others were asked."""
    search, journal = life(tmp_path / "study", steady(1))
    launch = search.suggest(1)
    assert launch is not None
    elsewhere = tmp_path / "elsewhere/study/trials/0000"
    told = launch.to_json()
    told["context"]["directory"] = str(elsewhere)
    place = Place()
    place.relaunch({"launch": json.dumps(told), "by": [0, 1, 1]})
    assert place.step()["lost"] == f"its node does not see {elsewhere.parents[1]}"
    assert not elsewhere.parents[1].exists()
    journal.store.close()
