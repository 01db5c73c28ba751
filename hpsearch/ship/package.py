"""What a sweep needs of its driver's directory, as a package of Ray's: its file, and the trainer's own code.

The same files are the same package, to the byte, under a name that follows from them.
"""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hpsearch.errors import UsageError
from hpsearch.ship.making import refuse_secrets
from hpsearch.spec.model import Spec
from hpsearch.train.code import Code

# The dashboard takes 100 MiB by one request (bytes); more than code is data, which belongs elsewhere.
LARGEST = 64 << 20
MOST_FILES = 10_000
# Directories of other programs, and what a study writes. Hidden files may be secrets and never travel.
LEFT_OUT = frozenset({"__pycache__", "node_modules", "venv", "studies", "mlruns"})


@dataclass(frozen=True, slots=True)
class Package:
    """Files by their path in the working directory that a job starts in; `name` as Ray keeps it."""

    name: str
    data: bytes
    files: tuple[str, ...]


def package(spec: Spec, python_path: Sequence[str], directory: Path | None = None) -> Package:
    """The sweep's file and its trainer's code, or all that is in a directory.

    Code is the trainer's module and what that imports from where trainers are looked for, or the files that a
    command names. What is installed has to be installed there, too. Raises UsageError.
    """
    refuse_secrets(spec)
    files = _all(directory) if directory else _code(spec, python_path)
    sweep = Path(spec.source).name
    if sweep in files and directory and not (directory / sweep).samefile(spec.source):
        raise UsageError(
            f"{directory / sweep} is another file than {spec.source}, and the job would find it in its place",
            hint="rename one of them",
        )
    files[sweep] = spec.text.encode()
    if (size := sum(map(len, files.values()))) > LARGEST or len(files) > MOST_FILES:
        raise UsageError(
            f"{len(files):,} files of {size >> 20} MiB together do not travel with a job: "
            f"{LARGEST >> 20} MiB and {MOST_FILES:,} files do",
            hint="keep data where all nodes see it, and name a directory of code with --working-dir",
        )
    data = _zipped(files)
    return Package(f"_ray_pkg_{hashlib.sha256(data).hexdigest()[:40]}.zip", data, tuple(sorted(files)))


def _code(spec: Spec, python_path: Sequence[str]) -> dict[str, bytes]:
    if spec.module.partition(".")[0] == "hpsearch" and not spec.program.command:
        return {}  # our own examples come with hpsearch
    found = Code(spec.module, spec.program.command, python_path).files()
    own = ((name, path) for name, path in found.items() if any(path == Path(r, name) for r in python_path))
    return {name: path.read_bytes() for name, path in own if not Path(name).is_absolute()}


def _all(directory: Path) -> dict[str, bytes]:
    if not directory.is_dir():
        raise UsageError(f"--working-dir {directory} is no directory", hint="name the one that has the code")
    try:
        return {str(path.relative_to(directory)): path.read_bytes() for path in _walked(directory)}
    except OSError as error:
        raise UsageError(f"cannot read {error.filename}: {error.strerror}") from error


def _walked(directory: Path) -> Iterator[Path]:
    count = size = 0
    for here, below, names in os.walk(directory):
        below[:] = sorted(
            name
            for name in below
            if name not in LEFT_OUT
            and not name.startswith(".")
            and not Path(here, name, "pyvenv.cfg").exists()
        )
        for path in (Path(here, name) for name in sorted(names) if not name.startswith(".")):
            if not path.is_file() or path.suffix == ".pyc":
                continue
            count, size = count + 1, size + path.stat().st_size
            if size > LARGEST or count > MOST_FILES:
                raise UsageError(
                    f"{directory} has more than {LARGEST >> 20} MiB or {MOST_FILES:,} files, up to {path}",
                    hint="keep data where all nodes see it, and name a directory of code with --working-dir",
                )
            yield path


def _zipped(files: Mapping[str, bytes]) -> bytes:
    """An archive without times."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o100755 << 16 if files[name].startswith(b"#!") else 0o100644 << 16
            archive.writestr(entry, files[name])
    return made.getvalue()
