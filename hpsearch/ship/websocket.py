"""A WebSocket from its listening end (RFC 6455): opened, read text by text, closed."""

from __future__ import annotations

import base64
import hashlib
import os
import socket
import struct
from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import BinaryIO
from urllib.parse import urlsplit

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
LARGEST = 16 << 20  # bytes of one text
LONGEST_HEAD = 100  # lines


class NotOpened(Exception):
    """The server answered with something else."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(f"HTTP {status}")
        self.status, self.body = status, body


def texts(connection: socket.socket, origin: str, path: str, headers: Mapping[str, str]) -> Iterator[str]:
    """The texts that a server sends, until it closes the stream in order.

    Raises NotOpened, ConnectionError when the stream is cut, OSError, ValueError for what is no WebSocket.
    """
    with closing(connection), connection.makefile("rb") as stream:
        _open(connection, stream, origin, path, headers)
        whole, opcode = bytearray(), CONTINUATION
        while True:
            last, kind, data = _frame(stream)
            if kind == CLOSE:
                _send(connection, CLOSE, data[:2])
                return
            if kind == PING:
                _send(connection, PONG, data)
            if kind in (TEXT, BINARY, CONTINUATION):
                opcode = kind or opcode
                whole += data
                if len(whole) > LARGEST:
                    raise ValueError("a text of more than 16 MiB")
                if last:
                    if opcode == TEXT:
                        yield whole.decode(errors="replace")
                    whole.clear()


def _open(
    connection: socket.socket, stream: BinaryIO, origin: str, path: str, headers: Mapping[str, str]
) -> None:
    key = base64.b64encode(os.urandom(16))
    asked = {
        "Host": urlsplit(origin).netloc,
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": key.decode(),
        **headers,
    }
    lines = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in asked.items()), "", ""]
    connection.sendall("\r\n".join(lines).encode("ascii"))
    status, found = _head(stream)
    if status != 101:
        raise NotOpened(status, stream.read(min(int(found.get("content-length", "0") or 0), LARGEST)))
    wanted = base64.b64encode(hashlib.sha1(key + _GUID).digest()).decode()
    if found.get("sec-websocket-accept") != wanted:
        raise ValueError("the server has not taken this for a WebSocket")


def _head(stream: BinaryIO) -> tuple[int, dict[str, str]]:
    first = stream.readline(4096).split()
    if len(first) < 2 or not first[0].startswith(b"HTTP/1.") or not first[1].isdigit():
        raise ConnectionError("no answer of HTTP")
    found: dict[str, str] = {}
    for _ in range(LONGEST_HEAD):
        line = stream.readline(8192).decode("latin-1").strip()
        if not line:
            return int(first[1]), found
        name, _, value = line.partition(":")
        found[name.strip().lower()] = value.strip()
    raise ValueError("an answer with too many headers")


def _frame(stream: BinaryIO) -> tuple[bool, int, bytes]:
    """Whether it is the last of its text, its kind, its content; a server masks nothing."""
    first, second = _exactly(stream, 2)
    size = second & 0x7F
    if size == 126:
        (size,) = struct.unpack(">H", _exactly(stream, 2))
    elif size == 127:
        (size,) = struct.unpack(">Q", _exactly(stream, 8))
    if size > LARGEST or second & 0x80 or first & 0x70:
        raise ValueError("a frame that no server of Ray sends")
    return bool(first & 0x80), first & 0x0F, _exactly(stream, size)


def _exactly(stream: BinaryIO, count: int) -> bytes:
    data = stream.read(count)
    if len(data) < count:
        raise ConnectionError("the stream was cut")
    return data


def _send(connection: socket.socket, opcode: int, data: bytes) -> None:
    """A short frame; what a client sends is masked."""
    mask = os.urandom(4)
    masked = bytes(byte ^ mask[place % 4] for place, byte in enumerate(data[:125]))
    connection.sendall(bytes((0x80 | opcode, 0x80 | len(masked))) + mask + masked)
