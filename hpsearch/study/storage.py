"""Where the files of trials lie, if not in the home: a directory that all nodes see, or an fsspec URL.

The only door to fsspec. Nothing is decided from listings, which may be stale: what counts is written whole
under its key, read back by it, and proven by what the store knows of it.
"""

from __future__ import annotations

import errno
import importlib
import re
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from hpsearch.errors import HpsearchError, ServiceUnavailable, UsageError
from hpsearch.redaction import redact
from hpsearch.study import beneath

OWN_PATHS = ("file", "local")
# What installs the package that a kind of URL needs.
EXTRAS = {"s3": "hpsearch[s3]", "s3a": "hpsearch[s3]", "gs": "hpsearch[gcs]", "gcs": "hpsearch[gcs]"}
NOTE = ".reachable-"
# Also with one slash, which is all that a Path leaves of two.
URL_LIKE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
# How long a service may take to answer (seconds), and how slowly bytes may come beside (each second): what
# its package waits and tries again by itself may be the better part of an hour, for each request.
ANSWER, SLOWEST = 120.0, 1 << 18


@dataclass(frozen=True, slots=True)
class Folder:
    """A directory of this machine, or one that it shares with others."""

    path: Path

    def write(self, key: str, data: bytes | memoryview) -> None:
        """Keep data in a file."""
        (self.path / key).write_bytes(data)

    def read(self, key: str) -> bytes:
        """All bytes of a file; no link is followed."""
        return beneath.read(self.path, *PurePosixPath(key).parts)

    def remove(self, keys: Iterable[str]) -> None:
        """Remove files."""
        for key in keys:
            (self.path / key).unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class Bucket:
    """What lies below an fsspec URL, such as `s3://bucket/sweeps`; credentials come from the environment."""

    url: str

    def write(self, key: str, data: bytes | memoryview) -> None:
        """Keep data in an object, and see by its key that it is there."""
        with self._system() as system:
            path = self._path(key)
            _make_room(system, path)
            _ask(system, "pipe_file", path, bytes(data), size=len(data))
            _confirm(system, path, len(data))

    def put(self, key: str, path: Path) -> None:
        """Keep a file in an object."""
        with self._system() as system:
            there, size = self._path(key), path.stat().st_size
            _make_room(system, there)
            _ask(system, "put_file", str(path), there, size=size)
            _confirm(system, there, size)

    def read(self, key: str) -> bytes:
        """All bytes of an object."""
        with self._system() as system:
            size = _ask(system, "info", self._path(key))["size"]
            found: bytes = _ask(system, "cat_file", self._path(key), size=size)
            return found

    def holds(self, key: str) -> bool:
        """Whether an object is there, by its key."""
        with self._system() as system, suppress(FileNotFoundError):
            return bool(_ask(system, "info", self._path(key)))
        return False

    def remove(self, keys: Iterable[str]) -> None:
        """Remove objects."""
        with self._system() as system:
            for key in keys:
                with suppress(FileNotFoundError):
                    _ask(system, "rm_file", self._path(key))

    def keys(self, below: str = "") -> set[str]:
        """The keys of what lies below one, as far as the service knows of it just now."""
        root = self._path(below)
        with self._system() as system:
            try:
                found = _ask(system, "find", root)
            except FileNotFoundError:
                return set()
        return {each[len(self._path("")) :].lstrip("/") for each in found}

    @contextmanager
    def _system(self) -> Iterator[Any]:
        """The file system of the URL; whatever its package raises is an OSError that says what it was."""
        try:
            yield _opened(self.url)[0]
        except FileNotFoundError as error:
            raise FileNotFoundError(errno.ENOENT, f"not found: {_said(error)}") from error
        except TimeoutError as error:
            raise TimeoutError(errno.ETIMEDOUT, "its service does not answer") from error
        except Exception as error:  # a border: each package raises what it likes
            number = error.errno if isinstance(error, OSError) and error.errno else errno.EIO
            kind = PermissionError if isinstance(error, PermissionError) else OSError
            raise kind(number, _said(error)) from error

    def _path(self, key: str) -> str:
        """A key as the file system wants it."""
        root = _opened(self.url)[1].rstrip("/")
        return f"{root}/{key}" if key else root


def at(place: str) -> Folder | Bucket:
    """The storage at a path or a URL as `parse` gives it; what it is asked raises OSError alone."""
    return Bucket(place) if is_url(place) else Folder(Path(place))


def is_url(place: str) -> bool:
    """Whether a storage is elsewhere than in directories."""
    return "://" in place


