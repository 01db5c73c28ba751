"""Hand-made facts: trials of every state, and studies of them as a store gives them back."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from hpsearch.spec.reading import parse
from hpsearch.study.history import History
from hpsearch.study.store import Store
from hpsearch.study.trial import Attempt, Ending, Entry, Measurement, State, Study, StudyEnding, Trial

NOON = 1_769_860_800_000  # 2026-01-31, 12:00 UTC
YAML = """\
trainingInput:
  pythonModule: hpsearch.trainers.linear_regression
  hyperparameters:
    goal: MINIMIZE
    hyperparameterMetricTag: loss
    maxTrials: 20
    maxParallelTrials: 2
    params:
      - {parameterName: lr, type: DOUBLE, minValue: 0.0001, maxValue: 0.1, scaleType: UNIT_LOG_SCALE}
      - {parameterName: depth, type: INTEGER, minValue: 1, maxValue: 8, scaleType: UNIT_LINEAR_SCALE}
      - {parameterName: batch, type: DISCRETE, discreteValues: [16, 32]}
      - {parameterName: kind, type: CATEGORICAL, categoricalValues: [a, b]}
hpsearch: {maxSteps: 200, measureEvery: 100}
"""


def trial(number: int, values: Sequence[float], state: State | None = None, reason: str = "") -> Trial:
    """A trial that reported one loss every 100 steps, and how it ended."""
    params = {"lr": 0.012345678, "depth": 3, "batch": 16, "kind": "a"}
    made = Trial(number, f"u-{number}", params, NOON)
    made.attempts.append(Attempt(1, NOON + 7))
    for place, value in enumerate(values, 1):
        made.measurements.append(Measurement(100 * place, {"loss": value}, NOON + 1_000 * place))
    if state:
        made.ending = Ending(state, reason, NOON + 10_000)
    return made


def completed(number: int, *values: float) -> Trial:
    """A trial that ended at step 200, with its only value there or one at step 100 too."""
    told = values if len(values) == 2 else (math.nan, *values)
    return trial(number, told, State.COMPLETED, "reached step 200")


def pruned(number: int, values: Sequence[float]) -> Trial:
    """A trial that was worse than others."""
    return trial(number, values, State.PRUNED, "loss is worse than the median 1.5 of 5 completed trials")


def failed(number: int, reason: str = "ValueError: no data") -> Trial:
    """A trial whose code raised."""
    return trial(number, [], State.FAILED, reason)


def infeasible(number: int, values: Sequence[float]) -> Trial:
    """A trial without a finite objective."""
    return trial(number, values, State.INFEASIBLE, "training loss is inf")


def running(number: int, *values: float) -> Trial:
    """A trial that has not ended."""
    return trial(number, values)


def study(home: Path, name: str = "demo", yaml: str = YAML) -> Study:
    """A study of the YAML in a home directory, created at noon."""
    spec = parse(yaml, "demo.yaml").spec
    assert spec is not None
    return Study(name, f"{name}-uid", NOON, spec, home / name)


def history(made: Study, trials: Sequence[Trial], ending: StudyEnding | None = None) -> History:
    """What a store would know."""
    return History(made, f"sqlite:///{made.directory.parent}/mlflow.db", list(trials), {}, ending, 1, 0, None)


def entries(made: Trial) -> Iterator[Entry]:
    """The facts of a trial as they are committed, one after the other."""
    yield Entry(made.number, Trial(made.number, made.uid, made.params, made.created))
    for attempt in made.attempts:
        yield Entry(made.number, attempt, attempt.number)
    for measurement in made.measurements:
        yield Entry(made.number, measurement)
    if made.ending:
        yield Entry(made.number, made.ending)


def stored(made: Study, trials: Sequence[Trial], ending: StudyEnding | None = None) -> None:
    """Write a study to its directory as a driver would, and leave it."""
    store = Store.create(made, f"sqlite:///{made.directory.parent}/mlflow.db")
    store.take(NOON)
    store.commit([entry for one in trials for entry in entries(one)])
    if ending:
        store.commit([Entry(None, ending)])
    store.close()
