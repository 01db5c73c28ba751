"""Failpoints: named, counted, traced, and dead unless tests are running."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hpsearch import faults
from hpsearch.errors import UsageError

SCRIPT = """
from hpsearch import faults
for _ in range(5):
    with faults.point("store.commit") as event:
        print("in", flush=True)
        event.inside()
        print("still in", flush=True)
    print("out", flush=True)
"""


def run(fault: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, faults.TESTING: "1", faults.FAIL: fault, **variables}
    return subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("phase", "lines"),
    [
        ("before", ["in", "still in", "out"]),
        ("inside", ["in", "still in", "out", "in"]),
        ("after", ["in", "still in", "out", "in", "still in"]),
    ],
)
def test_a_fault_kills_at_the_named_event_and_phase_and_says_so(phase: str, lines: list[str]) -> None:
    done = run(f"store.commit:2:{phase}=KILL")
    assert done.returncode == -signal.SIGKILL
    assert done.stdout.split("\n")[:-1] == lines
    assert done.stderr == f"hpsearch: faults are injected: store.commit:2:{phase}=KILL\n"


def test_a_fault_that_fired_elsewhere_does_not_fire_again(tmp_path: Path) -> None:
    fired = str(tmp_path / "fired")
    first = run("store.commit:1:before=KILL", **{faults.FIRED: fired})
    second = run("store.commit:1:before=KILL", **{faults.FIRED: fired})
    assert (first.returncode, second.returncode) == (-signal.SIGKILL, 0)
    assert Path(fired).read_text() == "store.commit:1:before=KILL\n"


def test_events_are_traced_in_order(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    assert run("", **{faults.TRACE: str(trace)}).returncode == 0
    lines = [line.rsplit(" ", 1)[0] for line in trace.read_text().splitlines()]
    assert lines[:4] == [
        "store.commit 1 before",
        "store.commit 1 inside",
        "store.commit 1 after",
        "store.commit 2 before",
    ]
    assert len(lines) == 15


def test_errors_and_lost_replies_are_raised_where_they_are_meant() -> None:
    done = run("store.commit:3+:inside=RAISE ENOSPC")
    assert "No space left on device (by a fault at store.commit)" in done.stderr
    done = run("store.commit:1:after=DROP_REPLY")
    assert "ReplyLost" in done.stderr


def test_without_the_second_variable_a_fault_is_refused() -> None:
    with pytest.raises(UsageError, match="fail on purpose"):
        faults.arm({faults.FAIL: "store.commit:1:after=KILL"})
    environment = {**os.environ, faults.FAIL: "store.commit:1:after=KILL"}
    command = [sys.executable, "-m", "hpsearch", "list"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert faults.TESTING in done.stderr


@pytest.mark.parametrize(
    "text",
    [
        "store.commit:1:after",
        "nowhere:1:after=KILL",
        "store.commit:1:later=KILL",
        "store.commit:1:after=FALL",
    ],
)
def test_a_text_that_names_no_fault_is_told(text: str) -> None:
    with pytest.raises(UsageError, match="names no"):
        faults.parse(text)


def test_what_is_written_is_read_back() -> None:
    text = "store.commit:17:after=KILL,ckpt.write:1+:inside=RAISE ENOSPC,outbox.send:2:before=DELAY 0.5"
    assert ",".join(map(str, faults.parse(text))) == text


def test_an_onlooker_hears_each_phase_and_nothing_afterwards() -> None:
    heard: list[tuple[str, int, str]] = []
    with faults.watched(lambda *what: heard.append(what)), faults.point("store.begin"):
        pass
    with faults.point("store.begin"):
        pass
    assert heard == [("store.begin", 1, "before"), ("store.begin", 1, "after")]
