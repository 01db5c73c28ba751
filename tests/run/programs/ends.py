"""Ends in whichever way `--kind` says."""

import argparse
import atexit
import math
import os
import signal
import sys
import threading
import time
from pathlib import Path

import hypertune

parser = argparse.ArgumentParser()
parser.add_argument("--lr")
parser.add_argument("--kind", required=True)
kind = parser.parse_args().kind
report = hypertune.HyperTune().report_hyperparameter_tuning_metric
if kind != "mute":
    report("other" if kind == "silent" else "loss", math.nan if kind == "nan" else 1.5, 4)


def main():
    if kind == "code":
        print("half a line of progress", end="\r")
        sys.exit(3)
    if kind == "text":
        sys.exit("no data in ./data")
    if kind == "raises":
        raise ValueError("no good")
    if kind == "import":
        import no_such_package  # noqa: F401
    if kind == "signal":
        os.kill(os.getpid(), signal.SIGSEGV)
    if kind == "at_once":
        os._exit(7)
    if kind == "tidies":
        opened = open("unclosed.txt", "w")  # noqa: SIM115, PTH123  as programs do it
        opened.write("flushed\n")
        globals()["opened"] = opened
        atexit.register(lambda: Path("atexit.txt").write_text(__name__))
        threading.Thread(target=lambda: (time.sleep(0.1), report("loss", 0.5, 5))).start()
        print("still in the buffer", end="")
        sys.exit(0)


main()
