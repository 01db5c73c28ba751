"""A Ray dashboard with the Jobs API as Ray 2.60 answers it, whose faults are a test's to choose."""

from __future__ import annotations

import base64
import hashlib
import json
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Json = dict[str, Any]
TOKEN = "tok-5f1e0c9a77b34d0f9e"
FINAL = ("SUCCEEDED", "FAILED", "STOPPED")
# What a duplicate is answered: the head's traceback around that of the agent.
DUPLICATE = """\
Traceback (most recent call last):
  File "job_head.py", line 404, in submit_job
    resp = await job_agent_client.submit_job_internal(submit_request)
  File "job_head.py", line 110, in _raise_error
    raise RuntimeError(f"Request failed with status code {{status}}: {{error_text}}.")
RuntimeError: Request failed with status code 400: Traceback (most recent call last):
  File "job_agent.py", line 44, in submit_job
ValueError: Job with submission_id {name} already exists. Please use a different submission_id.
.
"""
GOES_ON = "Attempted to delete job '{name}', but it is in a non-terminal state {status}."


@dataclass
class Job:
    """One job; each look at it goes on to the next of `statuses`, the last of which stays."""

    name: str
    statuses: list[str] = field(default_factory=lambda: ["SUCCEEDED"])
    log: str = ""
    exit_code: int | None = None
    error_type: str | None = None
    asked: Json = field(default_factory=dict)

    @property
    def status(self) -> str:
        return self.statuses[0]

    def look(self) -> Json:
        if len(self.statuses) > 1 and self.asked.get("looked"):
            self.statuses.pop(0)
        self.asked["looked"] = True
        final = self.status in FINAL
        code = self.exit_code if self.exit_code is not None else (0 if self.status == "SUCCEEDED" else None)
        return {
            "type": "SUBMISSION",
            "submission_id": self.name,
            "status": self.status,
            "entrypoint": self.asked.get("entrypoint", ""),
            "message": "as it is",
            "error_type": self.error_type,
            "start_time": 1_790_000_000_000,
            "end_time": 1_790_000_060_000 if final else None,
            "metadata": self.asked.get("metadata"),
            "driver_exit_code": code if final and self.status != "STOPPED" else None,
        }


class FakeRay(ThreadingHTTPServer):
    """The state of a head, and what goes wrong with it.

    `make`: what becomes of a submission. `faults`: (part of a request line, status, text), each used once.
    `cuts`: after how many characters each next stream of a log is dropped.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.jobs: dict[str, Job] = {}
        self.packages: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.faults: list[tuple[str, int, str]] = []
        self.cuts: list[int] = []
        self.streams = 0
        self.make: Callable[[Job], None] = lambda job: None
        self.token = TOKEN
        self.lock = threading.Lock()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def count(self, part: str) -> int:
        return sum(part in each for each in self.requests)


@contextmanager
def fake_ray() -> Iterator[FakeRay]:
    with FakeRay() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeRay

    def log_message(self, *_: object) -> None: ...

    def _answer(self, status: int, body: object = "") -> None:
        data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _any(self) -> None:
        ray = self.server
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        line = f"{self.command} {self.path}"
        with ray.lock:
            ray.requests.append(line)
            fault = next((each for each in ray.faults if each[0] in line), None)
            if fault:
                ray.faults.remove(fault)
        if fault:
            self._answer(*fault[1:])
        elif self.path == "/api/gcs_healthz":
            self._answer(200, "success")
        elif "Authorization" not in self.headers:
            self._answer(401, "Unauthorized: Missing authentication token")
        elif self.headers["Authorization"] != f"Bearer {ray.token}":
            self._answer(403, "Forbidden: Invalid authentication token")
        elif self.path.startswith("/api/packages/gcs/"):
            self._package(self.path.rpartition("/")[2], body)
        else:
            self._jobs(body)

    do_GET = do_POST = do_PUT = do_DELETE = _any  # noqa: N815

    def _package(self, name: str, body: bytes) -> None:
        if self.command == "PUT":
            self.server.packages[name] = body
        self._answer(200 if name in self.server.packages else 404, "")

    def _jobs(self, body: bytes) -> None:
        ray, parts = self.server, self.path.removeprefix("/api/jobs/").split("/")
        if self.path == "/api/jobs/":
            if self.command == "GET":
                drivers = [
                    {"type": "DRIVER", "job_id": "01000000", "submission_id": None, "status": "RUNNING"}
                ]
                self._answer(200, [*(job.look() for job in ray.jobs.values()), *drivers])
            else:
                self._submit(json.loads(body))
            return
        job = ray.jobs.get(parts[0])
        if job is None:
            self._answer(404, f"Job {parts[0]} does not exist")
        elif parts[1:] == ["logs", "tail"]:
            self._tail(job)
        elif parts[1:] == ["logs"]:
            self._answer(200, {"logs": job.log})
        elif parts[1:] == ["stop"]:
            job.statuses[:] = ["STOPPED"]
            self._answer(200, {"stopped": True})
        elif self.command == "DELETE" and job.status not in FINAL:
            self._answer(500, f"RuntimeError: {GOES_ON.format(name=job.name, status=job.status)}")
        elif self.command == "DELETE":
            del ray.jobs[job.name]
            self._answer(200, {"deleted": True})
        else:
            self._answer(200, job.look())

    def _submit(self, asked: Json) -> None:
        ray, name = self.server, asked["submission_id"]
        with ray.lock:
            if name in ray.jobs:
                self._answer(500, DUPLICATE.format(name=name))
                return
            job = ray.jobs[name] = Job(name, asked=asked)
            ray.make(job)
        self._answer(200, {"job_id": name, "submission_id": name})

    def _tail(self, job: Job) -> None:
        """The log from its start, ten lines a text, until the job has ended or the stream is to be cut."""
        key = self.headers["Sec-WebSocket-Key"].encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", base64.b64encode(hashlib.sha1(key).digest()).decode())
        self.end_headers()
        self.close_connection = True
        with self.server.lock:
            self.server.streams += 1
            cut = self.server.cuts.pop(0) if self.server.cuts else None
        text = job.log if cut is None else job.log[:cut]
        for place in range(0, len(text), 40):
            self.wfile.write(frame(text[place : place + 40].encode()))
        if cut is None:
            self.wfile.write(frame(struct.pack(">H", 1000), 8))


def frame(data: bytes, opcode: int = 1, *, last: bool = True) -> bytes:
    """A frame as a server sends it."""
    first = bytes(((0x80 if last else 0) | opcode,))
    if len(data) < 126:
        return first + bytes((len(data),)) + data
    if len(data) < 1 << 16:
        return first + b"\x7e" + struct.pack(">H", len(data)) + data
    return first + b"\x7f" + struct.pack(">Q", len(data)) + data
