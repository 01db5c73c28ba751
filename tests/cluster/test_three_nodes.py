"""A Ray of three nodes on three hosts: one is cut off, the head dies, and nothing is lost."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from lab import BIN, OWN_DISK, START, Cluster, wait_for
from zygote import Driver

from hpsearch.study.history import History
from hpsearch.study.home import Home
from hpsearch.study.trial import Cause, State

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200), pytest.mark.xdist_group("three nodes")]
Fired = Callable[..., None]
STEADY = Path(__file__).parents[1] / "chaos" / "steady.py"
FILE = """\
trainingInput:
  pythonModule: steady
  hyperparameters:
    goal: MINIMIZE
    hyperparameterMetricTag: loss
    maxTrials: 2
    maxParallelTrials: 1
    params:
      - {{parameterName: target, type: DOUBLE, minValue: 0.5, maxValue: 1.5}}
hpsearch:
  maxSteps: 2000
  measureEvery: 10
  sampler: {{type: RANDOM}}
  resources: {resources}
"""
# A program that asks each port of this host for what strangers might want, and tells who was served.
KNOCK = """
import json, urllib.request
ports = set()
for table in ("tcp", "tcp6"):
    for line in open("/proc/net/" + table).read().splitlines()[1:]:
        words = line.split()
        if words[3] == "0A":
            ports.add(int(words[1].rpartition(":")[2], 16))
served = []
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
for port in sorted(ports):
    for path in PATHS:
        try:
            answer = opener.open(f"http://{ADDRESS}:{port}{path}", timeout=3)
            served.append([port, path, answer.status, answer.read(200).decode(errors="replace")])
        except Exception as error:
            pass
print(json.dumps([sorted(ports), served]))
"""
PATHS = ["/", "/api/version", "/api/jobs/", "/api/gcs_healthz", "/api/healthz", "/api/local_raylet_healthz"]
PATHS += [
    "/api/cluster_status",
    "/nodes?view=summary",
    "/logical/actors",
    "/api/v0/logs",
    "/metrics",
    "/log_proxy",
]
PATHS += ["/api/v0/tasks", "/api/packages/gcs/none", "/worker/traceback?pid=1", "/api/authenticate"]
HARMLESS = {"/", "/api/gcs_healthz", "/api/healthz", "/api/local_raylet_healthz", "/metrics"}


def test_a_head_serves_strangers_nothing_but_health_and_metrics(cluster: Cluster) -> None:
    program = f"PATHS = {PATHS}\nADDRESS = {cluster.head.host.address!r}\n{KNOCK}"
    command = cluster.head.entered(str(BIN / "python"), "-c", program)
    ports, served = json.loads(subprocess.run(command, capture_output=True, check=True, timeout=100).stdout)
    assert {6379, 8265} <= set(ports)
    # A server of metrics answers with them whatever it is asked for.
    others = [each for each in served if not each[3].startswith("# HELP")]
    assert [each for each in others if each[1] not in HARMLESS] == []
    assert any(path == "/api/gcs_healthz" for _, path, *_ in served), "nobody was asked in earnest"
    for _, path, _, text in others:
        assert path != "/" or text.lstrip().lower().startswith("<!doctype html"), "that is no static page"


def test_a_study_on_the_heads_own_disk_is_refused_before_a_trial_starts(cluster: Cluster) -> None:
    cluster.head.put(STEADY, steady=FILE.format(resources="{cpu: 1}"))
    driver = cluster.run("steady.yaml", f"{OWN_DISK}/home")
    assert driver.wait(START) == 2, driver.said()
    others = sorted(node.host.address for node in cluster.workers.values())
    assert f"{len(others)} of {len(others)} other nodes do not see {OWN_DISK}/home/s" in driver.err
    assert ", ".join(others) in driver.err
    assert "--home" in driver.err


def test_a_trial_that_fits_no_node_of_a_cluster_that_cannot_grow_is_refused(
    cluster: Cluster, home: Path
) -> None:
    cluster.head.put(STEADY, steady=FILE.format(resources="{cpu: 2}"))
    driver = cluster.run("steady.yaml", home)
    assert driver.wait(START) == 2, driver.said()
    assert "a trial asks for 2 CPU, the largest node has 1, and this cluster does not grow" in driver.err
    assert not (home / "s" / "trials").exists()


@dataclass
class Life:
    """What is seen of a study from outside while it runs."""

    home: Path

    def ledger(self, trial: int = 0) -> list[tuple[int, int, int]]:
        """What a trial did: (attempt, step, pid), in the order in which it happened."""
        with suppress(FileNotFoundError):
            text = (self.home / f"s/trials/{trial:04d}/ledger").read_text()
            return [tuple(map(int, line.split()[:3])) for line in text.splitlines()]  # type: ignore[misc]
        return []

    def at_work(self, attempt: int, driver: Driver) -> int:
        """The pid of the first trial's process once it trains in that attempt."""
        lines = wait_for(
            lambda: [each for each in self.ledger() if each[0] == attempt][2:], START, driver.said
        )
        return lines[0][2]

    def history(self) -> History:
        return Home(self.home).history("s")


