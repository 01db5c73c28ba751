"""What each of a trial's several processes is told about the others: the variables of torch.distributed."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from hpsearch.study.trial import Launch, Team

SIOCGIFADDR = 0x8915  # of Linux: the address of an interface by its name
# Read by the libraries beneath torch.distributed: over which interface they speak with each other.
INTERFACES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """Where one process of a trial runs; `devices` is its CUDA_VISIBLE_DEVICES."""

    node: str
    address: str
    devices: str | None = None


def launches(launch: Launch, places: Sequence[Whereabouts], port: int) -> list[Launch]:
    """A trial's launch for each of its processes, in the order of their ranks.

    Only the first is judged by how long it takes and what it reports: the others report nothing, and end
    with it. Those of one node see the GPUs of all of them there, so that LOCAL_RANK names a process's own,
    unless they share one.
    """
    found = []
    for rank, place in enumerate(places):
        there = [other for other in places if other.node == place.node]
        local_rank = sum(other.node == place.node for other in places[:rank])
        team = Team(rank, len(places), local_rank, len(there), places[0].address, port, _devices(there))
        own = replace(launch, team=team)
        if rank:
            own = replace(own, timeout=None, startup_timeout=0.0, progress_timeout=0.0)
        found.append(own)
    return found


def _devices(there: Sequence[Whereabouts]) -> str | None:
    """The GPUs of all processes of a node, None where each keeps its own: they share some, or have none."""
    names = [name for place in there for name in (place.devices or "").split(",") if name]
    return ",".join(names) if names and len(set(names)) == len(names) else None


def environment(team: Team) -> dict[str, str]:
    """The variables that tell a process of a trial which it is; none for a trial of one process."""
    if team.size == 1:
        return {}
    found = {
        "RANK": str(team.rank),
        "WORLD_SIZE": str(team.size),
        "LOCAL_RANK": str(team.local_rank),
        "LOCAL_WORLD_SIZE": str(team.local_size),
        "MASTER_ADDR": team.address,
        "MASTER_PORT": str(team.port),
    }
    if team.devices is not None:
        found["CUDA_VISIBLE_DEVICES"] = team.devices
    if name := interface_to(team.address):
        found |= {variable: name for variable in INTERFACES if variable not in os.environ}
    return found


def interface_to(address: str) -> str:
    """The network interface from which this machine reaches an IPv4 address; empty where none is found.

    Left alone, gloo would take the one of this machine's name, which on many is one that leads nowhere.
    """
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((address, 1))  # sends nothing
            own = probe.getsockname()[0]
            return next((name for name, found in _addresses(probe) if found == own), "")
    except OSError:
        return ""


def _addresses(probe: socket.socket) -> Iterator[tuple[str, str]]:
    for _, name in socket.if_nameindex():
        try:
            told = fcntl.ioctl(probe, SIOCGIFADDR, struct.pack("256s", name.encode()))
        except OSError:  # one without an address
            continue
        yield name, socket.inet_ntoa(told[20:24])


@contextmanager
def reserved_port() -> Iterator[int]:
    """A TCP port of this machine that nobody else is given within, and that torch can listen on.

    Linux lets a second socket have the port of one that does not listen, where both allow it.
    """
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("", 0))
        yield held.getsockname()[1]
