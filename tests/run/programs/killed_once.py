"""Is killed in its first attempt, as by a machine that ran out of memory."""

import argparse
import os
import signal
from pathlib import Path

import hypertune

parser = argparse.ArgumentParser()
parser.add_argument("--lr", type=float)
lr = parser.parse_args().lr
been_here = Path(os.environ["AIP_MODEL_DIR"], "been_here")
report = hypertune.HyperTune().report_hyperparameter_tuning_metric
report("loss", lr, 1)
if not been_here.exists():
    been_here.touch()
    os.kill(os.getpid(), signal.SIGKILL)
report("loss", lr / 2, 2)
