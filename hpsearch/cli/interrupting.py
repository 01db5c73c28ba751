"""How a command that only waits is interrupted: at once, wherever its main thread is."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from hpsearch.errors import Interrupted
from hpsearch.run.signals import heard_signals


class _Stop:
    """Raises Interrupted in the main thread, once."""

    def __init__(self, then: str) -> None:
        self._then = then
        self._raised = False

    def __call__(self, reason: str) -> None:
        if not self._raised:
            self._raised = True
            raise Interrupted(f"{reason}; {self._then}", hint="the same command waits for it again")


@contextlib.contextmanager
def interruptible(then: str) -> Iterator[None]:
    """Within it a signal is raised as Interrupted, whose message says what becomes `then` of the work."""
    with heard_signals(_Stop(then)):
        yield
