"""Studies in one process whose facts wait in the store: nobody tells MLflow. As a program: one such study."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hpsearch import sweep
from hpsearch.errors import HpsearchError
from hpsearch.study.history import History

TEXT = """\
trainingInput:
  pythonModule: alone_trainer
  hyperparameters:
    goal: MINIMIZE
    hyperparameterMetricTag: loss
    maxTrials: 3
    params:
      - {parameterName: x, type: DOUBLE, minValue: 0, maxValue: 1}
hpsearch:
  maxSteps: 200
  measureEvery: 100
  sampler: {type: RANDOM}
"""
TRAINER = """
from hpsearch.train.learner import Measurement

def train(params, context):
    for step in range(context.measure_every, context.max_steps + 1, context.measure_every):
        yield Measurement(step, {"loss": (params["x"] - 0.3) ** 2 + 1 / step})
"""


class Unheard:
    """An outbox that nobody empties."""

    offset, parent_run_id, problem, set_aside = 0, None, None, 0

    def hasten(self, timeout: float) -> None: ...

    def close(self, *_: object) -> bool:
        return False


@contextlib.contextmanager
def unheard(*_: object, **__: object) -> Iterator[Unheard]:
    yield Unheard()


class Quiet:
    """A watcher that looks away."""

    def warned(self, *_: object) -> None: ...
    def started(self, *_: object) -> None: ...
    def stopped(self) -> None: ...
    def committed(self, entries: Sequence[Any]) -> None: ...


def lay(directory: Path, text: str = TEXT, trainer: str = TRAINER) -> Path:
    """A study's file beside its trainer."""
    (directory / "alone_trainer.py").write_text(trainer)
    (directory / "alone.yaml").write_text(text)
    sys.modules.pop("alone_trainer", None)
    return directory / "alone.yaml"


def play(file: Path, home: Path, resume: str = "auto", watcher: Any = None) -> History:
    """Run or go on with the study `s` of a file."""
    options = sweep.Options(home, "s", resume, local=True)
    return sweep.run(file, options, watcher or Quiet()).history


def table(home: Path) -> list[tuple[Any, ...]]:
    """What came of the study, without times and attempts."""
    queries = (
        "SELECT number, params FROM trial ORDER BY number",
        "SELECT trial, state, reason FROM ending ORDER BY trial",
        "SELECT trial, step, metric, value FROM measurement ORDER BY trial, step, metric",
    )
    with contextlib.closing(sqlite3.connect(home / "s/study.db")) as connection:
        return [row for query in queries for row in connection.execute(query)]


if __name__ == "__main__":
    sweep.following = unheard  # type: ignore[assignment]
    try:
        play(Path(sys.argv[1]), Path(sys.argv[2]))
    except HpsearchError as error:
        os.write(2, f"{error.message}\n".encode())
        sys.exit(error.exit_code)
