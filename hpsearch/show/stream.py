"""A text stream to print on that outlives its reader, and that need not wait for one."""

from __future__ import annotations

import contextlib
import math
import os
import select
import threading
import time
from collections.abc import Iterator
from typing import Any, TextIO

# What waits for a slow reader (bytes); more is dropped and counted.
CAPACITY = 1 << 20
# What a pipe takes at once, so that each piece that is taken shows that the reader lives (bytes).
PIECE = 4096
# A reader that took nothing for so long is not waited for at the end (seconds).
STALLED = 1.0


class Stream:
    """A text stream whose reader may go away or stop, and which can write any text; `lost` says why it ended.

    It waits for its reader as all programs do, until `hurry`: from then on a thread writes, `write` never
    waits, and lines that the reader is too slow for are dropped and counted.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.lost: OSError | None = None
        self.dropped = 0  # lines
        self.encoding = getattr(stream, "encoding", None) or "utf-8"
        self._changed = threading.Condition()
        self._waiting = bytearray()
        self._descriptor: int | None = None  # of a stream that nobody waits for
        self._moved = 0.0
        self._untold = 0
        self._given_up = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def hurry(self) -> None:
        """Write by a thread from now on; streams without a descriptor, in memory, keep nobody waiting."""
        with contextlib.suppress(OSError, ValueError):
            descriptor = self._stream.fileno()
            self._stream.flush()
            self._descriptor = descriptor
            threading.Thread(target=self._work, args=(descriptor,), name="output", daemon=True).start()

    def write(self, text: str) -> int:
        """Write text; what the encoding cannot say becomes an escape."""
        data = text.encode(self.encoding, "backslashreplace")
        if self._descriptor is not None:
            self._put(data)
            return len(text)
        with self._lasting():
            self._stream.write(data.decode(self.encoding))
        return len(text)

    def flush(self) -> None:
        """Hand on what was written."""
        if self._descriptor is None:
            with self._lasting():
                self._stream.flush()

    def drain(self, stalled: float = STALLED) -> None:
        """Wait until all is taken, or nothing was for so many seconds: then the stream is given up."""
        with self._changed:
            self._moved = time.monotonic()
            while self._waiting:
                left = self._moved + stalled - time.monotonic()
                if left <= 0:
                    self._give_up()
                else:
                    self._changed.wait(None if left == math.inf else left)

    def isatty(self) -> bool:
        """True for a terminal."""
        return self._stream.isatty()

    def fileno(self) -> int:
        """The descriptor beneath; OSError where there is none."""
        return self._stream.fileno()

    def _put(self, data: bytes) -> None:
        with self._changed:
            lines = data.count(b"\n")
            if self._given_up or len(self._waiting) + len(data) > CAPACITY:
                self.dropped += lines
                self._untold += lines
                return
            if self._untold:
                self._waiting += f"... {self._untold} lines that nobody read were dropped ...\n".encode()
                self._untold = 0
            self._waiting += data
            self._changed.notify_all()

    def _give_up(self) -> None:
        self._given_up = True
        self.dropped += self._waiting.count(b"\n")
        self._waiting.clear()
        self._changed.notify_all()

    def _work(self, descriptor: int) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting)
                piece = bytes(self._waiting[:PIECE])
            written = 0
            with self._lasting():
                try:
                    written = os.write(descriptor, piece)
                except BlockingIOError:  # whoever shares the descriptor made it so
                    select.select([], [descriptor], [])
            with self._changed:
                if self.lost and not self._given_up:
                    self._give_up()
                if self._given_up:
                    return
                del self._waiting[:written]
                self._moved = time.monotonic()
                self._changed.notify_all()

    @contextlib.contextmanager
    def _lasting(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.lost = self.lost or error
            # Also what the interpreter flushes at its exit must find somebody who takes it.
            with contextlib.suppress(OSError, ValueError):
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, self._stream.fileno())
                os.close(null)
