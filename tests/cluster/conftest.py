"""The guard of the tests that need hosts of their own, the hosts, and the Ray on them that tests share."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import hosts
import pytest
from lab import Cluster, Lab, lab


@pytest.fixture(scope="session")
def four_hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Hosts for a head and three workers, with nothing on them yet."""
    if why := hosts.lack():
        pytest.skip(f"{hosts.NOT_TESTED} ({why})")
    with lab(4, tmp_path_factory.mktemp("lab")) as made:
        yield made


@pytest.fixture(scope="session")
def nodes(four_hosts: Lab) -> Cluster:
    """A head with its dashboard; how many workers there shall be is for each test to say."""
    return Cluster(four_hosts, four_hosts.head(dashboard=True))


@pytest.fixture
def cluster(nodes: Cluster) -> Cluster:
    """A head and two workers at least, whatever became of earlier ones."""
    nodes.complete(2)
    return nodes


@pytest.fixture
def home(tmp_path: Path, mlflow_database: Path) -> Path:
    """A home of studies on the disk that all hosts share."""
    made = tmp_path / "home"
    made.mkdir()
    shutil.copy(mlflow_database, made / "mlflow.db")
    return made
