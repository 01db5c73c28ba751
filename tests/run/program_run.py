"""Programs of every style as trials, in both ways in which a program starts."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from hpsearch.run.local import EXECUTE_COMMAND
from hpsearch.run.process import Slot
from hpsearch.run.wire import decode
from hpsearch.spec.model import Program, Resources, Value
from hpsearch.study.trial import Context, Ending, Launch, Measurement, Report

PROGRAMS = Path(__file__).parent / "programs"
PATIENCE = 60.0  # seconds until a test gives up


@pytest.fixture(scope="module")
def forks() -> Iterator[Slot]:
    """Starts programs as they start under Ray: in forks of a preloaded server."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
            patch.setenv(name, "")  # a slot sets them for good, which is right in an actor only
        slot = Slot()
        yield slot
        slot.kill()


@pytest.fixture(scope="module")
def commands() -> Iterator[Slot]:
    """Starts programs as they start with --local: as commands."""
    slot = Slot(preload=(), execute=EXECUTE_COMMAND)
    yield slot
    slot.kill()


@pytest.fixture(params=["forks", "commands"])
def slot(request: pytest.FixtureRequest) -> Slot:
    found: Slot = request.getfixturevalue(request.param)
    return found


@dataclass
class Said:
    """What a trial's process reported, in order, and why it was lost, if it was."""

    reports: list[Report] = field(default_factory=list)
    lost: str | None = None

    @property
    def measurements(self) -> list[Measurement]:
        return [report.measurement for report in self.reports if report.measurement]

    @property
    def curve(self) -> list[tuple[int, Mapping[str, float]]]:
        return [(measurement.step, measurement.metrics) for measurement in self.measurements]

    @property
    def notes(self) -> list[str]:
        return [report.note for report in self.reports if report.note]

    @property
    def verdict(self) -> tuple[str, str]:
        assert not self.lost, self.lost
        (ending,) = [report.ending for report in self.reports if report.ending]
        assert isinstance(ending, Ending)
        return ending.state.value, ending.reason


def launch(
    directory: Path,
    module: str,
    params: Mapping[str, Value] | None = None,
    *,
    args: tuple[str, ...] = (),
    number: int = 6,
    metric: str = "loss",
    metrics: tuple[str, ...] = (),
    program: Program | None = None,
    python_path: tuple[str, ...] = (str(PROGRAMS),),
    cpu: float = 1.0,
    grace: float = 5.0,
    timeout: float | None = None,
) -> Launch:
    """A launch as the Search makes it; the program starts in its trial's directory."""
    return Launch(
        module=module,
        args=args,
        params=params or {},
        context=Context(number, 1, 7, 1000, 100, directory, resources=Resources(cpu=cpu)),
        metric=metric,
        python_path=python_path,
        timeout=timeout,
        study="census-1",
        metrics=metrics or (metric,),
        program=program or Program(own_directory=True),
        grace=grace,
    )


def follow(slot: Slot, given: Launch) -> Said:
    """Start a launch and hear it to its end."""
    slot.start(given)
    said = Said()
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        heard = slot.poll(1.0)
        said.reports += [decode(line) for line in heard.lines]
        said.lost = heard.lost
        if heard.lost or (said.reports and said.reports[-1].ending):
            return said
    raise AssertionError(f"the program neither ended nor was lost; it said {said}")


def start_and_hear_first(slot: Slot, given: Launch) -> None:
    """Start a launch and wait for its first measurement."""
    slot.start(given)
    deadline = time.monotonic() + PATIENCE
    while not any('"measurement"' in line for line in slot.poll(1.0).lines):
        assert time.monotonic() < deadline, "the program never reported"


def wait_for(path: Path) -> str:
    """The text of a file as soon as it is there."""
    deadline = time.monotonic() + PATIENCE
    while not (path.exists() and (text := path.read_text())):
        assert time.monotonic() < deadline, f"{path} was never written"
        time.sleep(0.01)
    return text


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
