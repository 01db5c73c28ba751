"""Watches over what a driver on Ray depends on, as Ray's own calls wait for it for minutes or for ever."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

INTERVAL = 1.0  # seconds
KNOCK = 2.0
# A head that does not answer for so long (seconds) is given up; Ray itself gives up after 60 s, by an abort.
UNREACHABLE = 20.0

Alive = Callable[[], bool]


class Lookout:
    """Asks on a thread of its own; `trouble` says what is dead, once something is.

    `vital` maps what it is to whether it lives, and how long it may seem dead (seconds).
    """

    def __init__(self, vital: Mapping[str, tuple[Alive, float]]) -> None:
        self.trouble = ""
        self._vital = vital
        self._over = threading.Event()
        threading.Thread(target=self._watch, name="lookout", daemon=True).start()

    def close(self) -> None:
        """Look no more."""
        self._over.set()

    def _watch(self) -> None:
        seen = dict.fromkeys(self._vital, time.monotonic())
        while not self._over.wait(INTERVAL) and not self.trouble:
            for what, (alive, patience) in self._vital.items():
                if alive():
                    seen[what] = time.monotonic()
                elif (gone := time.monotonic() - seen[what]) >= patience:
                    self.trouble = f"{what} has not answered for {gone:.0f} s" if patience else f"{what} died"


def answers(host: str, port: int) -> bool:
    """Whether anybody listens there."""
    try:
        socket.create_connection((host, port), timeout=KNOCK).close()
    except OSError:
        return False
    return True


def owner_of(path: str) -> Alive:
    """Whether the process lives that listens now on a Unix socket, also where it is not our child."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(KNOCK)
        client.connect(path)
        pid: int = struct.unpack("3i", client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
    if not pid:  # it is of another namespace
        return lambda: True
    born = started(pid)
    return lambda: born is not None and started(pid) == born


def started(pid: int) -> str | None:
    """When a process started, in ticks since the machine did; None if it is dead."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in ("Z", "X") else fields[19]
