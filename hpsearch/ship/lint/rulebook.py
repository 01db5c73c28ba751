"""Rules as data: an id, a sentence, a remedy, a source, and a pure function that looks for faults."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from hpsearch.ship.lint.finding import Level

Subject = TypeVar("Subject")
Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class Rule(Generic[Subject, Found]):
    """What must hold of a subject, what to do where it does not, and who says so."""

    id: str
    says: str
    remedy: str
    source: str
    level: Level
    check: Callable[[Subject], Iterator[Found]] = field(repr=False)


@dataclass(slots=True)
class Rulebook(Generic[Subject, Found]):
    """The rules about one sort of subject, in the order of the file that writes them."""

    family: str
    source: str
    rules: dict[str, Rule[Subject, Found]] = field(default_factory=dict)

    def rule(
        self, name: str, says: str, remedy: str, *, level: Level = Level.ERROR, source: str = ""
    ) -> Callable[[Callable[[Subject], Iterator[Found]]], Callable[[Subject], Iterator[Found]]]:
        """Enter a function as a rule of this book."""

        def enter(check: Callable[[Subject], Iterator[Found]]) -> Callable[[Subject], Iterator[Found]]:
            named = f"{self.family}/{name}"
            if named in self.rules:
                raise ValueError(f"two rules are called {named}")
            self.rules[named] = Rule(named, says, remedy, source or self.source, level, check)
            return check

        return enter
