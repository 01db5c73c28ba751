"""From a file to a Reading: the text's tree, its dialect, the `hpsearch:` block, and all problems."""

from __future__ import annotations

import hashlib
from pathlib import Path

from hpsearch.errors import UsageError
from hpsearch.spec import block as laid
from hpsearch.spec import cloud_ml_engine
from hpsearch.spec.block import BlockForm
from hpsearch.spec.draft import Draft
from hpsearch.spec.model import Reading, SearchSpace, Selection, Spec
from hpsearch.spec.node import Findings, Kind, Node
from hpsearch.spec.reader import MAX_BYTES, compose


def read(path: Path) -> Reading:
    """The Reading of a file; UsageError if it is missing, no file, unreadable or not UTF-8."""
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
    return parse(text + "\n" * (len(data) > MAX_BYTES), str(path))


def parse(text: str, file: str = "<text>") -> Reading:
    """The Reading of a text; `file` is what it is called."""
    findings = Findings()
    root = compose(text, findings)
    spec, dialect = None, cloud_ml_engine.NAME
    if root and set(root.entries) == {"hpsearch"}:
        dialect = "hpsearch"
    if root and root.kind is not Kind.MAP:
        findings.error(root, f"the file holds {root.kind.value}, not a map", "write trainingInput: first")
    elif root and "studySpec" in root.entries and "trainingInput" not in root.entries:
        dialect = "vertex_ai"
        message = "studySpec is Vertex AI, which is not read yet"
        findings.missing(root, "studySpec", message, "write it as trainingInput.hyperparameters")
    elif root:
        spec = _spec(root, text, file, findings)
    return Reading(file, dialect, spec, findings.errors, findings.warnings)


def _spec(root: Node, text: str, file: str, findings: Findings) -> Spec | None:
    """The Spec, unless there are errors."""
    draft = cloud_ml_engine.understand(root, findings)
    node = root.entries.get("hpsearch")
    if node is None or node.is_null:
        node = Node(Kind.MAP, root.line, root.column, "hpsearch")
    return _lay(BlockForm.take(node, findings), draft, text, file, findings)


def _lay(block: BlockForm, draft: Draft, text: str, file: str, findings: Findings) -> Spec | None:
    max_steps, measure_every = laid.steps(block, findings)
    module = laid.module(block, draft, findings)
    sampler = laid.sampler(block, draft, findings)
    pruner = laid.pruner(block, draft, max_steps, measure_every, findings)
    resources = laid.resources(block, findings)
    limits = laid.limits(block, draft, findings)
    if findings.errors or draft.objective is None:
        return None
    return Spec(
        source=file,
        text=text,
        sha256=hashlib.sha256(text.encode()).hexdigest(),
        dialect=cloud_ml_engine.NAME,
        module=module,
        args=draft.args,
        space=SearchSpace(draft.parameters),
        objectives=(draft.objective,),
        max_trials=draft.max_trials,
        max_parallel_trials=draft.max_parallel_trials,
        selection=block.measurement_selection_type or Selection.LAST,
        max_steps=max_steps,
        measure_every=measure_every,
        sampler=sampler,
        pruner=pruner,
        resources=resources,
        limits=limits,
        tracking=laid.tracking(block),
    )
