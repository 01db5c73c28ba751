"""Runs misbehaving trials as workers do: on a slot with a fork server, as modules and as programs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from hpsearch.run.process import Slot
from hpsearch.run.wire import decode
from hpsearch.spec.model import Program, Resources
from hpsearch.study.trial import Cause, Context, Ending, Launch, Measurement, Report

HERE = str(Path(__file__).parent)
Fired = Callable[..., None]
PATIENCE = 80.0  # seconds until a test gives up


@pytest.fixture(scope="session")
def slot() -> Iterator[Slot]:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
            patch.setenv(name, "")  # a slot sets them for good, which is right in an actor only
        slot = Slot()
        yield slot
        slot.kill()


FORMS = ("module", "program")


def launch(directory: Path, kind: str, form: str = "module", **settings: Any) -> Launch:
    """A launch of a misbehaving trial; `memory` is in bytes."""
    attempt, memory = settings.pop("attempt", 1), settings.pop("memory", None)
    directory.mkdir(exist_ok=True)
    context = Context(0, attempt, 0, 300, 100, directory, resources=Resources(memory=memory))
    found = Launch("misbehaving", (), {"kind": kind}, context, "loss", (HERE,), grace=1.0, metrics=("loss",))
    if form == "program":
        args = (f"--attempt={attempt}",)
        found = replace(found, module="misbehaving_program", args=args, program=Program(own_directory=True))
    else:
        settings.pop("program", None)
    return replace(found, **settings)


@dataclass
class Said:
    """What a trial reported until its end, and why it was lost, if it was."""

    reports: list[Report] = field(default_factory=list)
    lost: str | None = None
    cause: Cause | None = None

    @property
    def measurements(self) -> list[Measurement]:
        return [report.measurement for report in self.reports if report.measurement]

    @property
    def notes(self) -> str:
        return "\n".join(report.note for report in self.reports)

    @property
    def ending(self) -> Ending:
        assert self.reports, self.lost
        assert self.reports[-1].ending, (self.lost, self.reports[-1])
        return self.reports[-1].ending


def follow(slot: Slot, given: Launch) -> Said:
    """Start a launch and hear it to its end."""
    slot.start(given)
    said = Said()
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        heard = slot.poll(1.0)
        said.reports += [decode(line) for line in heard.lines]
        if heard.lost:
            said.lost, said.cause = heard.lost, heard.cause
            return said
        if said.reports and said.reports[-1].ending:
            return said
    raise AssertionError(f"the trial neither ended nor was lost; it said {said}")


def start_and_hear_first(slot: Slot, given: Launch) -> None:
    """Start a launch and wait for its first measurement."""
    slot.start(given)
    wait_until(lambda: any('"measurement"' in line for line in slot.poll(1.0).lines), "it never reported")


def wait_until(true: Any, otherwise: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.01)


def noted(directory: Path) -> set[int]:
    """The processes that a trial noted: its own and those it started."""
    return {int(line) for line in (directory / "pids").read_text().split()}


def state_of(pid: int) -> str:
    """The kernel's letter for a process, empty for one that is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def left_of(directory: Path, gone: str = "") -> dict[int, str]:
    """Those that are still there, zombies too unless these are called `gone`, with their states."""
    return {pid: state for pid in noted(directory) if (state := state_of(pid)) not in ("", gone)}


def works(slot: Slot, directory: Path) -> None:
    """The slot goes on."""
    assert follow(slot, launch(directory, "steps")).ending.reason == "reached step 300"
