"""What the chaos tests share: studies of the closed-form trainers."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

TRAINERS = Path(__file__).parent / "trainers"


@pytest.fixture
def place(tmp_path: Path, mlflow_database: Path) -> Callable[..., Path]:
    """A directory with a study's file, its trainer, and a home with MLflow's tables in it."""

    def make(name: str = ".", **settings: object) -> Path:
        directory = tmp_path / name
        (directory / "studies").mkdir(mode=0o700, parents=True)
        shutil.copy(mlflow_database, directory / "studies/mlflow.db")
        for each in TRAINERS.glob("*.py"):
            shutil.copy(each, directory)
        (directory / "toy.yaml").write_text(study_text(**settings))  # type: ignore[arg-type]
        return directory

    return make


def study_text(
    *,
    module: str = "closed_form",
    trials: int = 24,
    steps: int = 8,
    every: int = 1,
    pause: float = 0,
    own: str = "",
) -> str:
    """The reference sweep: a file whose trials are the same in whichever order they run."""
    return f"""\
trainingInput:
  pythonModule: {module}
  args: ["--pause={pause}"]
  hyperparameters:
    goal: MINIMIZE
    hyperparameterMetricTag: loss
    maxTrials: {trials}
    maxParallelTrials: 4
    params:
      - {{parameterName: x, type: DOUBLE, minValue: 0, maxValue: 1}}
      - {{parameterName: layers, type: INTEGER, minValue: 1, maxValue: 4}}
hpsearch:
  maxSteps: {steps}
  measureEvery: {every}
  sampler: {{type: RANDOM, seed: 3}}
  {own}
"""
