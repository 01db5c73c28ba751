"""A trial's process without heavy imports that leaves daemons of both kinds and then does nothing."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable

from hpsearch.study.trial import Launch, Measurement, Report


def execute(launch: Launch, report: Callable[[Report], bool]) -> None:
    directory = launch.context.directory
    script = "sleep 600 & echo $! >> pids; sleep 600 & echo $! >> pids"
    subprocess.run(["setsid", "sh", "-c", script], cwd=directory, check=True)
    with (directory / "pids").open("a") as file:
        file.write(f"{os.getpid()}\n")
    report(Report(Measurement(1, {"loss": 1.0})))
    time.sleep(600)
