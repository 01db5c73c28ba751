"""What a sweep costs beside its training: its wall time against the same steps in bare processes.

For each length of trial, in one run of this script: N trials, two at a time, through `hpsearch run` with the
store and MLflow on and a fresh process per trial; then the same trials in two bare processes that do nothing
else. The start-up and the end are left out of the sweep's time and reported apart.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SLOTS = 2
WARM = 4  # trials at the start that are not counted: their slots were still starting

YAML = """\
trainingInput:
  pythonModule: bench_trainer
  hyperparameters:
    goal: MINIMIZE
    hyperparameterMetricTag: loss
    maxTrials: {trials}
    maxParallelTrials: {slots}
    params:
      - {{parameterName: learning_rate, type: DOUBLE, minValue: 1e-4, maxValue: 1e-1}}
      - {{parameterName: width, type: INTEGER, minValue: 1, maxValue: 100}}
hpsearch:
  maxSteps: {steps}
  measureEvery: {every}
"""


def train_once(steps: int, every: int, number: int) -> None:
    """The steps and the measuring of one trial, as a bare program would do them."""
    import torch
    from bench_trainer import build

    from hpsearch.study.trial import Context

    learner = build({"learning_rate": 0.01}, Context(number, 1, number, steps, every, Path()))
    for step in range(1, steps + 1):
        learner.optimizer.zero_grad(set_to_none=True)
        learner.loss(learner.batches[step - 1]).backward()
        learner.optimizer.step()
        if step % every == 0:
            with torch.no_grad():
                learner.evaluate()


def bare(trials: int, steps: int, every: int, ready: Any, times: Any) -> None:
    """A process that trains trial after trial and nothing else; reports its first and last moment."""
    import torch

    torch.set_num_threads(1)
    train_once(20, 10, 0)
    ready.wait()
    started = time.perf_counter()
    for number in range(trials):
        train_once(steps, every, number)
    times.put((started, time.perf_counter()))


def bare_wall(trials: int, steps: int, every: int) -> float:
    """Seconds that two bare processes need for so many trials, per trial of the sweep."""
    context = multiprocessing.get_context("spawn")
    ready, times = context.Barrier(SLOTS), context.Queue()
    each = trials // SLOTS
    workers = [context.Process(target=bare, args=(each, steps, every, ready, times)) for _ in range(SLOTS)]
    for worker in workers:
        worker.start()
    spans = [times.get(timeout=600) for _ in workers]
    for worker in workers:
        worker.join()
    return (max(end for _, end in spans) - min(start for start, _ in spans)) / (each * SLOTS)


def steps_for(seconds: float) -> int:
    """How many steps take so long here when both cores are busy."""
    return max(20, round(400 * seconds / (bare_wall(16, 400, 40) * SLOTS)) // 20 * 20)


def sweep(trials: int, steps: int, every: int, home: Path) -> dict[str, float]:
    """A real sweep: seconds per trial in the steady state, to the first measurement, and in all."""
    file = home / "bench.yaml"
    file.write_text(YAML.format(trials=trials, slots=SLOTS, steps=steps, every=every))
    (home / "bench_trainer.py").write_text((HERE / "bench_trainer.py").read_text())
    command = [sys.executable, "-m", "hpsearch", "run", str(file), "--home", str(home / "studies"), "--json"]
    wall, began = time.time(), time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    total = time.perf_counter() - began
    from hpsearch.study.history import StoreReader

    found = StoreReader(home / "studies" / "bench-1").history().trials
    ends = sorted(t.ending.time for t in found if t.ending)
    first = min(t.measurements[0].time for t in found)
    # Up to the moment when a slot runs out of trials: from there on less than the machine is used.
    counted = ends[WARM - 1 : len(ends) - SLOTS + 1]
    steady = (counted[-1] - counted[0]) / 1000 / (len(counted) - 1)
    return {"trial_s": steady, "first_measurement_s": first / 1000 - wall, "total_s": total}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--seconds", type=float, nargs="+", default=[0.2, 1.0])
    options = parser.parse_args()
    for seconds in options.seconds:
        steps = steps_for(seconds)
        every = max(1, steps // 10)
        trials = max(12, round(options.trials * min(1.0, 0.4 / seconds)))
        with tempfile.TemporaryDirectory() as home:
            before = bare_wall(trials, steps, every)
            measured = sweep(trials, steps, every, Path(home))
            alone = (before + bare_wall(trials, steps, every)) / 2
        print(
            json.dumps(
                {
                    "date": datetime.now().date().isoformat(),
                    "trial_seconds": round(alone * SLOTS, 3),
                    "steps": steps,
                    "trials": trials,
                    "ratio_to_bare_processes": round(measured["trial_s"] / alone, 3),
                    "overhead_ms_of_slot_time": round(1000 * SLOTS * (measured["trial_s"] - alone), 1),
                    "first_measurement_s": round(measured["first_measurement_s"], 2),
                    "total_s": round(measured["total_s"], 2),
                }
            )
        )


if __name__ == "__main__":
    main()
