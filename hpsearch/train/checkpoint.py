"""Checkpoint files: each one complete and proven by its sha256, written beside training, never in its way."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Condition, Thread
from typing import BinaryIO

from hpsearch import faults
from hpsearch.study import beneath
from hpsearch.study.beneath import opened
from hpsearch.study.storage import Bucket
from hpsearch.study.trial import Checkpoint

FOLDER = "checkpoints"
# How long a bucket that does not give a checkpoint is asked again, and the pauses between (seconds): what is
# behind an outage is not gone, and to begin again would cost the training until then.
PATIENCE = 600.0
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 15.0


class Unwanted(Exception):
    """Nobody waits for the trial any more."""


class CheckpointError(Exception):
    """A checkpoint that is not there, not what was written, or another trainer's."""


@dataclass(slots=True)
class Patience:
    """How long a service that fails is asked again, `until` then (seconds of the monotonic clock).

    `wanted` says whether anybody waits for the trial still.
    """

    wanted: Callable[[], bool] = lambda: True
    until: float = field(default_factory=lambda: time.monotonic() + PATIENCE)
    pause: float = field(default_factory=lambda: FIRST_PAUSE)

    def pauses(self) -> bool:
        """Wait before the next try; False if there shall be none. Raises Unwanted."""
        then = time.monotonic() + self.pause
        while (left := then - time.monotonic()) > 0:
            if not self.wanted():
                raise Unwanted
            time.sleep(min(0.5, left))
        self.pause = min(2 * self.pause, LONGEST_PAUSE)
        return time.monotonic() < self.until


def read(path: Path, sha256: str | None, storage: str = "", patience: Patience | None = None) -> bytes:
    """The bytes of a checkpoint, read once and proven before anyone parses them; raises CheckpointError.

    `storage` is the URL of the trial, where checkpoints are objects of a bucket; with patience one that
    fails is asked again, and Unwanted is raised if that is in vain.
    """
    try:
        if storage:
            data = _fetched(Bucket(storage), f"{FOLDER}/{path.name}", patience)
        else:
            data = beneath.read(path.parent.parent, path.parent.name, path.name)
    except OSError as error:
        raise CheckpointError(error.strerror or type(error).__name__) from error
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise CheckpointError(f"sha256 is {found[:12]}, not {(sha256 or 'known')[:12]}")
    return data


def _fetched(bucket: Bucket, key: str, patience: Patience | None) -> bytes:
    while True:
        try:
            return bucket.read(key)
        except OSError as error:
            final = isinstance(error, FileNotFoundError | PermissionError)
            if final or patience is None or not patience.pauses():
                raise


class Writer:
    """Writes checkpoints in a thread of its own; a newer one replaces one that still waits.

    A file appears under its name only when it is complete on the disk or in the bucket, and is announced only
    then. None is deleted here: only the driver knows which of them the store knows. What refuses is told to
    `complain`, and the next checkpoint is tried. `effort` is the CPU time (seconds) of the last one.
    `storage` is the URL of the trial, where its checkpoints are objects of a bucket.
    """

    def __init__(
        self,
        directory: Path,
        attempt: int,
        announce: Callable[[Checkpoint], object],
        complain: Callable[[str], object],
        storage: str = "",
    ) -> None:
        self.effort = 0.0
        self._directory = directory
        self._bucket = Bucket(storage) if storage else None
        self._attempt = attempt
        self._announce = announce
        self._complain = complain
        self._changed = Condition()
        self._pending: tuple[int, memoryview] | None = None
        self._closing = False
        self._error: BaseException | None = None
        self._thread: Thread | None = None

    def offer(self, step: int, data: memoryview) -> None:
        """Take over the bytes of a step and return at once."""
        with self._changed:
            self._pending = (step, data)
            self._changed.notify()
        if self._thread is None:
            self._thread = Thread(target=self._work, name="checkpoints", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Wait until the newest checkpoint is written; raises what `announce` or `complain` raised."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        try:
            while (taken := self._take()) is not None:
                started = time.thread_time()
                self._save(*taken)
                self.effort = time.thread_time() - started
        except BaseException as error:
            self._error = error

    def _take(self) -> tuple[int, memoryview] | None:
        with self._changed:
            self._changed.wait_for(lambda: self._pending is not None or self._closing)
            taken, self._pending = self._pending, None
            return taken

    def _save(self, step: int, data: memoryview) -> None:
        name = f"{FOLDER}/step-{step:08d}-attempt-{self._attempt}.pt"
        try:
            if self._bucket:
                self._bucket.write(name, data)
            else:
                write_durably(self._directory / name, data)
        except OSError as error:
            reason = error.strerror or type(error).__name__
            self._complain(f"checkpoint step {step} not written: {reason}; the trial goes on")
            return
        sha256 = hashlib.sha256(data).hexdigest()
        self._announce(Checkpoint(step, self._attempt, name, len(data), sha256))


def write_durably(path: Path, data: memoryview) -> None:
    """Write a file that is either complete under its name, also after a power cut, or not there.

    Only its owner can read it. No link is followed that lies in the place of its directory or of itself.
    Raises OSError, then without leaving a part behind: a full disk must get its space back.
    """
    made = not path.parent.is_dir()
    path.parents[1].mkdir(mode=0o700, parents=True, exist_ok=True)
    with opened(path.parents[1]) as trial, opened(path.parents[1], path.parent.name, make=True) as there:
        if made:
            os.fsync(trial)
        temporary = path.with_suffix(".writing").name
        try:
            with os.fdopen(_new(temporary, there), "wb") as file:
                _write(file, data)
            with faults.point("ckpt.rename") as event:
                os.replace(temporary, path.name, src_dir_fd=there, dst_dir_fd=there)
                event.inside()
                os.fsync(there)
        except OSError:
            for name in (temporary, path.name):
                with suppress(OSError):
                    os.unlink(name, dir_fd=there)
            raise


def _new(name: str, directory: int) -> int:
    """A descriptor of a file that was not there before; what an earlier life left in its place goes."""
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=directory)
    return os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=directory)


def _write(file: BinaryIO, data: memoryview) -> None:
    with faults.point("ckpt.write") as event:
        file.write(data[: len(data) // 2])
        event.inside()
        file.write(data[len(data) // 2 :])
        file.flush()
    with faults.point("ckpt.sync"):
        os.fsync(file.fileno())
