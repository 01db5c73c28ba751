"""The witness: a small file beside the database that says which lsn was acknowledged last.

It is what tells a store that lost its newest facts (a log deleted or left behind, an older copy of the
database) from one that never had them. It is written after each commit and not synced, so after a power cut
it may know less than the store, and never more.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
from dataclasses import dataclass
from pathlib import Path

from hpsearch.errors import StoreDamaged

NAME = "witness"
SLOT = 128
REPAIR = (
    "`hpsearch store check` tells more, `hpsearch store repair` keeps what is proven; or restore a backup"
)
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, order=True)
class Testimony:
    """That a driver of this epoch had this lsn acknowledged, in the study of this uid."""

    lsn: int
    epoch: int
    uid: str


class Witness:
    """The writing side, kept open by the one driver; of two slots, written in turn, one is always whole."""

    def __init__(self, directory: Path) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        self._descriptor = os.open(directory / NAME, flags, 0o600)
        self._turn = 0
        self._failed = False

    def note(self, testimony: Testimony) -> None:
        """Say what was acknowledged; a disk that refuses is told once and keeps nobody from working."""
        try:
            os.pwrite(self._descriptor, _line(testimony), SLOT * self._turn)
        except OSError as error:
            if not self._failed:
                _log.warning("the store's witness cannot be written: %s", error.strerror)
            self._failed = True
        self._turn = 1 - self._turn

    def close(self) -> None:
        """Give the file back."""
        os.close(self._descriptor)


def read(directory: Path) -> Testimony | None:
    """The latest testimony in a study's directory, None where there is none or none that proves itself."""
    return latest(content(directory))


def content(directory: Path) -> bytes:
    """The bytes of a study's witness, none where there is no such file."""
    try:
        descriptor = os.open(directory / NAME, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.pread(descriptor, 2 * SLOT, 0)
    except OSError:
        return b""
    finally:
        os.close(descriptor)


def latest(data: bytes) -> Testimony | None:
    """The latest of the testimonies in a witness's bytes."""
    slots = (_parsed(data[start : start + SLOT]) for start in (0, SLOT))
    return max((slot for slot in slots if slot is not None), default=None)


def compare(seen: Testimony, uid: str, lsn: int) -> None:
    """Raise StoreDamaged where a witness knows of a later fact than the store, or of another study."""
    if seen.uid != uid:
        raise StoreDamaged(f"the store holds study {uid}, and its witness is that of {seen.uid}", hint=REPAIR)
    if seen.lsn > lsn:
        raise StoreDamaged(
            f"the store ends at lsn {lsn}, and lsn {seen.lsn} was acknowledged: its newest facts are gone "
            "(a log left behind or deleted, or an older copy); nothing was overwritten",
            hint=REPAIR,
        )


def write(directory: Path, testimony: Testimony) -> None:
    """Begin a witness anew, durably: what it said before holds no more."""
    temporary = directory / f"{NAME}.writing"
    with contextlib.suppress(FileNotFoundError):
        temporary.unlink()
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(temporary, flags, 0o600)
    try:
        os.write(descriptor, _line(testimony))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    temporary.replace(directory / NAME)


def _line(testimony: Testimony) -> bytes:
    text = f"study {testimony.uid} epoch {testimony.epoch} lsn {testimony.lsn} "
    line = f"{text}{_proof(text)}\n".encode()
    return line.ljust(SLOT - 1) + b"\n"


def _parsed(slot: bytes) -> Testimony | None:
    try:
        _, uid, _, epoch, _, lsn, _ = slot.decode("ascii").split()
        found = Testimony(int(lsn), int(epoch), uid)
    except ValueError:
        return None
    return found if _line(found) == slot else None


def _proof(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
