"""How fast a backlog reaches a real MLflow server, how the driver's loop fares, and what reconcile costs.

A driver's loop is played by a thread that asks to be woken every 5 ms and notes how late it is.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

from hpsearch import upkeep
from hpsearch.spec.reading import parse
from hpsearch.study.home import Home
from hpsearch.study.trial import Attempt, Ending, Entry, Measurement, State, Study, Trial
from hpsearch.track.following import following

SPEC = """\
trainingInput:
  pythonModule: bench
  hyperparameters:
    goal: MINIMIZE
    hyperparameterMetricTag: loss
    maxTrials: 100000
    params:
      - {parameterName: x, type: DOUBLE, minValue: 0, maxValue: 1}
"""
METRICS, TICK = 5, 0.005


class Loop:
    """Notes how late it is woken (seconds)."""

    def __init__(self) -> None:
        self.late: list[float] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Loop:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.is_set():
            due = time.perf_counter() + TICK
            time.sleep(TICK)
            self.late.append(time.perf_counter() - due)

    def quantile(self, share: float) -> float:
        return sorted(self.late)[int(share * (len(self.late) - 1))]


def serve(home: Path) -> tuple[subprocess.Popen[bytes], str]:
    """A real server over SQLite, in a process group of its own."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "mlflow",
        "server",
        "--workers",
        "1",
        "--host",
        "127.0.0.1",
    ]
    words += ["--port", str(port), "--backend-store-uri", f"sqlite:///{home}/server.db"]
    environment = {
        **os.environ,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    with (home / "server.log").open("wb") as log:
        process = subprocess.Popen(
            words, cwd=home, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1).close()
            return process, f"http://127.0.0.1:{port}"
        except OSError:
            time.sleep(0.2)
    raise SystemExit("the server did not start")


def study(home: Path, name: str, uri: str, entries: list[Entry]) -> None:
    """A store with facts that nobody has told MLflow."""
    spec = parse(SPEC, str(home / "bench.yaml")).spec
    assert spec is not None
    store = Home(home).create(Study(name, f"uid-{name}", 1, spec, home / name), uri)
    store.take(1)
    for start in range(0, len(entries), 2_000):
        store.commit(entries[start : start + 2_000])
    store.close()


def trial(name: str, number: int, steps: int, ended: bool) -> list[Entry]:
    entries = [
        Entry(number, Trial(number, f"{name}-{number}", {"x": 0.5}, 1), attributes={}),
        Entry(number, Attempt(1, 1)),
    ]
    for step in range(1, steps + 1):
        metrics = {f"metric_{n}" if n else "loss": 1 / step + n for n in range(METRICS)}
        entries.append(Entry(number, Measurement(step, metrics, step)))
    if ended:
        entries.append(Entry(number, Ending(State.COMPLETED, "reached its last step", 9)))
    return entries


def drain(home: Path, uri: str, metrics: int) -> None:
    steps = metrics // METRICS // 20
    study(home, "drain", uri, [e for n in range(20) for e in trial("drain", n, steps, True)])
    store = Home(home).open("drain")
    history = store.take(1)
    with following(store, history, interval=0.0) as outbox:
        while outbox.parent_run_id is None:
            time.sleep(0.05)
        with Loop() as loop:
            started = time.monotonic()
            done = outbox.close(3_600)
            seconds = time.monotonic() - started
    store.close()
    assert done, outbox.problem
    print(f"backlog: {metrics} metrics of 20 trials in {seconds:.1f} s: {metrics / seconds:.0f} metrics/s")
    print(
        f"loop while it drains: late by {1e3 * loop.quantile(0.5):.1f} ms (median), "
        f"{1e3 * loop.quantile(0.99):.1f} ms (p99), {1e3 * max(loop.late):.1f} ms (most)"
    )


def zombies(home: Path, uri: str, count: int) -> None:
    """Trials told as running, whose driver then went away: half of them ended, half unfinished."""
    study(home, "zombies", uri, [e for n in range(count) for e in trial("zombies", n, 1, False)])
    store = Home(home).open("zombies")
    with following(store, store.take(1), interval=0.0) as outbox:
        assert outbox.close(3_600), outbox.problem
    store.commit([Entry(n, Ending(State.COMPLETED, "done", 9)) for n in range(count // 2)])
    store.close()
    started = time.monotonic()
    (told,) = upkeep.reconcile(Home(home), ["zombies"]).studies
    seconds = time.monotonic() - started
    counts = f"{told.closed} closed, {told.interrupted} interrupted, {told.left} left"
    print(f"reconcile: {counts}, {seconds:.1f} s{'; ' + told.problem if told.problem else ''}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--metrics", type=int, default=50_000)
    parser.add_argument("--zombies", type=int, default=1_000)
    asked = parser.parse_args()
    print(json.dumps({"cpus": os.cpu_count(), "load": os.getloadavg()}))
    with tempfile.TemporaryDirectory() as directory:
        home = Path(directory)
        server, uri = serve(home)
        try:
            drain(home, uri, asked.metrics)
            if asked.zombies:
                zombies(home, uri, asked.zombies)
        finally:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


if __name__ == "__main__":
    main()
