"""The straight line is found: slope, intercept and error of the least-squares solution."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hpsearch.study.trial import Context, Launch, Report, State
from hpsearch.train import loop
from hpsearch.train.trial import execute
from hpsearch.trainers import linear_regression

SLOPE, INTERCEPT = np.polyfit(linear_regression.FEATURES, linear_regression.LABELS, 1)
BEST = float(
    np.std(np.array(linear_regression.LABELS) - SLOPE * np.array(linear_regression.FEATURES) - INTERCEPT)
)


def test_the_line_converges_to_the_least_squares_solution(tmp_path: Path) -> None:
    params = {"learning_rate": 0.015, "batch_size": 12}
    learner = loop.fresh(linear_regression.build, params, Context(0, 1, 0, 600, 600, tmp_path))
    for step in range(1, 601):
        loop.update(learner, step)
    weight, bias = (parameter.item() for parameter in learner.model.parameters())
    assert weight == pytest.approx(SLOPE, abs=0.01)
    assert weight == pytest.approx(3, abs=0.1)
    assert bias == pytest.approx(INTERCEPT, abs=0.1)
    assert loop.evaluate(learner)["rmse"] == pytest.approx(BEST, abs=0.01)


def test_a_learning_rate_that_is_too_high_is_infeasible(tmp_path: Path) -> None:
    said: list[Report] = []
    params = {"learning_rate": 0.1, "batch_size": 4}
    context = Context(0, 1, 0, 400, 40, tmp_path)
    execute(
        Launch("hpsearch.trainers.linear_regression", (), params, context, "rmse"),
        lambda report: said.append(report) or True,
    )
    assert said[-1].ending
    assert said[-1].ending.state is State.INFEASIBLE
