"""Which drivers run on this machine: each says so in a file of its user's, for whoever must stop them all.

A container that is about to end knows no study's name, and only its first process is told.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from hpsearch.errors import Interrupted
from hpsearch.run.stopping import Stopped
from hpsearch.study.owner import identity


def _directory() -> Path:
    return Path(os.environ.get("TMPDIR") or "/tmp") / f"hpsearch-{os.getuid()}"


@contextlib.contextmanager
def registered() -> Iterator[None]:
    """Within it, `stop` finds this process; a machine without room for the file is none to fail on."""
    file = _directory() / str(os.getpid())
    with contextlib.suppress(OSError):
        file.parent.mkdir(mode=0o700, exist_ok=True)
        if _is_ours(file.parent):
            file.write_text(identity())
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            file.unlink(missing_ok=True)


def stop(within: float) -> list[Stopped]:
    """Send SIGTERM to each driver of this user on this machine and wait for their ends (seconds, for all).

    Raises Interrupted if one has not stopped in time.
    """
    started = time.monotonic()
    stopped: list[Stopped] = []
    with contextlib.ExitStack() as stack:
        running = [(pid, stack.enter_context(_closing(process))) for pid, process in _drivers()]
        for _, process in running:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(process, signal.SIGTERM)
        for pid, process in running:
            left = max(0.0, started + within - time.monotonic())
            if not select.select([process], [], [], left)[0]:
                raise Interrupted(
                    f"process {pid} still runs, {within:g} s after it was asked to stop",
                    hint="ask again; what it has committed is safe whatever ends it",
                )
            stopped.append(Stopped(pid, socket.gethostname(), time.monotonic() - started))
    return stopped


def _drivers() -> Iterator[tuple[int, int]]:
    """The drivers that live, each with a descriptor that means that process whoever gets its number later."""
    directory = _directory()
    if not _is_ours(directory):
        return
    for file in sorted(directory.iterdir()):
        try:
            process = os.pidfd_open(int(file.name))
        except (ValueError, OSError):
            continue  # a driver that was killed
        # Looked at while the descriptor is held: a number that came again belongs to somebody else.
        if _says(file) == identity(int(file.name)) != "":
            yield int(file.name), process
        else:
            os.close(process)


def _says(file: Path) -> str | None:
    with contextlib.suppress(OSError):
        return file.read_text(errors="replace")
    return None


def _is_ours(directory: Path) -> bool:
    """Whether it is this user's own directory, to which nobody else writes."""
    try:
        found = directory.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o022


@contextlib.contextmanager
def _closing(descriptor: int) -> Iterator[int]:
    try:
        yield descriptor
    finally:
        os.close(descriptor)
