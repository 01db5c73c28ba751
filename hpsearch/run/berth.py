"""An attempt's own directory on its node, whose files go to the study's bucket when the attempt is over."""

from __future__ import annotations

import logging
import os
import secrets
import stat
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from hpsearch.run import scratch
from hpsearch.run.output import LOG
from hpsearch.study import storage
from hpsearch.study.launching import trial_key
from hpsearch.study.storage import Bucket
from hpsearch.study.trial import Launch

log = logging.getLogger(__name__)


class Berth:
    """Made where the attempt runs; `launch` is the one that runs there. Killed workers' berths go first.

    The files of each attempt, and of each of its processes but the first, lie under a key of their own in the
    trial's: nothing that one wrote is replaced by another. Links and pipes stay behind.
    """

    def __init__(self, launch: Launch) -> None:
        place = Path(tempfile.gettempdir())
        scratch.sweep(place)
        self._base, self._lock = scratch.claim(place, secrets.token_hex(16))
        context = launch.context
        directory = self._base / trial_key(context.number)
        checkpoint = directory / context.checkpoint.name if context.checkpoint else None
        earlier = tuple((directory / path.name, sha256) for path, sha256 in context.earlier)
        self.launch = replace(
            launch, context=replace(context, directory=directory, checkpoint=checkpoint, earlier=earlier)
        )
        self.problem = ""
        self._key = f"attempt-{context.attempt}" + (f"/rank-{launch.team.rank}" if launch.team.rank else "")
        self._thread: threading.Thread | None = None

    def leave(self) -> None:
        """Begin to bring the files to the bucket: nobody writes here any more."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._leave, name="berth", daemon=True)
            self._thread.start()

    def is_left(self, within: float) -> bool:
        """Whether that is done, waiting so long for it (seconds); `problem` then says what was lost."""
        if self._thread is not None:
            self._thread.join(within)
        return self._thread is not None and not self._thread.is_alive()

    def _leave(self) -> None:
        try:
            self.problem = self._keep()
        except Exception as error:  # the end of a thread; nobody else would hear of it
            self.problem = f"its files could not be kept: {error!r}"
        finally:
            scratch.release(self._base, self._lock)
        if self.problem:
            log.warning("trial %d: %s", self.launch.context.number, self.problem)

    def _keep(self) -> str:
        """Bring each file to the bucket; what went wrong, if anything."""
        directory, place = self.launch.context.directory, self.launch.context.storage
        bucket, lost, why, count, wasted = Bucket(place), 0, "", 0, 0.0
        for path in files_below(directory):
            if path.name == LOG and not path.stat().st_size:
                continue  # it printed nothing
            count += 1
            if lost and wasted >= storage.ANSWER:  # the others would fail, too, and hold back the trial's end
                lost += 1
                continue
            began = time.monotonic()
            try:
                bucket.put(f"{self._key}/{path.relative_to(directory).as_posix()}", path)
            except OSError as error:
                lost, why = lost + 1, error.strerror or type(error).__name__
                wasted += time.monotonic() - began
        return f"{lost} of the attempt's {count} files could not be kept in {place}: {why}" if lost else ""


def files_below(directory: Path) -> Iterator[Path]:
    """The plain files below a directory, in order; no link is followed."""
    for root, folders, names in os.walk(directory):
        folders.sort()
        for name in sorted(names):
            path = Path(root, name)
            if stat.S_ISREG(path.lstat().st_mode):
                yield path
