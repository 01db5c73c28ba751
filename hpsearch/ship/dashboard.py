"""The dashboard of a Ray cluster over HTTP, by the standard library: where it is, who asks, what it says.

What was never answered, 429 and 5xx are asked again, with growing pauses, until it has been silent for too
long; what it refuses is an error at once. The token is read anew for each request, and printed nowhere.
"""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import json
import os
import re
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from hpsearch.errors import ServiceUnavailable, UsageError
from hpsearch.redaction import redact
from hpsearch.ship import websocket
from hpsearch.ship.api import BUSY, FIRST_PAUSE, LONGEST_PAUSE, Missing, NoAnswer, Refused, Time

Answer = TypeVar("Answer")
DEFAULT = "http://127.0.0.1:8265"
# Ray's own names.
ADDRESS = "RAY_API_SERVER_ADDRESS"
TOKEN, TOKEN_PATH = "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"
# The switch for a cluster whose network keeps strangers out; `hpsearch run` knows it, too.
ALLOW = "HPSEARCH_ALLOW_UNAUTHENTICATED_RAY"
# All in seconds. How long a dashboard may be silent before whoever waits for a job gives up.
PATIENCE = 600.0
# The same for people who wait for an answer.
SHORT_PATIENCE = 30.0
ANSWER_WITHIN = 60.0
JSON = "application/json"
LONGEST_TEXT = 500  # characters of a server's message
_HOST = re.compile(r"[A-Za-z0-9_.\-:%]+")
_ERROR = re.compile(r"[\w.]*(Error|Exception): ")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a dashboard is: the parts of its address."""

    host: str
    port: int
    secure: bool = False

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.secure else 'http'}://{host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether nobody but this machine can be there; also a tunnel to somewhere else begins there."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host.partition("%")[0]).is_loopback
        except ValueError:
            return False

    @property
    def is_here(self) -> bool:
        """Whether the address is one of this machine's own."""
        if self.is_loopback:
            return True
        try:
            found = socket.getaddrinfo(self.host, None, type=socket.SOCK_STREAM)
            for family, _, _, _, address in found:
                with socket.socket(family, socket.SOCK_DGRAM) as own:
                    own.bind((address[0], 0))
        except OSError:
            return False
        return bool(found)


def place(address: str) -> Place:
    """The parts of http://HOST:PORT, of https, or of HOST:PORT. Raises UsageError."""
    whole = address if "://" in address else f"http://{address}"
    hint = f"the dashboard's address, such as {DEFAULT}"
    try:
        parts = urlsplit(whole)
        port = parts.port or (443 if parts.scheme == "https" else 8265)
    except ValueError:
        raise UsageError(f"{redact(address)!r} is no address", hint=hint) from None
    if "@" in parts.netloc:
        raise UsageError(
            "the address holds a user or a password, which would be shown and stored",
            hint=f"leave it out: {TOKEN} or {TOKEN_PATH} is what Ray asks for",
        )
    known = parts.scheme in ("http", "https") and _HOST.fullmatch(parts.hostname or "")
    if not known or parts.path.strip("/") or parts.query or parts.fragment:
        raise UsageError(f"{redact(address)!r} is not a dashboard's address", hint=hint)
    return Place(str(parts.hostname), port, parts.scheme == "https")


def token(environment: Mapping[str, str] = os.environ) -> str:
    """Ray's token, from where Ray itself takes it; empty without any. Raises UsageError for a lost file."""
    if given := environment.get(TOKEN, "").strip():
        return given
    if named := environment.get(TOKEN_PATH, ""):
        try:
            return Path(named).expanduser().read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is no text"
            raise UsageError(f"{TOKEN_PATH} names {named}, which cannot be read: {why}") from None
    home = environment.get("HOME")
    with contextlib.suppress(OSError, ValueError):
        if home:
            return (Path(home) / ".ray" / "auth_token").read_text(encoding="utf-8").strip()
    return ""


def check(where: Place, environment: Mapping[str, str] = os.environ, *, insecure: bool = False) -> None:
    """Raise UsageError for a place beyond this machine that would be asked without a token.

    Without one its Jobs API either refuses, or runs the code of anybody who reaches it.
    """
    if where.is_loopback or insecure or environment.get(ALLOW) == "1" or token(environment):
        return
    raise UsageError(
        f"there is no token for the Ray at {where}, which is not on this machine",
        hint=f"set {TOKEN_PATH} or {TOKEN}; --insecure for a cluster without one in a closed network",
    )


