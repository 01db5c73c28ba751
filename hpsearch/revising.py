"""What a study goes by may change: its file, its trainer's code, versions; told, kept, or refused."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from hpsearch.errors import SpecError, UsageError
from hpsearch.spec.model import Problem, Spec
from hpsearch.study.birth import git_sha, is_name, versions
from hpsearch.study.edits import Difference, Verdict, classify
from hpsearch.study.history import History
from hpsearch.study.home import Home
from hpsearch.study.lineage import fork, inherit
from hpsearch.study.trial import Entry, Known, Revision
from hpsearch.train.code import Code, changes

log = logging.getLogger(__name__)


def accepted(name: str, old: Spec, new: Spec) -> Verdict:
    """What an edited file changes of a study; SpecError, one problem for each, where it must not."""
    verdict = classify(old, new)
    if verdict.refused:
        raise SpecError(
            f"{new.source} asks for something else than study {name!r} was started with",
            hint=f"undo that, or add --fork NAME: a new study, which knows what is still true of {name}",
            problems=[_problem(each, new.text) for each in verdict.refused],
        )
    return verdict


def known(spec: Spec, home: Home, forked: str | None) -> tuple[Known, ...]:
    """The trials that a new study knows from its start.

    Those of the study that resumePreviousJobId names, or of the one that it is a fork of. Raises UsageError.
    """
    if forked is not None:
        if not is_name(forked) or not home.holds(forked):
            raise UsageError(
                f"--fork needs a study to start from: there is no {forked!r} in {home.directory}",
                hint="name it with --study; `hpsearch list` names the studies there",
            )
        found = fork(spec, home.history(forked))
        log.warning("fork of %s: %s", forked, found)
        return found.known
    if spec.previous is None:
        return ()
    if not is_name(spec.previous) or not home.holds(spec.previous):
        raise UsageError(
            f"resumePreviousJobId {spec.previous!r} names no study in {home.directory}",
            hint="`hpsearch list` names the studies there; remove it to start anew",
        )
    return inherit(spec, home.history(spec.previous))


def revised(history: History, edited: Spec | None) -> tuple[History, Verdict]:
    """A history under an edited file; what it asks for otherwise reopens a study that had ended."""
    if edited is None:
        return history, Verdict(())
    study = history.study
    verdict = accepted(study.name, study.spec, edited)
    ending = None if verdict.differences else history.last_ending
    return replace(history, study=replace(study, spec=edited), last_ending=ending), verdict


class Revisions:
    """What a study goes by now, against what its store says that it went by."""

    def __init__(self, history: History, python_path: Sequence[str]) -> None:
        spec = history.study.spec
        self._study = history.study
        self._code = Code(spec.module, spec.program.command, python_path)
        self._versions = versions()
        self._last = history.revisions[-1] if history.revisions else None
        self._number = len(history.revisions)

    def edited(self, verdict: Verdict, now: int) -> Revision:
        """The study goes by another file from here on."""
        edits = tuple(map(str, verdict.differences))
        self._tell()
        return self._revision(now, self._study.spec.text, edits)

    def due(self, now: int) -> list[Entry]:
        """What must be kept before another attempt starts: code and versions, where they are others now."""
        last = self._last
        if last is not None and last.code == self._code.proofs() and last.versions == self._versions:
            return []
        self._tell()
        return [Entry(None, self._revision(now, None, ()))]

    def _tell(self) -> None:
        """Warn of code and versions that are others than before."""
        changed = changes(self._last.code, self._code.proofs()) if self._last else []
        if changed:
            log.warning("the trainer's code has changed; attempts from now on run it: %s", "; ".join(changed))
        for said in _moved(self._last.versions if self._last else self._study.versions, self._versions):
            log.warning("%s", said)

    def _revision(self, now: int, text: str | None, edits: tuple[str, ...]) -> Revision:
        source = self._study.spec.source
        sha = git_sha(Path(source).parent) if self._last else self._study.git_sha
        self._number += 1
        code = dict(self._code.proofs())
        self._last = Revision(self._number, now, source, text, edits, sha, code, self._versions)
        return self._last


def _moved(old: Mapping[str, str], new: Mapping[str, str]) -> Iterator[str]:
    """Versions that are others than before, in words."""
    for name in dict.fromkeys([*old, *new]):
        before, after = old.get(name), new.get(name)
        if before == after:
            continue
        said = f"{name} was {before or 'not installed'}, now it is {after or 'not installed'}"
        if name == "optuna" and (before or "").split(".")[:2] != (after or "").split(".")[:2]:
            said += ": what the sampler draws from now on may differ from an uninterrupted study's"
        yield said


def _problem(difference: Difference, text: str) -> Problem:
    """A difference at the line of the new file that is most likely about it."""
    for word in (difference.subject.rpartition(".")[2].split()[-1], "goal", "hyperparameters"):
        if found := re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", text):
            break
    before = text[: found.start() if found else 0]
    line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
    return Problem(line, column, "", "", str(difference), difference.why)
