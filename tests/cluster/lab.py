"""A Ray of several nodes, each on a host of its own: a tree of processes in its own net and mount namespace.

There are no namespaces of pids: a driver lives on the head's host and must outlive it, and what a lost node
leaves alive must be able to.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from hosts import Host, network
from zygote import Driver, Zygote

BIN = Path(sys.executable).parent
PORT, STORE_PORT = 6379, 9000
# Of what takes seconds where nothing else runs: a node's start, a driver's, a worker's (seconds).
START = 400.0
T = TypeVar("T")
TRIES = 5
PLAIN = "from ray.scripts.scripts import main; main()"
# A dashboard's modules on each node cost seconds of its start.
BARE = f"import ray; ray._private.utils.get_dashboard_dependency_error = lambda: 'not wanted'; {PLAIN}"
# A node is missed after 5 periods and timeouts, 11 s; Ray's own defaults take a minute.
CHECKS = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "1000",
}
# A directory that each host has for itself, as a disk of its own would be.
OWN_DISK = "/dev/shm/own"
# Its being there tells a node's workers that the node goes away, as the hook of a pod does.
GOING = "/dev/shm/going"
# Leaving a dead Ray takes a driver so long (seconds).
HASTE = {"hpsearch.run.cluster:SHUTDOWN": 1.0}
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
        self._lab, self._tries, self.is_bare = lab, 0, bare
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
        if self.has_ended():
            said = self.said.read_text()
            assert self._tries < TRIES, f"the node did not start {TRIES} times: {said}"
            self.host.end()
            self._start()
        return "Ray runtime started" in self.said.read_text()

    def has_ended(self) -> bool:
        """Whether its first process has."""
        return self._process.poll() is not None

    def preempt(self) -> None:
        """Take it away as Kubernetes takes a pod: its hook runs, then its first process is told to end."""
        subprocess.run(self.entered("touch", GOING), check=True)
        os.kill(self.pid, signal.SIGTERM)

    def put(self, *files: Path, **texts: str) -> None:
        """Put files where only this host sees them, and texts as YAML files of these names."""
        for file in files:
            texts[file.name] = file.read_text()
        for name, text in texts.items():
            place = f"{OWN_DISK}/job/{name if '.' in name else f'{name}.yaml'}"
            words = self.entered("sh", "-c", f"mkdir -p {OWN_DISK}/job && cat > {place}")
            subprocess.run(words, input=text, text=True, check=True)

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
        self._zygotes: dict[int, Zygote] = {}
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
            # Of an object store on the head's host, where a test starts one.
            "AWS_ENDPOINT_URL": f"http://{hosts[0].address}:{STORE_PORT}",
            "AWS_ACCESS_KEY_ID": "tester",
            "AWS_SECRET_ACCESS_KEY": "a-secret-of-tests",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            # As pods are told.
            "HPSEARCH_PREEMPTED": GOING,
            "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "60",
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "RAY_worker_niceness": "0",
            "RAY_enable_worker_prestart": "0",
            "RAY_prestart_worker_first_driver": "0",
        }

    def head(self, *, dashboard: bool = False) -> Node:
        """A new head."""
        words = ["--head", f"--port={PORT}", "--num-cpus=0"]
        words += ["--dashboard-host=0.0.0.0", "--dashboard-port=8265"] if dashboard else []
        words += [f"--include-dashboard={dashboard}"]
        return Node(self, self.hosts[0], *words, bare=not dashboard)

    def worker(self, number: int) -> Node:
        """A new node with one CPU, on the host of that number; where Ray keeps its files differs on each."""
        words = [f"--address={self.address}", "--num-cpus=1", f"--temp-dir=/tmp/ray/{number}"]
        return Node(self, self.hosts[number], *words)

    def wait_until_up(self, *nodes: Node) -> None:
        for node in nodes:
            wait_for(node.is_up, START, node.said.read_text)

    def zygote(self, head: Node) -> Zygote:
        """What drivers on a head's host are forked from."""
        if head.pid not in self._zygotes:
            before = head.entered("env", "--chdir=/")
            said = self.directory / f"zygote-{head.pid}"
            made = Zygote(said, before, self.environment, ["hpsearch.run.cluster"])
            self._zygotes[head.pid] = made
        return self._zygotes[head.pid]

    def close(self) -> None:
        for zygote in self._zygotes.values():
            zygote.close()


@dataclass
class Cluster:
    """The nodes that there are now: a head, which offers no CPUs, and workers with one each, by hosts."""

    lab: Lab
    head: Node
    workers: dict[int, Node] = field(default_factory=dict)

    def complete(self, workers: int, *, dashboard: bool = False) -> None:
        """See to it that there is a head, with a dashboard if it must, and at least as many workers."""
        self.workers = {number: node for number, node in self.workers.items() if not node.has_ended()}
        if self.head.has_ended() or (dashboard and self.head.is_bare):
            for node in (self.head, *self.workers.values()):
                node.kill()
            self.head, self.workers = self.lab.head(dashboard=dashboard), {}
        self.lab.wait_until_up(self.head)
        for number in range(1, len(self.lab.hosts)):
            if number not in self.workers and len(self.workers) < workers:
                self.workers[number] = self.lab.worker(number)
        self.lab.zygote(self.head)
        self.lab.wait_until_up(*self.workers.values())

    def place_of(self, pid: int) -> int:
        """On which host a process runs."""
        (place,) = [number for number, node in self.workers.items() if node.host.has(pid)]
        return place

    def drive(self, *words: str | Path) -> Driver:
        """`hpsearch WORDS` on the head's host."""
        there = Path(OWN_DISK) / "job"
        return self.lab.zygote(self.head).start(*words, cwd=there, settings=HASTE)

    def run(self, file: str, home: Path | str, *words: str) -> Driver:
        """A driver for the study `s` of a file, which starts it or goes on with it."""
        given = ["run", file, "--study", "s", "--resume", "auto", "--home", str(home), "--json"]
        return self.drive(*given, "--address", self.lab.address, *words)


@contextmanager
def lab(hosts: int, directory: Path) -> Iterator[Lab]:
    """Hosts for a head and workers; at the end nothing runs there any more."""
    started: list[subprocess.Popen[bytes]] = []
    try:
        with network(hosts) as made, closing(Lab(made, directory, started)) as there:
            yield there
    finally:
        for process in started:
            process.wait(10)
