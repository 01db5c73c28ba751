"""A study whose facts are a plain list, and an MLflow database read without MLflow."""

from __future__ import annotations

import sqlite3
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from hpsearch.spec.model import Goal, Objective, SearchSpace, Selection, Spec
from hpsearch.study.trial import (
    Attempt,
    Change,
    Ending,
    Measurement,
    Outcome,
    State,
    Study,
    StudyEnding,
    Trial,
)
from hpsearch.track.outbox import Outbox

SECOND = 1_000


@dataclass
class Facts:
    """The store of the tests: committed facts in order, and a door to MLflow over them."""

    study: Study
    uri: str
    changes: list[Change] = field(default_factory=list)

    def add(self, trial: int | None, fact: Any) -> None:
        self.changes.append(Change(len(self.changes) + 1, trial, fact))

    def read(self, after: int, limit: int) -> list[Change]:
        return self.changes[after : after + limit]

    def suggest(self, number: int, **params: Any) -> None:
        params = params or {"learning_rate": 1e-05 * (number + 1), "layers": number + 1, "optimizer": "adam"}
        created = self.study.created + number * SECOND
        self.add(number, Trial(number, f"trial-{number}", params, created))
        self.add(number, Attempt(1, created + 1))

    def measure(self, number: int, step: int, time: int | None = None, **metrics: float) -> None:
        when = self.study.created + number * SECOND + step if time is None else time
        self.add(number, Measurement(step, metrics, when))

    def end(self, number: int, state: State = State.COMPLETED, reason: str = "reached its last step") -> None:
        self.add(number, Ending(state, reason, self.study.created + number * SECOND + 999))

    def finish(self, outcome: Outcome = Outcome.COMPLETED, reason: str = "all trials ended") -> None:
        self.add(None, StudyEnding(outcome, reason, self.study.created + 3_600 * SECOND))

    def trial(self, number: int, loss: float, steps: int = 3, state: State = State.COMPLETED) -> None:
        """A whole life: the loss falls to its last value."""
        self.suggest(number)
        for step in range(1, steps + 1):
            self.measure(number, step * 10, loss=round(loss + steps - step, 6), accuracy=0.5)
        self.end(number, state)

    def outbox(self, offset: int = 0, parent: str | None = None, **options: Any) -> Outbox:
        root = self.study.directory.parent / "mlartifacts"
        options = {"uri": self.uri, "interval": 0.01, "artifact_root": root, **options}
        return Outbox(
            self.study,
            self.read,
            experiment="lessons",
            offset=offset,
            parent_run_id=parent,
            **options,
        )

    def deliver(self, offset: int = 0, parent: str | None = None, **options: Any) -> Outbox:
        outbox = self.outbox(offset, parent, **options)
        outbox.start()
        assert outbox.close(30), outbox.problem
        return outbox


