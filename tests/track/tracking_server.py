"""`mlflow server` over one database, started and killed by the tests."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

from mlflow_facts import wait_for


class Server:
    """One server at a port of its own; `start` returns when it answers."""

    def __init__(self, database: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self._database = database
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        home = self._database.parent
        command = [sys.executable, "-W", "ignore", "-m", "mlflow", "server", "--workers", "1"]
        command += ["--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--backend-store-uri", f"sqlite:///{self._database}"]
        command += ["--artifacts-destination", (home / "artifacts").as_uri()]
        with (home / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                cwd=home,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={
                    **os.environ,
                    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
                    "MLFLOW_DISABLE_TELEMETRY": "true",
                },
            )
        wait_for(self._healthy, 110)

    def _healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=1) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def kill(self) -> None:
        """End the server and its worker, as a lost node would: its process group, which is only ours."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None
