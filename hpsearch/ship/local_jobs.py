"""Sweeps in the background of this machine: a driver with a log, a status file, and a lock while it lives."""

from __future__ import annotations

import fcntl
import os
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpsearch.errors import UsageError
from hpsearch.ship import kuberay, status_file
from hpsearch.ship.api import Time
from hpsearch.ship.records import DIRECTORY

Json = dict[str, Any]
LOOK = 0.5  # seconds
CHUNK = 1 << 16  # characters


@dataclass(frozen=True, slots=True)
class LocalJob:
    """The files of one job. The lock is held by its driver, whatever becomes of who started it."""

    home: Path
    name: str

    @property
    def log(self) -> Path:
        """What the driver prints."""
        return self._file("log")

    @property
    def status_file(self) -> Path:
        """What it says of itself."""
        return self._file("status.json")

    @property
    def runs(self) -> bool:
        """Whether a driver lives."""
        with self._locked() as lock:
            return lock is None

    @property
    def facts(self) -> Json | None:
        """What the status file says; None before it says anything."""
        return status_file.read(self.status_file)

    @property
    def code(self) -> int:
        """What the driver ended with; one that was killed said nothing of it, and may be run again."""
        facts = self.facts
        code = facts["exit_code"] if facts else None
        return code if isinstance(code, int) else kuberay.INTERRUPTED

    @property
    def is_done(self) -> bool:
        """Whether running it again would change nothing: its study has had its end."""
        return self.facts is not None and self.code in (kuberay.DONE, kuberay.NO_SUCCESS)

    def start(self, command: Sequence[str]) -> bool:
        """Start the driver, if none lives and there is something to do; False if it was not started."""
        (self.home / DIRECTORY).mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._locked() as lock:
            if lock is None or self.is_done:
                return False
            # What an earlier driver said must not be taken for this one's.
            self.status_file.unlink(missing_ok=True)
            descriptor = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            try:
                driver = subprocess.Popen(
                    [*command, "--status-file", str(self.status_file)],
                    stdin=subprocess.DEVNULL,
                    stdout=descriptor,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # it outlives this terminal
                    pass_fds=(lock,),
                )
            except OSError as error:
                raise UsageError(f"{command[0]} cannot be run: {error.strerror}") from error
            finally:
                os.close(descriptor)
        # It may outlive us; if it does not, nobody else takes note of its end.
        threading.Thread(target=driver.wait, name="driver", daemon=True).start()
        return True

    def wait(self, clock: Time) -> int:
        """The exit code of its driver, once that has ended."""
        while self.runs:
            clock.sleep(LOOK)
        return self.code

    def lines(self, clock: Time, *, follow: bool) -> Iterator[str]:
        """What it has printed, piece by piece; with `follow` also what it will print, to its end."""
        try:
            file = self.log.open(encoding="utf-8", errors="replace")
        except OSError as error:
            raise UsageError(f"job {self.name} has no log here: {error.strerror}") from error
        with file:
            while True:
                alive = follow and self.runs
                while text := file.read(CHUNK):
                    yield text
                if not alive:
                    return
                clock.sleep(LOOK)

    def _file(self, kind: str) -> Path:
        return self.home / DIRECTORY / f"{self.name}.{kind}"

    @contextmanager
    def _locked(self) -> Iterator[int | None]:
        """The lock's descriptor, or None where a driver holds it."""
        try:
            lock = os.open(self._file("lock"), os.O_RDWR | os.O_CREAT, 0o600)
        except FileNotFoundError:
            yield -1  # nothing was ever started here
            return
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield None
            else:
                yield lock
        finally:
            os.close(lock)


def shown(job: LocalJob) -> Json:
    """The object of `status --json`."""
    runs, facts = job.runs, job.facts
    said: Mapping[str, Any] = facts or {}
    ended = None if runs else (str(said["outcome"]) if said.get("exit_code") is not None else "interrupted")
    return {
        "name": job.name,
        "target": "local",
        "job_status": "RUNNING" if runs else "ENDED",
        "reason": said.get("reason"),
        "pid": said.get("pid"),
        "counts": said.get("counts"),
        "final": not runs,
        "outcome": ended,
        "exit_code": None if runs else job.code,
    }
