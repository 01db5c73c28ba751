"""Rules as data: each has an id, a sentence, a remedy and a source, and a pure function that looks for faults."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from hpsearch.ship.lint.finding import Fault, Level

Subject = TypeVar("Subject")


@dataclass(frozen=True, slots=True)
class Rule(Generic[Subject]):
    """What must hold of a subject, what to do where it does not, and who says so."""

    id: str
    says: str
    remedy: str
    source: str
    level: Level
    check: Callable[[Subject], Iterator[Fault]] = field(repr=False)


@dataclass(slots=True)
class Rulebook(Generic[Subject]):
    """The rules about one sort of subject, in the order of the file that writes them."""

    family: str
    source: str
    rules: dict[str, Rule[Subject]] = field(default_factory=dict)

    def rule(
        self, name: str, says: str, remedy: str, *, level: Level = Level.ERROR, source: str = ""
    ) -> Callable[[Callable[[Subject], Iterator[Fault]]], Callable[[Subject], Iterator[Fault]]]:
        """Enter a function as a rule of this book."""

        def enter(check: Callable[[Subject], Iterator[Fault]]) -> Callable[[Subject], Iterator[Fault]]:
            named = f"{self.family}/{name}"
            if named in self.rules:
                raise ValueError(f"two rules are called {named}")
            self.rules[named] = Rule(named, says, remedy, source or self.source, level, check)
            return check

        return enter
