"""What a trial prints: taken from a pipe into a ring of two files, bounded, readable, without secrets."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import select
from collections.abc import Mapping
from pathlib import Path
from threading import Lock, Thread

from hpsearch.redaction import known, redact
from hpsearch.study.beneath import open_to_append, opened, read

LOG, LAST_LINES = "output.log", "last-lines.txt"
LONGEST_LINE = 1 << 20  # bytes; the rest of a line is dropped
AT_ONCE = 1 << 16  # bytes of a read
PIPE = 1 << 20  # bytes that a trial may be ahead of who reads, where the system allows it
LEFT = 1 << 23  # bytes that are taken after a trial's end at most: by then only a daemon writes
LOOK_BACK = 1 << 16  # bytes that are searched for the last lines
KEPT_LINES, KEPT_OF_A_LINE = 50, 1000
LAST_LINE = 300  # characters

COLOURS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_CONTROL_BYTES = bytes({*range(9), 11, 12, *range(14, 32), 127})
# One of these is in whatever `redact` masks by its name. Looking for them is a hundred times as quick.
_SUSPICIOUS = (b"pass", b"token", b"secret", b"credential", b"key", b"://")


def by_rank(name: str, rank: int) -> str:
    """The name of a file of one of a trial's processes; the first one's is the trial's own."""
    return name if rank == 0 else f"{Path(name).stem}.rank-{rank}{Path(name).suffix}"


class Output:
    """Writes to `output.log`; at half of `limit` bytes that becomes `output.log.1`, whose own content goes.

    What another process of a trial than its first prints goes to files of its own: `output.rank-1.log`.

    Nothing here ever raises: what cannot be written counts as `dropped`. Bytes that are no text are escaped,
    colours taken out, secrets of the text and of `environment` masked.
    """

    def __init__(
        self, directory: Path, limit: int, environment: Mapping[str, str] = os.environ, rank: int = 0
    ) -> None:
        self.dropped = 0  # bytes
        self._directory = directory
        self._log = by_rank(LOG, rank)
        self._earlier = f"{self._log}.1"
        self._last_lines = by_rank(LAST_LINES, rank)
        self._half = limit // 2
        self._environment = environment
        self._values = tuple(value.encode() for value in known(environment))
        self._partial = b""
        self._cut = 0  # bytes of the current line beyond its longest
        self._recent = b""
        with opened(directory) as there:
            self._file: int | None = open_to_append(there, self._log)
        self._size = os.fstat(self._file).st_size

    def write(self, data: bytes) -> None:
        """Take what was printed; an unfinished line waits for its end."""
        if self._cut:
            data = self._without_the_rest(data)
        data = self._partial + data
        end = max(data.rfind(b"\n"), data.rfind(b"\r")) + 1
        whole, self._partial = data[:end], data[end:]
        if whole:
            self._keep(self._cleaned(whole))
        if len(self._partial) > LONGEST_LINE:
            self._cut = len(self._partial) - LONGEST_LINE
            self._keep(self._cleaned(self._partial[:LONGEST_LINE]))
            self._partial = b""

    def flush(self) -> None:
        """Write the line that has not ended."""
        if self._partial:
            self._keep(self._cleaned(self._partial))
            self._partial = b""

    def close(self) -> None:
        """Nobody prints any more."""
        self.flush()
        if self._file is not None:
            os.close(self._file)
            self._file = None

    @property
    def last_line(self) -> str:
        """The last line that says something: mostly what a trial died of."""
        lines = _last(self._recent, whole=len(self._recent) < LOOK_BACK)
        printable = ("".join(c if c.isprintable() else " " for c in line).strip() for line in reversed(lines))
        return next(filter(None, printable), "")[:LAST_LINE]

    def keep_last_lines(self) -> None:
        """Leave the last lines in a file of their own, which no later attempt adds to."""
        self.flush()
        text = b""
        for name in (self._earlier, self._log):
            with contextlib.suppress(OSError):
                text += read(self._directory, name)[-LOOK_BACK:]
        lines = _last(text[-LOOK_BACK:], whole=len(text) <= LOOK_BACK)[-KEPT_LINES:]
        kept = "".join(f"{line[:KEPT_OF_A_LINE]}\n" for line in lines)
        with contextlib.suppress(OSError), opened(self._directory) as there:
            descriptor = open_to_append(there, self._last_lines)
            with os.fdopen(descriptor, "wb") as file:
                file.truncate(0)
                file.write(kept.encode())

    def _without_the_rest(self, data: bytes) -> bytes:
        end = data.find(b"\n")
        self._cut += len(data) if end < 0 else end
        if end < 0:
            return b""
        self.dropped += self._cut
        self._keep(f" [hpsearch: {self._cut} bytes of this line were dropped]".encode())
        self._cut = 0
        return data[end:]

    def _cleaned(self, data: bytes) -> bytes:
        plain = data.isascii() and len(data.translate(None, _CONTROL_BYTES)) == len(data)
        lower = data.lower()
        secret = any(w in lower for w in _SUSPICIOUS) or any(v in data for v in self._values)
        if plain and not secret:
            return data
        text = data.decode(errors="backslashreplace")
        text = _CONTROLS.sub(lambda found: f"\\x{ord(found[0]):02x}", COLOURS.sub("", text))
        return (redact(text, self._environment) if secret else text).encode()

    def _keep(self, data: bytes) -> None:
        self._recent = (self._recent + data)[-LOOK_BACK:]
        if self._size >= self._half:
            self._turn()
        try:
            if self._file is None:
                raise OSError
            self._size += os.write(self._file, data)
        except OSError:  # a full disk costs the output, not the trial
            self.dropped += len(data)

    def _turn(self) -> None:
        """Begin a new file; the one before stays, the one before that goes."""
        try:
            with opened(self._directory) as there:
                with contextlib.suppress(FileNotFoundError):
                    self.dropped += os.stat(self._earlier, dir_fd=there, follow_symlinks=False).st_size
                os.replace(self._log, self._earlier, src_dir_fd=there, dst_dir_fd=there)
                fresh = open_to_append(there, self._log)
        except OSError:  # the directory is gone, or full of what we may not touch
            if self._file is not None:
                os.close(self._file)
                self._file = None
            return
        if self._file is not None:
            os.close(self._file)
        self._file, self._size = fresh, 0
        if self.dropped:
            self._keep(f"[hpsearch: {self.dropped} bytes of what was printed were dropped]\n".encode())


