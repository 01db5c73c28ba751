"""What 10,000 trials, 500 at once, with 1,000,000 measurements cost a driver: time, memory, disk, decisions.

Only the trials are simulated: sampler, pruner, search, store and journal are the product's own. The driver
may open 256 files. `scripts/bench_load.py --json` prints one object.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hpsearch.run.simulated import Clock, Part, Stage
from hpsearch.spec.reading import parse
from hpsearch.study.home import Home
from hpsearch.study.journal import Journal
from hpsearch.study.pruning import make_pruner
from hpsearch.study.retention import Retention
from hpsearch.study.sampling import OptunaSampler
from hpsearch.study.search import Search
from hpsearch.study.trial import Decision, Entry, Launch, Measurement, Study, Trial

TEXT = """\
trainingInput:
  pythonModule: hpsearch.trainers.linear_regression
  hyperparameters:
    goal: MINIMIZE
    hyperparameterMetricTag: loss
    maxTrials: {trials}
    maxParallelTrials: {parallel}
    enableTrialEarlyStopping: true
    params:
      - {{parameterName: lr, type: DOUBLE, minValue: 1e-5, maxValue: 1e-1, scaleType: UNIT_LOG_SCALE}}
      - {{parameterName: width, type: INTEGER, minValue: 1, maxValue: 64, scaleType: UNIT_LINEAR_SCALE}}
hpsearch:
  maxSteps: {steps}
  measureEvery: 1
  sampler: {{type: {sampler}, seed: 0}}
  pruner: {{type: MEDIAN, minSteps: {steps}, minTrials: 5}}
"""
DESCRIPTORS = 256


@dataclass(frozen=True, slots=True)
class Load:
    """How much there is to do; each measurement is of `metrics` metrics."""

    trials: int
    parallel: int
    steps: int
    metrics: int
    sampler: str

    @property
    def measurements(self) -> int:
        """How many values there will be."""
        return self.trials * self.steps * self.metrics


class _Timed:
    """A pruner whose decisions are timed (seconds)."""

    def __init__(self, pruner: object) -> None:
        self._pruner = pruner
        self.times: list[float] = []

    def record(self, trial: Trial, measurement: Measurement) -> None:
        self._pruner.record(trial, measurement)  # type: ignore[attr-defined]

    def ended(self, trial: Trial) -> None:
        self._pruner.ended(trial)  # type: ignore[attr-defined]

    def decide(self, trial: Trial) -> Decision:
        started = time.perf_counter()
        decision: Decision = self._pruner.decide(trial)  # type: ignore[attr-defined]
        self.times.append(time.perf_counter() - started)
        return decision


def cast(load: Load) -> object:
    """Trials that measure a curve each, all to the end: what is pruned costs less."""

    def part(launch: Launch) -> Part:
        floor = abs(math.log10(float(launch.params["lr"])) + 3)

        def measure(step: int) -> dict[str, float]:
            return {"loss": floor + 1 / step} | {f"m{n}": float(step + n) for n in range(1, load.metrics)}

        return Part(900 + launch.context.number * 7919 % 200, measure, checkpoints=False)

    return part


def drive(load: Load, directory: Path) -> dict[str, float]:
    """One study from its start to its end; what it cost."""
    text = TEXT.format(trials=load.trials, parallel=load.parallel, steps=load.steps, sampler=load.sampler)
    spec = parse(text, "load.yaml").spec
    assert spec is not None
    study = Study("load", "load", 1, spec, directory / "load")
    store = Home(directory).create(study, "none")
    history = store.take(1)
    asks: list[float] = []
    seen = {"facts": 0, "wal": 0, "descriptors": 0}

    def committed(entries: Sequence[Entry]) -> None:
        seen["facts"] += len(entries)
        if seen["facts"] % 1_000 < len(entries):
            wal = directory / "load" / "study.db-wal"
            seen["wal"] = max(seen["wal"], wal.stat().st_size)
            seen["descriptors"] = max(seen["descriptors"], sum(1 for _ in Path("/proc/self/fd").iterdir()))

    sampler, pruner = OptunaSampler(spec), _Timed(make_pruner(spec))
    ask = sampler.ask

    def timed(number: int) -> object:
        started = time.perf_counter()
        suggestion = ask(number)
        asks.append(time.perf_counter() - started)
        return suggestion

    sampler.ask = timed  # type: ignore[method-assign, assignment]
    journal = Journal(store, committed)
    search = Search(study, sampler, pruner, journal)
    search.restore(history.trials, history.attributes)
    journal.retention = Retention(study, search.trials)
    before, started, used = resident(), time.perf_counter(), time.process_time()
    Stage(search, cast(load), Clock(1)).play()  # type: ignore[arg-type]
    wall, cpu, after = time.perf_counter() - started, time.process_time() - used, resident()
    search.conclude(2)
    store.close()
    size = sum(path.stat().st_size for path in (directory / "load").glob("study.db*"))
    started = time.perf_counter()
    again = Home(directory).open("load")
    trials = again.take(3).trials
    reading = time.perf_counter() - started
    again.close()
    measurements = sum(len(m.metrics) for trial in trials for m in trial.measurements)
    assert len(trials) == load.trials == len(search.trials)
    return {
        "trials": len(trials),
        "measurements": measurements,
        "wall_s": round(wall, 2),
        "cpu_s": round(cpu, 2),
        "rss_mb": round(after / 1e6, 1),
        "rss_growth_mb": round((after - before) / 1e6, 1),
        "rss_per_trial_kb": round((after - before) / load.trials / 1e3, 2),
        "measurements_per_s": round(measurements / cpu),
        "prune_p99_ms": round(1e3 * p99(pruner.times), 3),
        "ask_p99_ms": round(1e3 * p99(asks), 2),
        "store_bytes_per_measurement": round(size / measurements, 1),
        "wal_mb": round(seen["wal"] / 1e6, 1),
        "descriptors": seen["descriptors"],
        "reading_s": round(reading, 2),
    }


def p99(times: Sequence[float]) -> float:
    """The time below which 99 of 100 are."""
    return sorted(times)[len(times) * 99 // 100]


def resident() -> int:
    """The memory of this process (bytes)."""
    pages = Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--parallel", type=int, default=500)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--metrics", type=int, default=10)
    parser.add_argument("--sampler", default="RANDOM")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))
    load = Load(given.trials, given.parallel, given.steps, given.metrics, given.sampler)
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        found = drive(load, Path(directory))
    if given.json:
        print(json.dumps(found))
    else:
        for name, value in found.items():
            print(f"{name:30} {value}")


if __name__ == "__main__":
    main()
