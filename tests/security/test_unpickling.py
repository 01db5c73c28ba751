"""Nothing that lies in a study's directory is ever unpickled, whatever its name and however it got there."""

from __future__ import annotations

import hashlib
import os
import pickle
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from zygote import Zygote

from hpsearch.study.schema import checksum
from hpsearch.train.checkpoint import CheckpointError
from hpsearch.train.snapshot import parse

ROOT = Path(__file__).parents[2]
# Listens to every unpickling in a process, and to every file that could have been its source.
LISTENER = """
import os, sys
def hear(event, arguments):
    if event == "pickle.find_class":
        with open(os.environ["HEARD"], "a") as heard:
            heard.write(f"{arguments[0]}.{arguments[1]}\\n")
sys.addaudithook(hear)
"""
PLANTED = ("tuner.pkl", "searcher-state.pkl", "experiment_state-2026.json", "trials/0000/state.pkl", "x.pt")


class Evil:
    """Runs a command when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (f"touch {self.canary}",)


def test_the_listener_hears_and_the_pickle_is_evil(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Evil(tmp_path / "canary")))
    assert (tmp_path / "canary").exists()


def test_an_evil_checkpoint_is_refused_even_with_the_right_proof(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError):
        parse(pickle.dumps(Evil(tmp_path / "canary")))
    assert not (tmp_path / "canary").exists()


def run(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    (home / "sitecustomize.py").write_text(LISTENER)
    environment = {**os.environ, "PYTHONPATH": str(home), "HEARD": str(home / "heard")}
    command = [sys.executable, "-m", "hpsearch", *words, "--local", "--home", "studies"]
    return subprocess.run(
        command, cwd=home, env=environment, capture_output=True, text=True, timeout=100, check=False
    )


def swap_checkpoint(study: Path, data: bytes) -> None:
    """Put other bytes in place of the newest checkpoint, and their proof into the store."""
    with sqlite3.connect(study / "study.db") as store:
        store.row_factory = sqlite3.Row
        row = dict(store.execute("SELECT * FROM checkpoint ORDER BY lsn DESC LIMIT 1").fetchone())
        (study / "trials/0000" / row["name"]).write_bytes(data)
        row |= {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        row["checksum"] = checksum(row)
        change = "UPDATE checkpoint SET size = :size, sha256 = :sha256, checksum = :checksum WHERE lsn = :lsn"
        assert store.execute(change, row).rowcount == 1
    store.close()


def test_a_resume_unpickles_nothing_that_somebody_put_into_the_study(
    tmp_path: Path, mlflow_database: Path, zygote: Zygote
) -> None:
    (tmp_path / "studies").mkdir(mode=0o700)
    shutil.copy(mlflow_database, tmp_path / "studies")
    (tmp_path / "dies.py").write_text(
        "import os, signal\n"
        "from hpsearch.trainers import linear_regression\n"
        "def build(params, context):\n"
        "    learner = linear_regression.build(params, context)\n"
        "    if context.number == 0 and context.attempt == 1:\n"
        "        evaluate, calls = learner.evaluate, []\n"
        "        def evaluate_and_die():\n"
        "            calls.append(1)\n"
        "            if len(calls) == 4:\n"
        "                import time; time.sleep(0.5)\n"
        "                os.kill(os.getpid(), signal.SIGKILL)\n"
        "            return evaluate()\n"
        "        learner.evaluate = evaluate_and_die\n"
        "    return learner\n"
    )
    text = (ROOT / "search_spaces/linear_regression.yaml").read_text()
    text = text.replace("hpsearch.trainers.linear_regression", "dies").replace(
        "maxTrials: 16", "maxTrials: 2"
    )
    (tmp_path / "s.yaml").write_text(text)
    words = ("run", "s.yaml", "--study", "s", "--local", "--home", "studies")
    zygote.run(*words, cwd=tmp_path, code=-signal.SIGKILL)
    study, canary = tmp_path / "studies/s", tmp_path / "canary"
    evil = pickle.dumps(Evil(canary))
    swap_checkpoint(study, evil)
    for name in PLANTED:
        (study / name).write_bytes(evil)
    (tmp_path / "heard").write_text("")
    done = run(tmp_path, "resume", "s")
    assert done.returncode == 0, done.stderr
    assert "cannot be used" in done.stderr, "the evil checkpoint was not even looked at"
    assert not canary.exists()
    heard = (tmp_path / "heard").read_text().split()
    assert "posix.system" not in heard
    assert heard == [], "something was unpickled"
