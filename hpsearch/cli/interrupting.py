"""How a command that only waits is interrupted: at once, wherever its main thread is."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from hpsearch.errors import Interrupted
from hpsearch.run.signals import heard_signals


class Stop:
    """Hears signals, and takes the main thread out of whatever it waits for, once, while that is wanted.

    `then` says what becomes of the work, `hint` how it is gone on with.
    """

    def __init__(self, then: str, hint: str) -> None:
        self._then, self._hint = then, hint
        self._armed = False
        self._reason = ""

    def __call__(self, reason: str) -> None:
        self._reason = reason
        if self._armed:
            self._armed = False
            raise Interrupted(f"{reason}; {self._then}", hint=self._hint)

    @contextlib.contextmanager
    def armed(self) -> Iterator[None]:
        """Within it a signal is raised as Interrupted; one that came before, at once."""
        self._armed = True
        if self._reason:
            self(self._reason)
        try:
            yield
        finally:
            self._armed = False


@contextlib.contextmanager
def interruptible(then: str) -> Iterator[None]:
    """Within it a signal is raised as Interrupted, whose message says what becomes `then` of the work."""
    stop = Stop(then, "the same command waits for it again")
    with heard_signals(stop), stop.armed():
        yield
