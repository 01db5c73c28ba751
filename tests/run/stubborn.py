"""A trial's process that ignores the request to end, with a child in a session of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable

from hpsearch.study.trial import Launch, Measurement, Report


def execute(launch: Launch, report: Callable[[Report], bool]) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sleeper = [sys.executable, "-c", "import time; time.sleep(600)"]
    child = subprocess.Popen(sleeper, start_new_session=True)
    (launch.context.directory / "child").write_text(str(child.pid))
    (launch.context.directory / "pid").write_text(str(os.getpid()))
    report(Report(Measurement(1, {"loss": 1.0})))
    time.sleep(600)
