"""The status file: how a driver is doing and how it ended, for the scripts that started it.

It is replaced as a whole, so that a reader never sees a half of one. While a driver lives it renews the
file; one that was killed leaves "running" behind, which a reader can tell by the process or by the time.
"""

from __future__ import annotations

import calendar
import contextlib
import json
import logging
import os
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from hpsearch.errors import UsageError
from hpsearch.study import owner

Json = dict[str, Any]

RUNNING = "running"
RENEWAL = 15.0  # seconds
# A driver that has not renewed the file for so long is taken for dead (seconds).
LEASE = 60

_log = logging.getLogger(__name__)


class StatusFile:
    """The file of one driver, from its start to its end; `clock` gives seconds since the epoch."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self._path = path.absolute()
        self._clock = clock
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._troubled = False
        self._thread = threading.Thread(target=self._renew, name="status-file", daemon=True)
        self._facts: Json = {
            "study": None,
            "outcome": RUNNING,
            "exit_code": None,
            "reason": None,
            "counts": None,
            "best": None,
            "started": _moment(clock()),
            "ended": None,
            "renewed": None,
            "lease_seconds": LEASE,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "owner": owner.identity(),
        }

    def __enter__(self) -> Self:
        """Say that the driver runs. Raises UsageError where the file cannot be written."""
        if (other := read(self._path)) and not is_dead(other, self._clock()) and not self._is_mine(other):
            raise UsageError(
                f"{self._path} is the status file of process {other['pid']} on {other['host']}, which runs",
                hint="give each driver a --status-file of its own",
            )
        try:
            self._write()
        except OSError as error:
            raise UsageError(
                f"cannot write the status file {self._path}: {error.strerror or error}",
                hint="name a file in a directory that can be written: --status-file FILE",
            ) from error
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()

    def tell(self, facts: Mapping[str, Any]) -> None:
        """Add facts; they are in the file at its next renewal."""
        with self._lock:
            self._facts.update(facts)

    def end(self, outcome: str, exit_code: int, reason: str | None, facts: Mapping[str, Any]) -> None:
        """Say how it ended, at once."""
        self._done.set()
        ended = {
            "outcome": outcome,
            "exit_code": exit_code,
            "reason": reason,
            "ended": _moment(self._clock()),
        }
        self.tell({**facts, **ended})
        self._try()

    def _renew(self) -> None:
        while not self._done.wait(RENEWAL):
            self._try()

    def _try(self) -> None:
        """A file that cannot be written any more is told once, and is no reason to end a study."""
        try:
            self._write()
        except OSError as error:
            if not self._troubled:
                _log.warning("the status file %s cannot be written: %s", self._path, error.strerror or error)
            self._troubled = True

    def _write(self) -> None:
        with self._lock:
            self._facts["renewed"] = _moment(self._clock())
            text = json.dumps(self._facts, indent=2, allow_nan=False) + "\n"
            descriptor, name = tempfile.mkstemp(prefix=f".{self._path.name}.", dir=self._path.parent)  # 0600
            try:
                with os.fdopen(descriptor, "w", encoding="ascii") as file:
                    file.write(text)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(name, self._path)  # noqa: PTH105  of two names
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(name)  # noqa: PTH108
                raise
            _settle(self._path.parent)

    def _is_mine(self, other: Json) -> bool:
        return bool(other["owner"]) and other["owner"] == self._facts["owner"]


def read(path: Path) -> Json | None:
    """What a status file says; None where there is none, or something else. Never raises."""
    try:
        facts = json.loads(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
    wanted = {"outcome", "exit_code", "renewed", "lease_seconds", "host", "pid", "owner"}
    return facts if isinstance(facts, dict) and wanted <= facts.keys() else None


def is_dead(facts: Mapping[str, Any], now: float) -> bool:
    """Whether nobody will write to the file again: its driver ended, is gone, or is late by a lease."""
    if facts["outcome"] != RUNNING or owner.is_gone(str(facts["owner"])):
        return True
    try:
        renewed = calendar.timegm(time.strptime(str(facts["renewed"]), _FORMAT))
        return now - renewed > float(facts["lease_seconds"])
    except (ValueError, TypeError):
        return True


_FORMAT = "%Y-%m-%dT%H:%M:%SZ"


def _moment(seconds: float) -> str:
    return time.strftime(_FORMAT, time.gmtime(seconds))


def _settle(directory: Path) -> None:
    """Make the file's new name durable, where the file system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
