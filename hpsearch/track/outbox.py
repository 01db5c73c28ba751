"""The outbox: a thread that follows the store and tells MLflow, so that the driver's loop never waits for it.

The store is the truth and keeps every fact; the outbox holds one page of them and an offset. What was told
may be told again without harm (stored timestamps, runs found by tag), so the offset moves after the reply.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from hpsearch import faults
from hpsearch.errors import HpsearchError, ServiceUnavailable
from hpsearch.redaction import redact
from hpsearch.study.trial import Change, Study
from hpsearch.track.delivery import Delivery, Forgotten
from hpsearch.track.ledger import Ledger
from hpsearch.track.patience import Abandoned, Patience
from hpsearch.track.runs import THREAD_NAME, Runs
from hpsearch.track.verdict import first_line

PAGE = 5_000
# How long the end waits for an artifact store that does not answer (seconds).
KEEPING = 5.0
GLANCE = 0.1  # seconds between two looks whether the end became more urgent

_log = logging.getLogger(__name__)


class Outbox:
    """Delivers the committed facts of one study to MLflow, each once in effect.

    `changes(after_lsn, limit)` reads facts in order and is called from the outbox's thread only.
    `interval`: seconds between flushes.
    """

    def __init__(
        self,
        study: Study,
        changes: Callable[[int, int], Sequence[Change]],
        *,
        uri: str,
        artifact_root: Path | None,
        experiment: str,
        offset: int,
        parent_run_id: str | None,
        interval: float = 1.0,
    ) -> None:
        self._study = study
        self._changes = changes
        self._interval = interval
        self._offset = offset
        self._parent_run_id = parent_run_id
        self._patience = Patience(f"MLflow at {redact(uri)}")
        self._runs = Runs(uri, experiment, artifact_root)
        self._delivery = Delivery(study, self._runs, self._patience)
        self._ledger = Ledger(study.spec)
        self._drained = False
        self._told = 0
        self._until = math.inf
        self._stopped: str | None = None
        self._thread = threading.Thread(target=self._work, name=THREAD_NAME, daemon=True)
        self._keeping = self._keeper()

    @property
    def offset(self) -> int:
        """Every fact with an lsn up to this one is in MLflow."""
        return self._offset

    @property
    def told(self) -> int:
        """How many facts it has delivered, those told again included."""
        return self._told

    @property
    def parent_run_id(self) -> str | None:
        """The study's own run, None until known."""
        return self._parent_run_id

    @property
    def problem(self) -> str | None:
        """One line about what keeps it from delivering now, None when all is well."""
        return self._stopped or self._patience.problem

    @property
    def set_aside(self) -> int:
        """How many rows MLflow refused for good."""
        return self._delivery.set_aside

    def start(self) -> None:
        """Start the thread and return at once."""
        self._thread.start()

    def hasten(self, timeout: float) -> None:
        """Let no close() wait longer than so many seconds from now, also one that waits already.

        A signal's handler may call it: it takes no lock.
        """
        self._until = min(self._until, time.monotonic() + timeout)

    def close(self, timeout: float, pulse: Callable[[], None] | None = None) -> bool:
        """Deliver what is committed, then stop; True if everything was delivered in time.

        `pulse` is called many times meanwhile, on this thread.
        """
        now = time.monotonic()
        self._patience.close(max(0.0, min(timeout, self._until - now)))
        self._join(self._thread, now + timeout, pulse)
        self._join(self._keeping, min(now + timeout, time.monotonic() + KEEPING), pulse)
        return self._drained

    def _join(self, thread: threading.Thread, deadline: float, pulse: Callable[[], None] | None) -> None:
        while thread.is_alive() and time.monotonic() < min(deadline, self._until):
            thread.join(GLANCE)
            if pulse:
                pulse()

    def _work(self) -> None:
        try:
            while not self._drained:
                self._deliver()
            self._runs.settle()
        except Abandoned:
            pass
        # The thread's own border: a bug here must neither end the driver nor go unnoticed.
        except Exception as error:
            self._stopped = f"the outbox stopped: {type(error).__name__}: {first_line(error)}"
            _log.exception("the outbox stopped; the facts wait in the store")

    def _deliver(self) -> None:
        """Find what MLflow has and tell it the rest, to the end or until it forgets the study."""
        try:
            self._open()
            self._follow()
        except Forgotten:
            _log.warning("MLflow has forgotten study %r: it is told all of it again", self._study.name)
            self._offset, self._parent_run_id = 0, None

    def _open(self) -> None:
        """Find what MLflow has, and know again what it was told."""
        self._ledger = Ledger(self._study.spec)
        if not self._delivery.open(self._parent_run_id):
            # A tracking server that has never heard of the study is told all of it.
            self._offset = 0
        self._parent_run_id = self._delivery.parent.run_id
        self._keeping = self._keeper()
        self._keeping.start()
        self._learn()

    def _keeper(self) -> threading.Thread:
        """An artifact store out of reach may hold its client for minutes: the metrics do not wait for it."""
        return threading.Thread(target=self._delivery.keep_spec, name=f"{THREAD_NAME}-spec", daemon=True)

    def _learn(self) -> None:
        """Fold the facts that were delivered before, for the best so far and the trials still running."""
        after = 0
        while after < self._offset:
            page = [change for change in self._read(after) if change.lsn <= self._offset]
            if not page:
                return
            self._delivery.mend(self._ledger.fold(page))
            after = page[-1].lsn

    def _follow(self) -> None:
        while True:
            # Looked at before reading: what was committed before close() is in the page.
            closing = self._patience.closing.is_set()
            told = self._step()
            if not told and closing:
                self._drained = True
                return
            self._rest(told)

    def _step(self) -> int:
        """Deliver one page of what was committed; how many facts it held."""
        page = self._read(self._offset)
        if page:
            self._delivery.tell(self._ledger.fold(page))
            with faults.point("outbox.offset") as event:
                event.inside()
                self._offset = page[-1].lsn
            self._told += len(page)
        return len(page)

    def _rest(self, delivered: int) -> None:
        if delivered < PAGE:
            self._patience.closing.wait(self._interval)

    def _read(self, after: int) -> Sequence[Change]:
        return self._patience.insist(lambda: self._page(after))

    def _page(self, after: int) -> Sequence[Change]:
        try:
            with faults.point("outbox.read") as event:
                page = self._changes(after, PAGE)
                event.inside()
                return page
        except HpsearchError:
            raise
        # Whatever the store's driver says: the outbox outlives it.
        except Exception as error:
            raise ServiceUnavailable(f"the study's store cannot be read: {first_line(error)}") from error
