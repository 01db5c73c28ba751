"""One sweep in which every second trial misbehaves, each in its own way: the rest finish, and all say why."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from pathlib import Path

import misbehaving
import pytest
from bad_trials import HERE, Fired, Slot, left_of, slot

from hpsearch.run import local
from hpsearch.spec.reading import parse
from hpsearch.study.history import History
from hpsearch.study.home import Home
from hpsearch.study.pruning import make_pruner
from hpsearch.study.sampling import OptunaSampler
from hpsearch.study.search import Search
from hpsearch.study.trial import Cause, Outcome, State, Study

__all__ = ["slot"]
# How each ends: its state, a part of its reason, and how often it was tried.
FAILED, INFEASIBLE, COMPLETED = State.FAILED, State.INFEASIBLE, State.COMPLETED
BAD: dict[str, tuple[State, str, int]] = {
    "killed": (COMPLETED, "reached step 300", 2),
    "segfault": (FAILED, "signal 11 (SIGSEGV), in attempt 2 of 2", 2),
    "exits_zero": (FAILED, "exited with code 0", 1),
    "exits_three": (FAILED, "exited with code 3", 1),
    "raises": (FAILED, "ValueError: no good (misbehaving.py:", 1),
    "system_exit": (FAILED, "SystemExit: gave up", 1),
    "own_exception": (FAILED, "Strange", 1),
    "recursion": (FAILED, "RecursionError", 1),
    "stops_itself": (COMPLETED, "reached step 300", 2),
    "deadlocks": (FAILED, "progressTimeout: no further report for 4 s, in attempt 2 of 2", 2),
    "daemons": (COMPLETED, "reached step 300", 1),
    "zombies": (COMPLETED, "reached step 300", 1),
    "out_of_cuda_memory": (FAILED, "oom: OutOfMemoryError: CUDA out of memory", 1),
    "out_of_memory": (FAILED, "oom: MemoryError", 1),
    "metric_missing": (COMPLETED, "reached step 300", 1),
    "backwards": (COMPLETED, "reached step 300", 1),
    "float_steps": (COMPLETED, "reached step 300", 1),
    "many_names": (COMPLETED, "reached step 300", 1),
    "nan": (INFEASIBLE, "loss is nan at step 300", 1),
    "inf": (INFEASIBLE, "loss is inf at step 300", 1),
    "minus_inf": (INFEASIBLE, "loss is -inf at step 300", 1),
    "1e308": (COMPLETED, "reached step 300", 1),
    "subnormal": (COMPLETED, "reached step 300", 1),
    **{
        f"only_{kind}": (FAILED, "metric loss never reported; tags seen: none; rejected: loss at step", 1)
        for kind in ("text", "none", "list", "complex", "object", "array", "unreadable")
    },
    "text": (COMPLETED, "reached step 300", 1),
    "numpy_text": (COMPLETED, "reached step 300", 1),
}
GOOD = sorted(misbehaving.NUMBERS.keys() - {"huge_int"})


def yaml() -> str:
    mixed = [kind for pair in zip(BAD, GOOD * 4, strict=False) for kind in (f"{pair[0]}", f"{pair[1]}")]
    kinds = [*dict.fromkeys(mixed), *(f"good{n}" for n in range(60 - len(dict.fromkeys(mixed))))]
    return f"""\
trainingInput:
  pythonModule: misbehaving
  hyperparameters:
    goal: MINIMIZE
    hyperparameterMetricTag: loss
    maxTrials: {len(kinds)}
    params:
      - {{parameterName: kind, type: CATEGORICAL, categoricalValues: [{", ".join(kinds)}]}}
hpsearch:
  maxSteps: 300
  measureEvery: 100
  sampler: {{type: GRID}}
  limits: {{maxFailedTrials: 100, maxAttempts: 2, progressTimeout: 4s,
    gracePeriod: 1s}}
"""


@pytest.fixture
def history(tmp_path: Path, slot: Slot, caplog: pytest.LogCaptureFixture) -> Iterator[History]:
    """What is in the store after the sweep."""
    reading = parse(yaml(), "misbehaving.yaml")
    assert reading.spec, reading.errors
    home = Home(tmp_path)
    store = home.create(Study("sweep", "u", 1, reading.spec, tmp_path / "sweep"), "sqlite:///none.db")
    began = store.take(1)
    sampler, pruner = OptunaSampler(reading.spec), make_pruner(reading.spec)
    search = Search(began.study, sampler, pruner, store, python_path=[HERE])
    caplog.set_level(logging.WARNING)
    deadline = local.Deadline(search)
    while (launch := search.suggest(2)) is not None:
        local._run_apart(search, slot, launch, deadline)
        search.released(launch.context.number)
    search.conclude(3)
    store.close()
    yield home.history("sweep")


@pytest.mark.fault("F16", "F18", "F20", "F28", "F29", "F30", "F31", "F33")
def test_a_sweep_of_bad_trials_finishes_and_each_says_why(
    history: History, caplog: pytest.LogCaptureFixture, fired: Fired
) -> None:
    assert history.ending
    assert history.ending.outcome is Outcome.COMPLETED
    trials = {str(trial.params["kind"]): trial for trial in history.trials}
    assert len(trials) == 60
    assert len(BAD) >= 30
    for kind, (state, reason, attempts) in BAD.items():
        trial = trials[kind]
        assert trial.ending, kind
        assert (kind, trial.state, len(trial.attempts)) == (kind, state, attempts)
        assert reason in trial.ending.reason, kind
    for kind in trials.keys() - BAD.keys():
        assert trials[kind].state is State.COMPLETED, kind
        assert [m.step for m in trials[kind].measurements] == [100, 200, 300], kind
    assert [each.cause for each in trials["deadlocks"].attempts] == [Cause.FIRST, Cause.HUNG]
    assert [each.cause for each in trials["killed"].attempts] == [Cause.FIRST, Cause.CRASHED]
    assert trials["segfault"].attempts[1].reason == "its process was killed by signal 11 (SIGSEGV)"
    fired(len(trials))
    _check_steps(history)
    _check_nothing_is_left(history)
    told = [record.getMessage() for record in caplog.get_records("setup")]
    assert 20 < len(told) < 120, "a bad trial is told in some lines"
    assert max(map(len, told)) < 1000


def _check_steps(history: History) -> None:
    for trial in history.trials:
        steps = [measurement.step for measurement in trial.measurements]
        assert steps == sorted(set(steps))
        assert len({name for m in trial.measurements for name in m.metrics}) <= 1000


def _check_nothing_is_left(history: History) -> None:
    deadline = time.monotonic() + 10
    for trial in history.trials:
        directory = history.study.directory / f"trials/{trial.number:04d}"
        while left := left_of(directory):
            assert time.monotonic() < deadline, (trial.params, left)
            time.sleep(0.05)
