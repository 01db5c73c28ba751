"""Ports for servers that are told theirs before they start."""

from __future__ import annotations

import contextlib
import random
import socket
from pathlib import Path

RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_draw = random.SystemRandom()  # tests in several processes draw at the same time


def free_port() -> int:
    """A port of loopback that is free and stays so: it is none that the kernel gives to whoever asks for any.

    From that range anybody's connection may take it until the server is there, or while it starts again.
    """
    first = int(RANGE.read_text().split()[0])
    while True:
        port = _draw.randrange(max(first - 2_700, 1_024), first)  # below lie those of Ray's workers
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
