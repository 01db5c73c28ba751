"""The Ray door's look around: a tiny task on each other node measures what it sees of a study.

Imported by `cluster` alone, which sets what Ray reads at its import.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from hpsearch.errors import ServiceUnavailable, UsageError
from hpsearch.run import access, nodes, sight
from hpsearch.run.parcel import Parcel, pack
from hpsearch.run.sight import Question, Sight
from hpsearch.spec.model import Resources
from hpsearch.study.search import Search
from hpsearch.study.storage import at, refused

log = logging.getLogger(__name__)
# A node's first task starts a process there, which imports Ray (seconds); one that does not answer is left
# to Ray, which will miss it, too.
PATIENCE = 90.0
NOTE = ".survey-"


def survey(search: Search, resources: Resources, into: Path) -> Parcel | None:
    """What must be sent to the nodes where trials may run, beside what they see; packed `into` a directory.

    Raises UsageError for nodes that do not see the study's directory, that run other versions, or that lack
    a trainer or a command which cannot be sent.
    """
    others = _others(resources)
    if not others:
        return None
    study = search.study
    place = study.storage or str(study.directory)
    with _note(place, len(others)) as note:
        question = Question(place, note, study.spec.module, study.spec.program, search.python_path)
        here = sight.look(question, "", 0)
        seen = _ask(search, question, others)
        sight.require_same_software(here, seen)
        sight.require_shared(question, seen)
        sight.require_command(question, seen)
    lacking = sight.without_code(here, seen)
    return pack(study, search.python_path, lacking, into) if lacking else None


def _others(resources: Resources) -> list[dict[str, Any]]:
    """The nodes on other machines where a trial may be placed."""
    wanted = nodes.asked(resources)
    found = (
        node
        for node in nodes.alive()
        if not access.is_here(node["NodeManagerAddress"])
        and all(node["Resources"].get(name, 0.0) >= amount for name, amount in wanted.items())
    )
    return sorted(found, key=lambda node: str(node["NodeManagerAddress"]))


@contextlib.contextmanager
def _note(place: str, asked: int) -> Iterator[str]:
    """The name of a file that says its name, there while the nodes are asked; their answers go with it."""
    note, storage = f"{NOTE}{secrets.token_hex(8)}", at(place)
    try:
        try:
            storage.write(note, note.encode())
        except OSError as error:
            raise refused(place, error, ServiceUnavailable) from error
        yield note
    finally:
        with contextlib.suppress(OSError):
            storage.remove([note, *(sight.answer_to(note, number) for number in range(asked + 1))])


def _ask(search: Search, question: Question, others: list[dict[str, Any]]) -> list[Sight]:
    """What the nodes answer that do; fewer if the study is stopped meanwhile."""
    task = ray.remote(num_cpus=0, max_retries=0)(sight.look)
    asked = {}
    for number, node in enumerate(others, start=1):
        there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        name = node["NodeManagerAddress"]
        asked[task.options(scheduling_strategy=there).remote(question, name, number)] = name
    waiting, until = list(asked), time.monotonic() + PATIENCE
    while waiting and time.monotonic() < until and not search.over:
        # In turns, so that signals are heard.
        _, waiting = ray.wait(waiting, num_returns=len(waiting), timeout=1.0)
    answered = [_answer(ref, name) for ref, name in asked.items() if ref not in waiting]
    for ref in waiting:
        log.warning("node %s did not say within %g s what it sees", asked[ref], PATIENCE)
    return [each for each in answered if each is not None]


def _answer(ref: Any, node: str) -> Sight | None:
    try:
        found: Sight = ray.get(ref)
    except Exception as error:  # a border: what went wrong there comes as whatever it was
        if "No module named 'hpsearch" in str(error):
            raise UsageError(
                f"hpsearch is not installed on node {node}",
                hint="install the same on all nodes, or use one image for all of them",
            ) from error
        log.warning("node %s could not say what it sees: %s", node, _first_line(error))
        return None
    return found


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
