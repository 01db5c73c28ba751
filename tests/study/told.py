"""A pruner that is told of trials, and real learning curves to tell it of."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from hpsearch.spec.model import Goal, Objective, PrunerSpec, PruningRule, SearchSpace, Selection, Spec
from hpsearch.study.pruning import Pruner, make_pruner
from hpsearch.study.trial import Attempt, Decision, Ending, Measurement, State, Trial

CURVES = Path(__file__).parents[2] / ".." / "shared" / "curves"
MIN, MAX = Goal.MINIMIZE, Goal.MAXIMIZE
Array = np.ndarray[Any, np.dtype[Any]]


def spec(
    rule: PruningRule,
    goal: Goal = MIN,
    steps: tuple[int, int] = (1000, 100),
    selection: Selection = Selection.LAST,
    **settings: Any,
) -> Spec:
    return Spec(
        source="x.yaml",
        text="",
        sha256="",
        dialect="hpsearch",
        module="trainer",
        args=(),
        space=SearchSpace(()),
        objectives=(Objective("val_rmse", goal),),
        max_steps=steps[0],
        measure_every=steps[1],
        selection=selection,
        pruner=PrunerSpec(rule, **settings),
    )


class Told:
    """A pruner with its trials: `measure` records and decides, as the search does.

    Unless told otherwise, a trial has one attempt, which started at 0, and a step takes a second.
    """

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.pruner: Pruner = make_pruner(spec)
        self.trials: dict[int, Trial] = {}
        self.log: list[tuple[int, Measurement | State]] = []

    def measure(
        self, number: int, step: int, value: float, metric: str = "val_rmse", seconds: float | None = None
    ) -> Decision:
        time = round(1000 * (step if seconds is None else seconds))
        measurement = Measurement(step, {metric: value, "other": 0.0}, time)
        return self.pruner.decide(self.record(number, measurement))

    def record(self, number: int, measurement: Measurement) -> Trial:
        trial = self.trial(number)
        if not trial.attempts:
            self.attempt(number, 0)
        trial.measurements.append(measurement)
        self.log.append((number, measurement))
        self.pruner.record(trial, measurement)
        return trial

    def trial(self, number: int) -> Trial:
        return self.trials.setdefault(number, Trial(number, f"t{number}", {}, 0))

    def attempt(self, number: int, seconds: float) -> None:
        attempts = self.trial(number).attempts
        attempts.append(Attempt(len(attempts) + 1, round(1000 * seconds)))

    def end(self, number: int, state: State = State.COMPLETED) -> None:
        self.trials[number].ending = Ending(state, "so")
        self.log.append((number, state))
        self.pruner.ended(self.trials[number])

    def curve(self, number: int, *values: float, state: State = State.COMPLETED) -> None:
        """A trial measured at steps 100, 200, ... up to its end, whatever the rule says."""
        for index, value in enumerate(values, 1):
            self.measure(number, 100 * index, value)
        self.end(number, state)

    def prunes(self, number: int, *values: float) -> list[bool]:
        """What the rule says to a trial measured at steps 100, 200, ..., which does not end."""
        return [self.measure(number, 100 * index, value).prune for index, value in enumerate(values, 1)]

    def folded_again(self) -> Told:
        """The same facts, trial by trial and without a single decision, in a fresh pruner."""
        again = Told(self.spec)
        for number, trial in self.trials.items():
            again.trial(number).attempts.extend(trial.attempts)
            for fact in (fact for n, fact in self.log if n == number):
                if isinstance(fact, State):
                    again.end(number, fact)
                else:
                    again.record(number, fact)
        return again


# -- real curves ---------------------------------------------------------------------------------------


@dataclass
class Task:
    """The curves of many settings (settings, points) at the steps 1, 2, ...; seconds where known."""

    name: str
    goal: Goal
    curves: Array
    seconds: Array | None = None

    def sample(self, seed: int, many: int) -> Task:
        """So many settings, drawn without replacement."""
        chosen = np.random.default_rng(seed).permutation(len(self.curves))[:many]
        seconds = None if self.seconds is None else self.seconds[chosen]
        return Task(self.name, self.goal, self.curves[chosen], seconds)


@cache
def lcbench() -> list[Task]:
    """Validation accuracies of multilayer perceptrons on four tasks, 50 points each."""
    data = np.load(_file("lcbench_surrogate.npz"))
    parts = zip(data["task_ids"], data["val_accuracy"], data["time"], strict=True)
    return [Task(f"lcbench {name}", MAX, curves[:, 1:51], time[:, 1:51]) for name, curves, time in parts]


@cache
def taskset() -> list[Task]:
    """Validation losses of six recurrent text classifiers, 50 points each; NaN: it blew up."""
    data = np.load(_file("taskset_rnn.npz"))
    return [Task(f"taskset {n}", MIN, each[:, 1:51]) for n, each in enumerate(data["valid_loss"])]


@cache
def deepobs() -> list[Task]:
    """Test losses of real runs of four problems with three optimizers, a point for each second epoch."""
    import pyarrow.parquet as pq

    runs = pq.read_table(_file("deepobs_runs.parquet"), columns=["run", "problem"]).to_pydict()
    problem = dict(zip(runs["run"], runs["problem"], strict=True))
    epochs = pq.read_table(_file("deepobs_epochs.parquet"), columns=["run", "epoch", "test_loss"]).to_pydict()
    curves: dict[str, dict[int, list[float]]] = {}
    for run, epoch, loss in zip(*epochs.values(), strict=True):
        if epoch > 0:
            curves.setdefault(problem[run], {}).setdefault(run, []).append(math.nan if loss is None else loss)
    tasks = []
    for name, by_run in sorted(curves.items()):
        points = max(map(len, by_run.values()))
        padded = [losses + [math.nan] * (points - len(losses)) for losses in by_run.values()]
        tasks.append(Task(f"deepobs {name}", MIN, np.array(padded)[:, points // 50 - 1 :: points // 50]))
    return tasks


def _file(name: str) -> Path:
    path = CURVES / name
    assert path.exists(), f"the learning curves are absent: {path}"
    return path


@dataclass
class Outcome:
    """What became of a task under a rule.

    `used`: the share of all training. `regret`: of the best completed trial, as a share of the median's;
    `rank` is its rank. `pruned` trials, `wrongly` those that would have beaten the best completed before.
    """

    used: float
    regret: float
    rank: int
    best_pruned: bool
    pruned: int
    wrongly: int


def replay(rule: PruningRule, task: Task, every: int, by_seconds: bool = False, **settings: Any) -> Outcome:
    """Tell a rule of a task's trials, one after the other, and of each a measurement every so many points."""
    told = Told(spec(rule, task.goal, use_elapsed=by_seconds, **settings))
    spent = np.broadcast_to(np.arange(1.0, task.curves.shape[1] + 1), task.curves.shape)
    if by_seconds:
        assert task.seconds is not None
        spent = task.seconds
    final = np.where(np.isfinite(task.curves[:, -1]), task.curves[:, -1], np.nan)
    final = final if task.goal is MIN else -final
    used, completed, pruned, wrongly = 0.0, [math.inf], [], 0
    for number, curve in enumerate(task.curves):
        for point in range(every - 1, len(curve), every):
            at = float(spent[number, point])
            if told.measure(number, point + 1, float(curve[point]), seconds=at).prune:
                told.end(number, State.PRUNED)
                pruned.append(number)
                wrongly += bool(final[number] < min(completed))
                break
        else:
            told.end(number, State.FAILED if np.isnan(final[number]) else State.COMPLETED)
            completed.append(float(np.nan_to_num(final[number], nan=math.inf)))
        used += at
    best, chosen = np.nanmin(final), np.nanmin(completed)
    return Outcome(
        used=used / float(spent[:, -1].sum()),
        regret=float((chosen - best) / (np.nanmedian(final) - best)),
        rank=1 + int((final < chosen).sum()),
        best_pruned=int(np.nanargmin(final)) in pruned,
        pruned=len(pruned),
        wrongly=wrongly,
    )
