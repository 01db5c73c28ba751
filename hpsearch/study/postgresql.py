"""The store on a PostgreSQL server: its address, its settings, and what its errors mean.

Part of the SQLAlchemy door. All studies of a database share its tables, each row naming its study. Who owns
one is said by a lease that ends, see `tenure.py`. Passwords stay in the address: no message has them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import (
    URL,
    Column,
    Connection,
    Engine,
    Integer,
    MetaData,
    Table,
    create_engine,
    event,
    insert,
    inspect,
    make_url,
    select,
    text,
)
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, OperationalError
from sqlalchemy.pool import NullPool

from hpsearch.errors import (
    HpsearchError,
    Interrupted,
    ServiceUnavailable,
    StoreDamaged,
    StoreFull,
    StudyBusy,
    UsageError,
)
from hpsearch.redaction import redact
from hpsearch.study.full import is_full
from hpsearch.study.schema import SCHEMA_VERSION, metadata, study_table
from hpsearch.study.tenure import LEASE, READING, Tenure, first_line, is_owned, patiently, tenure_metadata
from hpsearch.study.witness import Testimony

STORE, LEASE_SECONDS = "HPSEARCH_STORE", "HPSEARCH_LEASE"
SCHEMES = ("postgresql", "postgres", "postgresql+psycopg")
# Any number, the same for all: whoever makes tables waits for whoever does it already.
MAKING_TABLES = 0x68707365
# How long a server that does not answer is believed to be there (seconds): connecting; then in silence.
CONNECTING, SILENCE = 5, 10
# For a lock; for a transaction whose process is mute, so that its locks go before others give up (seconds).
WAITING, MUTE = 10, 5.0

# Which kind of tables a database has: all its studies share them.
version_metadata = MetaData()
version_table = Table(
    "hpsearch_store",
    version_metadata,
    Column("schema_version", Integer, primary_key=True, autoincrement=False),
)


@dataclass(frozen=True, slots=True)
class PostgresStore:
    """The store of one study in a database; `lease` is how long an owner is believed (seconds)."""

    url: URL = field(repr=False)
    name: str
    directory: Path
    lease: float = LEASE

    @property
    def place(self) -> str:
        """What messages call it."""
        return shown(self.url)

    @property
    def among(self) -> str:
        """Where it stands among other studies."""
        return shown(self.url)

    def holds_study(self) -> bool:
        """Whether the study is there. Raises ServiceUnavailable, UsageError (tables of another version)."""
        return self.name in names(self.url, self.name)

    def is_owned(self) -> bool:
        """Whether a driver owns the study: its lease has not ended."""
        with _asking(self.url) as connection:
            return has_tables(connection) and is_owned(connection, self.name)

    def engine(self, *, read_only: bool = False) -> Engine:
        """An engine whose connections have the settings that make a commit durable, read back."""
        return open_server(self.url, read_only=read_only, held=self.lease)

    def study(self, connection: Connection) -> str:
        """The study's name; its directory may be called otherwise."""
        return self.name

    def create_tables(self, connection: Connection) -> None:
        """Make what tables are not there; a role that may not make any needs none where they are."""
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MAKING_TABLES})
        if not has_tables(connection):
            for each in (metadata, tenure_metadata, version_metadata):
                # There are none of ours; another's of the same name are an error, and no store.
                each.create_all(connection, checkfirst=False)
            connection.execute(insert(version_table).values(schema_version=SCHEMA_VERSION))

    def settle(self, connection: Connection) -> None:
        """It is as safe as the server."""

    def prove_tables(self, connection: Connection) -> None:
        """The server keeps them, and their version was looked at when the study was found."""

    def testimony(self) -> Testimony | None:
        """Nobody beside the server knows more than it."""
        return None

    def untouched(self) -> AbstractContextManager[None]:
        """Closing a connection changes nothing."""
        return nullcontext()

    def claim(self) -> Tenure:
        """Look whether the study is free. Raises StudyBusy, ServiceUnavailable."""
        tenure = Tenure(self.engine(), self.name, self.lease)
        with _asking(self.url) as connection:
            if has_tables(connection):
                tenure.look(connection)
        return tenure

    def is_lost(self, error: Exception) -> bool:
        """Whether the connection is gone, or the server has said that it ends it."""
        return isinstance(error, ConnectionError) or (isinstance(error, DBAPIError) and _is_cut(error))

    def reconnect(self, engine: Engine) -> Connection:
        """Another connection, as soon as the server answers; Interrupted where it does not for a lease."""
        return patiently(engine.connect, self.lease)

    def unreadable(self, error: Exception) -> HpsearchError:
        """What an error that a reading met is to the user: a server that is away, or damage."""
        return _told(error, self.url)

    def unwritable(self, error: Exception) -> HpsearchError:
        """What an error that a write met is to the user."""
        if _state(error) == "55P03":
            return StudyBusy(
                f"study {self.name!r} is being taken over by another driver",
                hint="try again when that one is done, or gone",
            )
        if is_full(error, self.directory):
            return StoreFull(
                f"the disk of the store {self.place} is full", hint="free some space, then resume"
            )
        return _refused(error, self.url) or Interrupted(
            f"the store {self.place} refused a write: {first_line(error)}",
            hint="see to the server, then resume: nothing committed is lost",
        )


