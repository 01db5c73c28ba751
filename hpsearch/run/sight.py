"""What one node of a cluster sees of a study, and what follows from what all of them see; knows no Ray."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import hpsearch
from hpsearch.errors import UsageError
from hpsearch.redaction import redact
from hpsearch.run.contract import find_command, shared_directory
from hpsearch.spec.model import Program
from hpsearch.study.birth import versions
from hpsearch.study.storage import at, is_url
from hpsearch.train.code import Code

# Without the same of these, nodes do not understand one another, or run another step loop.
SAME = ("python", "ray", "hpsearch")
NAMED = 5  # nodes in a message


@dataclass(frozen=True, slots=True)
class Question:
    """What a node is asked: whether it reads `note` where trials' files lie, and what it would run there."""

    storage: str
    note: str
    module: str
    program: Program
    python_path: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Sight:
    """What a node answers; `answer` is what it wrote back beside the note, `code` proves the trainer's files.

    `blind` is why it did not read the note or write an answer. `own` proves hpsearch's own code, `command` is
    whether the program's is there.
    """

    node: str
    answer: str = ""
    blind: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    own: str = ""
    code: Mapping[str, str] = field(default_factory=dict)
    command: bool = True


def look(question: Question, node: str, number: int) -> Sight:
    """Answer as a node."""
    answer, blind = _write_back(question.storage, question.note, number)
    return Sight(
        node,
        answer,
        blind,
        versions(),
        own_code(),
        Code(question.module, question.program.command, question.python_path).proofs(),
        not question.program.command or _has_command(question),
    )


def answer_to(note: str, number: int) -> str:
    """The name of the file that the node of that number writes."""
    return f"{note}-{number}"


def _write_back(place: str, note: str, number: int) -> tuple[str, str]:
    """The name of the file that says that the note was read, or why there is none."""
    answer = answer_to(note, number)
    try:
        storage = at(place)
        if storage.read(note) != note.encode():
            return "", "it reads something else there"
        storage.write(answer, answer.encode())
    except OSError as error:
        return "", error.strerror or type(error).__name__
    return answer, ""


def _has_command(question: Question) -> bool:
    there = shared_directory(question.program, question.python_path)
    return find_command(question.program, there, os.environ) is not None


@cache
def own_code() -> str:
    """A proof of the code of hpsearch itself, which between versions is not what the version says."""
    found = hashlib.sha256()
    root = Path(hpsearch.__file__).parent
    for path in sorted(root.rglob("*.py")):
        found.update(f"{path.relative_to(root)}\0{path.stat().st_size}\0".encode())
        found.update(path.read_bytes())
    return found.hexdigest()


def require_same_software(here: Sight, nodes: Iterable[Sight]) -> None:
    """Raise UsageError for the first node that runs another Python, Ray or hpsearch than the driver."""
    for node in nodes:
        for name in SAME:
            if (there := node.versions.get(name, "none")) != (ours := here.versions.get(name, "none")):
                raise _unlike(node.node, f"{name} {there}", ours)
        if node.own != here.own:
            ours, there = (f"{each.versions['hpsearch']} ({each.own[:12]})" for each in (here, node))
            raise _unlike(node.node, f"hpsearch {there}", ours)


def _unlike(node: str, there: str, here: str) -> UsageError:
    return UsageError(
        f"node {node} has {there}, the driver {here}",
        hint="install the same on all nodes, or use one image for all of them",
    )


def require_shared(question: Question, nodes: Sequence[Sight]) -> None:
    """Raise UsageError unless each node sees where trials' files lie and this one sees what they wrote."""
    blind = [each for each in nodes if not _is_there(question.storage, each.answer)]
    if not blind:
        return
    hint = (
        "name a directory that all nodes share with --home or --storage, such as a network mount, or a bucket"
        " such as --storage s3://bucket/folder; the store is kept in PostgreSQL (HPSEARCH_STORE) where the"
        " home is on a network"
    )
    if is_url(question.storage):
        hint = "install the package for it on all nodes, and give them the address and credentials, too"
    raise UsageError(
        f"{len(blind)} of {len(nodes)} other nodes do not see {redact(question.storage)}, where trials keep"
        f" their checkpoints and outputs: {named([each.node for each in blind])}"
        + (f" ({blind[0].blind})" if blind[0].blind else ""),
        hint=hint,
    )


def _is_there(place: str, answer: str) -> bool:
    try:
        return bool(answer) and at(place).read(answer) == answer.encode()
    except OSError:
        return False


def require_command(question: Question, nodes: Iterable[Sight]) -> None:
    """Raise UsageError for nodes without the program's command, unless it can be sent to them."""
    word = question.program.command[0] if question.program.command else ""
    if os.sep in word and not os.path.isabs(word):  # noqa: PTH117
        return
    if lacking := [each.node for each in nodes if not each.command]:
        raise UsageError(
            f"command {word!r} cannot be found on {named(lacking)}",
            hint="install it there, or name one by its path from the directory of the start: that is sent",
        )


def without_code(here: Sight, nodes: Iterable[Sight]) -> list[str]:
    """The nodes that would not run the same trainer as this one."""
    return [each.node for each in nodes if each.code != here.code or not each.command]


def named(nodes: Sequence[str]) -> str:
    """The nodes in a message, not more than a few."""
    more = f" and {len(nodes) - NAMED} more" if len(nodes) > NAMED else ""
    return ", ".join(nodes[:NAMED]) + more


def tells_of_growth(status: bytes | None) -> bool:
    """Whether an autoscaler's status is that of one that makes nodes; True for none.

    Where nobody configured one it still tells of the nodes, each being of a type of its own, "node_ID".
    """
    try:
        types = json.loads(status or b"null")["autoscaler_report"]["node_type_mapping"]
        return any(kind != f"node_{node}" for node, kind in types.items()) or not types
    except (ValueError, KeyError, TypeError, AttributeError):
        return True
