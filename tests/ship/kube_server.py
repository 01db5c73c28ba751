"""A fake Kubernetes API server: TLS, tokens, roles, watches, faults on demand; real kubectl works with it."""

from __future__ import annotations

import contextlib
import re
import secrets
import ssl
import threading
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

from kube_access import User
from kube_certificate import certificate
from kube_handler import Handler
from kube_store import Check, Store, as_it_is

Json = dict[str, Any]


@dataclass
class Fault:
    """What goes wrong with the next `times` requests that fit; `path` is searched in the whole target.

    `cut` "before": the connection ends before anything is done; "after": it is done, and the answer is lost.
    """

    method: str = ""
    path: str = ""
    times: int = 1
    status: int = 0
    message: str = "by a fault of the test"
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    cut: str = ""
    do: Callable[[], None] | None = None
    struck: int = 0

    def fits(self, method: str, target: str) -> bool:
        return self.struck < self.times and self.method in ("", method) and bool(re.search(self.path, target))


@dataclass
class Request:
    """One line of the log; the code is 0 until it is answered."""

    method: str
    target: str
    user: str = "?"
    code: int = 0
    body: Json | None = None


class Api(ThreadingHTTPServer):
    """The server; `store` holds its objects, `requests` what was asked, `faults` what shall go wrong."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, folder: Path, check: Check = as_it_is) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.store = Store(check)
        self.requests: list[Request] = []
        self.marks: list[str] = []  # the versions of bookmarks
        self.heard = threading.Condition()
        self.faults: list[Fault] = []
        self.errors: list[str] = []
        # What pods have printed, by their names: a time, a space, the line.
        self.logs: dict[str, list[str]] = {}
        self.bookmarks = 60.0  # seconds between two
        self.tokens: dict[str, User] = {}
        self.ca, chain = certificate(folder)
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.load_cert_chain(chain)
        self.admin = self.token()

    @property
    def address(self) -> str:
        return f"https://127.0.0.1:{self.server_port}"

    def token(self, namespace: str = "", account: str = "") -> str:
        """A new token, of an account or of an administrator."""
        made = secrets.token_hex(16)
        self.tokens[made] = User(namespace, account)
        return made

    def asked(self, method: str = "", path: str = "") -> list[Request]:
        """The requests so far that fit."""
        return [r for r in list(self.requests) if method in ("", r.method) and re.search(path, r.target)]

    def log(self, method: str, target: str) -> Request:
        """A new line of the log."""
        with self.heard:
            request = Request(method, target)
            self.requests.append(request)
            self.heard.notify_all()
        return request

    def wait_for(self, method: str, path: str, times: int = 1, within: float = 60.0) -> None:
        """Wait until so many requests that fit have come."""
        with self.heard:
            came = self.heard.wait_for(lambda: len(self.asked(method, path)) >= times, within)
        assert came, f"{len(self.asked(method, path))} of {times} times {method} {path} in {within} s"

    def mark(self, version: str) -> None:
        """A bookmark was told."""
        with self.heard:
            self.marks.append(version)
            self.heard.notify_all()

    def wait_for_mark(self, version: str, within: float = 60.0) -> None:
        """Wait until one more bookmark of a version was told."""
        with self.heard:
            before = self.marks.count(version)
            assert self.heard.wait_for(lambda: self.marks.count(version) > before, within), version

    def finish_request(self, request: Any, client_address: Any) -> None:
        # In the thread of the connection: a slow handshake holds up nobody else.
        request.settimeout(30)
        with self._tls.wrap_socket(request, server_side=True) as secured:
            self.RequestHandlerClass(secured, client_address, self)

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = traceback.format_exc()
        if not re.search(
            r"SSL\w*Error|ConnectionResetError|BrokenPipeError|TimeoutError|EOF occurred", error
        ):
            self.errors.append(error)


@contextlib.contextmanager
def served(folder: Path, check: Check = as_it_is) -> Iterator[Api]:
    """A server while it is needed; a bug of its own fails whoever used it."""
    server = Api(folder, check)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, name="api server")
    thread.start()
    try:
        yield server
    finally:
        server.store.cut()
        server.shutdown()
        thread.join()
        server.server_close()
    assert not server.errors, "\n".join(server.errors)
