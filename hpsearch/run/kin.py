"""Processes and their descendants under Linux: who dies with whom, and nobody is left behind."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time
from collections import defaultdict
from collections.abc import Callable, Container, Iterable
from typing import NamedTuple

PR_SET_PDEATHSIG = 1
PR_SET_NAME = 15
PR_SET_CHILD_SUBREAPER = 36
TICKS = os.sysconf("SC_CLK_TCK")
# A process in the kernel's hands cannot be killed at once; then it is left to whoever adopts it (seconds).
PATIENCE_WITH_THE_KERNEL = 5.0


class Seen(NamedTuple):
    """A process as the kernel tells of it; `work` is CPU time in seconds, that of its dead children too."""

    pid: int
    parent: int
    group: int
    name: str
    work: float


def die_with(parent: int, signal_number: int) -> None:
    """Get a signal when the parent dies; exit at once if it is gone already."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal_number)
    if os.getppid() != parent:
        os._exit(1)


def adopt_orphans(adopt: bool = True) -> None:
    """Become the parent of descendants whose own parent dies, daemons too; or do not any more."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, int(adopt))


def call_oneself(name: str) -> None:
    """Take a name that lists of processes show, of at most 15 characters."""
    ctypes.CDLL(None).prctl(PR_SET_NAME, name.encode())


def end_descendants(reap: Callable[[], bool]) -> None:
    """Kill until none is left; `reap` takes the dead ones off and says whether children remain."""
    deadline = time.monotonic() + PATIENCE_WITH_THE_KERNEL
    while reap() and time.monotonic() < deadline:
        _kill(descendants(os.getpid()))
        time.sleep(0.002)


def end_adopted(parent: int, spared: Container[int]) -> None:
    """Kill a process's `adopted` children and all below them, until none is left."""
    deadline = time.monotonic() + PATIENCE_WITH_THE_KERNEL
    while found := adopted(parent, spared):
        _kill([*found, *descendants(*found)])
        if parent == os.getpid():
            for each in found:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(each, os.WNOHANG)
        if time.monotonic() > deadline:  # looked at last: a machine that stood still kills all the same
            return
        time.sleep(0.002)


def end_marked(mark: str) -> None:
    """Kill all processes with a mark in their environment, whoever their parents are."""
    deadline = time.monotonic() + PATIENCE_WITH_THE_KERNEL
    while found := _marked(mark.encode()):
        _kill(found)
        if time.monotonic() > deadline:
            return
        time.sleep(0.002)


def _marked(mark: bytes) -> list[int]:
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):  # noqa: PTH208
        # It may end meanwhile, or be another user's. A dead one has no environment any more.
        with contextlib.suppress(OSError), open(f"/proc/{pid}/environ", "rb") as environment:  # noqa: PTH123
            if mark in environment.read():
                found.append(int(pid))
    return found


def adopted(parent: int, spared: Container[int] = ()) -> list[int]:
    """The children of a process that are in other process groups than its own, but for the spared ones.

    A trial's process makes its own group, so all below it that a process adopts is among these.
    """
    own = os.getpgid(parent)
    return [each.pid for each in _children()[parent] if each.group != own and each.pid not in spared]


def children_of(parent: int) -> set[int]:
    """The children of a process, in whatever groups."""
    return {each.pid for each in _children()[parent]}


def brood(parent: int, spared: Container[int] = ()) -> list[Seen]:
    """The `adopted` children of a process and all below them."""
    children, own = _children(), os.getpgid(parent)
    found = [each for each in children[parent] if each.group != own and each.pid not in spared]
    for each in found:
        found += children[each.pid]
    return found


def descendants(*pids: int) -> list[int]:
    """The children of processes and theirs, as far as they live or have not been reaped."""
    children = _children()
    found = list(pids)
    for each in found:
        found += [child.pid for child in children[each]]
    return found[len(pids) :]


def _children() -> dict[int, list[Seen]]:
    """The children of each process."""
    children: dict[int, list[Seen]] = defaultdict(list)
    # Plain calls: a machine has thousands of processes, and this happens once a trial.
    for pid in filter(str.isdigit, os.listdir("/proc")):  # noqa: PTH208
        # It may end meanwhile.
        with contextlib.suppress(OSError), open(f"/proc/{pid}/stat", "rb") as stat:  # noqa: PTH123
            head, _, rest = stat.read().rpartition(b")")
            _, parent, group, *others = rest.split(None, 15)
            work = sum(map(int, others[8:12])) / TICKS
            name = head.partition(b"(")[2].decode(errors="replace")
            children[int(parent)].append(Seen(int(pid), int(parent), int(group), name, work))
    return children


def _kill(pids: Iterable[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
