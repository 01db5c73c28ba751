"""A small store with everything in it, as bytes: what a killed driver leaves on the disk."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from hpsearch.spec.reading import parse
from hpsearch.study import witness
from hpsearch.study.history import History, StoreReader, require_study
from hpsearch.study.opening import DATABASE, LOG
from hpsearch.study.store import Store
from hpsearch.study.trial import (
    Attempt,
    Checkpoint,
    Ending,
    Entry,
    Known,
    Measurement,
    Outcome,
    State,
    Study,
    StudyEnding,
    Trial,
)

YAML = """\
trainingInput:
  pythonModule: hpsearch.trainers.linear_regression
  hyperparameters:
    goal: MINIMIZE
    hyperparameterMetricTag: loss
    maxTrials: 9
    params:
      - {parameterName: x, type: DOUBLE, minValue: 0, maxValue: 1}
"""
UID = "0123456789abcdef0123456789abcdef"
NAMES = (DATABASE, LOG, witness.NAME)


@dataclass(frozen=True)
class Files:
    """The files of a store at one moment."""

    database: bytes
    log: bytes
    witness: bytes

    @classmethod
    def of(cls, directory: Path) -> Files:
        return cls(*((directory / n).read_bytes() if (directory / n).exists() else b"" for n in NAMES))

    def put(self, directory: Path) -> Path:
        """Lay them where nothing else is left of an earlier store; a file without bytes is not there."""
        directory.mkdir(exist_ok=True)
        (directory / f"{DATABASE}-shm").unlink(missing_ok=True)
        for name, data in zip(NAMES, (self.database, self.log, self.witness), strict=True):
            if data:
                (directory / name).write_bytes(data)
            else:
                (directory / name).unlink(missing_ok=True)
        return directory


def begun(directory: Path, known: bool = True) -> Store:
    """A new store that is owned by this process."""
    spec = parse(YAML, "x.yaml").spec
    assert spec
    earlier = Trial(0, "k-0", {"x": 0.5}, 3, [Attempt(1, 4)])
    earlier.measurements = [Measurement(10, {"loss": 0.75}, 7)]
    earlier.ending = Ending(State.COMPLETED, "done", 9)
    study = Study("s", UID, 1, spec, directory, "abc", {"torch": "2.13.0"})
    store = Store.create(study, "sqlite:///m.db", [Known(earlier, {})] if known else [])
    store.take(2)
    return store


def commits(number: int) -> list[list[Entry]]:
    """The transactions of one trial's life."""
    suggested = [Entry(number, Trial(number, f"u-{number}", {"x": 0.1}, 5), attributes={"k": [1, 2.5]})]
    measured = Measurement(10, {"loss": 1.5 + number, "acc": 0.25}, 7)
    kept = Checkpoint(10, 1, "checkpoints/step-10.pt", 3, "ff")
    return [
        [*suggested, Entry(number, Attempt(1, 5), 1)],
        [Entry(number, measured, 1), Entry(number, kept, 1)],
        [Entry(number, Ending(State.COMPLETED, "all steps done", 9))],
    ]


def killed(directory: Path, write: Callable[[Store], object]) -> Files:
    """The files of a store in which a driver wrote and then was no more."""
    store = begun(directory)
    store.progress = lambda: (store.lsn // 2, "parent-run")
    write(store)
    left = Files.of(directory)
    store.close()
    shutil.rmtree(directory)
    return left


def two_trials(store: Store) -> None:
    """Two trials, one of them moved out of the log, which still has frames from before, and an ending."""
    checkpoint(store, "TRUNCATE")
    for entries in commits(0):
        store.commit(entries)
    checkpoint(store, "PASSIVE")
    for entries in commits(1)[:2]:
        store.commit(entries)
    store.commit([Entry(None, StudyEnding(Outcome.DEADLINE, "late", 11))])


def checkpoint(store: Store, how: str) -> None:
    """Move the log into the file, as SQLite does by itself every thousand pages."""
    driver = store._connection.connection.driver_connection
    assert isinstance(driver, sqlite3.Connection)
    assert driver.execute(f"PRAGMA wal_checkpoint({how})").fetchone()[0] == 0


class Looker:
    """Somebody who looks at one directory's store again and again, each time as a new command would."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._reader = StoreReader(directory)  # it opens the files at each look; statements are built once

    def history(self) -> History:
        """All that is told of the store; its place does not count."""
        require_study(self._directory)
        found = self._reader.history()
        return replace(found, study=replace(found.study, directory=Path("s")))


def history(directory: Path) -> History:
    """All that is told of a store, once."""
    return Looker(directory).history()


def flipped(data: bytes, bit: int) -> bytes:
    """The same bytes but for one bit."""
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)
