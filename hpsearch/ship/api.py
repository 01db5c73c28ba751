"""Kubernetes' API from inside of a pod, with the standard library and the pod's own account.

It hides the network: what was never answered, 429 and 5xx are asked again, with growing pauses, until the
server has not answered for ten minutes. What the server refuses is an error at once.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import math
import os
import random
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlencode

from hpsearch.errors import HpsearchError, Interrupted, ServiceUnavailable, UsageError
from hpsearch.redaction import redact

Json = dict[str, Any]
Answer = TypeVar("Answer")
MOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
# All in seconds. How long a server may be silent before a launcher gives up, and the pauses until then.
PATIENCE = 600.0
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
ANSWER_WITHIN = 30.0
# A watch ends by itself after so long; a connection that died unseen is missed soon after.
WATCH_FOR, WATCH_GRACE = 240, 30.0
# A token that was good before may have run out while this node slept; the kubelet renews it within a minute.
RENEWAL = 120.0
KEEPALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}
LONGEST_TEXT = 500  # characters of a server's message
LARGEST_LINE = 8 << 20  # bytes of one event; etcd takes objects of 1.5 MiB
BUSY = (429, 500, 502, 503, 504)
_HINTS = {
    400: "the object does not fit this cluster's KubeRay, which must be 1.7 or newer",
    401: "the account's token is not accepted: is the pod's service account still there?",
    403: "bind the role hpsearch-launch to the pod's service account (k8s/base)",
    404: "is KubeRay 1.7 or newer installed, and the namespace right?",
    422: "the object does not fit this cluster's KubeRay, which must be 1.7 or newer",
}


class Refused(UsageError):
    """The server has understood and will not: bad object, no permission, no such kind."""

    def __init__(self, status: int, message: str, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status = status


class Missing(Refused):
    """There is no such object, or no such kind of object."""


class AlreadyThere(HpsearchError):
    """An object of that name exists; nothing was changed."""


class Outdated(Exception):
    """The server does not remember so far back: list again."""


class NoAnswer(Exception):
    """The server did not answer this time, or was too busy; `pause` is how long it asks to wait (seconds)."""

    def __init__(self, why: str, pause: float = 0.0) -> None:
        super().__init__(why)
        self.pause = pause


@dataclass(frozen=True, slots=True)
class Access:
    """Where the server is, and what to show there; token and CA are read anew for each request."""

    host: str
    port: int
    namespace: str
    token: Path
    ca: Path

    @classmethod
    def in_pod(cls, environment: Mapping[str, str] = os.environ, mount: Path = MOUNT) -> Access:
        """The account that is mounted here. Raises UsageError outside of a cluster."""
        host, port = environment.get("KUBERNETES_SERVICE_HOST"), environment.get("KUBERNETES_SERVICE_PORT")
        hint = "this command is for pods of a cluster; give the pod an account whose token is mounted"
        if not host or not port:
            raise UsageError("no cluster here: KUBERNETES_SERVICE_HOST and _PORT are not set", hint=hint)
        if not port.isdigit():
            raise UsageError(f"KUBERNETES_SERVICE_PORT is {port!r}, not a number", hint=hint)
        try:
            namespace = (mount / "namespace").read_text().strip()
        except OSError as error:
            raise UsageError(f"no account is mounted in {mount}: {error.strerror}", hint=hint) from error
        return cls(host, int(port), namespace, mount / "token", mount / "ca.crt")


@dataclass(frozen=True, slots=True)
class Time:
    """What a client knows of time (seconds), and the chance that parts those who were refused together."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    chance: Callable[[], float] = random.random


@dataclass(frozen=True, slots=True)
class Seen:
    """A state of an object: None if there is none. `gone`: it was there, and was deleted in this state."""

    found: Json | None
    gone: bool = False


