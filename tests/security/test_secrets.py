"""Secrets in the environment, in addresses and in a file stand in nothing that is written or shown."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hpsearch import cli

# A program that does with its secrets what people do by mistake: prints them, reports them, dies of them.
LEAKY = """
import os, sys
import hypertune
secrets = [value for name, value in os.environ.items() if name.startswith("CANARY")]
print("starting with", secrets)
print("\\n".join(f"{name}={value}" for name, value in os.environ.items()))
print(sys.argv, file=sys.stderr)
tune = hypertune.HyperTune()
tune.report_hyperparameter_tuning_metric("loss", 1.0, 1)
number = int(os.environ["CLOUD_ML_TRIAL_ID"])
raise SystemExit(f"cannot log in with {secrets[number % len(secrets)]} at https://ann:{secrets[0]}@host/x")
"""
YAML = """
trainingInput:
  pythonModule: leaky
  args: ["--api_key={in_args}", "--token", "{in_args}"]
  hyperparameters:
    goal: MINIMIZE
    hyperparameterMetricTag: loss
    maxTrials: 3
    params:
      - {{parameterName: x, type: DOUBLE, minValue: 0, maxValue: 1}}
hpsearch:
  limits: {{maxFailedTrials: 100}}
  tracking: {{uri: "http://ann:{in_address}@127.0.0.1:9/"}}
"""
NAMES = ("{}_API_KEY", "{}_TOKEN", "{}_PASSWORD", "{}_SECRET", "{}_SECRET_ACCESS_KEY", "{}_PRIVATE_KEY")


def canary(place: str) -> str:
    return f"canary-{place}-Zq7+/x=%"


def planted() -> dict[str, str]:
    """200 variables that hold a secret each, by all the names that say so."""
    return {
        NAMES[number % len(NAMES)].format(f"CANARY{number}"): canary(f"env{number:03d}")
        for number in range(200)
    }


@pytest.fixture
def leaked(tmp_path: Path, mlflow_database: Path) -> Callable[[bytes], list[str]]:
    """Which canaries stand in some bytes, as they are or as addresses and texts write them."""

    def look(data: bytes) -> list[str]:
        return sorted({found for found in all_forms() if found in data.decode("utf-8", "replace")})

    return look


def all_forms() -> Iterator[str]:
    for number in range(200):
        yield f"canary-env{number:03d}"
    yield from ("canary-args", "canary-address", "canary-store")


class Onlooker:
    """Reads the command lines of all processes below this one again and again."""

    def __init__(self) -> None:
        self.lines: set[bytes] = set()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Onlooker:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._done.wait(0.02):
            for entry in Path("/proc").iterdir():
                if entry.name.isdigit():
                    try:
                        self.lines.add((entry / "cmdline").read_bytes())
                    except OSError:
                        continue


def hpsearch(home: Path, *words: str, **variables: str) -> bytes:
    """What a command prints, in a process of its own."""
    environment = {**os.environ, **planted(), "HPSEARCH_HOME": str(home / "studies"), **variables}
    command = [sys.executable, "-m", "hpsearch", *words]
    done = subprocess.run(command, cwd=home, env=environment, capture_output=True, timeout=100, check=False)
    return done.stdout + done.stderr


@pytest.fixture
def asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., bytes]:
    """What a question's answer prints; asked in this process, which has the same secrets."""

    def ask(*words: str) -> bytes:
        for name, value in {**planted(), "HPSEARCH_HOME": str(tmp_path / "studies")}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["hpsearch", *words])
        umask = os.umask(0o077)
        try:
            with pytest.raises(SystemExit):
                cli.main()
        finally:
            os.umask(umask)
        printed = capfd.readouterr()
        return (printed.out + printed.err).encode()

    return ask


def test_no_secret_is_in_anything_that_is_written_or_shown(
    tmp_path: Path, leaked: Callable[[bytes], list[str]], asked: Callable[..., bytes]
) -> None:
    (tmp_path / "leaky.py").write_text(LEAKY)
    text = YAML.format(in_args=canary("args"), in_address=canary("address").replace("/", ""))
    (tmp_path / "s.yaml").write_text(text)
    with Onlooker() as onlooker:
        shown = {"run": hpsearch(tmp_path, "run", "s.yaml", "--local", "--study", "s")}
    questions = ("show s", "show s --json", "trials s", "trials s --json", "list", "show s --format cloudml")
    for question in (*questions, "show s --format vertex", "best s", "check s.yaml"):
        shown[question] = asked(*question.split())
    assert b"cannot log in with ***" in shown["trials s"], "no secret was at stake"
    assert b"cannot log in with ***" in shown["run"], shown["run"].decode()
    wrong = {command: found for command, printed in shown.items() if (found := leaked(printed))}
    assert not wrong, "shown"
    study = tmp_path / "studies/s"
    files = [path for path in study.parent.rglob("*") if path.is_file()]
    logs = b"".join(path.read_bytes() for path in files if path.name == "output.log")
    assert b"starting with ['***'" in logs, "nothing was printed"
    # The store keeps the file's text as it is, because a resume needs it, and is for its owner's eyes only.
    store = {path for path in files if path.name.startswith("study.db")}
    assert all(path.stat().st_mode & 0o077 == 0 for path in store)
    assert not [found for path in store for found in leaked(path.read_bytes()) if "env" in found]
    wrong = {str(path): found for path in set(files) - store if (found := leaked(path.read_bytes()))}
    assert not wrong, "written"
    # A secret that the file puts into the arguments of a program is in the program's own command line.
    ours = [line for line in onlooker.lines if b"leaky" not in line]
    assert any(b"hpsearch" in line for line in ours)
    assert not [found for line in ours for found in leaked(line)], "command lines"


def test_what_mlflow_is_told_holds_no_secret(
    tmp_path: Path, mlflow_database: Path, leaked: Callable[[bytes], list[str]]
) -> None:
    (tmp_path / "leaky.py").write_text(LEAKY)
    text = YAML.format(in_args=canary("args"), in_address="x")
    text = "\n".join(line for line in text.splitlines() if "tracking" not in line)
    (tmp_path / "s.yaml").write_text(text)
    home = tmp_path / "studies"
    home.mkdir()
    (home / "mlflow.db").write_bytes(mlflow_database.read_bytes())
    shown = json.loads(hpsearch(tmp_path, "run", "s.yaml", "--local", "--study", "s", "--json"))
    assert shown["counts"]["failed"] == 3
    assert shown["undelivered"] == 0
    told = [path for path in home.rglob("*") if path.is_file() and "mlflow.db" in path.name]
    told += [path for path in (home / "mlartifacts").rglob("*") if path.is_file()]
    assert any(b"cannot log in with ***" in path.read_bytes() for path in told), "no reason was told"
    assert any(path.suffix == ".yaml" for path in told), "the file's text was not told"
    assert not {str(path): found for path in told if (found := leaked(path.read_bytes()))}


def test_an_address_of_a_store_is_shown_without_its_password(
    tmp_path: Path, leaked: Callable[[bytes], list[str]]
) -> None:
    address = "postgresql://ann:canary-store-Zq7@127.0.0.1:9/x"
    (tmp_path / "s.yaml").write_text(YAML.format(in_args="x", in_address="x").replace("leaky", "json"))
    for words in (("list",), ("run", "s.yaml", "--local")):
        printed = hpsearch(tmp_path, *words, HPSEARCH_STORE=address)
        assert b"127.0.0.1:9" in printed or b"refused" in printed, printed
        assert not leaked(printed)
