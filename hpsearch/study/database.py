"""What a kind of database must offer so that a study's store can be in it: a file of its own, or a server.

Part of the SQLAlchemy door. What both kinds share is in `store.py` (writing) and `history.py` (reading).
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from sqlalchemy import Connection, Engine

from hpsearch.errors import HpsearchError
from hpsearch.study.witness import Testimony


class Hold(Protocol):
    """One driver's right to write to one study, for as long as its kind of database grants it."""

    def take(self, connection: Connection, study: str) -> None:
        """Own the study, in the transaction that moves its epoch. Raises StudyBusy."""

    def assure(self) -> None:
        """Make sure before a write that the study is still ours. Raises StudyBusy, Interrupted."""

    def acknowledge(self, testimony: Testimony) -> None:
        """Keep, outside of the database, that a commit is relied on."""

    def release(self) -> None:
        """Free the study for the next driver."""


class Database(Protocol):
    """Where the store of one study is; each kind says in its own way who owns it and what an error means."""

    @property
    def directory(self) -> Path:
        """The study's files: checkpoints, output."""

    @property
    def place(self) -> str:
        """What messages call it; holds no secret."""

    @property
    def among(self) -> str:
        """Where it stands among other studies."""

    def holds_study(self) -> bool:
        """Whether the study is there. Raises StoreDamaged, ServiceUnavailable."""

    def is_owned(self) -> bool:
        """Whether a driver owns the study now."""

    def engine(self, *, read_only: bool = False) -> Engine:
        """An engine whose connections have the settings that make a commit durable, read back."""

    def study(self, connection: Connection) -> str:
        """The study's name as its rows have it."""

    def create_tables(self, connection: Connection) -> None:
        """Make what tables are not there, in the transaction that makes the study."""

    def settle(self, connection: Connection) -> None:
        """Make what a study is born with as safe as can be, after its transaction."""

    def prove_tables(self, connection: Connection) -> None:
        """Make sure that the tables are what they were made as. Raises StoreDamaged."""

    def testimony(self) -> Testimony | None:
        """The latest that a witness outside of the database knows, asked before the database is."""

    def untouched(self) -> AbstractContextManager[None]:
        """Within it, a connection can be closed without a change to the database."""

    def claim(self) -> Hold:
        """Look whether the study is free for this process, and keep it so. Raises StudyBusy."""

    def is_lost(self, error: Exception) -> bool:
        """Whether an error says that the connection is gone, while the database may be well."""

    def reconnect(self, engine: Engine) -> Connection:
        """Another connection in the place of a lost one, within a bounded time. Raises Interrupted."""

    def unreadable(self, error: Exception) -> HpsearchError:
        """What an error that a reading met is to the user."""

    def unwritable(self, error: Exception) -> HpsearchError:
        """What an error that a write met is to the user."""
