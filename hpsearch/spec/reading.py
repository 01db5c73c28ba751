"""From a file to a Reading: the text's tree, its dialect, the `hpsearch:` block, and all problems."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from pydantic.alias_generators import to_camel

from hpsearch.errors import UsageError
from hpsearch.spec import cloud_ml_engine, own, strategy, vertex_ai
from hpsearch.spec import overlay as laid
from hpsearch.spec.block import BlockForm
from hpsearch.spec.draft import Draft
from hpsearch.spec.model import Reading, SearchSpace, Spec
from hpsearch.spec.node import Findings, Kind, Node
from hpsearch.spec.reader import MAX_BYTES, compose

_STUDY_SPEC = re.compile(r"""\bstudy_?[sS]pec["']?:""")


def read(path: Path, strict: bool = False) -> Reading:
    """The Reading of a file; `strict` makes every warning an error.

    UsageError if the file is missing, no file, unreadable or not UTF-8.
    """
    try:
        with path.open("rb") as stream:
            # One byte more than is allowed, so that a device or a huge file costs no more either.
            data = stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise UsageError(f"no file {path}", hint="look at the path and the working directory") from None
    except IsADirectoryError:
        raise UsageError(f"{path} is a directory", hint="name a YAML file in it") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"cannot read {path}: {reason}", hint="check the path and its permissions") from None
    try:
        text = data[:MAX_BYTES].decode("utf-8-sig", errors="strict" if len(data) <= MAX_BYTES else "replace")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        message = f"{path} is not UTF-8: byte 0x{data[error.start]:02x} in line {line}"
        raise UsageError(message, hint="save it as UTF-8") from None
    return parse(text + "\n" * (len(data) > MAX_BYTES), str(path), strict)


def parse(text: str, file: str = "<text>", strict: bool = False) -> Reading:
    """The Reading of a text; `file` is what it is called, `strict` makes every warning an error."""
    findings = Findings(strict=strict)
    root = compose(text, findings)
    spec = None
    if root is None or root.kind is not Kind.MAP:
        # A text that does not parse still says what it wants to be.
        dialect = vertex_ai.NAME if _STUDY_SPEC.search(text) else cloud_ml_engine.NAME
        if root:
            findings.error(root, f"the file holds {root.kind.value}, not a map", "write trainingInput: first")
    else:
        dialect = _dialect(root)
        spec = _spec(_Source(text, file, dialect), root, findings)
    return Reading(file, dialect, spec, findings.errors, findings.warnings)


def _dialect(root: Node) -> str:
    """Which kind of file it is, by its keys alone."""
    keys = {to_camel(key) if "_" in key else key for key in root.entries}
    if "trainingInput" in keys:
        return cloud_ml_engine.NAME
    if "studySpec" in keys:
        return vertex_ai.NAME
    if keys == {"hpsearch"}:
        return own.NAME
    if not keys & cloud_ml_engine.UNWRAPPED and keys & vertex_ai.FRAGMENTS:
        return vertex_ai.NAME
    return cloud_ml_engine.NAME


@dataclass(frozen=True, slots=True)
class _Source:
    """Where a Spec comes from."""

    text: str
    file: str
    dialect: str


def _spec(source: _Source, root: Node, findings: Findings) -> Spec | None:
    """The Spec, unless there are errors."""
    node = root.entries.get("hpsearch")
    if node is None or node.is_null:
        node = Node(Kind.MAP, root.line, root.column, "hpsearch")
    block = BlockForm.take(node, findings)
    if source.dialect == own.NAME:
        draft = own.understand(block, findings) if node.kind is Kind.MAP else Draft(node)
    else:
        dialect = vertex_ai if source.dialect == vertex_ai.NAME else cloud_ml_engine
        draft = dialect.understand(root, findings)
        own.refuse_study(block, root, source.dialect, findings)
    return _lay(block, draft, source, findings)


def _lay(block: BlockForm, draft: Draft, source: _Source, findings: Findings) -> Spec | None:
    laid.conditions(block, draft, source.dialect == vertex_ai.NAME, findings)
    max_steps, measure_every = laid.steps(block, findings)
    module = laid.module(block, draft, findings)
    program = laid.program(block, draft, findings)
    laid.placeholders(block, draft, findings)
    sampler = strategy.sampler(block, draft, findings)
    pruner = strategy.pruner(block, draft, max_steps, measure_every, findings)
    selection = strategy.selection(block, draft, findings)
    resources = laid.resources(block, draft, findings)
    limits = laid.limits(block, draft, findings)
    if findings.errors or not draft.objectives:
        return None
    return Spec(
        source=source.file,
        text=source.text,
        sha256=hashlib.sha256(source.text.encode()).hexdigest(),
        dialect=source.dialect,
        module=module,
        args=draft.args,
        space=SearchSpace(draft.parameters),
        objectives=draft.objectives,
        max_trials=draft.max_trials,
        max_parallel_trials=draft.max_parallel_trials,
        selection=selection,
        max_steps=max_steps,
        paced=block.max_steps is not None or block.measure_every is not None,
        measure_every=measure_every,
        sampler=sampler,
        pruner=pruner,
        resources=resources,
        limits=limits,
        tracking=laid.tracking(block),
        checkpoints=laid.checkpoints(block),
        constraints=draft.constraints,
        stopping=draft.stopping,
        program=program,
        first=draft.first,
        previous=draft.previous,
    )
