"""Trainers of every kind, good and bad: the param `kind` says which."""

from __future__ import annotations

import atexit
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hpsearch.train.learner import Context, Measurement

_state = {"trials": 0}


def train(params: dict[str, Any], context: Context) -> Iterator[Measurement]:
    """Three measurements, unless the kind prevents it."""
    _state["trials"] += 1
    kind = params["kind"]
    with (context.directory / "ledger").open("a") as ledger:
        ledger.write(f"{context.attempt} {os.getpid()} {os.getppid()}\n")
    print(f"trial {context.number} is {kind}")
    if kind == "tidies_up":
        atexit.register(_tidy_up, context.directory)
    if kind.startswith("meets"):
        _wait_for_another_slot(context.directory.parent)
    for turn in (1, 2, 3):
        step = turn * context.measure_every
        yield from _measured(kind, turn, step, context)


def _tidy_up(directory: Path) -> None:
    """What loggers do at the exit of their process, which takes a moment."""
    time.sleep(0.1)
    print("said at exit")
    (directory / "written-at-exit").write_text("the last of it")


def _wait_for_another_slot(trials: Path) -> None:
    """Go on when trials of two fork servers have started, which they only do at the same time."""
    deadline = time.monotonic() + 60
    while True:
        servers = {line.split()[2] for p in trials.glob("*/ledger") for line in p.read_text().splitlines()}
        if len(servers) > 1:
            return
        assert time.monotonic() < deadline, "the other slot never ran a trial"
        time.sleep(0.02)


def _measured(  # noqa: C901  a zoo has many kinds
    kind: str, turn: int, step: int, context: Context
) -> Iterator[Measurement]:
    value: Any = 10.0 - turn + context.number
    if kind == "raises" and turn == 2:
        raise ValueError("no good")
    if kind == "exits" and turn == 2:
        os._exit(3)
    if kind == "killed_once" and turn == 2 and context.attempt == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "huge_step":
        yield Measurement(2**70, {"loss": 0.0})
    if kind == "broken_text" and turn == 2:
        raise FileNotFoundError("no \udcff")
    if kind == "minus_zero":
        value = -0.0
    if kind == "always_loses_worker" or (kind == "loses_worker" and turn == 2 and context.attempt == 1):
        server = os.getppid()
        worker = int(Path(f"/proc/{server}/stat").read_text().rpartition(")")[2].split()[1])
        (context.directory / "worker").write_text(Path(f"/proc/{worker}/cmdline").read_text())
        os.kill(worker, signal.SIGKILL)
        time.sleep(600)
    if kind == "segfaults":
        os.kill(os.getpid(), signal.SIGSEGV)
    if kind == "hangs" and turn == 2:
        time.sleep(600)
    if kind == "leaves_a_child" and turn == 1:
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        (context.directory / "child").write_text(str(child.pid))
    if kind == "counts_trials":
        value = float(_state["trials"])
    values = {"nan": float("nan"), "text": "high", "silent": None}
    name = "other" if kind == "silent" else "loss"
    yield Measurement(step, {name: 1.0 if kind == "silent" else values.get(kind, value)})
