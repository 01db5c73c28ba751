"""Starts processes in its group and in a session of their own, notes them all, and waits."""

import os
import subprocess
import time
from pathlib import Path

import hypertune

HERE = Path(os.environ["AIP_MODEL_DIR"]).parent
# A shell that goes at once leaves its child to whoever adopts it.
subprocess.run(["sh", "-c", "sleep 600 & echo $! > child"], cwd=HERE, check=True)
subprocess.run(["setsid", "sh", "-c", "sleep 600 & echo $! > daemon"], cwd=HERE, check=True)
(HERE / "pid").write_text(str(os.getpid()))
hypertune.HyperTune().report_hyperparameter_tuning_metric("loss", 1.0, 1)
time.sleep(600)
