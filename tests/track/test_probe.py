"""tracking.strict: whether MLflow answers is known in seconds, and what to do is said."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from tcp_proxy import Proxy, Trouble, http_answer

from hpsearch.errors import ServiceUnavailable
from hpsearch.spec.reading import parse
from hpsearch.track import probe

Fired = Callable[..., None]

FILE = """\
trainingInput:
  pythonModule: toy
  hyperparameters:
    goal: MINIMIZE
    hyperparameterMetricTag: loss
    maxTrials: 2
    params:
      - {parameterName: x, type: DOUBLE, minValue: 0, maxValue: 1}
hpsearch: {maxSteps: 2, measureEvery: 1, tracking: {strict: true, uri: "http://127.0.0.1:1"}}
"""


@pytest.mark.fault("F49")
def test_a_strict_study_does_not_start_without_mlflow_and_says_how_within_five_seconds(
    tmp_path: Path, fired: Fired
) -> None:
    (tmp_path / "toy.yaml").write_text(FILE)
    (tmp_path / "toy.py").write_text("def train(params, context):\n    raise AssertionError('never')\n")
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "hpsearch", "run", "toy.yaml", "--local"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    imports = time.monotonic() - started
    assert done.returncode == 69, done.stderr
    fired("refused" in done.stderr)
    assert "MLflow at http://127.0.0.1:1 cannot be reached" in done.stderr
    assert "tracking.strict" in done.stderr
    assert not (tmp_path / "studies").exists(), "nothing was started"
    # The question itself is bounded by probe.WAIT; the rest is Python's start on a busy machine.
    assert probe.WAIT + 2 <= 5 and imports < 30


def test_strict_is_read_and_is_no_default() -> None:
    read = parse(FILE, "toy.yaml").spec
    assert read is not None and read.tracking.strict
    read = parse(FILE.replace("strict: true, ", ""), "toy.yaml").spec
    assert read is not None and not read.tracking.strict


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (http_answer("401 Unauthorized"), "it answers 401 Unauthorized"),
        (http_answer("503 Service Unavailable"), "it answers 503"),
        (http_answer("200 OK", "<html>Sign in</html>"), "Expecting value"),
        (b"nothing like HTTP\r\n\r\n", "nothing like HTTP"),
    ],
    ids=["401", "503", "a page", "no HTTP"],
)
def test_answers_that_are_not_mlflows_count_as_away(proxy: Proxy, answer: bytes, said: str) -> None:
    probe.require(proxy.uri)
    proxy.rule = lambda path: Trouble(answer=answer)
    with pytest.raises(ServiceUnavailable) as caught:
        probe.require(proxy.uri)
    assert said in caught.value.message
    assert ("~/.mlflow/credentials" in caught.value.hint) == ("401" in said)


def test_a_server_that_says_nothing_is_not_waited_for(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "WAIT", 0.2)
    proxy.rule = lambda path: Trouble(mute=True)
    with pytest.raises(ServiceUnavailable, match="timed out"):
        probe.require(proxy.uri)


def test_credentials_are_sent_as_mlflow_sends_them_and_never_shown(
    proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "s3cret")
    probe.require(proxy.uri)
    assert proxy.authorisations[-1] == "Bearer s3cret"
    (tmp_path / ".mlflow").mkdir()
    (tmp_path / ".mlflow/credentials").write_text(
        "[mlflow]\nmlflow_tracking_username=ann\nmlflow_tracking_password=one%\n"
    )
    probe.require(proxy.uri)
    assert proxy.authorisations[-1] == "Basic YW5uOm9uZSU="
    with pytest.raises(ServiceUnavailable) as caught:
        probe.require("http://ann:s3cret@127.0.0.1:1")
    assert "s3cret" not in str(caught.value)


def test_an_embedded_database_is_asked_by_its_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "WAIT", 0.1)
    database = tmp_path / "mlflow.db"
    probe.require(f"sqlite:///{database}")
    assert not database.exists(), "who asks makes nothing"
    with closing(sqlite3.connect(database)) as other:
        other.execute("create table made (x)")
        probe.require(f"sqlite:///{database}")
        other.execute("begin exclusive")
        with pytest.raises(ServiceUnavailable, match="database is locked"):
            probe.require(f"sqlite:///{database}")


def test_a_database_server_is_asked_whether_it_listens() -> None:
    with pytest.raises(ServiceUnavailable, match="refused"):
        probe.require("postgresql+psycopg://ann:s3cret@127.0.0.1:1/mlflow")
