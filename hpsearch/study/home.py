"""A home of studies: which there are, and how each one's store is opened; the only place that knows where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hpsearch.errors import StoreDamaged
from hpsearch.study.history import History, StoreReader, holds_study
from hpsearch.study.store import Store, is_owned
from hpsearch.study.trial import Known, Study


@dataclass(frozen=True, slots=True)
class Home:
    """Studies by name; each has a directory below that of the home, and a store in it."""

    directory: Path

    def place(self, name: str) -> Path:
        """The directory of a study, absolute, whether there is one or not."""
        return (self.directory / name).absolute()

    def names(self) -> list[str]:
        """The studies there are, in order; damaged ones too."""
        return sorted(path.name for path in self.directory.glob("*") if self._seems(path.name))

    def holds(self, name: str) -> bool:
        """Whether there is such a study. Raises StoreDamaged where that cannot be read."""
        return holds_study(self.place(name))

    def create(self, study: Study, tracking_uri: str, known: Sequence[Known] = ()) -> Store:
        """The store of a new study, owned by this process; see `Store.create`."""
        return Store.create(study, tracking_uri, known)

    def open(self, name: str) -> Store:
        """The store of a study, owned by this process from now on; see `Store.open`."""
        return Store.open(self.place(name))

    def reader(self, name: str) -> StoreReader:
        """The reading side of a study's store."""
        return StoreReader(self.place(name))

    def history(self, name: str) -> History:
        """All that the store of a study knows. Raises UsageError (no such study), StoreDamaged."""
        reader = self.reader(name)
        try:
            return reader.history()
        finally:
            reader.close()

    def is_owned(self, name: str) -> bool:
        """Whether a driver owns the study now."""
        return is_owned(self.place(name))

    def _seems(self, name: str) -> bool:
        try:
            return self.holds(name)
        except StoreDamaged:
            return True