class Client:
    """Talks to one API server as one account."""

    def __init__(self, access: Access, clock: Time | None = None) -> None:
        self.access = access
        self.clock = clock or Time()
        self._accepted = False

    def get(self, path: str, **query: str) -> Json:
        """One object or list. Raises Missing."""
        return self._asked("GET", path, query)

    def create(self, path: str, body: Json) -> Json:
        """Make an object, every field of which the server must know. Raises AlreadyThere."""
        return self._asked("POST", path, {"fieldValidation": "Strict"}, body)

    def follow(self, path: str, name: str, until: float = math.inf) -> Iterator[Seen]:
        """The states of one object from now on until a time of the clock, whatever becomes of the connection.

        `path` is that of its collection. A state may come twice, and some are missed while there is no
        connection; the last one never is.
        """
        chosen = {"fieldSelector": f"metadata.name={name}"}
        version, fruitless, before = "", 0, None
        while self.clock.now() < until:
            if not version:
                found = self.get(path, **chosen)
                version = found["metadata"]["resourceVersion"]
                items = found["items"]
                yield Seen(items[0]) if items else Seen(before, before is not None)
                before = items[0] if items else None
            fruitless += 1
            with contextlib.suppress(NoAnswer):
                try:
                    for event in self._events(path, chosen, version, until):
                        fruitless, version = 0, event["object"]["metadata"]["resourceVersion"]
                        if event["type"] != "BOOKMARK":
                            gone = event["type"] == "DELETED"
                            before = None if gone else event["object"]
                            yield Seen(event["object"], gone)
                except Outdated:
                    version = ""
            if fruitless > 1:
                self.clock.sleep(self._pause(fruitless - 2))

    def _events(self, path: str, chosen: Mapping[str, str], version: str, until: float) -> Iterator[Json]:
        """What one connection tells after a version. Raises Outdated; NoAnswer when it is cut."""
        seconds = max(1, math.ceil(min(WATCH_FOR, until - self.clock.now())))
        query = dict(chosen) | {
            "watch": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(seconds),
            "allowWatchBookmarks": "true",
        }
        limit = seconds + WATCH_GRACE
        try:
            connection, answer = self._patiently("GET", path, query, None, limit)
        except Refused as refused:
            if refused.status == 410:
                raise Outdated from refused
            raise
        with contextlib.closing(connection), _network():
            while line := answer.readline(LARGEST_LINE):
                event = json.loads(line)
                if event["type"] == "ERROR":
                    if event["object"].get("code") == 410:
                        raise Outdated
                    raise NoAnswer(_text(event["object"].get("message", "an error without a message")))
                yield event

    def _asked(self, method: str, path: str, query: Mapping[str, str], body: Json | None = None) -> Json:
        def ask() -> Json:
            connection, answer = self._once(method, path, query, body, ANSWER_WITHIN)
            with contextlib.closing(connection), _network():
                found: Json = json.loads(answer.read())
                return found

        return self._tried(ask)

    def _patiently(
        self, method: str, path: str, query: Mapping[str, str], body: Json | None, limit: float
    ) -> tuple[http.client.HTTPSConnection, http.client.HTTPResponse]:
        return self._tried(lambda: self._once(method, path, query, body, limit))

    def _tried(self, ask: Callable[[], Answer]) -> Answer:
        """Ask until there is an answer. Raises ServiceUnavailable when there was none for ten minutes."""
        began, count = self.clock.now(), 0
        while True:
            try:
                found = ask()
            except NoAnswer as error:
                silent = self.clock.now() - began
                if silent >= PATIENCE:
                    where = f"{self.access.host}:{self.access.port}"
                    raise ServiceUnavailable(
                        f"the API server at {where} has not answered for {silent:.0f} s: {error}",
                        hint="run it again when the server is back: what was created stays",
                    ) from error
                self.clock.sleep(max(error.pause, self._pause(count)))
                count += 1
            except Refused as refused:
                lately = self.clock.now() - began < RENEWAL
                if refused.status != 401 or not self._accepted or not lately:
                    raise
                self.clock.sleep(self._pause(count))
                count += 1
            else:
                self._accepted = True
                return found

    def _pause(self, count: int) -> float:
        """Twice as long each time, and different for each who waits (seconds)."""
        pause: float = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(count, 20))
        return pause * (0.5 + self.clock.chance() / 2)

    def _once(
        self, method: str, path: str, query: Mapping[str, str], body: Json | None, limit: float
    ) -> tuple[http.client.HTTPSConnection, http.client.HTTPResponse]:
        """One request, and the answer while it is still to be read. Raises NoAnswer, Refused and its kin."""
        headers = {"Authorization": f"Bearer {self._token()}", "Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        target = f"{path}?{urlencode(query)}" if query else path
        with _network():
            trust = ssl.create_default_context(cafile=str(self.access.ca))
            connection = http.client.HTTPSConnection(
                self.access.host, self.access.port, timeout=min(limit, ANSWER_WITHIN), context=trust
            )
            try:
                connection.connect()
                _kept_alive(connection.sock)
                connection.sock.settimeout(limit)
                connection.request(method, target, None if body is None else json.dumps(body), headers)
                answer = connection.getresponse()
                if answer.status >= 300:
                    raise _refusal(method, path, answer)
            except BaseException:
                connection.close()
                raise
        return connection, answer

    def _token(self) -> str:
        try:
            return self.access.token.read_text().strip()
        except OSError as error:
            raise UsageError(
                f"the account's token {self.access.token} cannot be read: {error.strerror}",
                hint="the pod needs automountServiceAccountToken: true",
            ) from error


@contextlib.contextmanager
def _network() -> Iterator[None]:
    """Whatever the network does is a NoAnswer."""
    try:
        yield
    except (OSError, http.client.HTTPException, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise NoAnswer(f"{type(error).__name__}: {error}") from error


def _kept_alive(sock: socket.socket) -> None:
    """A peer that vanished without a word is missed after a minute."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, seconds in KEEPALIVE.items():
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), seconds)


def _refusal(method: str, path: str, answer: http.client.HTTPResponse) -> Exception:
    """What an answer that is no success means."""
    raw = answer.read(LARGEST_LINE)
    try:
        told = json.loads(raw)
        message, reason = str(told.get("message", "")), str(told.get("reason", ""))
    except (ValueError, AttributeError):
        message, reason = raw.decode(errors="replace"), ""
    status = answer.status
    what = f"HTTP {status} {reason or answer.reason} to {method} {path}: {_text(message)}"
    if status in BUSY:
        after = answer.headers.get("Retry-After", "")
        return NoAnswer(what, min(float(after), LONGEST_PAUSE) if after.isdigit() else 0.0)
    if status == 409:
        if reason == "AlreadyExists":
            return AlreadyThere(what)
        return Interrupted(what, hint="somebody else changes the same object: run it again")
    kind = Missing if status == 404 else Refused
    return kind(status, what, hint=_HINTS.get(status, "the server's message says why"))


def _text(message: str) -> str:
    """A server's message, short and without secrets."""
    flat = " ".join(redact(message).split())
    return flat if len(flat) <= LONGEST_TEXT else f"{flat[:LONGEST_TEXT]}..."