class Pump:
    """Takes what comes from a pipe into an Output, in a thread of its own or when `drain` is called."""

    def __init__(self, reader: int, output: Output) -> None:
        self.output = output
        self.descriptor = reader
        self._lock = Lock()
        self._thread: Thread | None = None
        self._ended = False
        self._stop = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        os.set_blocking(reader, False)
        with contextlib.suppress(OSError):
            fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, PIPE)

    def start(self) -> None:
        """Go on by itself from now on."""
        self._thread = Thread(target=self._run, name="output", daemon=True)
        self._thread.start()

    def drain(self, most: int = LEFT) -> bool:
        """Take what is there now, at most so many bytes; True when nobody can print any more, once."""
        with self._lock, contextlib.suppress(BlockingIOError):
            while most > 0 and not self._ended:
                data = os.read(self.descriptor, AT_ONCE)
                self.output.write(data)
                most -= len(data)
                if not data:
                    self._ended = True
                    return True
        return False

    def settle(self) -> None:
        """Take what is there, also a line that has not ended."""
        self.drain()
        with self._lock:
            self.output.flush()

    def close(self) -> None:
        """The trial is gone: take what it left."""
        os.eventfd_write(self._stop, 1)
        if self._thread is not None:
            self._thread.join()
        self.drain()
        self.output.close()
        os.close(self._stop)

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self.descriptor, select.POLLIN)
        poll.register(self._stop, select.POLLIN)
        while not self._ended:
            if any(descriptor == self._stop for descriptor, _ in poll.poll()):
                return
            self.drain(AT_ONCE)


def _last(data: bytes, *, whole: bool) -> list[str]:
    """The lines at the end of a text; the first may be the end of one, unless this is the whole text."""
    lines = COLOURS.sub("", data.decode(errors="replace")).splitlines()
    return lines if whole else lines[1:]
