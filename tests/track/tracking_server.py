"""`mlflow server` over one database, started and killed by the tests.

Run as a program it is the stable of servers: a process that has imported all of `mlflow server` once, seven
seconds of a processor, and forks one for each line of JSON on stdin. A fork runs that very command; only
where the command would start its worker, `uvicorn` in a new interpreter, the worker runs in the same process.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any, NoReturn

SETTINGS = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}


class Stable:
    """Where servers come from; one request at a time."""

    def __init__(self, log: Path) -> None:
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-W", "ignore", __file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=os.environ | SETTINGS,
            )

    def ask(self, **request: Any) -> int:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def close(self) -> None:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()


class Server:
    """One server at a port of its own; `start` returns when it answers."""

    def __init__(self, database: Path, stable: Stable) -> None:
        from ports import free_port

        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self._database = database
        self._stable = stable
        self._pid: int | None = None

    def start(self) -> None:
        from mlflow_facts import wait_for

        home = self._database.parent
        words = ["server", "--workers", "1", "--host", "127.0.0.1", "--port", str(self.port)]
        words += ["--backend-store-uri", f"sqlite:///{self._database}"]
        words += ["--artifacts-destination", (home / "artifacts").as_uri()]
        self._pid = self._stable.ask(start=words, home=str(home))
        wait_for(self._healthy, 60)

    def _healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=1) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def kill(self) -> None:
        """End the server, as a lost node would: its process group, which is only ours."""
        if self._pid is not None:
            os.killpg(self._pid, signal.SIGKILL)
            self._stable.ask(wait=self._pid)
            self._pid = None


# -- the stable itself ------------------------------------------------------------------------------


def _main() -> None:
    import importlib
    import threading

    # By its presence MLflow's modules know that they are a server's: it comes first.
    for name in ("uvicorn.main", "mlflow.server.fastapi_app", "mlflow.store.tracking.sqlalchemy_store"):
        importlib.import_module(name)
    from mlflow.cli import cli

    assert threading.active_count() == 1, threading.enumerate()
    tell = os.dup(1)
    os.set_inheritable(tell, False)
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            answer = os.waitpid(request["wait"], 0)[1]
        elif not (answer := os.fork()):
            os.close(tell)
            _serve(cli, request)
        os.write(tell, f"{answer}\n".encode())


def _serve(cli: Any, request: dict[str, Any]) -> NoReturn:
    """Be a server from here on."""
    import mlflow.server
    import uvicorn.main

    def worker(command: list[str], extra_env: dict[str, str], **_: object) -> NoReturn:
        os.environ.update(extra_env)
        assert command[1:3] == ["-m", "uvicorn"]
        uvicorn.main.main(args=command[3:])
        os._exit(0)

    code = 70
    try:
        os.setsid()
        os.chdir(request["home"])
        log = os.open("server.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for there, descriptor in ((nothing, 0), (log, 1), (log, 2)):
            os.dup2(there, descriptor)
        mlflow.server._exec_cmd = worker
        cli(args=request["start"])
        code = 0
    finally:
        os._exit(code)


if __name__ == "__main__":
    _main()
