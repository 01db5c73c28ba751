"""Each kind of database that a store can be in."""

from __future__ import annotations

from pathlib import Path

import pytest
from stores import Stores

from hpsearch.study.home import Home


@pytest.fixture(params=["sqlite", "postgresql"])
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> Stores:
    """An empty home of stores, on each kind of database in turn."""
    if request.param == "sqlite":
        return Stores(Home(tmp_path))
    return Stores(Home(tmp_path, request.getfixturevalue("postgres").make_database()))
