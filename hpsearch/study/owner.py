"""Who a process is, said so that another one on the same machine can tell whether it is gone.

A pid alone does not: containers count their own, and numbers come again. The kernel's boot, the namespace of
pids and the moment of the start make it one process for ever; of a process elsewhere nothing is known.
"""

from __future__ import annotations

import os
from pathlib import Path

PROC = Path("/proc")
DEAD = ("Z", "X")


def identity(pid: int | None = None) -> str:
    """A text that no other process ever has; empty where the system does not say."""
    pid = os.getpid() if pid is None else pid
    found = _alive(pid)
    return f"{_here()} {pid} {found}" if found and _here() else ""


def is_gone(text: str) -> bool:
    """Whether the process with that identity was one of this machine's and has ended; False if unknown."""
    here, _, rest = text.partition(" ")
    number, _, started = rest.partition(" ")
    if not number.isdigit() or not started or here != _here():
        return False
    return _alive(int(number)) != started


def _here() -> str:
    """This boot of this machine, and the namespace in which pids are counted."""
    try:
        boot = (PROC / "sys/kernel/random/boot_id").read_text().strip()
        space = os.stat(PROC / "self/ns/pid").st_ino  # noqa: PTH116  follows the link on purpose
    except OSError:
        return ""
    return f"{boot}/{space}"


def _alive(pid: int) -> str:
    """When a process started, in ticks since the boot; empty if there is none, or only its name is left."""
    try:
        text = (PROC / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return ""
    state, *fields = text.rpartition(")")[2].split()
    return "" if state in DEAD else fields[18]