def parse(text: str) -> str:
    """An absolute path or a URL, read as what it says alone. Raises UsageError."""
    protocol, _, rest = text.partition("://")
    if not rest and not text.strip("/ "):
        raise _unusable(text, "names no place", "give a directory that all nodes see, or s3://bucket/folder")
    if "://" not in text and URL_LIKE.match(text):
        raise _unusable(text, "is neither a path nor a URL", "write two slashes, as in s3://bucket/folder")
    if "://" not in text or protocol in OWN_PATHS:
        return str(Path(rest or text).expanduser().absolute())
    if "::" in text:
        raise _unusable(text, "is a chain of URLs", "name one place to write to, such as s3://bucket/folder")
    if not rest.strip("/"):
        raise _unusable(text, "names no place", f"write {protocol}://bucket/folder")
    if protocol == "memory":
        raise _unusable(text, "is the memory of one process", "name a directory, or an object store")
    before, _, after = rest.rpartition("@")
    if ":" in before:  # what is secret may hold slashes
        raise _unusable(
            f"{protocol}://***@{after}",
            "holds a password, and would be kept with the study",
            "give it by the environment",
        )
    return text.rstrip("/")


def parse_elsewhere(text: str) -> str:
    """The same where it is for another machine: a path is that machine's, and so an absolute one."""
    if text and not is_url(text) and not text.startswith("/") and not URL_LIKE.match(text):
        raise _unusable(text, "is relative to a directory of this machine", "write a whole path, or a URL")
    return parse(text)


def module_of(url: str) -> str:
    """The module that knows how to reach a URL, imported. Raises UsageError where there is none."""
    import fsspec

    protocol = url.partition("://")[0]
    try:
        return str(fsspec.get_filesystem_class(protocol).__module__)
    except ValueError as error:
        known = ", ".join(sorted({*fsspec.available_protocols()} & {"s3", "gs", "abfs", "sftp", "webdav"}))
        raise _unusable(url, f"is of no kind that is known ({protocol})", f"there are {known}") from error
    except ImportError as error:
        extra = EXTRAS.get(protocol)
        hint = f"pip install '{extra}'" if extra else _said(error)
        raise _unusable(url, "needs a package that is not installed", f"{hint}, on all nodes") from error


def folder_of(place: str, name: str, uid: str) -> str:
    """Where a study's files lie in a storage: by name for people, and never in those of a namesake."""
    return f"{place}/{name}-{uid[:8]}"


def require(place: str, *, new: bool = True) -> None:
    """Make sure that files can be kept there, by keeping one. Raises UsageError, ServiceUnavailable.

    A directory that is not `new` must be there: where a mount is missing all would begin again.
    """
    if not is_url(place):
        try:
            if new:
                Path(place).mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise refused(place, error, UsageError) from error
    else:
        importlib.import_module(module_of(place))
    storage, note = at(place), f"{NOTE}{secrets.token_hex(8)}"
    try:
        storage.write(note, note.encode())
        read = storage.read(note)
        storage.remove([note])
    except (FileNotFoundError, PermissionError) as error:
        raise refused(place, error, UsageError) from error
    except OSError as error:
        raise refused(place, error, ServiceUnavailable) from error
    if read != note.encode():
        raise ServiceUnavailable(
            f"{place} gives back something else than what was written to it",
            hint="choose another --storage for the next study",
        )


def refused(place: str, error: OSError, kind: type[HpsearchError]) -> HpsearchError:
    """What to raise where files cannot be kept."""
    why = error.strerror or _said(error)
    return kind(
        f"trials cannot keep their files in {redact(place)}: {why}",
        hint="see to the place, its permissions and the credentials in the environment, or choose another"
        " --storage",
    )


def _unusable(text: str, why: str, hint: str) -> UsageError:
    return UsageError(f"--storage {redact(text)!r} {why}", hint=hint)


def _opened(url: str) -> tuple[Any, str]:
    """The file system of a URL and the path there."""
    import fsspec
    from fsspec.asyn import AsyncFileSystem

    known = fsspec.get_filesystem_class(url.partition("://")[0])
    # Those that are no object stores hand what they do not know to a connection, which refuses it.
    options = {"use_listings_cache": False} if issubclass(known, AsyncFileSystem) else {}
    system, path = fsspec.url_to_fs(url, **options)
    return system, path


def _ask(system: Any, name: str, *arguments: object, size: int = 0) -> Any:
    """What a file system answers to a call that moves so many bytes; raises TimeoutError if it does not."""
    from fsspec.asyn import AsyncFileSystem, sync

    if not isinstance(system, AsyncFileSystem):
        return getattr(system, name)(*arguments)
    patience = ANSWER + size / SLOWEST
    return sync(system.loop, getattr(system, f"_{name}"), *arguments, timeout=patience)


def _make_room(system: Any, path: str) -> None:
    """Make the directory of a file, where there are directories."""
    from fsspec.asyn import AsyncFileSystem

    if not isinstance(system, AsyncFileSystem):
        system.makedirs(path.rpartition("/")[0], exist_ok=True)


def _confirm(system: Any, path: str, size: int) -> None:
    """Raise OSError unless an object is there by its key, whole: a file may have grown meanwhile."""
    found = _ask(system, "info", path)["size"]
    if found < size:
        raise OSError(errno.EIO, f"{found} of {size} bytes have arrived")


def _said(error: BaseException) -> str:
    """What an error says, in a line, without secrets: also without a part of one that the line cuts off."""
    return redact(" ".join(str(error).split()))[:300] or type(error).__name__
