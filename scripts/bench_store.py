"""What the store can do: durable measurements a second, and how long a resume reads. Prints JSON.

scripts/bench_store.py [--trials N ...] [--store URL] [--directory DIR]: SQLite, and PostgreSQL where that is
named; DIR is where the SQLite file lies, and so decides what its syncs cost.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from hpsearch.spec.reading import parse
from hpsearch.study.home import Home
from hpsearch.study.store import Store
from hpsearch.study.trial import Attempt, Ending, Entry, Measurement, State, Study, Trial

YAML = """\
trainingInput:
  pythonModule: hpsearch.trainers.linear_regression
  hyperparameters:
    goal: MINIMIZE
    hyperparameterMetricTag: loss
    maxTrials: 10000
    params:
      - {parameterName: x, type: DOUBLE, minValue: 0, maxValue: 1}
"""
STEPS = 100  # measurements of each trial


def new_store(home: Home, name: str) -> Store:
    spec = parse(YAML).spec
    assert spec is not None
    study = Study(name, f"{name} {time.time_ns()}", 1, spec, home.place(name))
    store = home.create(study, "sqlite:///none.db")
    store.take(2)
    return store


def started(number: int) -> Iterator[Entry]:
    yield Entry(number, Trial(number, f"u-{number}", {"x": number / 7}, 5), attributes={"k": 1})
    yield Entry(number, Attempt(1, 5), 1)


def measured(number: int, first: int, steps: int) -> list[Entry]:
    return [
        Entry(number, Measurement(s, {"loss": 1 / (s + number + 1)}, 7), 1)
        for s in range(first, first + steps)
    ]


def durable(home: Home, group: int, seconds: float = 1.5) -> float:
    """Measurements a second that are durable, so many in each commit."""
    store = new_store(home, f"durable-{group}")
    store.commit(list(started(0)))
    written, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        store.commit(measured(0, written, group))
        written += group
    rate = written / (time.perf_counter() - began)
    store.close()
    return round(rate)


def resume(home: Home, trials: int) -> dict[str, float]:
    """Seconds until a study with so many ended trials of 100 measurements is read, proven and folded."""
    name = f"large-{trials}"
    store = new_store(home, name)
    for number in range(trials):
        end = Entry(number, Ending(State.COMPLETED, "done", 9), 1)
        if number % 100 == 0:
            batch: list[Entry] = []
        batch += [*started(number), *measured(number, 1, STEPS), end]
        if number % 100 == 99 or number == trials - 1:
            store.commit(batch)
    store.close()
    began, busy = time.perf_counter(), time.process_time()
    store = home.open(name)
    history = store.take(9)
    took = {"wall_s": round(time.perf_counter() - began, 2), "cpu_s": round(time.process_time() - busy, 2)}
    assert len(history.trials) == trials
    assert len(history.trials[-1].measurements) == STEPS
    store.close()
    return {"measurements": trials * STEPS, **took}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, nargs="*", default=[1000, 10000])
    parser.add_argument("--store", default=None)
    parser.add_argument("--directory", default=None)
    options = parser.parse_args()
    for address in [None] + ([options.store] if options.store else []):
        with tempfile.TemporaryDirectory(dir=options.directory) as directory:
            home = Home(Path(directory), address)
            print(
                json.dumps(
                    {
                        "date": datetime.now().date().isoformat(),
                        "database": "postgresql" if address else "sqlite",
                        "durable_measurements_per_second": {n: durable(home, n) for n in (1, 10, 100)},
                        "resume": {n: resume(home, n) for n in options.trials},
                    }
                ),
                flush=True,
            )


if __name__ == "__main__":
    main()