@dataclass
class Tracking:
    """What stands in an MLflow database, read without MLflow."""

    path: Path

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.path)) as database:
            return database.execute(query, values).fetchall()

    def wipe(self) -> None:
        """Forget all runs and experiments but the default one."""
        with closing(sqlite3.connect(self.path, timeout=30)) as database, database:
            for table in ("metrics", "latest_metrics", "params", "tags", "runs", "experiment_tags"):
                database.execute(f"delete from {table}")
            database.execute("delete from experiments where experiment_id > 0")

    def run_ids(self, tag: str = "hpsearch.trial_uid") -> dict[str, str]:
        """The active runs with a tag: text -> run id; fails if two runs have the same text."""
        query = (
            "select t.value, t.run_uuid from tags t join runs r using (run_uuid) "
            "where t.key = ? and r.lifecycle_stage = 'active'"
        )
        found = self.rows(query, tag)
        doubles = [text for text, count in Counter(text for text, _ in found).items() if count > 1]
        assert not doubles or tag != "hpsearch.trial_uid", f"more than one run of {doubles}"
        return dict(found)

    def parents(self) -> list[str]:
        query = (
            "select run_uuid from tags join runs using (run_uuid) where key = 'hpsearch.study_uid' "
            "and lifecycle_stage = 'active' and run_uuid not in "
            "(select run_uuid from tags where key = 'mlflow.parentRunId')"
        )
        return [run_id for (run_id,) in self.rows(query)]

    def run(self, run_id: str) -> tuple[str, int, int | None, str]:
        return self.rows("select status, start_time, end_time, name from runs where run_uuid = ?", run_id)[0]  # type: ignore[return-value]

    def tags(self, run_id: str) -> dict[str, str]:
        return dict(self.rows("select key, value from tags where run_uuid = ?", run_id))

    def params(self, run_id: str) -> dict[str, str]:
        return dict(self.rows("select key, value from params where run_uuid = ?", run_id))

    def everything(self) -> list[list[tuple[Any, ...]]]:
        """All that the outbox writes to the database."""
        tables = ("runs", "tags", "params", "metrics")
        return [sorted(self.rows(f"select * from {table}"), key=repr) for table in tables]

    def points(self, run_id: str) -> list[tuple[Any, ...]]:
        """(name, step, value, time), in order; is_nan as None."""
        query = (
            "select key, step, case when is_nan then null else value end, timestamp from metrics "
            "where run_uuid = ? order by key, step, timestamp"
        )
        return self.rows(query, run_id)


def expected_points(facts: Facts, number: int) -> list[tuple[Any, ...]]:
    """What a trial's run must hold, from its facts."""
    return sorted(
        (name, change.fact.step, value, change.fact.time)
        for change in facts.changes
        if change.trial == number and isinstance(change.fact, Measurement)
        for name, value in change.fact.metrics.items()
    )


def make_facts(home: Path, uri: str) -> Facts:
    spec = Spec(
        source=str(home / "auto_mpg.yaml"),
        text="trainingInput: {}\n",
        sha256="ab" * 32,
        dialect="hpsearch",
        module="trainer",
        args=(),
        space=SearchSpace(()),
        objectives=(Objective("loss", Goal.MINIMIZE),),
        selection=Selection.LAST,
    )
    study = Study(
        "auto_mpg-1", "study-1", 1_700_000_000_000, spec, home / "auto_mpg-1", "c0ffee", {"torch": "2.13.0"}
    )
    return Facts(study, uri)


def wait_for(condition: Callable[[], object], timeout: float = 60) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def store_class() -> Any:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    return SqlAlchemyStore


def failing(monkeypatch: pytest.MonkeyPatch, method: str, *, before: int = 0, after: int = 0) -> list[str]:
    """Make a method of the store fail some times, before or after doing its work; returns the calls."""
    from mlflow.exceptions import MlflowException

    real = getattr(store_class(), method)
    calls: list[str] = []

    def faulty(self: Any, *args: Any, **kwargs: Any) -> Any:
        calls.append(method)
        if len(calls) <= before:
            raise MlflowException("connection to http://ann:secret@host lost\nand a traceback")
        answer = real(self, *args, **kwargs)
        if len(calls) <= after:
            raise MlflowException("the reply was lost")
        return answer

    monkeypatch.setattr(store_class(), method, faulty)
    monkeypatch.setattr("hpsearch.track.patience.FIRST_PAUSE", 0.01)
    return calls


def assert_delivered(facts: Facts, tracking: Tracking, trials: int) -> None:
    """One parent, one run per trial, every point of every trial exactly once."""
    assert len(tracking.parents()) == 1
    runs = tracking.run_ids()
    assert len(runs) == trials
    for number in range(trials):
        run_id = runs[f"trial-{number}"]
        assert tracking.points(run_id) == expected_points(facts, number)
        assert tracking.tags(run_id)["mlflow.parentRunId"] == tracking.parents()[0]
