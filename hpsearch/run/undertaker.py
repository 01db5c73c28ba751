"""Ends what a driver leaves: started beside a private Ray, it waits for the driver's end, however it comes.

Ray's agents notice the death of their parent after a minute, and its workers' children never. All of them
bear a mark in their environment that was made for this one Ray; whoever bears it when the driver is gone is
killed. It runs as a script of its own, with the standard library alone: `undertaker.py MARK DIRECTORY`.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import shutil
import signal
import sys
import time

VARIABLE = "HPSEARCH_RAY_MARK"
_MARK = re.compile("[0-9a-f]{32}")
# A process in the kernel's hands cannot be killed at once (seconds).
PATIENCE = 8.0


def is_mark(text: str) -> bool:
    """Whether a text is a mark: whatever else it is, nobody is to be killed for it."""
    return _MARK.fullmatch(text) is not None


def bearers(mark: str) -> list[int]:
    """The processes of this user that were started with the mark in their environment, but not this one."""
    wanted, found = f"{VARIABLE}={mark}".encode(), []
    for name in os.listdir("/proc"):  # noqa: PTH208  a machine has thousands
        if name.isdigit() and int(name) != os.getpid():
            try:
                with open(f"/proc/{name}/environ", "rb") as file:  # noqa: PTH123
                    if wanted in file.read().split(b"\0"):
                        found.append(int(name))
            except OSError:  # it has ended, or is another user's
                continue
    return found


def family(mark: str) -> dict[int, str]:
    """All below those that bear the mark, with when they started."""
    every = {int(name): _stat(int(name)) for name in os.listdir("/proc") if name.isdigit()}  # noqa: PTH208
    found = bearers(mark)
    for parent in found:
        found += [pid for pid, (above, _) in every.items() if above == parent and pid not in found]
    return {pid: every[pid][1] for pid in found if pid in every and every[pid][1]}


def _stat(pid: int) -> tuple[int, str]:
    """The parent of a process and when it started; nothing of a dead one."""
    try:
        with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return 0, ""
    return int(fields[1]), fields[19]


def end(mark: str) -> int:
    """Kill all that bear the mark until none is left; how many there were."""
    if not is_mark(mark):
        return 0
    ended: set[int] = set()
    deadline = time.monotonic() + PATIENCE
    while found := bearers(mark):
        for pid in found:
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                continue
            ended.add(pid)
        if time.monotonic() > deadline:  # looked at last: a machine that stood still kills all the same
            break
        time.sleep(0.02)
    return len(ended)


def main() -> None:
    """Wait until the driver closes its end of the pipe, by its own will or by its death; then clean up."""
    mark, directory = sys.argv[1:]
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    # Ray's agents write their names over their environment: they are known as children of those that bear it.
    known: dict[int, str] = {}
    while not select.select([0], [], [], 1.0)[0] or os.read(0, 1):
        known |= family(mark)
    end(mark)
    for pid, born in known.items():
        if _stat(pid)[1] == born:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    if is_mark(mark) and os.path.isdir(directory):  # noqa: PTH112
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
