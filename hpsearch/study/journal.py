"""The store, with others looking on: facts are shown when they are durable, and old checkpoints go then."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from hpsearch import faults
from hpsearch.errors import StoreFull
from hpsearch.study.retention import Retention
from hpsearch.study.trial import Attempt, Checkpoint, Entry

# How long a study waits for room in its store (seconds), and how often it looks.
PATIENCE, LOOK = 300.0, 1.0
GLANCE = 0.1  # seconds between two looks whether somebody wants it to stop

log = logging.getLogger(__name__)


class Facts(Protocol):
    """Where facts become durable: the store."""

    directory: Path

    def commit(self, entries: Sequence[Entry]) -> None: ...


@dataclass(slots=True)
class Waiting:
    """How a study waits for room on a full disk; `unwanted` says that somebody wants it to end."""

    patience: float = PATIENCE
    look: float = LOOK
    unwanted: Callable[[], object] = bool
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep

    def another_look(self, until: float) -> bool:
        """Wait until the next look; False if nobody waits any longer."""
        then = min(self.clock() + self.look, until)
        while (left := then - self.clock()) > 0:
            if self.unwanted():
                return False
            self.sleep(min(GLANCE, left))
        return self.clock() < until


class Journal:
    """Makes facts durable, shows them to an onlooker, then deletes the files that they supersede.

    Where the disk is full nothing new starts and running trials go on, until there is room again or the
    patience is over; then StoreFull is raised, and a later commit does not wait once more. `retention` comes
    later, because it looks at the trials of a search that needs the journal first.
    """

    def __init__(
        self,
        store: Facts,
        committed: Callable[[Sequence[Entry]], object],
        before_attempts: Callable[[], Sequence[Entry]] = tuple,
        waiting: Waiting | None = None,
    ) -> None:
        self._store = store
        self._committed = committed
        self.retention: Retention | None = None
        self._before_attempts = before_attempts
        self._waiting = waiting or Waiting()

    def commit(self, entries: Sequence[Entry]) -> None:
        """Make facts durable, then show them; with an attempt goes what must be known of it before."""
        if any(isinstance(entry.fact, Attempt) for entry in entries):
            entries = [*self._before_attempts(), *entries]
        if any(isinstance(entry.fact, Checkpoint) for entry in entries):
            with faults.point("ckpt.row"):
                self._write(entries)
        else:
            self._write(entries)
        self._committed(entries)
        if self.retention:
            self.retention.take(entries)

    def _write(self, entries: Sequence[Entry]) -> None:
        try:
            return self._store.commit(entries)
        except StoreFull as error:
            full = error
        began = self._waiting.clock()
        until = began + self._waiting.patience
        if self._waiting.patience:
            log.warning(
                "%s; nothing new starts, running trials go on, for %g s at most; %s",
                *(full.message, self._waiting.patience, full.hint),
            )
        while self._waiting.another_look(until):
            try:
                self._store.commit(entries)
            except StoreFull:
                continue
            log.warning("the store takes writes again, after %.0f s", self._waiting.clock() - began)
            return None
        self._waiting.patience = 0.0
        raise full
