"""A home of studies: which there are, and how each one's store is opened; the only place that knows where."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from hpsearch.errors import StoreDamaged, UsageError
from hpsearch.study import birth
from hpsearch.study.database import Database
from hpsearch.study.history import History, StoreReader
from hpsearch.study.sqlite import SqliteFile
from hpsearch.study.storage import URL_LIKE
from hpsearch.study.store import Store
from hpsearch.study.trial import Known, Study


@dataclass(frozen=True, slots=True)
class Home:
    """Studies by name; each has a directory below that of the home, and a store.

    `store` is the address of a PostgreSQL database that has the stores of all, or None: then each has a
    SQLite file in its directory. It may hold a password, and is kept nowhere.
    """

    directory: Path
    store: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if URL_LIKE.match(str(self.directory)):
            raise UsageError(
                f"--home {str(self.directory)!r} is a URL, and studies lie in directories",
                hint="name a directory; trials' files can lie there by --storage, stores in PostgreSQL",
            )

    @property
    def among(self) -> str:
        """What messages call the place where studies are looked for; holds no secret."""
        return str(self.directory) if self.store is None else self.database("").among

    @property
    def elsewhere(self) -> str:
        """What to say where no study is found."""
        option = "the directory with --home" if self.store is None else "the database with HPSEARCH_STORE"
        return f"there are none; name {option}"

    def place(self, name: str) -> Path:
        """The directory of a study, absolute, whether there is one or not."""
        return (self.directory / name).absolute()

    def database(self, name: str) -> Database:
        """Where the store of a study is, whether there is one or not. Raises UsageError for an address."""
        if self.store is None:
            return SqliteFile(self.place(name))
        from hpsearch.study import postgresql

        url, lease = postgresql.parse_address(self.store), postgresql.lease_of()
        return postgresql.PostgresStore(url, name, self.place(name), lease)

    def names(self) -> list[str]:
        """The studies there are, in order; damaged ones too."""
        if self.store is not None:
            from hpsearch.study import postgresql

            return sorted(postgresql.names(postgresql.parse_address(self.store)))
        with self._readable():
            found = [path.name for path in self.directory.iterdir()] if self.directory.exists() else []
        return sorted(name for name in found if self._seems(name))

    def holds(self, name: str) -> bool:
        """Whether there is such a study. Raises StoreDamaged where that cannot be read."""
        with self._readable():
            return self.database(name).holds_study()

    def free_name(self, stem: str) -> str:
        """The stem with the next number above all in use, also by directories that hold no study."""
        directories = [path.name for path in self.directory.iterdir()] if self.directory.is_dir() else []
        return birth.free_name([*directories, *self.names()], stem)

    def create(self, study: Study, tracking_uri: str, known: Sequence[Known] = ()) -> Store:
        """The store of a new study, owned by this process; see `Store.create`."""
        database = self.database(study.name)
        if self.store is not None and SqliteFile(study.directory).holds_study():
            raise UsageError(
                f"{study.directory} is the directory of another study {study.name!r}, in a SQLite file",
                hint="choose another --study NAME, or another --home",
            )
        with self._readable():
            return Store.create(study, tracking_uri, known, database)

    def open(self, name: str) -> Store:
        """The store of a study, owned by this process from now on; see `Store.open`."""
        with self._readable():
            return Store.open(self.database(name))

    def reader(self, name: str) -> StoreReader:
        """The reading side of a study's store."""
        with self._readable():
            return StoreReader(self.database(name))

    def history(self, name: str) -> History:
        """All that the store of a study knows. Raises UsageError (no such study), StoreDamaged."""
        reader = self.reader(name)
        try:
            return reader.history()
        finally:
            reader.close()

    def is_owned(self, name: str) -> bool:
        """Whether a driver owns the study now."""
        return self.database(name).is_owned()

    @contextmanager
    def _readable(self) -> Iterator[None]:
        """What keeps us from a directory is the user's to see to."""
        try:
            yield
        except OSError as error:
            raise UsageError(
                f"cannot use {error.filename or self.directory}: {error.strerror or error}",
                hint="see to its permissions, or choose another with --home or HPSEARCH_HOME",
            ) from error

    def _seems(self, name: str) -> bool:
        try:
            return self.holds(name)
        except StoreDamaged:
            return True
