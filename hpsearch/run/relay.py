"""Calls that a library makes on a thread of its own are carried out on the main one, which never waits in it.

The Search and its store belong to the main thread. While Ray's loop runs beside it, the main thread hears
signals at once, keeps an eye on the clock and on Ray, and can leave a loop that will not end.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

TICK = 0.25  # seconds between two looks around
T = TypeVar("T")


class _Call:
    """A call that waits for the main thread, and its answer."""

    __slots__ = ("answer", "call", "done")

    def __init__(self, call: Callable[[], Any], otherwise: Any) -> None:
        self.call = call
        self.answer = otherwise
        self.done = threading.Event()

    def make(self) -> None:
        try:
            self.answer = self.call()
        finally:
            self.done.set()


class Relay:
    """Hands calls from the thread that runs a piece of work to the one that serves it."""

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._serves = False
        self._ended = False
        self._error: BaseException | None = None
        self._worker: threading.Thread | None = None

    def ask(self, call: Callable[[], T], otherwise: T) -> T:
        """The answer to a call, made by the serving thread; `otherwise` when that has left."""
        if threading.current_thread() is not self._worker:
            return call()
        with self._lock:
            if not self._serves:
                return otherwise
            pending = _Call(call, otherwise)
            self._calls.put(pending)
        pending.done.wait()
        answer: T = pending.answer
        return answer

    def serve(self, work: Callable[[], None], look: Callable[[], bool]) -> bool:
        """Run `work` beside this thread and make its calls here; True when it has ended.

        `look` is called every `TICK` seconds: when it answers False or raises, the work is left behind, and
        its calls are answered without being made. Raises what the work raised.
        """
        self._serves = True
        self._worker = threading.Thread(target=self._work, args=(work,), name="work", daemon=True)
        self._worker.start()
        due = time.monotonic() + TICK
        try:
            while not self._ended:
                with contextlib.suppress(queue.Empty):
                    if pending := self._calls.get(timeout=TICK):
                        pending.make()
                if time.monotonic() >= due:
                    due = time.monotonic() + TICK
                    if not look():
                        return False
        finally:
            self._close()
        self._worker.join()
        if self._error:
            raise self._error
        return True

    def _work(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            self._error = error
        finally:
            self._ended = True
            self._calls.put(None)

    def _close(self) -> None:
        with self._lock:
            self._serves = False
        with contextlib.suppress(queue.Empty):
            while True:
                if pending := self._calls.get_nowait():
                    pending.done.set()
