"""A driver on PostgreSQL that writes a row for each line that it is told, as a process of its own.

It prints what happened, and leaves with the exit code of the error that ended it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from hpsearch.errors import HpsearchError
from hpsearch.spec.reading import parse
from hpsearch.study.home import Home
from hpsearch.study.store import Store
from hpsearch.study.trial import Attempt, Entry, Measurement, Study, Trial

YAML = """\
trainingInput:
  pythonModule: hpsearch.trainers.linear_regression
  hyperparameters:
    goal: MINIMIZE
    hyperparameterMetricTag: loss
    maxTrials: 3
    params:
      - {parameterName: x, type: DOUBLE, minValue: 0, maxValue: 1}
"""


def new_study(home: Home, name: str) -> Store:
    """The store of a new study with one trial, taken."""
    spec = parse(YAML).spec
    assert spec
    store = home.create(Study(name, f"uid of {name}", 1, spec, home.place(name)), "sqlite:///m.db")
    store.take(2)
    store.commit([Entry(0, Trial(0, "u-0", {"x": 0.1}, 5)), Entry(0, Attempt(1, 5))])
    return store


def measure(store: Store, step: int, value: float = 1.0) -> None:
    """Commit one measurement."""
    store.commit([Entry(0, Measurement(step, {"loss": value}, 7), 1)])


def main() -> None:
    directory, name = sys.argv[1:]
    home = Home(Path(directory), os.environ["HPSEARCH_STORE"])
    try:
        store = new_study(home, name)
        print("ready", flush=True)
        for line in sys.stdin:
            measure(store, int(line), 2.0)
            print(f"wrote {line.strip()}", flush=True)
    except HpsearchError as error:
        print(error, flush=True)
        # As a killed one leaves it: nothing is tidied up.
        os._exit(error.exit_code)


if __name__ == "__main__":
    main()
