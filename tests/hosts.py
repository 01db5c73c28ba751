"""Several hosts on this machine: network namespaces on one bridge, with links that can be cut and joined.

Needs root. Everything that runs in a host was started there by a test, and ends with it. No route leads out.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

NOT_TESTED = "NOT TESTED: needs root for network namespaces: run with sudo -E, or see CI"


class Host:
    """One host: its name, its address, and what runs there."""

    def __init__(self, network: Network, number: int) -> None:
        self.name = f"{network.name}-{number}"
        self.port = f"h{number}"  # of the bridge
        self.address = f"10.77.0.{10 + number}"
        self._network = network

    def command(self, *words: str) -> list[str]:
        """The words that run a command here."""
        return ["ip", "netns", "exec", self.name, *words]

    def cut(self) -> None:
        """Nothing reaches this host any more, or leaves it."""
        ip("-n", self._network.name, "link", "set", self.port, "down")

    def heal(self) -> None:
        """The link is as it was."""
        ip("-n", self._network.name, "link", "set", self.port, "up")

    def is_cut(self) -> bool:
        return "state DOWN" in ip("-n", self._network.name, "link", "show", self.port)

    def pids(self) -> list[int]:
        """The processes here."""
        return [int(word) for word in ip("netns", "pids", self.name).split()]

    def has(self, pid: int) -> bool:
        """Whether a process runs here."""
        there = Path(f"/run/netns/{self.name}").stat().st_ino
        with suppress(OSError):
            return Path(f"/proc/{pid}/ns/net").stat().st_ino == there
        return False

    def end(self, spared: Sequence[int] = ()) -> None:
        """Kill all that runs here at once, as a power cut does; what is spared is not of this host."""
        deadline = time.monotonic() + 10
        while left := [pid for pid in self.pids() if pid not in spared]:
            assert time.monotonic() < deadline, f"{left} do not die"
            # First all are stopped: none may tell of another's end.
            for number in (signal.SIGSTOP, signal.SIGKILL):
                for pid in left:
                    with suppress(ProcessLookupError):
                        os.kill(pid, number)
            time.sleep(0.05)


class Network:
    """Hosts with the addresses 10.77.0.10 and so on, all within reach of one another."""

    def __init__(self, hosts: int) -> None:
        self.name = f"hpn{os.getpid()}"
        self.hosts = [Host(self, number) for number in range(hosts)]

    def build(self) -> None:
        ip("netns", "add", self.name)
        ip("-n", self.name, "link", "set", "lo", "up")
        ip("-n", self.name, "link", "add", "bridge", "type", "bridge")
        ip("-n", self.name, "link", "set", "bridge", "up")
        for host in self.hosts:
            ip("netns", "add", host.name)
            peer = ("peer", "name", host.port, "netns", self.name)
            ip("link", "add", "eth0", "netns", host.name, "type", "veth", *peer)
            ip("-n", self.name, "link", "set", host.port, "master", "bridge", "up")
            ip("-n", host.name, "addr", "add", f"{host.address}/24", "dev", "eth0")
            for device in ("lo", "eth0"):
                ip("-n", host.name, "link", "set", device, "up")

    def end(self) -> None:
        """End all that runs in the hosts, and the hosts."""
        for name in _there():
            if name in {host.name for host in self.hosts}:
                next(host for host in self.hosts if host.name == name).end()
        for name in _there():
            if name == self.name or name.startswith(f"{self.name}-"):
                ip("netns", "del", name)


def ip(*words: str) -> str:
    """What an `ip` command says; an error with its words if it fails."""
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ip {' '.join(words)}: {done.stderr}"
    return done.stdout


def _there() -> list[str]:
    return [line.split()[0] for line in ip("netns", "list").splitlines() if line]


def lack() -> str:
    """Why there can be no hosts here; nothing if there can be."""
    if sys.platform != "linux":
        return "network namespaces are Linux's"
    if os.geteuid() != 0:
        return "only root can make network namespaces"
    if missing := [name for name in ("ip", "unshare", "nsenter", "mount") if shutil.which(name) is None]:
        return f"the command {missing[0]} (iproute2, util-linux) is missing"
    name = f"hpn{os.getpid()}-try"
    try:
        ip("netns", "add", name)
    except AssertionError as error:
        return str(error)
    try:
        ip("-n", name, "link", "add", "bridge", "type", "bridge")
    except AssertionError as error:
        return str(error)
    finally:
        ip("netns", "del", name)
    return ""


@contextmanager
def network(hosts: int) -> Iterator[Sequence[Host]]:
    """Hosts on one network, gone at the end with all that ran there."""
    made = Network(hosts)
    try:
        made.build()
        yield made.hosts
    finally:
        made.end()
