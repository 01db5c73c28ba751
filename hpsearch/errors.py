"""Every error that hpsearch raises on purpose, each with the exit code of its kind.

HpsearchError                 1   a bug in hpsearch, when nothing below fits
 +-- UsageError               2   bad usage
 |    +-- SpecError           2   an invalid file; carries every problem found in it
 +-- NoSuccess                3   the study ended and no trial completed, or too many failed
 +-- DeadlineReached          4   a deadline ended the study; resumable
 +-- ServiceUnavailable      69   a required service cannot be reached
 +-- StudyBusy               73   another driver owns the study
 +-- StoreDamaged            74   the store is damaged; nothing was overwritten
 +-- Interrupted             75   interrupted or a temporary failure; `resume` goes on
      +-- StoreFull          75   there is no room for a write; nothing was written
"""

from __future__ import annotations

from collections.abc import Sequence


class HpsearchError(Exception):
    """An error whose message names what is wrong, with the value, and whose hint names what to do."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} (hint: {self.hint})" if self.hint else self.message


class UsageError(HpsearchError):
    """The command or its arguments cannot be used as given."""

    exit_code = 2


class SpecError(UsageError):
    """A file is not valid; `problems` holds every error found in it."""

    def __init__(self, message: str, *, hint: str = "", problems: Sequence[object] = ()) -> None:
        super().__init__(message, hint=hint)
        self.problems = tuple(problems)


class NoSuccess(HpsearchError):
    """The study ended without a completed trial, or with more failures than allowed."""

    exit_code = 3


class ServiceUnavailable(HpsearchError):
    """A service that the command needs cannot be reached."""

    exit_code = 69


class StudyBusy(HpsearchError):
    """Another driver holds the lease of the study."""

    exit_code = 73


class StoreDamaged(HpsearchError):
    """The store does not hold what was written to it; nothing was overwritten."""

    exit_code = 74


class Interrupted(HpsearchError):
    """The study was interrupted, or something failed for a while; `resume` goes on."""

    exit_code = 75


class StoreFull(Interrupted):
    """The store has no room for a write, which was undone and may be tried again."""
