"""Requests to a service that may be away: asked again with growing pauses until a deadline, said once."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from hpsearch.errors import HpsearchError, ServiceUnavailable
from hpsearch.track.verdict import Unauthorised

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 30.0
CLOSING_PAUSE = 0.5
# A service that is away when the study ends is asked so often more: the facts wait in the store anyway.
CLOSING_TRIES = 4
# An answer that takes longer than this is trouble to be told, even while it may still come.
SLOW = 15.0

Answer = TypeVar("Answer")
_log = logging.getLogger(__name__)


class Abandoned(Exception):
    """The time given to close() is over."""


class Patience:
    """Asks one service, one request at a time, from one thread; times are seconds."""

    def __init__(self, service: str) -> None:
        self._problem: str | None = None
        # What was warned of since the service last answered, and since when a request has been under way.
        self._warned: set[type[HpsearchError]] = set()
        self._asking: float | None = None
        self.closing = threading.Event()
        self._service = service
        self._deadline = 0.0
        # Its own generator: the global one belongs to whoever seeded it.
        self._random = random.Random()

    @property
    def problem(self) -> str | None:
        """One line about what is wrong now, None when all is well."""
        since = self._asking
        waited = time.monotonic() - since if since is not None else 0.0
        if waited > SLOW:
            return f"{self._service}: no answer for {waited:.0f} s"
        return self._problem

    def close(self, timeout: float) -> None:
        """End all waiting within a time."""
        self._deadline = time.monotonic() + timeout
        self.closing.set()

    def ask(self, request: Callable[[], Answer]) -> Answer:
        """The answer, however long it takes; raises what is no outage, and Abandoned when time is over."""
        return self._ask(request, ServiceUnavailable)

    def insist(self, request: Callable[[], Answer]) -> Answer:
        """The answer to a request without which nothing goes on: a refusal too is waited out."""
        return self._ask(request, HpsearchError)

    def _ask(self, request: Callable[[], Answer], trouble: type[HpsearchError]) -> Answer:
        pause = FIRST_PAUSE
        tries = 0
        while True:
            tries += self.closing.is_set()
            if self.closing.is_set() and (tries > CLOSING_TRIES or time.monotonic() >= self._deadline):
                raise Abandoned
            try:
                self._asking = time.monotonic()
                answer = request()
            except trouble as error:
                self._note(error)
                self._wait(pause * self._random.uniform(0.5, 1.0))
                pause = min(2 * pause, LONGEST_PAUSE)
            else:
                self._relax()
                return answer
            finally:
                self._asking = None

    def _wait(self, pause: float) -> None:
        if not self.closing.is_set():
            self.closing.wait(pause)
            return
        time.sleep(max(0.0, min(pause, CLOSING_PAUSE, self._deadline - time.monotonic())))

    def _note(self, error: HpsearchError) -> None:
        if type(error) not in self._warned and (self._problem is None or isinstance(error, Unauthorised)):
            hint = f"; {error.hint}" if error.hint else ""
            _log.warning("%s: %s; the facts wait in the store%s", self._service, error.message, hint)
        self._warned.add(type(error))
        self._problem = f"{self._service}: {error.message}"

    def _relax(self) -> None:
        if self._problem is not None:
            _log.info("%s is back", self._service)
        self._problem = None
        self._warned.clear()
