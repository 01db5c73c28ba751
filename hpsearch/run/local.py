"""A runner in this process, one trial after another: for debuggers and for tests."""

from __future__ import annotations

import pkgutil
import queue
import threading
import time
from collections.abc import Callable

from hpsearch.run.process import EXECUTE
from hpsearch.study.search import Search
from hpsearch.study.trial import Launch, Outcome, Report


def run(search: Search, *, execute: str = EXECUTE) -> None:
    """Run the study to its end, or until Ctrl-C; trials share this process and print to its terminal."""
    trial: Callable[[Launch, Callable[[Report], bool]], None] = pkgutil.resolve_name(execute)
    while not search.over:
        launch = search.suggest(now())
        if launch is None:
            break
        launch.context.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        listener = _Listener(search, launch)
        try:
            trial(launch, listener.report)
            listener.drain()
        except KeyboardInterrupt:
            search.stop(Outcome.INTERRUPTED, "interrupted by SIGINT", now())
        search.released(launch.context.number)


class _Listener:
    """Passes one attempt's reports to the search, from the main thread only: the store has one writer."""

    def __init__(self, search: Search, launch: Launch) -> None:
        self._search = search
        self._number, self._attempt = launch.context.number, launch.context.attempt
        self._queue: queue.SimpleQueue[Report] = queue.SimpleQueue()
        self._owner = threading.get_ident()

    def report(self, report: Report) -> bool:
        """Take a report from any thread; False once the trial must stop."""
        self._queue.put(report)
        return self.drain() if threading.get_ident() == self._owner else True

    def drain(self) -> bool:
        """Hand over what waits."""
        waiting = [self._queue.get() for _ in range(self._queue.qsize())]
        return self._search.measure(self._number, self._attempt, waiting, now())


def now() -> int:
    """Milliseconds since the epoch, for stamping facts only: no decision is taken by this clock."""
    return time.time_ns() // 1_000_000