def parse_address(address: str) -> URL:
    """A database's address as SQLAlchemy takes it. Raises UsageError, which does not repeat a password."""
    hint = f"write postgresql://USER:PASSWORD@HOST:PORT/DATABASE in {STORE}, or leave it out for SQLite files"
    scheme, found, rest = address.strip().partition("://")
    # Written wrong, a password is not where redaction looks for one; it is before the host.
    told = redact(address.rpartition("@")[2])
    if not found or scheme not in SCHEMES:
        raise UsageError(f"the store {told!r} is not the address of a PostgreSQL database", hint=hint)
    try:
        return make_url(f"postgresql+psycopg://{rest}")
    # Its text repeats the address.
    except (ArgumentError, ValueError):
        raise UsageError(f"the store {told!r} cannot be read as an address", hint=hint) from None


def lease_of(environment: Mapping[str, str] = os.environ) -> float:
    """How long a lease is valid (seconds), as the environment says it. Raises UsageError."""
    given = environment.get(LEASE_SECONDS, f"{LEASE:g}")
    if not re.fullmatch(r"\d{1,4}(\.\d{1,3})?", given) or not 0.5 <= float(given) <= 3600:
        raise UsageError(f"{LEASE_SECONDS} is {given!r}, not 0.5 to 3600 seconds", hint="unset it for 30")
    return float(given)


def shown(url: URL) -> str:
    """An address without user, password and options."""
    return f"postgresql://{url.host or ''}{f':{url.port}' if url.port else ''}/{url.database or ''}"


def names(url: URL, only: str | None = None) -> list[str]:
    """The studies of a database, or of those the one called so."""
    with _asking(url) as connection:
        if not has_tables(connection):
            return []
        asked = select(study_table.c.name)
        return list(
            connection.execute(asked if only is None else asked.where(study_table.c.name == only)).scalars()
        )


def has_tables(connection: Connection) -> bool:
    """Whether the database has the store's tables. Raises UsageError for those of another version."""
    if not inspect(connection).has_table(version_table.name):
        return False
    version = connection.execute(select(version_table.c.schema_version)).scalar_one()
    if version != SCHEMA_VERSION:
        raise UsageError(
            f"the database {shown(connection.engine.url)} has tables of schema version {version}, "
            f"this hpsearch reads {SCHEMA_VERSION}",
            hint="use the version of hpsearch that made them, or another database",
        )
    return True


@contextmanager
def _asking(url: URL) -> Iterator[Connection]:
    """A connection for one question, read-only; what goes wrong is told as what it means."""
    engine = open_server(url, read_only=True)
    try:
        with engine.connect() as connection:
            yield connection
    except DBAPIError as error:
        raise _told(error, url) from error
    finally:
        engine.dispose()


def open_server(url: URL, *, read_only: bool = False, held: float = LEASE) -> Engine:
    """An engine whose connections notice a dead server soon, and whose settings were read back.

    `held`: the server ends a transaction whose process is mute for so long, or for MUTE (seconds).
    """
    try:
        engine = create_engine(
            url,
            poolclass=NullPool,
            connect_args=_given(url),
            hide_parameters=True,
            use_native_hstore=False,  # whose types would be asked for at each connection
            # The writer's guard sees the newest row, a reader one moment of all tables.
            isolation_level="REPEATABLE READ" if read_only else "READ COMMITTED",
        )
    except ModuleNotFoundError as error:
        raise UsageError(
            f"a store on PostgreSQL needs the package psycopg: {error}",
            hint="pip install 'hpsearch[postgresql]'",
        ) from error

    @event.listens_for(engine, "connect")
    def connected(connection: Any, record: object) -> None:
        connection.autocommit = True
        _set_up(connection, url, read_only, held)
        connection.autocommit = False
        connection.read_only = read_only

    return engine


