"""Processes and their descendants under Linux: who dies with whom, and nobody is left behind."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
# A process in the kernel's hands cannot be killed at once; then it is left to whoever adopts it (seconds).
PATIENCE_WITH_THE_KERNEL = 5.0


def die_with(parent: int, signal_number: int) -> None:
    """Get a signal when the parent dies; exit at once if it is gone already."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal_number)
    if os.getppid() != parent:
        os._exit(1)


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parent dies, daemons too."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)


def kill_descendants(pid: int) -> bool:
    """Send SIGKILL to all that descends from a process; False if there was nothing to kill."""
    found = descendants(pid)
    for each in found:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(each, signal.SIGKILL)
    return bool(found)


def end_descendants(reap: Callable[[], bool]) -> None:
    """Kill until none is left; `reap` takes the dead ones off and says whether children remain."""
    deadline = time.monotonic() + PATIENCE_WITH_THE_KERNEL
    while reap() and time.monotonic() < deadline:
        kill_descendants(os.getpid())
        time.sleep(0.002)


def descendants(pid: int) -> list[int]:
    """The children of a process and theirs, as far as they live or have not been reaped."""
    children: dict[int, list[int]] = defaultdict(list)
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            parent = int(stat.read_text(errors="replace").rpartition(")")[2].split()[1])
            children[parent].append(int(stat.parent.name))
    found = [pid]
    for each in found:
        found += children[each]
    return found[1:]
