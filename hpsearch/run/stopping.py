"""Asks the driver of a study to stop in order, from another process on its machine."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hpsearch.errors import HpsearchError, Interrupted, UsageError

if TYPE_CHECKING:  # the commands that answer at once load no store
    from hpsearch.study.home import Home


@dataclass(frozen=True, slots=True)
class Stopped:
    """Which process ran a study, and how long it took to stop (seconds)."""

    pid: int
    host: str
    seconds: float


def stop(home: Home, name: str, within: float) -> Stopped:
    """Send SIGTERM to the driver of a study and wait for its end.

    Raises UsageError (nobody runs it, or another machine does), Interrupted (it has not stopped in time).
    """
    if not home.is_owned(name):
        raise _idle(name)
    host, pid = _driver(home, name)
    if host != socket.gethostname():
        raise UsageError(
            f"study {name!r} is run by process {pid} on {host}, and this is {socket.gethostname()}",
            hint=f"call `hpsearch stop {name}` there",
        )
    started = time.monotonic()
    with _process(pid, name) as process:
        # Looked at while the descriptor is held, so that no other process can have come to this number.
        if not home.is_owned(name):
            raise _idle(name)
        if home.store is None and not _holds(pid, home.place(name) / "lock"):
            raise HpsearchError(
                f"process {pid} does not hold the lock of study {name!r}, though it says so",
                hint="it may be in another container: stop it there",
            )
        signal.pidfd_send_signal(process, signal.SIGTERM)
        if not select.select([process], [], [], within)[0]:
            raise Interrupted(
                f"study {name!r} is still run by process {pid}, {within:g} s after it was asked to stop",
                hint="ask again; what it has committed is safe whatever ends it",
            )
    return Stopped(pid, host, time.monotonic() - started)


def _idle(name: str) -> UsageError:
    return UsageError(f"nobody runs study {name!r}", hint="`hpsearch list` says which are running")


def _driver(home: Home, name: str) -> tuple[str, int]:
    reader = home.reader(name)
    try:
        return reader.driver()
    finally:
        reader.close()


@contextlib.contextmanager
def _process(pid: int, name: str) -> Iterator[int]:
    """A descriptor that means this process, whoever gets its number later. Raises UsageError if it died."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        raise _idle(name) from None
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _holds(pid: int, lock: Path) -> bool:
    """Whether a process has the file open; True also where another user's process does not say."""
    wanted = lock.stat()
    try:
        opened = list(Path(f"/proc/{pid}/fd").iterdir())
    except PermissionError:
        return True
    except OSError:
        return False
    for each in opened:
        with contextlib.suppress(OSError):
            if os.path.samestat(each.stat(), wanted):
                return True
    return False
