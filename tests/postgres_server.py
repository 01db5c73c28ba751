"""A PostgreSQL server of the tests' own: on loopback, with passwords, in memory, nothing weakened."""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psycopg
from ports import free_port

SUPERUSER, DEBIAN = "keeper", Path("/usr/lib/postgresql")
# Each database is made from the template anew; smaller segments make a cluster cheap.
INIT = ("--encoding=UTF8", "--locale=C", "--auth=scram-sha-256", "--no-sync", "--wal-segsize=1")
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "max_connections": "60",
    "shared_buffers": "16MB",
    "max_wal_size": "64MB",
    "min_wal_size": "2MB",
    "autovacuum": "off",
    "log_statement": "all",
}


class Missing(Exception):
    """PostgreSQL is not installed here."""


def binaries() -> Path:
    """The directory of initdb and postgres. Raises Missing."""
    versions = sorted(DEBIAN.glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    found = str(versions[-1]) if versions else shutil.which("initdb")
    if found is None:
        raise Missing("PostgreSQL is not installed: apt-get install postgresql")
    return Path(found).resolve().parent


@dataclass
class Server:
    """A running server; `databases` are made as tests want them."""

    directory: Path
    port: int
    password: str
    _count: int = 0

    @property
    def log(self) -> str:
        """What the server has said."""
        return (self.directory / "log").read_text(errors="replace")

    @property
    def pid(self) -> int:
        """The postmaster's."""
        return int((self.directory / "data/postmaster.pid").read_text().splitlines()[0])

    def url(
        self, database: str, *, port: int | None = None, user: str = SUPERUSER, host: str = "127.0.0.1"
    ) -> str:
        """The address of a database, with the password."""
        return f"postgresql://{user}:{self.password}@{host}:{port or self.port}/{database}"

    def make_database(self) -> str:
        """The address of an empty database."""
        self._count += 1
        name = f"test_{os.getpid()}_{self._count}"
        self.run("postgres", f"CREATE DATABASE {name} STRATEGY wal_log")
        return self.url(name)

    def run(self, database: str, *statements: str) -> list[tuple[object, ...]]:
        """Run statements outside of transactions; the rows of the last."""
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            for statement in statements:
                cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def start(self) -> None:
        """Start it, and wait until it answers."""
        settings = [f"-c{name}={value}" for name, value in SETTINGS.items()]
        words = [f"-p{self.port}", f"-k{self.directory}", *settings]
        command = [
            str(binaries() / "pg_ctl"),
            "-D",
            str(self.directory / "data"),
            "-l",
            str(self.directory / "log"),
        ]
        as_postgres([*command, "-w", "-t", "60", "-o", " ".join(words), "start"])

    def stop(self, mode: str = "immediate") -> None:
        """Stop it; `immediate` is a crash."""
        as_postgres(
            [str(binaries() / "pg_ctl"), "-D", str(self.directory / "data"), "-m", mode, "-w", "stop"]
        )


def as_postgres(command: Sequence[str]) -> None:
    """Run a command as PostgreSQL's own user: as root it refuses to work."""
    if os.geteuid() == 0:
        command = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", *command]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=90, cwd="/", stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, f"{command} failed: {done.stdout}{done.stderr}"


@contextlib.contextmanager
def served() -> Iterator[Server]:
    """A server that ends with the block. Raises Missing."""
    tools = binaries()
    memory = Path("/dev/shm")
    directory = Path(
        tempfile.mkdtemp(prefix="hpsearch-pg-", dir=memory if os.access(memory, os.W_OK) else None)
    )
    server = Server(directory, free_port(), secrets.token_urlsafe(18))
    try:
        (directory / "password").write_text(server.password)
        if os.geteuid() == 0:
            owner = pwd.getpwnam("postgres")
            for path in (directory, directory / "password"):
                os.chown(path, owner.pw_uid, owner.pw_gid)
        names = [
            f"--username={SUPERUSER}",
            f"--pwfile={directory / 'password'}",
            f"--pgdata={directory / 'data'}",
        ]
        as_postgres([str(tools / "initdb"), *INIT, *names])
        server.start()
        yield server
    finally:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            postmaster = server.pid
            os.kill(postmaster, signal.SIGQUIT)
            ended = time.monotonic() + 20
            while (directory / "data/postmaster.pid").exists() and time.monotonic() < ended:
                time.sleep(0.02)
        shutil.rmtree(directory, ignore_errors=True)
