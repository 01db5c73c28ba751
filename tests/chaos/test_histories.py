"""Random histories of faults: whatever happens, and however often, a study comes to the same end."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest
from checker import table
from histories import drawn, parsed, play, shrunk, written
from lives import reference
from scenes import Scene, spec_of
from simulation import world_of

from hpsearch.spec.model import Stopping
from hpsearch.study.search import Search
from hpsearch.study.trial import Ending, Measurement, State, Study, Trial

# Nightly runs ask for more of them; each has the same meaning in all runs.
HISTORIES = int(os.environ.get("HPSEARCH_HISTORIES", "60"))
REGRESSIONS = Path(__file__).parent / "regressions"
Fired = Callable[..., None]


@pytest.mark.timeout(400)  # 25 s of work on a core of its own, which it seldom has
@pytest.mark.fault("F01", "F04", "F10", "F12", "F13", "F36", "F37", "F38", "F45", "F54", "F57", "F59")
def test_any_history_of_kills_full_disks_lost_replies_and_rivals_ends_in_the_same_table(fired: Fired) -> None:
    fates: Counter[str] = Counter()
    for seed in range(HISTORIES):
        history = drawn(seed)
        played = play(history)
        fates.update(played.fired)
        fates["jumps"] += history[0].jumps
        if played.wrong:
            least = shrunk(history)
            wrong = "\n".join(play(least).wrong)
            pytest.fail(
                f"history {seed} fails; keep this line in {REGRESSIONS.name}/:\n{written(least)}\n{wrong}"
            )
    print(f"{HISTORIES} histories, seeds 0 to {HISTORIES - 1}: {dict(fates)}")
    fired(fates["KILL"] > HISTORIES // 4, "F01", "F04", "F57")
    fired(fates["RIVAL"], "F10", "F13")
    fired(fates["BUSY"], "F12")
    fired(fates["ENOSPC"], "F36", "F37")
    fired(fates["EIO"], "F38")
    fired(fates["jumps"], "F45")
    fired(fates["LOST"], "F54")
    fired(fates["STALE"], "F59")


def test_a_history_is_one_line_that_plays_again() -> None:
    for seed in range(50):
        assert parsed(written(drawn(seed))) == drawn(seed)


LINES = [
    pytest.param(line, id=f"{path.stem}-{number}")
    for path in sorted(REGRESSIONS.glob("*.txt"))
    for number, line in enumerate(path.read_text().splitlines())
    if line and not line.startswith("#")
]


@pytest.mark.parametrize("line", LINES)
def test_what_failed_once_does_not_fail_again(line: str) -> None:
    played = play(parsed(line))
    assert not played.wrong, "\n".join(played.wrong)


@pytest.mark.fault("F45")
@pytest.mark.parametrize("pruner", ["ASHA", "MEDIAN"])
def test_a_wall_clock_that_leaps_by_hours_decides_nothing(pruner: str, fired: Fired) -> None:
    steady = Scene(seed=5, trials=12, steps=4, pruner=pruner)
    stamps: list[list[int]] = []
    tables = []
    for scene in (steady, replace(steady, jumps=True)):
        with world_of(scene) as world:
            assert world.live() == 0
            assert world.history is not None
            stamps.append([trial.created for trial in world.history.trials])
            world.scene = replace(scene, jumps=True)  # all but the times
            tables.append(table(world.history, world))
    assert tables[0] == tables[1]
    assert reference(steady).trials == 12
    fired(stamps[1] != sorted(stamps[1]) and stamps[0] == sorted(stamps[0]))


@pytest.mark.fault("F45")
def test_a_study_that_stops_without_progress_counts_endings_in_their_order_and_not_by_their_stamps(
    fired: Fired,
) -> None:
    best = Measurement(1, {"loss": 0.1}, 0)
    trials = []
    for number, (value, time) in enumerate([(0.5, 9_000), (0.1, 1_000), (0.4, 500), (0.6, 200)]):
        trial = Trial(number, f"u{number}", {}, 0)
        trial.measurements.append(replace(best, metrics={"loss": value}))
        trial.ending = Ending(State.COMPLETED, "done", time)
        trials.append(trial)
    spec = replace(spec_of(Scene(seed=1)), stopping=Stopping(max_trials_no_progress=2))
    study = Study("s", "u", 0, spec, Path("/nowhere"))
    search = Search(study, mock.Mock(), mock.Mock(), mock.Mock())
    search.restore(trials, {number: {} for number in range(4)}, order=(0, 1, 2, 3))
    assert search.suggest(10_000) is None, "two trials ended after the best one"
    assert "has not improved for 2 trials" in search._stopping.reason
    fired([t.ending.time for t in trials if t.ending] == [9_000, 1_000, 500, 200])
