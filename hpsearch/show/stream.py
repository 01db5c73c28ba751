"""A text stream to print on that outlives its reader."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import TextIO


class Stream:
    """A text stream whose reader may go away, and which can write any text; `lost` says why it ended."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.lost: OSError | None = None
        self.encoding = getattr(stream, "encoding", None) or "utf-8"

    def write(self, text: str) -> int:
        """Write text; what the encoding cannot say becomes an escape."""
        with self._lasting():
            self._stream.write(text.encode(self.encoding, "backslashreplace").decode(self.encoding))
        return len(text)

    def flush(self) -> None:
        """Hand on what was written."""
        with self._lasting():
            self._stream.flush()

    def isatty(self) -> bool:
        """True for a terminal."""
        return self._stream.isatty()

    def fileno(self) -> int:
        """The descriptor beneath; OSError where there is none."""
        return self._stream.fileno()

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
