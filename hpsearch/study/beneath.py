"""Files in a trial's directory, reached without following a link that the trial may have planted there."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@contextlib.contextmanager
def opened(directory: Path, *below: str, make: bool = False) -> Iterator[int]:
    """A descriptor of a directory, reached from one of hpsearch's own by these names; OSError for a link.

    With `make`, what is not there is made.
    """
    here = os.open(directory, _DIRECTORY)
    try:
        for name in below:
            if make:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(name, 0o700, dir_fd=here)
            there = os.open(name, _DIRECTORY, dir_fd=here)
            os.close(here)
            here = there
        yield here
    finally:
        os.close(here)


def made(directory: Path) -> None:
    """Make a trial's directory, which lies two below that of its study; OSError for a link on the way."""
    study = directory.parents[1]
    study.mkdir(mode=0o700, parents=True, exist_ok=True)
    with opened(study, directory.parent.name, directory.name, make=True):
        pass


def open_to_append(directory: int, name: str) -> int:
    """A descriptor of a plain file, made if needed; what else is in its place is removed, not followed."""
    for _ in range(3):
        with contextlib.suppress(FileNotFoundError):
            if not is_plain(os.stat(name, dir_fd=directory, follow_symlinks=False)):
                os.unlink(name, dir_fd=directory)
        descriptor = os.open(name, os.O_RDWR | os.O_CREAT | os.O_APPEND | _FILE, 0o600, dir_fd=directory)
        if is_plain(os.fstat(descriptor)):
            return descriptor
        os.close(descriptor)  # somebody was quicker
    raise OSError(f"{name} is no plain file")


def read(directory: Path, *names: str) -> bytes:
    """All bytes of a file below a directory; OSError for what is none, and for what lies behind links."""
    *below, name = names
    with opened(directory, *below) as there:
        descriptor = os.open(name, os.O_RDONLY | _FILE, dir_fd=there)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(f"{name} is no file")
        return file.read()


def remove(directory: Path, *names: str) -> None:
    """Remove a file, or a link in its place, below a directory; OSError where a link leads elsewhere."""
    *below, name = names
    with opened(directory, *below) as there:
        os.unlink(name, dir_fd=there)


def is_plain(found: os.stat_result) -> bool:
    """True for a file that has no second name: what is written to it changes nothing elsewhere."""
    return stat.S_ISREG(found.st_mode) and found.st_nlink == 1
