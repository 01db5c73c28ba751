"""Which files of a trainer's directory go to nodes that do not see it, and where a trial finds them there."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from hpsearch.errors import UsageError
from hpsearch.run import parcel
from hpsearch.run.parcel import landed, pack
from hpsearch.spec.model import Program
from hpsearch.spec.reading import parse
from hpsearch.study.trial import Context, Launch, Study

FILE = """\
trainingInput:
  pythonModule: {module}
  hyperparameters:
    goal: MINIMIZE
    hyperparameterMetricTag: loss
    params:
      - {{parameterName: x, type: DOUBLE, minValue: 0, maxValue: 1}}
"""


def study(home: Path, module: str) -> Study:
    reading = parse(FILE.format(module=module), "parcel.yaml")
    assert reading.spec, reading.errors
    return Study("s", "u", 1, reading.spec, home / "s")


def fill(directory: Path, *names: str) -> None:
    for name in names:
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"# {name}\n")


def sent(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}


def test_code_is_sent_and_environments_studies_data_and_hidden_files_are_not(tmp_path: Path) -> None:
    job, into = tmp_path / "job", tmp_path / "into"
    fill(job, "task.py", "layers/conv.py", "labels.json", ".env", ".git/config", "venv/lib/x.py")
    fill(job, "own-env/pyvenv.cfg", "own-env/lib/y.py", "data/train.csv", "home/s/study.db", "x.pyc")
    found = pack(study(job / "home", "task"), [str(job)], ["n1"], into)
    assert sent(into) == {"0/task.py", "0/layers/conv.py", "0/labels.json"}
    assert found.folders == {str(job): "0"}
    assert found.runtime_env["working_dir"] == str(into)


def test_what_the_trainer_imports_is_sent_wherever_it_lies(tmp_path: Path) -> None:
    """Also from a directory called data, and from the other place where trainers are looked for."""
    job, start, into = tmp_path / "job", tmp_path / "start", tmp_path / "into"
    fill(job, "data/__init__.py", "data/big.csv")
    (job / "task.py").write_text("import data.load\nimport shared\n")
    fill(job, "data/load.py")
    fill(start, "shared.py", "unrelated.py")
    found = pack(study(tmp_path / "home", "task"), [str(start), str(job)], ["n1"], into)
    job_folder, start_folder = found.folders[str(job)], found.folders[str(start)]
    assert sent(into / job_folder) == {"task.py", "data/__init__.py", "data/load.py"}
    assert sent(into / start_folder) == {"shared.py"}


def test_what_git_ignores_is_not_sent(tmp_path: Path) -> None:
    job, into = tmp_path / "job", tmp_path / "into"
    fill(job, "task.py", "new.py", "results/table.csv", "big.bin")
    (job / ".gitignore").write_text("results/\n*.bin\n")
    quiet = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    subprocess.run(["git", "init", "-q", str(job)], check=True, env={**os.environ, **quiet})
    pack(study(tmp_path / "home", "task"), [str(job)], ["n1"], into)
    assert sent(into) == {"0/task.py", "0/new.py"}


def test_too_much_is_refused_with_the_largest_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parcel, "LARGEST", 3 << 20)
    job = tmp_path / "job"
    fill(job, "task.py")
    for name, size in (("weights.pt", 2), ("images.npy", 4), ("notes.txt", 0)):
        (job / name).write_bytes(bytes(size << 20))
    with pytest.raises(UsageError) as caught:
        pack(study(tmp_path / "home", "task"), [str(job)], ["n1"], tmp_path / "into")
    assert "4 files of 6 MiB together, and 3 MiB go" in caught.value.message
    assert "images.npy (4 MiB), weights.pt (2 MiB), task.py" in caught.value.message
    assert ".gitignore" in str(caught.value.hint)
    assert not (tmp_path / "into").exists()


def test_a_trainer_that_is_installed_here_alone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"hpsearch\.trainers\.auto_mpg.* not the same on n1, n2"):
        pack(study(tmp_path, "hpsearch.trainers.auto_mpg"), [str(tmp_path)], ["n1", "n2"], tmp_path / "into")
    # Also where its environment lies in the directory of the start.
    fill(tmp_path, ".venv/lib/site-packages/task.py")
    path = [str(tmp_path), str(tmp_path / ".venv/lib/site-packages")]
    with pytest.raises(UsageError, match="installed here"):
        pack(study(tmp_path, "nothing.such"), path, ["n1"], tmp_path / "into")


def test_a_command_goes_with_the_directory_of_the_start(tmp_path: Path) -> None:
    start, into = tmp_path / "start", tmp_path / "into"
    fill(start, "train.sh", "lib/part.sh")
    (start / "train.sh").chmod(0o755)
    made = study(tmp_path / "home", "none")
    made = replace(made, spec=replace(made.spec, module="", program=Program(command=("./train.sh",))))
    pack(made, [str(start), str(tmp_path / "elsewhere")], ["n1"], into)
    assert sent(into) == {"0/train.sh", "0/lib/part.sh"}
    assert os.access(into / "0/train.sh", os.X_OK)


def test_a_trial_finds_what_was_sent_in_the_order_of_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = Context(0, 1, 0, 10, 10, tmp_path)
    launch = Launch("task", (), {}, context, "loss", python_path=("/a", "/b", "/c"))
    assert landed(launch, None) is launch
    monkeypatch.chdir(tmp_path)
    told = '{"/c": "0", "/a": "1"}'
    assert landed(launch, told).python_path == (f"{tmp_path}/1", "/b", f"{tmp_path}/0")
