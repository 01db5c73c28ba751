"""What a check says: a finding at a place of a file, and the paths that name such places."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

Path = tuple[str | int, ...]
# First step of a fault's path that does not start at the rule's subject but at the object that has it.
TOP = ""

_PLAIN_KEY = re.compile(r"[A-Za-z0-9_-]+")


class Level(StrEnum):
    """How bad a finding is: only errors make a manifest unfit."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Fault:
    """What a rule found below its subject: where, and what is wrong there.

    `level` and `remedy` stand in for those of the rule where this case is another one.
    """

    path: Path
    message: str
    level: Level | None = None
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, at a line of a file, with the rule that says so and what to do."""

    file: str
    line: int
    subject: str
    path: Path
    message: str
    rule: str
    hint: str
    level: Level = Level.ERROR
    source: str = ""

    @property
    def text(self) -> str:
        """The finding on one line: FILE:LINE: KIND/NAME path: what is wrong (rule); what to do."""
        kind = "" if self.level is Level.ERROR else f"{self.level}: "
        named = " ".join(part for part in (self.subject, written(self.path)) if part)
        said = f"{self.file}:{self.line}: {kind}{named + ': ' if named else ''}{self.message} ({self.rule})"
        return f"{said}; {self.hint}" if self.hint else said

    def as_json(self) -> dict[str, object]:
        """The finding as an entry of `k8s validate --json`."""
        kind, _, name = self.subject.partition("/")
        return {
            "file": self.file,
            "line": self.line,
            "kind": kind,
            "name": name,
            "path": written(self.path),
            "level": str(self.level),
            "rule": self.rule,
            "message": self.message,
            "hint": self.hint,
            "source": self.source,
        }


def written(path: Path) -> str:
    """A path as people write it: spec.containers[0].name, metadata.labels["a.b/c"]."""
    return "".join(_steps(path))


def _steps(path: Path) -> Iterator[str]:
    for place, step in enumerate(path):
        if isinstance(step, int):
            yield f"[{step}]"
        elif _PLAIN_KEY.fullmatch(step):
            yield f".{step}" if place else step
        else:
            yield f'["{step}"]'
