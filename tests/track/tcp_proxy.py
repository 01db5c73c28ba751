"""A small proxy before a tracking server, which delays, drops, resets and answers what a test wants."""

from __future__ import annotations

import http.client
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

HOP_BY_HOP = ("connection", "content-length", "transfer-encoding")
RESET = struct.pack("ii", 1, 0)  # linger for no time: close() sends RST


@dataclass
class Trouble:
    """What happens to a request; `happened` counts. Without any of it, the request passes.

    `answer`: these bytes instead of the server's. `mute`: nothing at all, the connection stays open.
    `drop`: the server does the work, and its reply is lost. `delay`: seconds before the server hears of it.
    """

    answer: bytes = b""
    mute: bool = False
    drop: bool = False
    delay: float = 0.0
    happened: Counter[str] = field(default_factory=Counter)


Rule = Callable[[str], Trouble | None]


def http_answer(status: str, body: str = "", kind: str = "text/html", **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {kind}", f"Content-Length: {len(body.encode())}"]
    lines += [f"{name.replace('_', '-')}: {text}" for name, text in headers.items()]
    return ("\r\n".join(lines) + f"\r\n\r\n{body}").encode()


class Proxy:
    """Stands at one port; `rule` says for the path of each request what happens to it."""

    def __init__(self, upstream: int) -> None:
        self._upstream = upstream
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self.rule: Rule = lambda path: None
        self.seen: Counter[str] = Counter()
        self.authorisations: list[str] = []
        self.in_flight = self.most_in_flight = 0
        self.ended = threading.Event()
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()

    def __enter__(self) -> Self:
        threading.Thread(target=self._listen, args=(self._listener,), daemon=True).start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.ended.set()
        self.down()

    def down(self) -> None:
        """Refuse connections and reset those there are, as a host does whose server is gone."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for connection in self._open:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                connection.shutdown(socket.SHUT_RDWR)

    def up(self) -> None:
        """Listen again, at the same port."""
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self.__enter__()

    def _listen(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with self._lock:
            self._open.add(connection)
        try:
            with connection.makefile("rb") as stream:
                while line := stream.readline():
                    method, path, _ = line.decode().split(" ", 2)
                    headers = http.client.parse_headers(stream)
                    body = stream.read(int(headers.get("Content-Length", 0)))
                    if not self._handle(connection, method, path, dict(headers), body):
                        return
        except OSError:
            pass
        finally:
            with self._lock:
                self._open.discard(connection)
            connection.close()

    def _handle(
        self, connection: socket.socket, method: str, path: str, headers: dict[str, str], body: bytes
    ) -> bool:
        with self._lock:
            self.seen[path.partition("?")[0].removeprefix("/api/2.0/mlflow/")] += 1
            self.authorisations.append(headers.get("Authorization", ""))
            self.in_flight += 1
            self.most_in_flight = max(self.in_flight, self.most_in_flight)
            trouble = self.rule(path) or Trouble()
            trouble.happened[path] += 1
        try:
            if trouble.mute:
                self.ended.wait(60)
                return False
            if trouble.answer:
                connection.sendall(trouble.answer)
                return True
            self.ended.wait(trouble.delay)
            reply = self._forward(method, path, headers, body)
            if trouble.drop:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                return False
            connection.sendall(reply)
            return True
        finally:
            with self._lock:
                self.in_flight -= 1

    def _forward(self, method: str, path: str, headers: dict[str, str], body: bytes) -> bytes:
        server = http.client.HTTPConnection("127.0.0.1", self._upstream, timeout=60)
        try:
            kept = {n: v for n, v in headers.items() if n.lower() not in (*HOP_BY_HOP, "host")}
            server.request(method, path, body or None, {**kept, "Host": f"127.0.0.1:{self._upstream}"})
            answer = server.getresponse()
            text = answer.read()
        finally:
            server.close()
        lines = [f"HTTP/1.1 {answer.status} {answer.reason}", f"Content-Length: {len(text)}"]
        lines += [f"{n}: {v}" for n, v in answer.getheaders() if n.lower() not in HOP_BY_HOP]
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + text
