"""The positioned tree that text becomes, and the problems found in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from hpsearch.spec.model import Problem

_NULLS = frozenset({"", "~", "null", "Null", "NULL"})


class Kind(StrEnum):
    """What a node is."""

    SCALAR = "a scalar"
    LIST = "a list"
    MAP = "a map"


@dataclass(slots=True)
class Node:
    """One value of the text, with its place: 1-based line and column, and YAML path.

    `named` is the place of the key that names the value (of the value itself in a list);
    `plain` is false for quoted, block and `!!str` scalars, which are text whatever they look like;
    `unknown` marks an alias and a map with a merge key, which were refused: what they hold, nobody can say.
    """

    kind: Kind
    line: int
    column: int
    path: str = ""
    named: tuple[int, int] = (1, 1)
    text: str = ""
    plain: bool = False
    unknown: bool = False
    items: list[Node] = field(default_factory=list)
    entries: dict[str, Node] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The last part of the path: `minValue`, `discreteValues[2]`."""
        return self.path.rpartition(".")[2] or "the file"

    @property
    def is_null(self) -> bool:
        """True for an empty value, `~` and `null`, which stand for an absent one."""
        return self.kind is Kind.SCALAR and self.plain and self.text in _NULLS

    @property
    def shown(self) -> str:
        """The value as a message shows it, on one line and not too long."""
        if self.kind is not Kind.SCALAR:
            return str(self.kind)
        if self.is_null:
            return "empty"
        if not self.text.strip():
            return f'"{printable(self.text[:80])}"'
        return printable(self.text if len(self.text) <= 80 else self.text[:77] + "...")

    @property
    def elements(self) -> list[Node]:
        """The items of a list; a single map stands for a list of one, as for Google's own tools."""
        return [self] if self.kind is Kind.MAP else self.items

    def below(self, key: str) -> str:
        """The path of the value that `key` names here."""
        return f"{self.path}.{key}" if self.path else key


def printable(text: str) -> str:
    """The text with control characters written as escapes, so that it cannot drive a terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


class Findings:
    """The problems of one file, each told once, in the order of the file at the end.

    `strict` makes every warning an error. `forms` remembers what was read from which map, so that no map is
    read twice, however deep it lies. `suggestions` counts the words for which a meant one was looked for.
    """

    def __init__(self, *, strict: bool = False) -> None:
        self._errors: dict[Problem, None] = {}
        self._warnings: dict[Problem, None] = self._errors if strict else {}
        self._strict = strict
        self._subject = ""
        self.forms: dict[tuple[type, int], Any] = {}
        self.suggestions = 0

    @property
    def errors(self) -> tuple[Problem, ...]:
        """The errors in file order."""
        return _in_file_order(self._errors)

    @property
    def warnings(self) -> tuple[Problem, ...]:
        """The warnings in file order; none where they are errors."""
        return () if self._strict else _in_file_order(self._warnings)

    @contextmanager
    def about(self, subject: str) -> Iterator[None]:
        """Name the subject (`parameter lr`) at the start of every message inside."""
        before, self._subject = self._subject, f"{subject}: " if subject else self._subject
        yield
        self._subject = before

    def error(self, node: Node, message: str, hint: str = "") -> None:
        """An error at a value; nothing is said of an unknown one, whose refusal is said already."""
        if not node.unknown:
            self._errors[self._problem(node, message, hint)] = None

    def warn(self, node: Node, message: str, hint: str = "") -> None:
        """A warning at a value."""
        if not node.unknown:
            self._warnings[self._problem(node, message, hint)] = None

    def missing(self, node: Node, key: str, message: str, hint: str = "") -> None:
        """An error about something that a map lacks, at the key that names the map."""
        if not node.unknown:
            self._errors[self._absence(node, key, message, hint)] = None

    def absent(self, node: Node, key: str, message: str, hint: str = "") -> None:
        """A warning about something that a map lacks, at the key that names the map."""
        if not node.unknown:
            self._warnings[self._absence(node, key, message, hint)] = None

    def _problem(self, node: Node, message: str, hint: str) -> Problem:
        value = printable(node.text) if node.kind is Kind.SCALAR else ""
        message = printable(self._subject + message)
        return Problem(node.line, node.column, printable(node.path), value, message, printable(hint))

    def _absence(self, node: Node, key: str, message: str, hint: str) -> Problem:
        message = printable(self._subject + message)
        return Problem(*node.named, printable(node.below(key)), "", message, printable(hint))


def _in_file_order(problems: dict[Problem, None]) -> tuple[Problem, ...]:
    return tuple(sorted(problems, key=lambda problem: (problem.line, problem.column)))
