"""Lives of an outbox, each in a process of its own: forked from one that has imported MLflow already.

A line of JSON on stdin starts a life: a home, and a fault. A line on stdout says how it ended: the exit code,
negative for a signal. A life opens the study, commits what facts are missing, two at a time, waits until
MLflow has them, and leaves in order.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from pathlib import Path

from hpsearch import faults
from hpsearch.run.local import now
from hpsearch.spec.reading import parse
from hpsearch.study.history import History
from hpsearch.study.home import Home
from hpsearch.study.trial import (
    Attempt,
    Ending,
    Entry,
    Measurement,
    Outcome,
    State,
    Study,
    StudyEnding,
    Trial,
)
from hpsearch.track.following import following
from hpsearch.track.uri import default_uri

NAME, TRIALS, STEPS, CREATED = "toy-1", 5, 2, 1_700_000_000_000
SPEC = """\
trainingInput:
  pythonModule: toy
  hyperparameters:
    goal: MINIMIZE
    hyperparameterMetricTag: loss
    maxTrials: 5
    params:
      - {parameterName: x, type: DOUBLE, minValue: 0, maxValue: 1}
"""


def entries() -> list[Entry]:
    """The facts of a small study in order, each one row of the store."""
    found: list[Entry] = []
    for number in range(TRIALS):
        start = CREATED + 1_000 * number
        found += [
            Entry(number, Trial(number, f"trial-{number}", {"x": number / 8}, start), attributes={}),
            Entry(number, Attempt(1, start)),
        ]
        found += [
            Entry(number, Measurement(step, {"loss": float(number + 1 / step)}, start + step))
            for step in range(1, STEPS + 1)
        ]
        found.append(Entry(number, Ending(State.COMPLETED, "reached its last step", start + 9)))
    return [*found, Entry(None, StudyEnding(Outcome.COMPLETED, "all trials ended", CREATED + 9_000))]


def create(home: Path) -> None:
    spec = parse(SPEC, str(home / "toy.yaml")).spec
    assert spec is not None
    Home(home).create(Study(NAME, "study-1", CREATED, spec, home / NAME), default_uri(home)).close()


def committed(history: History) -> int:
    """How many of these facts a store holds: those of upkeep and of resumes do not count."""
    trials = sum(
        1 + bool(trial.attempts) + len(trial.measurements) + bool(trial.ending) for trial in history.trials
    )
    last = history.last_ending
    return trials + (last is not None and last.outcome is Outcome.COMPLETED)


def live(home: Path) -> None:
    store = Home(home).open(NAME)
    history = store.take(now())
    with following(store, history, interval=0.0) as outbox:
        facts = entries()
        there = committed(history)
        again = [
            Entry(trial.number, Attempt(len(trial.attempts) + 1, CREATED + 8_000))
            for trial in history.trials
            if trial.attempts and not trial.ending
        ]
        for part in (again, *(facts[start : start + 2] for start in range(there, len(facts), 2))):
            store.commit(part)
            deadline = time.monotonic() + 30
            while outbox.offset < store.lsn:
                assert time.monotonic() < deadline, outbox.problem
                time.sleep(0.001)
        assert outbox.close(30), outbox.problem
    store.close()


def main() -> None:
    import mlflow.store.tracking.sqlalchemy_store
    import mlflow.tracking  # noqa: F401

    for line in sys.stdin:
        order = json.loads(line)
        assert threading.active_count() == 1, "a process with threads must not fork"
        child = os.fork()
        if child == 0:
            code = 70
            try:
                faults.arm({faults.TESTING: "1", faults.FAIL: order["fault"]})
                live(Path(order["home"]))
                code = 0
            finally:
                os._exit(code)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