def _given(url: URL) -> dict[str, object]:
    """What libpq is told about a connection, where the address does not say otherwise."""
    wanted: dict[str, object] = {
        "connect_timeout": CONNECTING,
        "keepalives_idle": SILENCE // 2,
        "keepalives_interval": 1,
        "keepalives_count": SILENCE // 2,
        "tcp_user_timeout": SILENCE * 1000,
        "application_name": "hpsearch",
        "client_encoding": "utf8",
    }
    return {name: value for name, value in wanted.items() if name not in url.query}


def _set_up(connection: Any, url: URL, read_only: bool, held: float) -> None:
    """Set what a session needs, and read back what durable commits need. Raises UsageError."""
    # A reader locks nobody out, and folds a million rows between two questions.
    mute = READING if read_only else min(MUTE, max(2.0, held))
    wanted = {
        "lock_timeout": f"{WAITING}s",
        "statement_timeout": f"{READING}s",
        "idle_in_transaction_session_timeout": f"{mute:g}s",
        "tcp_keepalives_idle": str(SILENCE // 2),
        "tcp_keepalives_interval": "1",
        "tcp_keepalives_count": str(SILENCE // 2),
        "tcp_user_timeout": f"{SILENCE}s",
        "synchronous_commit": "on",
    }
    with connection.cursor() as cursor:
        sets = ", ".join(["set_config(%s, %s, false)"] * len(wanted))
        cursor.execute(f"SELECT {sets}", [part for item in wanted.items() for part in item])
        names = ("synchronous_commit", "fsync", "server_encoding", "transaction_read_only")
        cursor.execute(f"SELECT {', '.join(['current_setting(%s)'] * len(names))}", names)
        found = dict(zip(names, cursor.fetchone(), strict=True))
    needed = {"synchronous_commit": "on", "fsync": "on", "server_encoding": "UTF8"}
    if not read_only:
        needed["transaction_read_only"] = "off"
    for name, value in needed.items():
        if found[name] != value:
            raise UsageError(
                f"the server of {shown(url)} says {name}={found[name]} where {value} is needed for a store",
                hint="set it on the server, or use another one",
            )


def _state(error: Exception) -> str:
    """The SQLSTATE of what the server said, empty where it said nothing."""
    return getattr(getattr(error, "orig", None), "sqlstate", None) or ""


def _is_cut(error: DBAPIError) -> bool:
    """Whether an error ended the connection; a server that shuts down says so before it does."""
    state = _state(error)
    return error.connection_invalidated or state[:2] == "08" or state[:3] == "57P" or state == "25P03"


def _told(error: Exception, url: URL) -> HpsearchError:
    refused = _refused(error, url)
    if refused:
        return refused
    if isinstance(error, OperationalError | InterfaceError) or (
        isinstance(error, DBAPIError) and _is_cut(error)
    ):
        return ServiceUnavailable(
            f"the store {shown(url)} cannot be reached: {first_line(error)}",
            hint=f"see to the server, or to the address in {STORE} or --store",
        )
    return StoreDamaged(
        f"the store {shown(url)} cannot be read: {first_line(error)}", hint="restore it from a backup"
    )


def _refused(error: Exception, url: URL) -> HpsearchError | None:
    """The errors that only somebody who sets up the server can mend."""
    state = _state(error)
    hints = {
        "42P07": "it has other tables of these names: use a database, or a schema, of its own",
        "42501": "let a role that may make tables do it once, then GRANT this one to read and write them",
        "42P01": "the tables of a store are not all there: use a database, or a schema, of its own",
        "42703": "its tables are not a store's: use a database, or a schema, of its own",
        "25006": "it takes no writes: use the primary server",
    }
    if state not in hints:
        return None
    return UsageError(f"the store {shown(url)} cannot be used: {first_line(error)}", hint=hints[state])
