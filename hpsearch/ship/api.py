"""Kubernetes' API with the standard library: what to ask again, what to give up, how to follow an object.

It hides the network: what was never answered, 429 and 5xx are asked again, with growing pauses, until the
server has not answered for ten minutes. What the server refuses is an error at once. How requests get there
is a Road: a pod's own account (`access.py`), or the user's kubectl (`kubectl.py`).
"""

from __future__ import annotations

import contextlib
import http.client
import json
import math
import random
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar
from urllib.parse import urlencode

from hpsearch.errors import HpsearchError, Interrupted, ServiceUnavailable, UsageError
from hpsearch.redaction import redact

Json = dict[str, Any]
Answer = TypeVar("Answer")
# All in seconds. How long a server may be silent before a launcher gives up, and the pauses until then.
PATIENCE = 600.0
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
ANSWER_WITHIN = 30.0
# A watch ends by itself after so long; a connection that died unseen is missed soon after.
WATCH_FOR, WATCH_GRACE = 240, 30.0
# So many watches without a word, and the object is looked at itself.
FRUITLESS = 5
# A token that was good before may have run out while this node slept; the kubelet renews it within a minute.
RENEWAL = 120.0
LONGEST_TEXT = 500  # characters of a server's message
BUSY = (429, 500, 502, 503, 504)
# How a 403 of the quota's begins after its object's name: it frees itself, rights do not.
_OVER_QUOTA = "exceeded quota: "
_NEVER_FITS = re.compile(r"used: [^=]+=0(,[^=]+=0)*, limited: ")
_HINTS = {
    400: "the object does not fit this cluster's KubeRay, which must be 1.7 or newer",
    401: "the token is not accepted: does the account still exist, are you logged in?",
    403: "bind the role hpsearch-launch to the pod's service account (k8s/base), or ask for the right",
    404: "is the name right, and the namespace, and is KubeRay 1.7 or newer installed?",
    422: "the object does not fit this cluster's KubeRay, which must be 1.7 or newer",
}


