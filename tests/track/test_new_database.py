"""The embedded database comes into being wholly or not at all."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

from mlflow_facts import make_facts

MAKE = """
import sys, warnings
warnings.simplefilter("ignore")
from pathlib import Path
from hpsearch.track.runs import _make_database
_make_database(Path(sys.argv[1]), Path(sys.argv[1]).parent / "mlartifacts")
"""


def maker(path: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", MAKE, str(path)], stderr=subprocess.DEVNULL)


def tables(path: Path) -> int:
    connection = sqlite3.connect(path)
    try:
        return int(connection.execute("SELECT count(*) FROM sqlite_master WHERE type='table'").fetchone()[0])
    finally:
        connection.close()


def test_a_kill_in_the_middle_of_the_migrations_leaves_nothing_that_is_in_the_way(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    with maker(path) as process:
        deadline = time.monotonic() + 60
        while not any(p.stat().st_size > 20_000 for p in tmp_path.glob("mlflow.db.new-*")):
            assert time.monotonic() < deadline
            assert process.poll() is None, "it ended before it could be killed"
            time.sleep(0.002)
        os.kill(process.pid, signal.SIGKILL)
    assert not path.exists()
    facts = make_facts(tmp_path, f"sqlite:///{path}")
    outbox = facts.outbox()
    outbox.start()
    assert outbox.close(60)
    assert outbox.problem is None


def test_of_two_that_make_it_at_once_one_file_stays_and_both_can_use_it(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    with maker(path) as one, maker(path) as other:
        assert one.wait(90) == 0
        assert other.wait(90) == 0
    assert tables(path) > 20
    assert [p.name for p in tmp_path.iterdir() if "new-" in p.name] == []
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()
