"""What the simulated studies search for, and what their trials do: closed forms of (seed, params, step)."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

from hpsearch.run.simulated import Part
from hpsearch.spec.model import Spec
from hpsearch.spec.reading import parse
from hpsearch.study.seeds import seed_of
from hpsearch.study.trial import Launch

START = 1_700_000_000_000
HOUR = 3_600_000

TEXT = """\
trainingInput:
  pythonModule: hpsearch.trainers.linear_regression
  hyperparameters:
    goal: MINIMIZE
    hyperparameterMetricTag: loss
    maxTrials: {trials}
    maxParallelTrials: {parallel}
    enableTrialEarlyStopping: true
    params:
      - {{parameterName: lr, type: DOUBLE, minValue: 1e-5, maxValue: 1e-1, scaleType: UNIT_LOG_SCALE}}
      - {{parameterName: width, type: INTEGER, minValue: 1, maxValue: 64, scaleType: UNIT_LINEAR_SCALE}}
      - {{parameterName: act, type: CATEGORICAL, categoricalValues: [relu, tanh, gelu]}}
hpsearch:
  maxSteps: {steps}
  measureEvery: 1
  sampler: {{type: {sampler}, seed: {seed}}}
  pruner: {{type: {pruner}, {rule}}}
  limits: {{maxAttempts: 2}}
"""
RULES = {
    "ASHA": "minSteps: 1, reductionFactor: {factor}",
    "HYPERBAND": "minSteps: 1, reductionFactor: {factor}",
    "MEDIAN": "minSteps: 1, minTrials: 2",
    "PATIENCE": "patience: 3, minSteps: 2",
}


@dataclass(frozen=True, slots=True)
class Scene:
    """One study: a seed, its size, its algorithms. `jumps`: its wall clock leaps by hours, both ways."""

    seed: int
    trials: int = 24
    steps: int = 8
    parallel: int = 4
    sampler: str = "RANDOM"
    pruner: str = "ASHA"
    factor: int = 2
    jumps: bool = False
    together: bool = False


REFERENCE = Scene(seed=3)


@functools.lru_cache(maxsize=64)
def spec_of(scene: Scene) -> Spec:
    """Its Spec."""
    text = TEXT.format(
        trials=scene.trials,
        parallel=scene.parallel,
        steps=scene.steps,
        sampler=scene.sampler,
        seed=scene.seed,
        pruner=scene.pruner,
        rule=RULES[scene.pruner].format(factor=scene.factor),
    )
    reading = parse(text, "sim.yaml")
    assert reading.spec is not None, reading.errors
    return reading.spec


def part_of(scene: Scene, launch: Launch) -> Part:
    """What a trial does: some fail, some crash in each attempt, some diverge, some never had a chance."""
    number = launch.context.number
    drawn = seed_of(scene.seed, number, "part")
    rate, width = float(launch.params["lr"]), int(launch.params["width"])
    floor = 0.1 + 0.05 * (math.log10(rate) + 3) ** 2 + abs(width - 30) / 200

    def measure(step: int) -> dict[str, float]:
        if drawn % 9 == 2 and step > drawn // 16 % 3:
            return {"loss": math.nan, "accuracy": 0.0}
        return {"loss": floor + 1 / (step + drawn % 3), "accuracy": 1 / (1 + floor + 1 / step)}

    last = max(2, scene.steps - 1)
    return Part(
        pace=700 + drawn % 601,
        measure=measure,
        fails_at=1 + drawn // 16 % last if drawn % 9 == 1 else None,
        crashes_at=1 + drawn // 16 % last if drawn % 9 == 5 else None,
        together=scene.together,
    )


def stamp_of(scene: Scene) -> Callable[[int], int]:
    """What a wall clock shows at a virtual time: of a host whose clock is set every few seconds."""
    if not scene.jumps:
        return int

    def stamp(now: int) -> int:
        return now + (seed_of(scene.seed, now // 2_500, "jump") % 9 - 4) * HOUR

    return stamp