class Refused(UsageError):
    """The server has understood and will not: bad object, no permission, no such kind."""

    def __init__(self, status: int, message: str, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status = status


class OverQuota(Refused):
    """The namespace's quota is used up: others must end first."""


class Missing(Refused):
    """There is no such object, or no such kind of object."""


class Gone(UsageError):
    """What a user has named is not there, or not any more."""


class AlreadyThere(HpsearchError):
    """An object of that name exists; nothing was changed."""


class Outdated(Exception):
    """The server does not remember so far back: list again."""


class NoAnswer(Exception):
    """The server did not answer this time, or was too busy; `pause` is how long it asks to wait (seconds)."""

    def __init__(self, why: str, pause: float = 0.0) -> None:
        super().__init__(why)
        self.pause = pause


class Reply(Protocol):
    """An answer while it is still to be read; reading raises OSError, HTTPException or NoAnswer."""

    status: int
    reason: str
    retry_after: str

    def read(self) -> bytes:
        """All of it."""

    def readline(self) -> bytes:
        """The next line; nothing at the end."""

    def close(self) -> None:
        """Be done with it, and with its connection."""


class Road(Protocol):
    """How requests get to one API server as one account."""

    @property
    def namespace(self) -> str:
        """The one that is meant where none is named."""

    @property
    def place(self) -> str:
        """Where the server is, for people."""

    def ask(self, method: str, target: str, body: bytes | None, limit: float) -> Reply:
        """One request; no part of the answer may take longer than the limit (seconds)."""


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
    """Talks to one API server; after `patience` seconds without an answer it gives up."""

    def __init__(self, road: Road, clock: Time | None = None, patience: float = PATIENCE) -> None:
        self.road = road
        self.clock = clock or Time()
        self._patience = patience
        self._accepted = False

    def get(self, path: str, **query: str) -> Json:
        """One object or list. Raises Missing."""
        return self._asked("GET", path, query)

    def create(self, path: str, body: Json) -> Json:
        """Make an object, every field of which the server must know. Raises AlreadyThere."""
        return self._asked("POST", path, {"fieldValidation": "Strict"}, body)

    def delete(self, path: str) -> Json:
        """Delete an object, and what it owns; it may take a while to go. Raises Missing."""
        return self._asked("DELETE", path, {"propagationPolicy": "Background"})

    def lines(self, path: str, **query: str) -> Iterator[bytes]:
        """The lines of a text, as they come. Raises NoAnswer when it is cut, Refused and its kin."""
        reply = self._tried(lambda: self._once("GET", path, query, None, WATCH_FOR))
        with contextlib.closing(reply), _network():
            while line := reply.readline():
                yield line

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
            if fruitless >= FRUITLESS:
                version = ""  # whatever is wrong with watches here, lists are told the truth

    def _events(self, path: str, chosen: Mapping[str, str], version: str, until: float) -> Iterator[Json]:
        """What one connection tells after a version. Raises Outdated; NoAnswer when it is cut."""
        seconds = max(1, math.ceil(min(WATCH_FOR, until - self.clock.now())))
        query = dict(chosen) | {
            "watch": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(seconds),
            "allowWatchBookmarks": "true",
        }
        try:
            reply = self._tried(lambda: self._once("GET", path, query, None, seconds + WATCH_GRACE))
        except Refused as refused:
            if refused.status == 410:
                raise Outdated from refused
            raise
        with contextlib.closing(reply), _network():
            while line := reply.readline():
                event = json.loads(line)
                if event["type"] == "ERROR":
                    if event["object"].get("code") == 410:
                        raise Outdated
                    raise NoAnswer(_text(event["object"].get("message", "an error without a message")))
                yield event

    def _asked(self, method: str, path: str, query: Mapping[str, str], body: Json | None = None) -> Json:
        def ask() -> Json:
            reply = self._once(method, path, query, body, ANSWER_WITHIN)
            with contextlib.closing(reply), _network():
                found: Json = json.loads(reply.read())
                return found

        return self._tried(ask)

    def _tried(self, ask: Callable[[], Answer]) -> Answer:
        """Ask until there is an answer. Raises ServiceUnavailable when there was none for ten minutes."""
        began, count = self.clock.now(), 0
        while True:
            try:
                found = ask()
            except NoAnswer as error:
                silent = self.clock.now() - began
                if silent >= self._patience:
                    raise ServiceUnavailable(
                        f"the API server at {self.road.place} has not answered for {silent:.0f} s: {error}",
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
    ) -> Reply:
        """One request, and its answer if that is a success. Raises NoAnswer, Refused and its kin."""
        target = f"{path}?{urlencode(query)}" if query else path
        with _network():
            reply = self.road.ask(method, target, None if body is None else json.dumps(body).encode(), limit)
            if reply.status < 300:
                return reply
            with contextlib.closing(reply):
                raw = reply.read()
        raise refusal(f"{method} {path}", reply, raw)


@contextlib.contextmanager
def _network() -> Iterator[None]:
    """Whatever the network does is a NoAnswer."""
    try:
        yield
    except (OSError, http.client.HTTPException, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise NoAnswer(f"{type(error).__name__}: {error}") from error


def refusal(request: str, reply: Reply, raw: bytes) -> Exception:
    """What an answer that is no success means."""
    try:
        told = json.loads(raw)
        message, reason = str(told.get("message", "")), str(told.get("reason", ""))
    except (ValueError, AttributeError):
        message, reason = raw.decode(errors="replace"), ""
    status = reply.status
    what = f"HTTP {status} {reason or reply.reason} to {request}: {_text(message)}"
    if status in BUSY:
        after = reply.retry_after
        return NoAnswer(what, min(float(after), LONGEST_PAUSE) if after.isdigit() else 0.0)
    if status == 409:
        # Two creations at once that count against one quota: nothing of that name need be there.
        if request.startswith("POST ") and reason == "Conflict":
            return NoAnswer(what)
        if request.startswith("POST "):
            return AlreadyThere(what)
        return Interrupted(what, hint="somebody else changes the same object: run it again")
    if status == 403 and _OVER_QUOTA in message and not _NEVER_FITS.search(message):
        return OverQuota(status, what, hint="raise the quota, or end what uses it: kubectl describe quota")
    kind = Missing if status == 404 else Refused
    return kind(status, what, hint=_HINTS.get(status, "the server's message says why"))


def _text(message: str) -> str:
    """A server's message, short and without secrets."""
    flat = " ".join(redact(message).split())
    return flat if len(flat) <= LONGEST_TEXT else f"{flat[:LONGEST_TEXT]}..."
