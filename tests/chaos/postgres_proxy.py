"""A proxy before a PostgreSQL server: it loses the reply of a COMMIT, or the COMMIT, or the whole server."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator
from types import TracebackType
from typing import Self

RESET = struct.pack("ii", 1, 0)  # linger for no time: close() sends RST
REPLY, REQUEST = "the reply of a COMMIT", "a COMMIT"
COMPLETED = b"COMMIT\0"  # as the server answers


class Proxy:
    """Stands at one port of loopback; `lose` names what it loses next, `lost` what it has."""

    def __init__(self, upstream: int, host: str = "127.0.0.1") -> None:
        self._upstream, self._host = upstream, host
        self.lose = ""
        self.then_away = False  # whether nobody answers after the next loss
        self.lost: list[str] = []
        self.refused = 0
        self._away = False
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server((host, 0))
        self.port: int = self._listener.getsockname()[1]

    def __enter__(self) -> Self:
        threading.Thread(target=self._listen, daemon=True).start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.away()

    def away(self) -> None:
        """Cut all connections, and reset every new one."""
        self._away = True
        with self._lock:
            for connection in self._open:
                _reset(connection)

    def back(self) -> None:
        """Serve again."""
        self._away = False

    def _listen(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self._away:
                self.refused += 1
                _reset(client)
                continue
            server = socket.create_connection(("127.0.0.1", self._upstream))
            with self._lock:
                self._open |= {client, server}
            for pump in (self._requests, self._replies):
                threading.Thread(target=pump, args=(client, server), daemon=True).start()

    def _requests(self, client: socket.socket, server: socket.socket) -> None:
        with self._closing(client, server):
            while data := client.recv(65536):
                if self.lose == REQUEST and b"COMMIT" in data:
                    self._happens()
                    return
                server.sendall(data)

    def _replies(self, client: socket.socket, server: socket.socket) -> None:
        with self._closing(client, server):
            while data := server.recv(65536):
                # The server has done it: whoever asks another connection finds it there.
                if self.lose == REPLY and COMPLETED in data:
                    self._happens()
                    return
                client.sendall(data)

    def _happens(self) -> None:
        self.lost.append(self.lose)
        self.lose = ""
        self._away = self.then_away

    @contextlib.contextmanager
    def _closing(self, client: socket.socket, server: socket.socket) -> Iterator[None]:
        try:
            with contextlib.suppress(OSError):
                yield
        finally:
            for connection in (client, server):
                _reset(connection)
                with self._lock:
                    self._open.discard(connection)


def _reset(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