@dataclass(slots=True)
class Dashboard:
    """One dashboard; `patience`: how long it may be silent (seconds)."""

    where: Place
    clock: Time = field(default_factory=Time)
    patience: float = PATIENCE
    token: Callable[[], str] = token

    def json(self, method: str, path: str, body: Any = None) -> Any:
        """An answer in JSON. Raises Missing, Refused, ServiceUnavailable."""
        data = None if body is None else json.dumps(body).encode()
        return self.tried(lambda: json.loads(self.once(method, path, data) or b"null"))

    def tried(self, ask: Callable[[], Answer]) -> Answer:
        """Ask until there is an answer. Raises ServiceUnavailable when there was none for too long."""
        began, count = self.clock.now(), 0
        while True:
            try:
                with _network():
                    return ask()
            except NoAnswer as error:
                silent = self.clock.now() - began
                if silent >= self.patience:
                    raise ServiceUnavailable(
                        f"the Ray dashboard at {self.where} has not answered for {silent:.0f} s: {error}",
                        hint="run it again when Ray is back: the same command goes on",
                    ) from error
                pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(count, 20))
                self.clock.sleep(min(pause * (0.5 + self.clock.chance() / 2), self.patience))
                count += 1

    def once(self, method: str, path: str, body: bytes | None = None, kind: str = JSON) -> bytes:
        """One request, and its answer if that is a success. Raises NoAnswer, Missing, Refused."""
        status, raw = self.ask(method, path, body, kind)
        if status < 300:
            return raw
        raise self.refusal(f"{method} {path}", status, raw)

    def ask(self, method: str, path: str, body: bytes | None, kind: str) -> tuple[int, bytes]:
        """One request: the status and content of its answer, whatever it is. Raises NoAnswer."""
        with _network(), contextlib.closing(self._connection()) as connection:
            connection.request(method, path, body, self._headers() | {"Content-Type": kind})
            reply = connection.getresponse()
            return reply.status, reply.read()

    def refusal(self, request: str, status: int, raw: bytes) -> Exception:
        """What an answer that is no success means."""
        what = f"HTTP {status} to {request} at {self.where}: {_text(raw)}"
        if status in (401, 403):
            return Refused(status, what, hint=f"is {TOKEN} or {TOKEN_PATH} the token of this cluster?")
        if status == 404:
            return Missing(status, what, hint="is it the address of a Ray dashboard with the Jobs API?")
        return NoAnswer(what) if status in BUSY else Refused(status, what, hint="the message says why")

    def texts(self, path: str, silence: float) -> Iterator[str]:
        """What a stream of texts says, to its end. Raises NoAnswer when it is cut, or silent for so long."""
        with _network():
            try:
                yield from websocket.texts(self._connected(silence), str(self.where), path, self._headers())
            except websocket.NotOpened as error:
                raise self.refusal(f"GET {path}", error.status, error.body) from None

    def _connection(self) -> http.client.HTTPConnection:
        if self.where.secure:
            return http.client.HTTPSConnection(self.where.host, self.where.port, timeout=ANSWER_WITHIN)
        return http.client.HTTPConnection(self.where.host, self.where.port, timeout=ANSWER_WITHIN)

    def _connected(self, silence: float) -> socket.socket:
        """A connection on which nothing may come for so long."""
        found = socket.create_connection((self.where.host, self.where.port), timeout=ANSWER_WITHIN)
        if self.where.secure:
            found = ssl.create_default_context().wrap_socket(found, server_hostname=self.where.host)
        found.settimeout(silence)
        return found

    def _headers(self) -> dict[str, str]:
        shown = {"User-Agent": "hpsearch"}
        if found := self.token():
            if not (found.isascii() and found.isprintable()):
                raise UsageError(f"the token that {TOKEN} or its file holds is no token")
            shown["Authorization"] = f"Bearer {found}"
        return shown


@contextlib.contextmanager
def _network() -> Iterator[None]:
    """Whatever the network does is a NoAnswer."""
    try:
        yield
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise NoAnswer(f"{type(error).__name__}: {redact(str(error))}") from error


def _text(raw: bytes) -> str:
    """The message of an answer: Ray's are tracebacks of its own server, of which the last error says why."""
    lines = [line.strip() for line in redact(raw.decode(errors="replace")).splitlines()]
    errors = [line for line in lines if _ERROR.match(line)]
    said = next(reversed(errors or [line for line in lines if line]), "no reason given")
    return " ".join(said.split())[:LONGEST_TEXT]
