"""The store, with others looking on: facts are shown when they are durable, and old checkpoints go then."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from hpsearch import faults
from hpsearch.study.launching import KNOWN, trial_directory
from hpsearch.study.trial import Attempt, Checkpoint, Entry, Trial


class Facts(Protocol):
    """Where facts become durable: the store."""

    directory: Path

    def commit(self, entries: Sequence[Entry]) -> None: ...


class Journal:
    """Makes facts durable, shows them to an onlooker, then deletes the files that they supersede."""

    def __init__(
        self,
        store: Facts,
        committed: Callable[[Sequence[Entry]], object],
        trials: Sequence[Trial],
        before_attempts: Callable[[], Sequence[Entry]] = tuple,
    ) -> None:
        self._before_attempts = before_attempts
        self._store = store
        self._committed = committed
        self._known = {trial.number: list(trial.checkpoints) for trial in trials}

    def commit(self, entries: Sequence[Entry]) -> None:
        """Make facts durable, then show them; with an attempt goes what must be known of it before."""
        if any(isinstance(entry.fact, Attempt) for entry in entries):
            entries = [*self._before_attempts(), *entries]
        if any(isinstance(entry.fact, Checkpoint) for entry in entries):
            with faults.point("ckpt.row"):
                self._store.commit(entries)
        else:
            self._store.commit(entries)
        self._committed(entries)
        for entry in entries:
            if isinstance(entry.fact, Checkpoint) and entry.trial is not None:
                self._retire(entry.trial, entry.fact)

    def _retire(self, number: int, newest: Checkpoint) -> None:
        """Delete the files that a durable row supersedes, all but the newest ones that a launch is told."""
        known = self._known.setdefault(number, [])
        known.append(newest)
        while len(known) > KNOWN:
            # A file too many harms nobody, so a directory that refuses is no reason to fail.
            with suppress(OSError):
                (trial_directory(self._store.directory, number) / known.pop(0).name).unlink()
