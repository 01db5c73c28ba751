"""Trials of two workers on two nodes: they train as one, outlive lost nodes, and leave nobody behind."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from lab import START, Cluster, wait_for
from zygote import Driver

from hpsearch.spec.model import Resources
from hpsearch.study.history import History
from hpsearch.study.home import Home
from hpsearch.study.launching import launch_of
from hpsearch.study.trial import Attempt, Cause, Measurement, Report, State, Trial
from hpsearch.train.trial import execute

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200), pytest.mark.xdist_group("three nodes")]
Fired = Callable[..., None]
HERE = Path(__file__).parent
CODE = (HERE / "pairs.py", HERE / "pairs_parts.py")
STEPS = 300
FILE = f"""\
trainingInput:
  pythonModule: pairs
  hyperparameters:
    goal: MINIMIZE
    hyperparameterMetricTag: loss
    maxTrials: KINDS
    maxParallelTrials: 1
    params:
      - {{parameterName: kind, type: CATEGORICAL, categoricalValues: [NAMES]}}
hpsearch:
  maxSteps: {STEPS}
  measureEvery: 1
  sampler: {{type: GRID}}
  resources: {{workers: 2, cpu: 1}}
"""


def file_of(*kinds: str) -> str:
    return FILE.replace("KINDS", str(len(kinds))).replace("NAMES", ", ".join(kinds))


@dataclass(frozen=True)
class Process:
    """One process of a trial: `part` is the file that it has its code from."""

    attempt: int
    pid: int
    part: str
    rank: str
    size: str
    address: str


@dataclass
class Seen:
    """What is seen of a study from outside."""

    home: Path

    def history(self) -> History:
        return Home(self.home).history("s")

    def _lines(self, trial: int, file: str) -> list[list[str]]:
        with suppress(FileNotFoundError):
            text = (self.home / f"s/trials/{trial:04d}" / file).read_text()
            return [line.split() for line in text.splitlines()]
        return []

    def processes(self, trial: int) -> list[Process]:
        return [Process(int(a), int(pid), *rest) for a, pid, *rest in self._lines(trial, "processes")]

    def steps(self, trial: int, attempt: int) -> list[int]:
        """Where a trial was measured in an attempt, by its own account."""
        return [int(step) for number, step in self._lines(trial, "ledger") if int(number) == attempt]

    def at_work(self, trial: int, attempt: int, driver: Driver) -> dict[str, Process]:
        """The processes of an attempt by their ranks, once it trains."""
        wait_for(lambda: self.steps(trial, attempt)[2:] or not driver.alive, START, driver.said)
        assert driver.alive, driver.said()
        return {each.rank: each for each in self.processes(trial) if each.attempt == attempt}


@pytest.mark.fault("F58")
def test_a_trial_on_two_nodes_measures_what_one_process_does_whatever_nodes_are_lost(
    nodes: Cluster, home: Path, fired: Fired, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes.complete(3)
    nodes.head.put(*CODE, pairs=file_of("plain", "held"))
    hold, pause, seen = home / "hold", home / "pause", Seen(home)
    hold.touch()
    driver = nodes.run("pairs.yaml", home, "--start-timeout", "400s")

    # One node of two is lost at once. Its host gets a new one.
    first = seen.at_work(1, 1, driver)
    assert first["0"].address == first["1"].address == address_of(nodes, first["0"])
    lost = nodes.place_of(first["1"].pid)
    assert lost != nodes.place_of(first["0"].pid)
    nodes.workers[lost].kill()
    fired(not nodes.workers[lost].host.pids(), "F58")
    nodes.workers[lost] = nodes.lab.worker(lost)
    second = seen.at_work(1, 2, driver)

    # Another one is taken away with a notice, so that the trial keeps all that it has done.
    pause.touch()
    nodes.lab.wait_until_up(nodes.workers[lost])
    pause.unlink()
    taken = nodes.workers[nodes.place_of(second["1"].pid)]
    taken.preempt()
    seen.at_work(1, 3, driver)
    hold.unlink()
    assert driver.wait(START) == 0, driver.said()
    wait_for(taken.has_ended, START, taken.said.read_text)

    assert "no trial has started" not in driver.err
    plain, held = seen.history().trials
    assert [(a.cause, a.reason) for a in held.attempts[1:]] == [
        (Cause.PREEMPTED, "rank 1: its node was lost"),
        (Cause.PREEMPTED, "rank 1: its worker was preempted"),
    ]
    assert went_on(seen, held.attempts[1], held.attempts[0]) >= 0
    assert went_on(seen, held.attempts[2], held.attempts[1]) == 0, "a notice leaves time for a checkpoint"
    assert len(plain.attempts) == 1
    monkeypatch.setattr(sys, "path", [str(HERE), *sys.path])
    for trial in (plain, held):
        assert trial.state is State.COMPLETED
        by_one = alone(seen.history(), trial, home / "alone")
        assert curve(trial.measurements) == pytest.approx(by_one, rel=1e-4)
        assert len({each.pid for each in seen.processes(trial.number)}) == 2 * len(trial.attempts)
        for each in seen.processes(trial.number):
            assert each.size == "2"
            assert each.part.startswith("/tmp/ray/"), "nobody has sent it there"
            assert not Path(f"/proc/{each.pid}").exists(), f"rank {each.rank} was left behind"


def went_on(seen: Seen, attempt: Attempt, before: Attempt) -> int:
    """How many measurements an attempt made again; it began where a checkpoint lets it, not at the start."""
    steps = seen.steps(1, attempt.number)
    assert attempt.resumed_from is not None
    assert steps[0] == attempt.resumed_from + 1
    return seen.steps(1, before.number)[-1] - attempt.resumed_from


def address_of(nodes: Cluster, process: Process) -> str:
    return nodes.workers[nodes.place_of(process.pid)].host.address


def curve(measurements: Sequence[Measurement]) -> list[float]:
    return [each.metrics["loss"] for each in measurements]


def alone(history: History, trial: Trial, directory: Path) -> list[float]:
    """What one process measures, here and now, in such a trial."""
    fresh = Trial(trial.number, trial.uid, {"kind": "plain"}, trial.created, trial.attempts[:1])
    reports: list[Report] = []

    def report(what: Report) -> bool:
        reports.append(what)
        return True

    launch = launch_of(history.study, fresh, Resources(cpu=1), (str(HERE),))
    execute(replace(launch, context=replace(launch.context, directory=directory)), report)
    return curve([each.measurement for each in reports if each.measurement])


def test_a_job_with_a_working_directory_of_its_own_sends_its_code_to_nodes_that_do_not_see_it(
    nodes: Cluster, home: Path
) -> None:
    """Ray keeps a job's directory below its own on each node, and each of these nodes has another one."""
    nodes.complete(2, dashboard=True)
    nodes.head.put(*CODE, pairs=file_of("plain"))
    words = ("--to", "jobs", "--address", f"http://{nodes.head.host.address}:8265", "--study", "s")
    driver = nodes.drive("submit", "pairs.yaml", *words, "--cluster-home", home, "--wait")
    assert driver.wait(START) == 0, driver.said()
    seen = Seen(home)
    [trial] = seen.history().trials
    assert trial.state is State.COMPLETED
    parts = {each.part for each in seen.processes(0)}
    assert len(parts) == 2, "each node has it in another place"
    assert all(part.startswith("/tmp/ray/") and part.endswith("/0/pairs_parts.py") for part in parts), parts
