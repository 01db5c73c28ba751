"""Whether a SQLite store is whole: log, structure, every row, the counter, and what its witnesses say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hpsearch.study import witness
from hpsearch.study.opening import DATABASE, TRIALS, look_at_log, strays
from hpsearch.study.salvage import Problem, Scan, scan
from hpsearch.study.schema import check_version
from hpsearch.study.witness import Testimony


@dataclass(frozen=True, slots=True)
class Health:
    """What an examination found: the newest fact's `lsn`, that which a witness knows, and the rows read.

    `tail` bytes of the log were never committed; that is no problem.
    """

    problems: tuple[Problem, ...]
    lsn: int
    witness_lsn: int | None
    rows: int
    tail: int

    @property
    def whole(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


def examine(directory: Path) -> Health:
    """Read all of a study's store, also while a driver writes it. Raises UsageError for another version's."""
    # Before the snapshot: what is acknowledged from now on is in it.
    seen = witness.read(directory)
    log = look_at_log(directory)
    problems = []
    if log.damage is not None:
        problems.append(Problem("log", f"{log.problem} (byte {log.damage} of the log)", offset=log.damage))
    found = scan(directory / DATABASE)
    if found.study:
        check_version(found.study["name"], found.study["schema_version"])
    problems += [*found.problems, *_counter(found), *_witnesses(directory, found, seen)]
    lsn = found.lease["lsn"] if found.lease else max(found.facts, default=0)
    rows = len(found.facts) + len(found.known) + len(found.unproven) + bool(found.study) + bool(found.lease)
    return Health(tuple(problems), lsn, seen.lsn if seen else None, rows, log.tail)


def spans(numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Ascending numbers as spans without gaps, each by its first and last."""
    start = None
    for n, number in enumerate(numbers):
        start = number if start is None else start
        if n + 1 == len(numbers) or numbers[n + 1] != number + 1:
            yield start, number
            start = None


def _counter(found: Scan) -> Iterator[Problem]:
    """The lsn of every fact that ought to be there and is not, and of those beyond the last."""
    for name, row in (("study", found.study), ("lease", found.lease)):
        if row is None and not any(problem.table == name for problem in found.problems):
            yield Problem("row", f"table {name} has no row", name)
    if found.study and len(found.known) != found.study["known"]:
        text = f"{len(found.known)} known trials are proven where {found.study['known']} were written"
        yield Problem("missing", text, "known")
    last = found.lease["lsn"] if found.lease else max(found.facts, default=0)
    missing = [lsn for lsn in range(1, last + 1) if lsn not in found.facts]
    for first, until in spans(missing):
        yield Problem("missing", f"{_facts(first, until)} missing or not proven", lsn=first)
    for first, until in spans(sorted(lsn for lsn in found.facts if lsn > last)):
        yield Problem("missing", f"{_facts(first, until)} beyond the last that the lease names", lsn=first)


def _witnesses(directory: Path, found: Scan, seen: Testimony | None) -> Iterator[Problem]:
    """What the witnesses say that the store does not know."""
    if found.lease is None:
        return
    if seen is None and witness.content(directory):
        yield Problem("witness", f"the file {witness.NAME} does not match its checksum")
    if seen and found.study and seen.uid != found.study["uid"]:
        yield Problem("witness", f"the file {witness.NAME} is that of another study, {seen.uid}")
    elif seen and seen.lsn > found.lease["lsn"]:
        text = f"lsn {seen.lsn} was acknowledged, and the store ends at lsn {found.lease['lsn']}"
        yield Problem("witness", text, lsn=found.lease["lsn"] + 1)
    known = {row["number"] for table, row in found.facts.values() if table == "trial"}
    for path in strays(directory, known):
        yield Problem("witness", f"the store knows no trial of the directory {TRIALS}/{path.name}")


def _facts(first: int, last: int) -> str:
    return f"the fact of lsn {first} is" if first == last else f"the facts of lsn {first} to {last} are"
