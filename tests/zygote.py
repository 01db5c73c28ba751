"""Real drivers in a quarter of a second: a process that has imported everything forks one for each command.

Run as a program it is the zygote: it reads one command as JSON a line and tells of starts and ends. Imported
it is the door to one. Drivers are real processes with sessions, streams and limits of their own.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HEAVY = ("hpsearch.cli", "hpsearch.sweep", "hpsearch.run.local", "hpsearch.train.preload")
HEAVY += ("mlflow.tracking", "mlflow.entities", "mlflow.store.tracking.sqlalchemy_store")


@dataclass
class Driver:
    """One command as a process of its own; `out` and `err` are what it printed where those are files."""

    pid: int
    streams: dict[str, Path]
    zygote: Zygote
    _ended: threading.Event = field(default_factory=threading.Event)
    _code: int | None = None

    def wait(self, timeout: float = 60) -> int:
        """Its exit code, or minus the signal that ended it."""
        if not self._ended.wait(timeout):
            self.kill()
            raise AssertionError(f"process {self.pid} had not ended after {timeout:g} s: {self.said()}")
        assert self._code is not None
        return self._code

    @property
    def alive(self) -> bool:
        return not self._ended.is_set()

    def send(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        if self.alive:
            os.kill(self.pid, signal.SIGKILL)

    @property
    def out(self) -> str:
        return self.streams["out"].read_text()

    @property
    def err(self) -> str:
        return self.streams["err"].read_text()

    def said(self) -> str:
        return "\n".join(p.read_text() for p in self.streams.values() if p.is_file())


class Zygote:
    """Starts drivers; close it when done. Each of them is waited for by its own parent, the zygote.

    `before`: words that run a command elsewhere, as its own process. `also`: what else it imports.
    """

    def __init__(
        self,
        scratch: Path,
        before: Sequence[str] = (),
        environment: Mapping[str, str] = os.environ,
        also: Sequence[str] = (),
    ) -> None:
        self._scratch = scratch
        scratch.mkdir(parents=True, exist_ok=True)
        threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [*before, sys.executable, "-W", "ignore", __file__, *also],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**environment, **threads},
        )
        self.pid = self._process.pid
        self._drivers: dict[int, Driver] = {}
        self._asking, self._changed = threading.Lock(), threading.Condition()
        self._started: list[int] = []
        self._early: dict[int, int] = {}
        self._count = 0
        assert self._process.stdout
        self._hearing = threading.Thread(target=self._hear, args=(self._process.stdout,), daemon=True)
        self._hearing.start()

    def start(
        self,
        *words: str | Path,
        cwd: Path,
        environment: Mapping[str, str] | None = None,
        out: Path | None = None,
        err: Path | None = None,
        closed: tuple[int, ...] = (),
        memory: int | None = None,
        ignored: tuple[int, ...] = (),
        settings: Mapping[str, float] | None = None,
        umask: int | None = None,
    ) -> Driver:
        """Run `hpsearch WORDS`; without `out` and `err` they are files.

        `closed`: standard descriptors that are not there. `memory`: bytes of address space beyond those
        at its start. `ignored`: signals that are ignored when it starts. `settings`: constants of modules,
        as "hpsearch.run.signals:LIMIT", that would make a test long.
        """
        self._count += 1
        streams = {n: self._scratch / f"{self._count}.{n}" for n in ("out", "err")}
        command = {
            "words": list(map(str, words)),
            "cwd": str(cwd),
            "environment": dict(environment or {}),
            "out": str(out or streams["out"]),
            "err": str(err or streams["err"]),
            "closed": closed,
            "memory": memory,
            "ignored": ignored,
            "settings": dict(settings or {}),
            "umask": umask,
        }
        with self._asking, self._changed:
            assert self._process.stdin
            self._process.stdin.write(json.dumps(command) + "\n")
            self._process.stdin.flush()
            assert self._changed.wait_for(lambda: self._started, 200), "the zygote does not answer"
            pid = self._started.pop()
            driver = self._drivers[pid] = Driver(pid, streams, self)
            if pid in self._early:
                self._end(pid, self._early.pop(pid))
        return driver

    def run(self, *words: str | Path, cwd: Path, code: int = 0, **more: Any) -> Driver:
        """Run a command to its end, which must have this exit code."""
        driver = self.start(*words, cwd=cwd, **more)
        found = driver.wait()
        assert found == code, f"{words} left with {found}, not {code}:\n{driver.said()}"
        return driver

    def close(self) -> None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.wait(30)
        # Drivers that a failed test left alive would keep the other end open.
        for driver in list(self._drivers.values()):
            driver.kill()
        self._hearing.join(5)
        self._process.stdout.close()

    def _hear(self, stream: Any) -> None:
        for line in stream:
            word, pid, *rest = line.split()
            with self._changed:
                if word == "started":
                    self._started.append(int(pid))
                elif int(pid) in self._drivers:
                    self._end(int(pid), int(rest[0]))
                else:
                    self._early[int(pid)] = int(rest[0])
                self._changed.notify_all()

    def _end(self, pid: int, code: int) -> None:
        driver = self._drivers.pop(pid)
        driver._code = code
        driver._ended.set()


# -- the zygote itself ------------------------------------------------------------------------------


def _main() -> None:
    import warnings

    warnings.simplefilter("ignore")
    for name in (*HEAVY, *sys.argv[1:]):
        importlib.import_module(name)
    assert threading.active_count() == 1, threading.enumerate()
    tell = os.dup(1)
    os.set_inheritable(tell, False)
    waker, bell = os.pipe()
    os.set_blocking(bell, False)
    signal.set_wakeup_fd(bell, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    import select

    buffer = b""
    while True:
        ready, _, _ = select.select([0, waker], [], [])
        if waker in ready:
            os.read(waker, 4096)
            _reap(tell)
        if 0 in ready:
            data = os.read(0, 1 << 16)
            if not data:
                return
            *lines, buffer = (buffer + data).split(b"\n")
            for line in lines:
                pid = os.fork()
                if not pid:
                    os.close(waker)
                    os.close(tell)
                    _become(json.loads(line))
                os.write(tell, f"started {pid}\n".encode())


def _reap(tell: int) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            return
        os.write(tell, f"ended {pid} {os.waitstatus_to_exitcode(status)}\n".encode())


def _connect(command: dict[str, Any]) -> None:
    """Give a driver the standard streams that it shall have."""
    for number, name in ((1, "out"), (2, "err")):
        # Only a terminal that is opened for reading becomes the session's own.
        way = os.O_RDWR if command[name].startswith("/dev/pts/") else os.O_WRONLY | os.O_CREAT | os.O_APPEND
        opened = os.open(command[name], way, 0o600)
        os.dup2(opened, number)
        os.close(opened)
    for number in command["closed"]:
        os.close(number)
        setattr(sys, ("stdin", "stdout", "stderr")[number], None)


def _become(command: dict[str, Any]) -> None:
    """Be the driver of a command from here to its end."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests themselves may run without a terminal
    for number in command["ignored"]:
        signal.signal(number, signal.SIG_IGN)
    os.setsid()
    os.chdir(command["cwd"])
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    _connect(command)
    os.environ.update(command["environment"])
    if command["umask"] is not None:
        os.umask(command["umask"])
    if command["memory"] is not None:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        limit = used + command["memory"]
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for place, value in command["settings"].items():
        module, _, name = place.partition(":")
        holder = importlib.import_module(module)
        assert hasattr(holder, name)
        setattr(holder, name, value)
    sys.argv[:] = ["hpsearch", *command["words"]]
    from hpsearch.cli import main

    code: object = 0
    try:
        main()
    except SystemExit as left:
        code = left.code
    finally:
        # As at the end of an interpreter, whose other rites a fork of it does not need.
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                try:
                    stream.flush()
                except OSError:
                    code = code or 120
    os._exit(code if isinstance(code, int) else bool(code))


if __name__ == "__main__":
    _main()
