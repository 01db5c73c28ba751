"""TensorBoard's event files, read live: the door to tensorboard, whose protocol buffers it hides.

The records are split here, because the package's own loader checks every byte of them in Python: at 8 MB a
second, a program that logs images would be waited for.
"""

from __future__ import annotations

import os
import re
import socket
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpsearch.run.metric_file import Point

# A directory that holds more entries is searched no further; that of a trial has a few.
MOST_ENTRIES = 10_000
AT_ONCE = 1 << 22  # bytes of a file between two looks at everything else
LONGEST_RECORD = 1 << 30  # bytes; a header that says more is damaged
# events.out.tfevents.<seconds>.<host>.<process>.<count>, and what a writer was told to add.
WRITER = re.compile(r"tfevents\.\d+\.(.+)\.(\d+)\.\d+(?:\D.*)?$")
TRAINING = frozenset({"train", "training"})
NOT_INSTALLED = "tensorboard is not installed (pip install 'hpsearch[tensorboard]')"


class EventFiles:
    """The scalars of the event files that appear below some directories.

    All files of `own` directories are the program's; of those in `shared` only the files whose names bear
    this machine and the number of one of its processes, as TensorBoard's writers name them. `more` says that
    a file has more to read right now, `unread` why there was one that nobody could read.
    """

    def __init__(self, own: Sequence[Path], shared: Path, note: Callable[[str, str], None]) -> None:
        self.more = False
        self.unread = ""
        self._own = own
        self._shared = shared
        self._note = note
        self._files: dict[Path, _EventFile | None] = dict.fromkeys(self._found())  # None: not to be read
        self._owners: dict[str, Path] = {}

    def take(self, processes: Callable[[], set[int]]) -> list[Point]:
        """The scalars that are new, in the order of their steps and times."""
        for path in self._found():
            if path not in self._files:
                self._files[path] = self._opened(path) if self._is_own(path, processes) else None
        files = [file for file in self._files.values() if file]
        points = [
            Point(self._name(tag, file.path), value, step, int(time * 1000))
            for file in files
            for tag, value, step, time in file.scalars()
        ]
        self.more = any(file.more for file in files)
        return sorted(points, key=lambda point: (point.step, point.time))

    def _found(self) -> list[Path]:
        """The event files in all directories, in the order of their names."""
        found: set[Path] = set()
        for top in [*self._own, self._shared]:
            seen = 0
            for directory, _, names in os.walk(top):
                found.update(Path(directory, name) for name in names if "tfevents" in name)
                seen += len(names) + 1
                if seen > MOST_ENTRIES:
                    self._note(
                        "event files", f"only {MOST_ENTRIES} entries of {top} were searched for events"
                    )
                    break
        return sorted(found)

    def _is_own(self, path: Path, processes: Callable[[], set[int]]) -> bool:
        if any(path.is_relative_to(top) for top in self._own):
            return True
        writer = WRITER.search(path.name)
        # Other machines may share the directory, and numbers of processes are unique on one only.
        return writer is not None and writer[1] == socket.gethostname() and int(writer[2]) in processes()

    def _opened(self, path: Path) -> _EventFile | None:
        try:
            path.open("rb").close()
            return _EventFile(path, _decoder())
        except ImportError:
            reason = NOT_INSTALLED
        except OSError as error:
            reason = str(error)
        self.unread = f"{path} was not read: {reason}"
        self._note("event files", self.unread)
        return None

    def _name(self, tag: str, path: Path) -> str:
        """A tag as it is, or with its directory where that is for training or another has the tag already."""
        directory = path.parent
        names = [f"{directory.name}/{tag}", f"{directory}/{tag}"]
        if directory.name not in TRAINING:
            names.insert(0, tag)
        return next(name for name in names if self._owners.setdefault(name, directory) == directory)


@dataclass(slots=True)
class _EventFile:
    """A file that a writer still appends to, read up to `place`; `more` if the last look left some."""

    path: Path
    decode: Callable[[bytes], Any]
    place: int = 0
    more: bool = False

    def scalars(self) -> Iterator[tuple[str, float, int, float]]:
        """(tag, value, step, seconds since the epoch) of each new one."""
        for record in self._records():
            event = self.decode(record)
            for value in event.summary.value if event else ():
                if (number := _scalar(value)) is not None:
                    yield value.tag, number, event.step, event.wall_time

    def _records(self) -> Iterator[bytes]:
        """Whole records: length, its checksum (12 bytes), content, its checksum (4 bytes)."""
        self.more = False
        end = self.place + AT_ONCE
        with suppress(OSError), self.path.open("rb") as stream:
            stream.seek(self.place)
            while head := stream.read(12):
                length = struct.unpack("<Q4x", head)[0] if len(head) == 12 else LONGEST_RECORD
                record = stream.read(length + 4) if length < LONGEST_RECORD else b""
                if len(record) < length + 4:  # the rest is still to be written
                    return
                self.place = stream.tell()
                yield record[:-4]
                if self.place > end:
                    self.more = True
                    return


def _decoder() -> Callable[[bytes], Any]:
    """What makes an event of a record, None of a damaged one; ImportError without tensorboard."""
    from google.protobuf.message import DecodeError
    from tensorboard.compat.proto import event_pb2

    def decode(record: bytes) -> Any:
        try:
            return event_pb2.Event.FromString(record)
        except DecodeError:
            return None

    return decode


def _scalar(value: Any) -> float | None:
    """The number in a summary's value, in the first form of TensorFlow or in the second; else None."""
    kind = value.WhichOneof("value")
    if kind == "simple_value":
        return float(value.simple_value)
    if kind != "tensor":
        return None
    from tensorboard.util import tensor_util

    try:
        array = tensor_util.make_ndarray(value.tensor)
    except TypeError:  # a type without a number in it
        return None
    return float(array.item()) if array.size == 1 and array.dtype.kind in "fiu" else None
