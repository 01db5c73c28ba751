"""Whose files a study's are: 0700 and 0600 whatever the umask, and never somewhere else through a link."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import sys
from pathlib import Path

import alone
import pytest

from hpsearch import sweep
from hpsearch.errors import HpsearchError
from hpsearch.study.beneath import made
from hpsearch.train import loop

LEARNER = """\
trainingInput:
  pythonModule: hpsearch.trainers.linear_regression
  args: ["--batch_size=6"]
  hyperparameters:
    goal: MINIMIZE
    hyperparameterMetricTag: rmse
    maxTrials: 2
    params:
      - {parameterName: learning_rate, type: DOUBLE, minValue: 0.001, maxValue: 0.01}
hpsearch:
  maxSteps: 40
  measureEvery: 10
  checkpoints: {keep: ALL}
  tracking: {uri: "http://127.0.0.1:9"}
"""
# Below a home: everything that a run writes, makes or deletes.
PLACES = (
    *("s", "s/study.db", "s/study.db-wal", "s/study.db-shm", "s/study.db-journal", "s/lock", "s/witness"),
    *("s/trials", "s/trials/0000", "s/trials/0001", "s/trials/0000/checkpoints", "s/trials/0001/checkpoints"),
    *(
        f"s/trials/000{trial}/checkpoints/step-000000{step}-attempt-1.{kind}"
        for trial in (0, 1)
        for step in (10, 20, 40)
        for kind in ("pt", "writing")
    ),
    "s/trials/0000/output.log",
)


def loose(home: Path) -> list[str]:
    """What others than the owner could use of a directory and all below it."""
    found = []
    for path in (home, *home.rglob("*")):
        mode = stat.S_IMODE(path.lstat().st_mode)
        if mode != (0o700 if path.is_dir() else 0o600):
            found.append(f"{path.relative_to(home.parent)} is {mode:o}")
    return found


def test_everything_that_a_run_makes_is_its_owners_alone_under_any_umask(tmp_path: Path) -> None:
    """The whole command, with a tracking server that is not there: MLflow's own files are its own."""
    file = alone.lay(tmp_path, LEARNER)
    code = f"""
import os, runpy, sys
sys.path.insert(0, {str(Path(alone.__file__).parent)!r})
import alone
from hpsearch import cli, sweep
sweep.following = alone.unheard
sys.argv = ["hpsearch", "run", {str(file)!r}, "--local", "--study", "s", "--home", {str(tmp_path / "home")!r}]
cli.main()
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, cwd=tmp_path, umask=0, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "home").rglob("*"))) > 10
    assert loose(tmp_path / "home") == []


def test_a_study_in_somebodys_own_program_is_its_owners_alone_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "following", alone.unheard)
    before = os.umask(0)
    try:
        alone.play(alone.lay(tmp_path, LEARNER), tmp_path / "home")
    finally:
        os.umask(before)
    assert loose(tmp_path / "home/s") == []


def test_the_places_are_enough() -> None:
    assert len(PLACES) >= 25


@pytest.mark.parametrize(
    ("place", "kind"),
    [
        *((place, kind) for place in PLACES[:12] for kind in ("file", "directory", "nowhere")),
        *((place, "file") for place in PLACES[12:]),
    ],
)
def test_a_planted_link_is_never_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, kind: str
) -> None:
    monkeypatch.setattr(sweep, "following", alone.unheard)
    monkeypatch.setattr(loop, "CHECKPOINT_SHARE", 1e9)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "canary").write_text("canary")
    inside = outside / "step-00000099-attempt-1.pt"  # what a sweep would delete
    inside.write_text("canary")
    target = {"file": outside / "canary", "directory": outside, "nowhere": outside / "new"}[kind]
    link = tmp_path / "home" / place
    link.parent.mkdir(parents=True, mode=0o700)
    link.symlink_to(target)
    before = tree(outside)
    try:
        alone.play(alone.lay(tmp_path, LEARNER), tmp_path / "home")
    except HpsearchError as error:
        assert error.exit_code in (2, 74, 75)
        assert error.message
    assert tree(outside) == before


def tree(directory: Path) -> dict[str, str]:
    """All that is in a directory, by its content."""
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "a directory"
        for path in directory.rglob("*")
    }


def test_a_trials_directory_is_made_below_its_study_and_not_behind_a_link(tmp_path: Path) -> None:
    made(tmp_path / "home/s/trials/0007")
    assert (tmp_path / "home/s/trials/0007").is_dir()
    (tmp_path / "home/t").mkdir()
    (tmp_path / "home/t/trials").symlink_to(tmp_path)
    with pytest.raises(OSError, match=r"Not a directory|symbolic link"):
        made(tmp_path / "home/t/trials/0001")
    assert not (tmp_path / "0001").exists()
