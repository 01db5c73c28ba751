"""Waiting for what a driver does, and faults at which it waits for the test."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

LOCAL = ("run", "toy.yaml", "--local", "--study", "s")


def until(condition: Callable[[], Any], seconds: float = 60) -> Any:
    """What a condition says as soon as it is true; AssertionError after some seconds."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it has not happened in time"
        time.sleep(0.01)
    return found


def is_pending(pid: int, number: int) -> bool:
    """Whether a signal has not reached the process yet: a second one would be the same one."""
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    (waiting,) = [line.split()[1] for line in status if line.startswith("ShdPnd")]
    return bool(int(waiting, 16) >> (number - 1) & 1)


def faulty(directory: Path, *faults: str) -> dict[str, str]:
    """The environment in which faults happen, and are told in a file of the directory."""
    fired = str(directory / "fired")
    return {"HPSEARCH_TESTING": "1", "HPSEARCH_FAIL": ",".join(faults), "HPSEARCH_FAIL_FIRED": fired}


def has_fired(directory: Path) -> list[str]:
    """The faults that happened in a directory."""
    path = directory / "fired"
    return path.read_text().splitlines() if path.exists() else []


def steps(directory: Path, trial: int = 0) -> list[list[int]]:
    """A trial's ledger: [attempt, step, pid] for each step that ran."""
    path = directory / f"studies/s/trials/{trial:04d}/ledger"
    lines = path.read_text().splitlines() if path.exists() else []
    return [list(map(int, line.split())) for line in lines]


def stored(directory: Path, query: str) -> list[tuple[Any, ...]]:
    """Rows of the study's database, read directly."""
    return _rows(directory / "studies/s/study.db", query)


def tracked(directory: Path, query: str) -> list[tuple[Any, ...]]:
    """Rows of MLflow's database, read directly."""
    return _rows(directory / "studies/mlflow.db", query)


def _rows(database: Path, query: str) -> list[tuple[Any, ...]]:
    connection = sqlite3.connect(database)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def ending(directory: Path) -> tuple[str, str]:
    """How the study's last life ended, and why."""
    [*_, last] = stored(directory, "SELECT outcome, reason FROM study_ending ORDER BY lsn")
    return last[0], last[1]


def parent_status(directory: Path) -> str:
    """What MLflow says of the study's own run."""
    query = "SELECT status FROM runs WHERE run_uuid NOT IN (SELECT run_uuid FROM tags WHERE key = '{}')"
    [(status,)] = tracked(directory, query.format("mlflow.parentRunId"))
    return str(status)
