"""Time in which a process was stopped is nobody's."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from hpsearch.run.stopwatch import LONGEST, Stopwatch

SCRIPT = """
import sys, time
from hpsearch.run import stopwatch
stopwatch.LONGEST = 0.3
watch, began = stopwatch.Stopwatch(tick=0.05), time.monotonic()
print("ready", flush=True)
sys.stdin.readline()
print(watch.seconds, time.monotonic() - began)
"""


def test_a_gap_that_only_a_stopped_process_has_does_not_count() -> None:
    now = [0.0]
    watch = Stopwatch(lambda: now[0], tick=3600)
    now[0] = 1.5
    assert watch.seconds == 1.5
    now[0] = 1000.0
    assert watch.seconds == 1.5 + LONGEST


@pytest.mark.fault("F10")
def test_while_a_process_is_stopped_its_watch_stands_still(fired: object) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout
        assert process.stdin
        process.stdout.readline()
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED)
        time.sleep(1.5)  # the fault itself
        process.send_signal(signal.SIGCONT)
        process.stdin.write("\n")
        process.stdin.flush()
        counted, passed = map(float, process.stdout.read().split())
    fired(passed >= 1.5)  # type: ignore[operator]
    assert counted <= passed - 1.0