@pytest.mark.fault("F59", "F60")
def test_a_trial_goes_on_after_its_node_was_cut_off_and_the_head_died_and_nothing_is_lost_or_doubled(
    cluster: Cluster, home: Path, fired: Fired
) -> None:
    cluster.head.put(STEADY, steady=FILE.format(resources="{cpu: 1}"))
    hold, life = home / "hold", Life(home)
    hold.touch()  # while it is there, trials train in slow motion
    driver = cluster.run("steady.yaml", home)

    # The node is cut off, and heals once the trial goes on elsewhere.
    first = life.at_work(1, driver)
    cut = cluster.workers[cluster.place_of(first)].host
    cut.cut()
    heard = len(life.ledger())
    second = life.at_work(2, driver)
    alone = [step for attempt, step, _ in life.ledger()[heard:] if attempt == 1]
    assert not cut.has(second)
    fired(cut.is_cut() and len(alone) > 10, "F59")  # it went on training while it was cut off
    cut.heal()
    wait_for(lambda: not cut.has(first), START)  # and ends itself

    # The head dies; its driver is on the same host, and lives to say so.
    before = life.history()
    cluster.head.kill(spared=[driver.pid, cluster.lab.zygote(cluster.head).pid])
    assert driver.wait(60) == 75, driver.said()
    fired("Ray cannot go on" in driver.err, "F60")
    assert driver.out == "", "that is not the one object of --json"
    assert [t.state for t in before.trials] == [State.RUNNING]

    # A new head, with one worker; the driver is started again.
    cluster.complete(1)
    cluster.head.put(STEADY, steady=FILE.format(resources="{cpu: 1}"))
    driver = cluster.run("steady.yaml", home)
    life.at_work(3, driver)
    hold.unlink()
    assert driver.wait(START) == 0, driver.said()
    assert json.loads(driver.out)["counts"]["completed"] == 2
    nothing_lost_or_doubled(life, before)


def nothing_lost_or_doubled(life: Life, before: History) -> None:
    after = life.history()
    trial = after.trials[0]
    assert [each.state for each in after.trials] == [State.COMPLETED] * 2
    for each in after.trials:
        assert [m.step for m in each.measurements] == list(range(10, 2001, 10))
    known = before.trials[0].measurements
    assert trial.measurements[: len(known)] == known
    assert [a.cause for a in trial.attempts] == [*(Cause.FIRST, Cause.PREEMPTED, Cause.DRIVER)]
    # Each attempt began where a checkpoint of an earlier one lets it, and not at the start.
    steps: dict[int, list[int]] = {}
    for attempt, step, _ in life.ledger():
        steps.setdefault(attempt, []).append(step)
    for attempt in trial.attempts[1:]:
        assert attempt.resumed_from is not None
        assert steps[attempt.number][0] == attempt.resumed_from + 10
    # What the attempt that was cut off did alone is nowhere: neither told nor resumed from.
    second = next(a for a in trial.attempts if a.number == 2)
    assert second.resumed_from is not None
    assert all(c.step <= second.resumed_from for c in trial.checkpoints if c.attempt == 1)
    files = {path.name for path in (life.home / "s/trials/0000/checkpoints").iterdir()}
    rows = {Path(c.name).name for c in trial.checkpoints}
    assert files <= rows
