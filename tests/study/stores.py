"""A study's store on either kind of database, for tests that both must pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from hpsearch.spec.reading import parse
from hpsearch.study.home import Home
from hpsearch.study.store import Store
from hpsearch.study.trial import Attempt, Entry, Known, Study, Trial

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
SUGGESTED = [Entry(0, Trial(0, "u-0", {"x": 0.1}, 5), attributes={"k": [1, 2.5]}), Entry(0, Attempt(1, 5))]


@dataclass(frozen=True)
class Stores:
    """The stores of a home on one kind of database."""

    home: Home

    @property
    def kind(self) -> str:
        return "postgresql" if self.home.store else "sqlite"

    def made(self, name: str = "s", known: Sequence[Known] = (), uid: str | None = None) -> Store:
        """A new study's store, before its first take."""
        return self.home.create(study_of(self.home.directory, name, uid), "sqlite:///m.db", known)

    def new(self, name: str = "s") -> Store:
        """A new study's store, taken."""
        store = self.made(name)
        store.take(2)
        return store

    def behind_its_back(
        self, statement: str, values: Mapping[str, Any] | None = None, name: str = "s"
    ) -> int:
        """Change rows of a study as nobody should; how many were."""
        with self.engine(name).begin() as connection:
            return connection.execute(text(statement), dict(values or {})).rowcount

    def rows(self, statement: str, name: str = "s") -> list[dict[str, Any]]:
        """What a query finds."""
        with self.engine(name).connect() as connection:
            return [dict(row) for row in connection.execute(text(statement)).mappings()]

    def engine(self, name: str) -> Any:
        if self.home.store is None:
            return create_engine(f"sqlite:///{self.home.place(name) / 'study.db'}", poolclass=NullPool)
        address = self.home.store.replace("postgresql://", "postgresql+psycopg://")
        return create_engine(address, poolclass=NullPool)


def study_of(home: Path, name: str, uid: str | None = None) -> Study:
    spec = parse(YAML, "x.yaml").spec
    assert spec
    return Study(name, uid or f"uid of {name}", 1, spec, home / name, "abc", {"torch": "2.13.0"})


def new_store(home: Path, name: str = "s", store: str | None = None) -> Store:
    """A new study's store, taken; for processes that a test starts."""
    return Stores(Home(home, store)).new(name)
