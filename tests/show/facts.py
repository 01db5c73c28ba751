"""Hand-made facts: trials of every state, and studies of them as a store gives them back."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from hpsearch.spec.model import (
    Categorical,
    Condition,
    Constraint,
    Discrete,
    Double,
    Goal,
    Integer,
    Objective,
    Scale,
    SearchSpace,
    key_of,
)
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


WIDTH = Discrete("width", (8, 16.5), Scale.LOG, Condition("layers", (2, 3)))
# Two children of one name, and a child of a child.
TREE = SearchSpace(
    (
        Categorical("optimizer", ("adam", "sgd")),
        Double("rate", 0.001, 0.1, Scale.LOG, Condition("optimizer", ("adam",))),
        Double("rate", 0.1, 1.0, Scale.LINEAR, Condition("optimizer", ("sgd",))),
        Integer("layers", 1, 3),
        WIDTH,
        Double("dropout", 0.1, 0.5, Scale.REVERSE_LOG, Condition(key_of(WIDTH), (16.5,))),
    )
)


def several(home: Path, *, limit: float | None = None) -> Study:
    """A study of two objectives over TREE; a `limit` is what latency must not pass."""
    objectives = (Objective("loss", Goal.MINIMIZE), Objective("accuracy", Goal.MAXIMIZE))
    latency = Objective("latency", Goal.MINIMIZE)
    constraints = () if limit is None else (Constraint(latency, limit),)
    made = study(home)
    spec = replace(made.spec, space=TREE, objectives=objectives, constraints=constraints)
    return replace(made, spec=spec)


def scored(number: int, loss: float, accuracy: float, *, latency: float = math.nan) -> Trial:
    """A completed trial of `several`, measured once."""
    made = Trial(number, f"u-{number}", {"optimizer": "adam", "rate": 0.01, "layers": 1}, NOON)
    made.attempts.append(Attempt(1, NOON + 7))
    metrics = {"loss": loss, "accuracy": accuracy, "latency": latency}
    made.measurements.append(Measurement(100, metrics, NOON + 1_000))
    made.ending = Ending(State.COMPLETED, "reached step 100", NOON + 10_000)
    return made


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
