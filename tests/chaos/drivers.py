"""Real drivers as processes of their own, what they leave behind, and ledgers of what trials really did."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

HERE = Path(__file__).parent
HPSEARCH = Path(sys.executable).with_name("hpsearch")
MARK = "HPSEARCH_CHAOS_MARK"
T = TypeVar("T")

TEXT = """\
trainingInput:
  pythonModule: steady
  hyperparameters:
    goal: MINIMIZE
    hyperparameterMetricTag: loss
    maxTrials: {trials}
    maxParallelTrials: {parallel}
    params:
      - {{parameterName: target, type: DOUBLE, minValue: 0.5, maxValue: 1.5}}
hpsearch:
  maxSteps: 2000
  measureEvery: 10
  sampler: {{type: RANDOM}}
"""


def wait_for(what: Callable[[], T], seconds: float, told: Callable[[], str] = str) -> T:
    """What a question gives as soon as it gives something; AssertionError after some seconds."""
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, f"it did not happen within {seconds:g} s; {told()}"
        time.sleep(0.05)
    return found


class House:
    """A home for one study of the steady trainer, its file, and a short place for temporary files."""

    def __init__(self, directory: Path, database: Path | None = None, *, trials: int = 3, parallel: int = 2):
        self.home = directory / "home"
        self.home.mkdir()
        self.file = directory / "steady.yaml"
        self.file.write_text(TEXT.format(trials=trials, parallel=parallel))
        shutil.copy(HERE / "steady.py", directory)
        if database:
            shutil.copy(database, self.home / "mlflow.db")
        self.hold = self.home / "hold"
        self.hold.touch()
        # Ray's sockets have paths of at most 107 bytes.
        self.scratch = Path(tempfile.mkdtemp(prefix="hpt-", dir="/tmp"))
        self.drivers: list[Driver] = []

    @property
    def study(self) -> Path:
        return self.home / "steady"

    def ledger(self, trial: int) -> list[tuple[int, int, int, int]]:
        """What a trial did: (attempt, step, pid, fork server's pid) in the order in which it happened."""
        with suppress(FileNotFoundError):
            text = (self.study / f"trials/{trial:04d}/ledger").read_text()
            return [tuple(map(int, line.split())) for line in text.splitlines()]  # type: ignore[misc]
        return []

    def run(self, *arguments: str, before: Sequence[str] = (), **environment: str) -> Driver:
        """A driver that starts the study or goes on with it."""
        words = [*before, str(HPSEARCH), "run", str(self.file), "--study", "steady", "--resume", "auto"]
        words += ["--home", str(self.home), "--json", *arguments]
        driver = Driver(words, self.home.parent, {"TMPDIR": str(self.scratch), **environment})
        self.drivers.append(driver)
        return driver


class Driver:
    """One driver; all that it starts inherits a mark of its own."""

    def __init__(self, words: Sequence[str], directory: Path, environment: dict[str, str]) -> None:
        self.mark = f"{MARK}={uuid.uuid4().hex}"
        name, _, value = self.mark.partition("=")
        self.said = directory / f"said-{value[:8]}"
        with self.said.open("w") as said:
            self.process = subprocess.Popen(
                words,
                cwd=directory,
                env={**os.environ, **environment, name: value},
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                start_new_session=True,
            )

    def kill(self, number: int = signal.SIGKILL) -> None:
        self.process.send_signal(number)

    def ended(self, seconds: float) -> int:
        """Its exit code, within some seconds."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it did not end within {seconds:g} s; it said: {self.text}") from None

    @property
    def text(self) -> str:
        return self.said.read_text()

    def family(self) -> dict[int, str]:
        """All living processes that it started, and theirs, by what they were called with."""
        found = {}
        for process in Path("/proc").iterdir():
            if not process.name.isdigit() or int(process.name) == self.process.pid:
                continue
            with suppress(OSError):
                if self.mark.encode() in (process / "environ").read_bytes().split(b"\0"):
                    found[int(process.name)] = (process / "cmdline").read_text().replace("\0", " ")
        return found

    def member(self, *words: str) -> int:
        """The pid of the one process of its family whose call has all those words."""
        found = [pid for pid, call in self.family().items() if all(word in call for word in words)]
        assert len(found) == 1, (words, self.family())
        return found[0]

    def left(self, seconds: float) -> dict[int, str]:
        """What lives of its family after some seconds, sooner if nothing does."""
        deadline = time.monotonic() + seconds
        while (found := self.family()) and time.monotonic() < deadline:
            time.sleep(0.1)
        return found


@contextmanager
def house(directory: Path, database: Path | None = None, **numbers: int) -> Iterator[House]:
    """A house in which nothing lives on afterwards."""
    made = House(directory, database, **numbers)
    try:
        yield made
    finally:
        for driver in made.drivers:
            with suppress(ProcessLookupError):
                driver.kill()
            driver.process.wait()
            for pid in driver.left(10.0):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        shutil.rmtree(made.scratch, ignore_errors=True)
