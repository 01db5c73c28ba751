"""A Ray of several nodes, each on a host of its own: a tree of processes in its own net and mount namespace.

There are no namespaces of pids: a driver lives on the head's host and must outlive it, and what a lost node
leaves alive must be able to.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from hosts import Host, network

BIN = Path(sys.executable).parent
PORT = 6379
# Of the first start of a node on a busy machine (seconds).
START = 200.0
T = TypeVar("T")
TRIES, LATE = 4, "The current node timed out during startup"
PLAIN = "from ray.scripts.scripts import main; main()"
# A dashboard's modules on each node cost seconds of its start.
BARE = f"import ray; ray._private.utils.get_dashboard_dependency_error = lambda: 'not wanted'; {PLAIN}"
# A node is missed after 5 periods and timeouts, 11 s; Ray's own defaults take a minute.
CHECKS = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "1000",
}
APART = ("unshare", "--mount", "--propagation=private", "--")
# A node's own sockets, logs and object store, as on a machine of its own. The words after "node" are run.
OWN_PLACES = """
mkdir -p /tmp/ray
mount -t tmpfs -o size=512m tmpfs /tmp/ray
mount -t tmpfs -o size=512m tmpfs /dev/shm
exec "$@"
"""


def wait_for(what: Callable[[], T], seconds: float, told: Callable[[], str] = str) -> T:
    """What a question gives as soon as it gives something; AssertionError after some seconds."""
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, f"it did not happen within {seconds:g} s; {told()}"
        time.sleep(0.05)
    return found


class Node:
    """One `ray start --block` on a host, which is process `pid`; `bare`: where ray[default] is missing."""

    def __init__(self, lab: Lab, host: Host, *words: str, bare: bool = True) -> None:
        self.host = host
        self.said = lab.directory / f"{host.name}-{secrets.token_hex(2)}"
        self._lab, self._tries = lab, 0
        start = ["start", "--block", f"--node-ip-address={host.address}", "--object-store-memory=80000000"]
        self._words = [str(BIN / "python"), "-c", BARE if bare else PLAIN, *start, *words]
        self._start()

    def _start(self) -> None:
        self._tries += 1
        with self.said.open("w") as said:
            self._process = subprocess.Popen(
                self.host.command(*APART, "bash", "-c", OWN_PLACES, "node", *self._words),
                env=self._lab.environment,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                start_new_session=True,
            )
        self.pid = self._process.pid
        self._lab.started.append(self._process)

    def entered(self, *words: str) -> list[str]:
        """The words that run a command on this machine as it is for the node."""
        return ["nsenter", "-t", str(self.pid), "-n", "-m", "--", *words]

    def is_up(self) -> bool:
        """Whether it is; one that Ray gives up after half a minute, on a busy machine, is started again."""
        if self._process.poll() is not None:
            said = self.said.read_text()
            assert LATE in said, f"the node ended: {said}"
            assert self._tries < TRIES, f"the node did not start {TRIES} times: {said}"
            self._start()
        return "Ray runtime started" in self.said.read_text()

    def kill(self, spared: Sequence[int] = ()) -> None:
        """The whole machine at once."""
        self.host.end(spared)
        self._process.wait(10)


class Lab:
    """The hosts, what all nodes and drivers are told, and the address of the head."""

    def __init__(
        self, hosts: Sequence[Host], directory: Path, started: list[subprocess.Popen[bytes]]
    ) -> None:
        self.hosts, self.directory, self.started = hosts, directory, started
        self.address = f"{hosts[0].address}:{PORT}"
        token = directory / "token"
        descriptor = os.open(token, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        os.write(descriptor, secrets.token_hex(32).encode())
        os.close(descriptor)
        # Without a proxy, to which no route leads, and without what this process's own Ray was told.
        plain = {n: v for n, v in os.environ.items() if not n.lower().endswith("_proxy") and n[:4] != "RAY_"}
        self.environment = {
            **plain,
            **CHECKS,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_worker_niceness": "0",
            "RAY_enable_worker_prestart": "0",
            "RAY_prestart_worker_first_driver": "0",
        }

    def head(self, *, dashboard: bool = False) -> Node:
        """A new head, which offers no CPUs."""
        words = ["--head", f"--port={PORT}", "--num-cpus=0"]
        words += ["--dashboard-host=0.0.0.0", "--dashboard-port=8265"] if dashboard else []
        words += [f"--include-dashboard={dashboard}"]
        return Node(self, self.hosts[0], *words, bare=not dashboard)

    def worker(self, number: int) -> Node:
        """A new node with one CPU, on the host of that number."""
        return Node(self, self.hosts[number], f"--address={self.address}", "--num-cpus=1")

    def wait_until_up(self, *nodes: Node) -> None:
        for node in nodes:
            wait_for(node.is_up, START, node.said.read_text)

    def hpsearch(
        self, head: Node, *words: str | Path, cwd: Path | str, environment: Mapping[str, str] | None = None
    ) -> Driver:
        """`hpsearch WORDS` on the head's host."""
        command = head.entered("env", f"--chdir={cwd}", str(BIN / "hpsearch"), *map(str, words))
        driver = Driver(command, self.directory, {**self.environment, **(environment or {})})
        self.started.append(driver.process)
        return driver


class Driver:
    """One command, and what it says."""

    def __init__(self, command: Sequence[str], directory: Path, environment: Mapping[str, str]) -> None:
        name = f"said-{secrets.token_hex(4)}"
        self._out, self._err = (directory / f"{name}.{each}" for each in ("out", "err"))
        with self._out.open("w") as out, self._err.open("w") as err:
            self.process = subprocess.Popen(
                command,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
        self.pid = self.process.pid

    @property
    def out(self) -> str:
        return self._out.read_text()

    @property
    def text(self) -> str:
        """All that it said."""
        return self.out + self._err.read_text()

    def ended(self, seconds: float) -> int:
        """Its exit code, within some seconds."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it did not end within {seconds:g} s; it said: {self.text}") from None


@contextmanager
def lab(hosts: int, directory: Path) -> Iterator[Lab]:
    """Hosts for a head and workers; at the end nothing runs there any more."""
    started: list[subprocess.Popen[bytes]] = []
    try:
        with network(hosts) as made:
            yield Lab(made, directory, started)
    finally:
        for process in started:
            process.wait(10)
