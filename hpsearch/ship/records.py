"""What was submitted from here: a small file for each job, so that its name alone finds it again."""

from __future__ import annotations

import contextlib
import json
import os
import re
import tempfile
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from hpsearch.errors import UsageError
from hpsearch.ship.choices import Target
from hpsearch.spec.model import Spec

DIRECTORY = ".jobs"
HASH = 8  # characters of a file's sha256 in a name
_OTHER = re.compile(r"[^A-Za-z0-9_.-]+")


@dataclass(frozen=True, slots=True)
class Record:
    """Where a job is; `home` is that of its studies, as the job sees it. `job`: Slurm's number."""

    name: str
    target: Target
    study: str
    home: str
    address: str = ""
    namespace: str = ""
    context: str = ""
    job: str = ""


def job_name(spec: Spec, study: str | None) -> str:
    """The name under which a sweep is submitted: that of the study or file, and a hash of the text."""
    name = _OTHER.sub("-", study or Path(spec.source).stem)[:80].strip("-.")
    return f"{name or 'sweep'}-{spec.sha256[:HASH]}"


def keep(home: Path, record: Record) -> None:
    """Write a record. Raises UsageError where that cannot be."""
    directory = home / DIRECTORY
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory.mkdir(mode=0o700, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=".record.", dir=directory)  # 0600
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(asdict(record), file, indent=2)
            file.write("\n")
        Path(name).replace(_place(home, record.name))
    except OSError as error:
        raise UsageError(
            f"cannot write {error.filename or directory}: {error.strerror}",
            hint="name a directory that can be written with --home",
        ) from error


def find(home: Path, name: str) -> Record | None:
    """What was kept of a job; None where nothing was, or something else."""
    if _OTHER.search(name):
        return None
    return _read(_place(home, name))


def kept(home: Path) -> list[Record]:
    """All records, by their names."""
    found = (_read(path) for path in sorted((home / DIRECTORY).glob("*.job.json")))
    return [record for record in found if record is not None]


def _place(home: Path, name: str) -> Path:
    return home / DIRECTORY / f"{name}.job.json"


def _read(path: Path) -> Record | None:
    with contextlib.suppress(OSError, ValueError, TypeError):
        found = json.loads(path.read_text(encoding="utf-8"))
        known = {each.name: str(found[each.name]) for each in fields(Record) if each.name in found}
        return Record(**{**known, "target": Target(known["target"])})  # type: ignore[arg-type]
    return None
