"""Trains until it is asked to end; `--then` says what it does about that, `--daemon` leaves one behind."""

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import hypertune

HERE = Path(os.environ["AIP_MODEL_DIR"]).parent
SLEEPER = [sys.executable, "-c", "import time; time.sleep(600)"]


def save(*_):
    hypertune.HyperTune().report_hyperparameter_tuning_metric("saved", 1.0, 9)
    (HERE / "saved").write_text("here")
    sys.exit(0)


def leave_a_daemon():
    """A process that nobody finds by its group, its session or its parent."""
    if os.fork():
        os.wait()
        return
    os.setsid()
    daemon = subprocess.Popen(SLEEPER, start_new_session=True)
    (HERE / "daemon").write_text(str(daemon.pid))
    os._exit(0)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--then", choices=["save", "ignore", "end"], default="end")
    parser.add_argument("--lr")
    parser.add_argument("--daemon", action="store_true")
    parser.add_argument("--steps", type=int, default=0)
    args = parser.parse_args()
    child = subprocess.Popen(SLEEPER)
    (HERE / "child").write_text(str(child.pid))
    if args.daemon:
        leave_a_daemon()
    handlers = {"save": save, "ignore": signal.SIG_IGN, "end": signal.SIG_DFL}
    signal.signal(signal.SIGTERM, handlers[args.then])
    hypertune.HyperTune().report_hyperparameter_tuning_metric("loss", 1.0, 1)
    (HERE / "pid").write_text(str(os.getpid()))
    while not args.steps:
        time.sleep(600)


if __name__ == "__main__":
    main()
