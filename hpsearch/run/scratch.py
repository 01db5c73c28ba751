"""The directory that a private Ray needs while it runs: short, private, with room, and gone afterwards.

Whoever is killed leaves it behind. A lock within says whether its owner lives, so the next start removes
what dead owners left, and nothing else.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import secrets
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hpsearch.errors import ServiceUnavailable
from hpsearch.run import undertaker

PREFIX, OWNER = "hps-", "owner"
# Ray's sockets lie there, and a socket's path may have 107 bytes.
LONGEST = 30
SHARED_MEMORY = Path("/dev/shm")
# What Ray's logs and sockets take at most before they are rotated, and what its object store needs (bytes);
# reports are small and nothing else goes through the store. Ray wants 75 MiB for it at least.
ROOM = 64 << 20
OBJECT_STORE, LEAST_OBJECT_STORE = 128 << 20, 76 << 20
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Scratch:
    """A directory, the mark that all processes of its Ray bear, and where its object store is (bytes)."""

    directory: Path
    mark: str
    object_store: Path
    object_store_size: int


@contextlib.contextmanager
def scratch(*, private: bool) -> Iterator[Scratch]:
    """A fresh directory that is removed at the end; also those of dead owners are.

    With `private` a Ray of our own will live in it, whose processes are ended with it.

    Raises ServiceUnavailable where there is no room for a Ray.
    """
    place = _place()
    sweep(place)
    store, size = _object_store(place) if private else (place, 0)
    mark = secrets.token_hex(16)
    directory, lock = claim(place, mark)
    try:
        with _undertaken(directory, mark) if private else contextlib.nullcontext():
            yield Scratch(directory, mark, store or directory, size)
    finally:
        release(directory, lock)


@contextlib.contextmanager
def _undertaken(directory: Path, mark: str) -> Iterator[None]:
    """Beside a process that outlives this one, however it ends, by the time that it takes to tidy up."""
    # In a session of its own, so that neither a Ctrl-C nor a lost terminal reaches it.
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", undertaker.__file__, mark, str(directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={},
        cwd="/",
        start_new_session=True,
    )
    assert process.stdin is not None
    try:
        yield
    finally:
        process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(undertaker.PATIENCE + 2)


def claim(place: Path, mark: str) -> tuple[Path, int]:
    """A fresh directory, and the descriptor whose closing, also by this process's death, gives it up.

    Raises OSError, then without leaving one behind.
    """
    directory = Path(tempfile.mkdtemp(prefix=PREFIX, dir=place))
    try:
        return directory, _own(directory, mark)
    except OSError:  # a full disk; without an owner nobody would ever remove it
        shutil.rmtree(directory, ignore_errors=True)
        raise


def release(directory: Path, lock: int) -> None:
    """Remove a directory that was claimed, with all that is in it."""
    shutil.rmtree(directory, ignore_errors=True)
    os.close(lock)


def sweep(place: Path) -> list[Path]:
    """Remove the directories of owners that are dead, after the processes that they left; which ones."""
    removed = []
    for directory in sorted(place.glob(f"{PREFIX}*")):
        mark = _left_behind(directory)
        if mark is None:
            continue
        undertaker.end(mark)
        shutil.rmtree(directory, ignore_errors=True)
        log.info("removed %s, which a killed driver had left", directory)
        removed.append(directory)
    return removed


def _left_behind(directory: Path) -> str | None:
    """The mark in a directory of ours whose owner is dead, else None."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        seen = directory.lstat()
        if not stat.S_ISDIR(seen.st_mode) or seen.st_uid != os.getuid():
            return None
        owner = os.open(directory / OWNER, flags)
    except OSError:
        return None
    with os.fdopen(owner, "rb") as file:
        if os.fstat(owner).st_uid != os.getuid():
            return None
        try:
            fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return None
        text = file.read(64).decode(errors="replace")
    return text if undertaker.is_mark(text) else None


def _own(directory: Path, mark: str) -> int:
    """Say that a directory is ours as long as this process lives; the lock is there with its name."""
    young = directory / f"{OWNER}.young"
    lock = os.open(young, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        os.write(lock, mark.encode())
        young.rename(directory / OWNER)
    except OSError:
        os.close(lock)
        raise
    return lock


def _place() -> Path:
    """Where the directory is made: TMPDIR or, where that is too long for sockets, /tmp."""
    place = Path(tempfile.gettempdir())
    if len(str(place)) >= LONGEST:
        place = Path("/tmp")
    if (free := _free(place)) < ROOM:
        raise ServiceUnavailable(
            f"Ray needs {ROOM >> 20} MiB for its files, {place} has {free >> 20} MiB left",
            hint="make room there, or name another directory in TMPDIR, of less than 30 characters",
        )
    return place


def _object_store(place: Path) -> tuple[Path | None, int]:
    """Where Ray's object store fits and its size; no place means that of Ray's other files."""
    for where, free in ((SHARED_MEMORY, _free(SHARED_MEMORY)), (None, _free(place) - ROOM)):
        # Ray itself keeps a tenth of what is free.
        if (size := min(OBJECT_STORE, free * 9 // 10)) >= LEAST_OBJECT_STORE:
            return where, size
    needed = (ROOM + LEAST_OBJECT_STORE * 10 // 9) >> 20
    raise ServiceUnavailable(
        f"Ray needs {LEAST_OBJECT_STORE >> 20} MiB of shared memory: {SHARED_MEMORY} has "
        f"{_free(SHARED_MEMORY) >> 20} MiB left, and {place}, which would do, {_free(place) >> 20} MiB",
        hint=f"give {SHARED_MEMORY} more (docker run --shm-size), or {place} at least {needed} MiB",
    )


def _free(place: Path) -> int:
    """Bytes that this user may still write there."""
    try:
        found = os.statvfs(place)
    except OSError:
        return 0
    return found.f_bavail * found.f_frsize
