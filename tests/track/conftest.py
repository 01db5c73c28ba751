"""MLflow databases copied from one that was migrated once, and a counter of requests."""

from __future__ import annotations

import shutil
import subprocess
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow_facts import Facts, Tracking, make_facts


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database with its tables, made by another process: the migrations take seconds."""
    path = tmp_path_factory.mktemp("template") / "mlflow.db"
    code = f"from mlflow.tracking import MlflowClient; MlflowClient('sqlite:///{path}')"
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, capture_output=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mlflow.tracking  # noqa: F401  (a warning in the import is not the first test's)
    return path


@pytest.fixture
def tracking(template: Path, tmp_path: Path) -> Tracking:
    path = tmp_path / "mlflow.db"
    shutil.copy(template, path)
    return Tracking(path)


@pytest.fixture
def facts(tracking: Tracking, tmp_path: Path) -> Facts:
    return make_facts(tmp_path, f"sqlite:///{tracking.path}")


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """Counts the requests that reach the store, also those that the client makes on its own."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    counted: Counter[str] = Counter()

    def counting(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            counted[name] += 1
            return call(*args, **kwargs)

        return wrapped

    for name in ("create_run", "log_batch", "update_run_info", "get_run", "search_runs", "set_tag"):
        monkeypatch.setattr(SqlAlchemyStore, name, counting(name, getattr(SqlAlchemyStore, name)))
    yield counted
