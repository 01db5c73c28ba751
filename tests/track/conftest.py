"""MLflow databases copied from one that was migrated once, and a counter of requests."""

from __future__ import annotations

import importlib
import shutil
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow_facts import Facts, Tracking, make_facts
from outbox_story import lives, told_home
from tcp_proxy import Proxy
from tracking_server import Server, Stable

__all__ = ["lives", "told_home"]


@pytest.fixture(scope="session")
def template(mlflow_database: Path) -> Path:
    """An MLflow database with its tables: the migrations take seconds."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # The warnings in these imports are not the first test's.
        for name in ("mlflow.tracking", "mlflow.store.tracking.sqlalchemy_store"):
            importlib.import_module(name)
    return mlflow_database


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


@pytest.fixture(scope="session")
def stable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stable]:
    """Where servers come from: to start one from nothing costs ten seconds."""
    stable = Stable(tmp_path_factory.mktemp("stable") / "log")
    yield stable
    stable.close()


@pytest.fixture(scope="session")
def long_lived(
    template: Path, stable: Stable, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Server, Tracking]]:
    """One `mlflow server` for all tests that do not kill it."""
    path = tmp_path_factory.mktemp("server") / "mlflow.db"
    shutil.copy(template, path)
    server = Server(path, stable)
    server.start()
    yield server, Tracking(path)
    server.kill()


@pytest.fixture
def proxy(long_lived: tuple[Server, Tracking]) -> Iterator[Proxy]:
    """A proxy before the long-lived server, whose database is empty again."""
    server, served = long_lived
    served.wipe()
    with Proxy(server.port) as proxy:
        yield proxy


@pytest.fixture
def served(long_lived: tuple[Server, Tracking]) -> Tracking:
    """What the long-lived server has."""
    return long_lived[1]


@pytest.fixture
def remote(proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Facts:
    """Facts of a study that is told to the long-lived server through the proxy, with short pauses."""
    monkeypatch.setattr("hpsearch.track.patience.FIRST_PAUSE", 0.01)
    monkeypatch.setattr("hpsearch.track.patience.LONGEST_PAUSE", 0.05)
    return make_facts(tmp_path, proxy.uri)
