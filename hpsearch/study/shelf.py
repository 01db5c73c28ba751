"""The checkpoint files of a study's trials, in directories or in a bucket: which there are, and their end."""

from __future__ import annotations

import logging
import os
import queue
import re
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Protocol

from hpsearch.study.beneath import opened
from hpsearch.study.launching import trial_directory, trial_key
from hpsearch.study.storage import Bucket
from hpsearch.study.trial import Study

FOLDER = "checkpoints"
# Only what we name so is ever deleted.
OURS = re.compile(r"step-\d{8,}-attempt-\d+\.(?:pt|writing)")
# How long the end of a study waits for a bucket to forget what is superfluous (seconds).
PATIENCE = 10.0
log = logging.getLogger(__name__)


class Shelf(Protocol):
    """One file too many harms nobody, so what refuses to be deleted is no reason to fail."""

    def names(self, trials: Iterable[int]) -> Mapping[int, set[str]]:
        """The names of the files of ours that these trials have."""

    def hidden(self, trial: int, names: Iterable[str]) -> set[str]:
        """Which of these are there, although `names` does not know of them."""

    def delete(self, trial: int, names: Iterable[str]) -> None:
        """Delete files of ours."""

    def delete_others(self, trial: int, kept: Collection[str]) -> None:
        """Delete all files of ours that a trial has but these."""

    def finish(self) -> None:
        """Wait until what was to be deleted is."""


def shelf_of(study: Study) -> Shelf:
    """The shelf of a study's checkpoints."""
    if study.in_bucket:
        return Objects(Bucket(study.storage))
    return Files(study)


class Files:
    """Files in the trials' directories, reached without following a link."""

    def __init__(self, study: Study) -> None:
        self._study = study

    def names(self, trials: Iterable[int]) -> Mapping[int, set[str]]:
        """What the directories hold."""
        return {number: _names(trial_directory(self._study, number)) for number in trials}

    def hidden(self, trial: int, names: Iterable[str]) -> set[str]:
        """None: a directory is what it says."""
        return set()

    def delete(self, trial: int, names: Iterable[str]) -> None:
        """Delete files."""
        _delete(trial_directory(self._study, trial), names)

    def delete_others(self, trial: int, kept: Collection[str]) -> None:
        """Delete all of them but some."""
        place = trial_directory(self._study, trial)
        _delete(place, _names(place) - set(kept))

    def finish(self) -> None:
        """Nothing waits here."""


class Objects:
    """Objects of a bucket, which take a while each: a thread of its own deletes them, in order."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._wanted: queue.Queue[Callable[[], None]] = queue.Queue()
        self._thread: threading.Thread | None = None

    def names(self, trials: Iterable[int]) -> Mapping[int, set[str]]:
        """What the bucket says it holds: what it does not know of yet is deleted by a later life."""
        wanted = {trial_key(number): number for number in trials}
        found: dict[int, set[str]] = {number: set() for number in wanted.values()}
        with suppress(OSError):
            for key in self._bucket.keys("trials") if wanted else ():
                path = PurePosixPath(key)
                number = wanted.get(str(path.parent.parent))
                if number is not None and path.parent.name == FOLDER and OURS.fullmatch(path.name):
                    found[number].add(path.name)
        return found

    def hidden(self, trial: int, names: Iterable[str]) -> set[str]:
        """Looked for by their keys; those of which the service says nothing count as there."""
        return {name for name in names if self._holds(f"{trial_key(trial)}/{FOLDER}/{name}")}

    def delete(self, trial: int, names: Iterable[str]) -> None:
        """Delete objects, soon."""
        keys = [f"{trial_key(trial)}/{FOLDER}/{name}" for name in names if OURS.fullmatch(name)]
        if keys:
            self._want(lambda: self._bucket.remove(keys))

    def delete_others(self, trial: int, kept: Collection[str]) -> None:
        """Delete all of a trial but some, soon."""
        below = f"{trial_key(trial)}/{FOLDER}"
        kept = {f"{below}/{name}" for name in kept}

        def delete() -> None:
            found = self._bucket.keys(below) - kept
            self._bucket.remove(key for key in found if OURS.fullmatch(key.removeprefix(f"{below}/")))

        self._want(delete)

    def finish(self) -> None:
        """Wait for the thread, not for ever: the next life deletes what is left."""
        until = time.monotonic() + PATIENCE
        with self._wanted.all_tasks_done:
            while self._wanted.unfinished_tasks and (left := until - time.monotonic()) > 0:
                self._wanted.all_tasks_done.wait(left)

    def _holds(self, key: str) -> bool:
        try:
            return self._bucket.holds(key)
        except OSError:
            return True

    def _want(self, work: Callable[[], None]) -> None:
        self._wanted.put(work)
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="shelf", daemon=True)
            self._thread.start()

    def _work(self) -> None:
        while True:
            work = self._wanted.get()
            try:
                work()
            except OSError as error:
                log.info("checkpoints could not be deleted: %s", error)
            finally:
                self._wanted.task_done()


def _names(trial: Path) -> set[str]:
    """The names of the files of ours in a trial's directory."""
    with suppress(OSError), opened(trial.parents[1], trial.parent.name, trial.name, FOLDER) as there:
        return {entry.name for entry in os.scandir(there) if OURS.fullmatch(entry.name)}
    return set()


def _delete(trial: Path, names: Iterable[str]) -> None:
    if not (ours := [name for name in names if OURS.fullmatch(name)]):
        return
    with suppress(OSError), opened(trial.parents[1], trial.parent.name, trial.name, FOLDER) as there:
        for name in ours:
            with suppress(OSError):
                os.unlink(name, dir_fd=there)
