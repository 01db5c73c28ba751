"""The dialect of files that hold nothing but the `hpsearch:` block -> Draft."""

from __future__ import annotations

from dataclasses import replace

from hpsearch.spec import cloud_ml_engine, vertex_ai
from hpsearch.spec.block import BlockForm
from hpsearch.spec.draft import Draft
from hpsearch.spec.model import Program
from hpsearch.spec.node import Findings, Node
from hpsearch.spec.resource import resource

NAME = "hpsearch"
# What a trainingInput would hold of it.
_JOB = frozenset({"pythonModule", "args", "jobDir", "hyperparameters"})
_WRAPPED = {
    "args": "write trainingInput.args",
    "hyperparameters": "write trainingInput.hyperparameters",
}
# Files of Cloud ML Engine without trainingInput, and without hyperparameters, too.
_UNWRAPPED = {
    "args": "write args: at the top level",
    "hyperparameters": "write hyperparameters: at the top level",
}
_BARE = {
    "args": "put the study below hyperparameters:, and args: beside that",
    "hyperparameters": "keep the study at the top level",
}
_VERTEX = {
    "args": "write trialJobSpec.workerPoolSpecs[0].containerSpec.args",
    "hyperparameters": "write studySpec",
}


def understand(block: BlockForm, findings: Findings) -> Draft:
    """What the block alone says: the study, and the arguments of the trainer."""
    job = {key: node for key, node in block.node.entries.items() if key in _JOB}
    draft = Draft(block.node, args=tuple(block.args or ()))
    draft.program = Program(job=resource(replace(block.node, entries=job)))
    if block.hyperparameters:
        cloud_ml_engine.study(block.hyperparameters, draft, findings)
    elif block.lacks("hyperparameters"):
        hint = "write hyperparameters with params below hpsearch:; one plain run needs no search"
        findings.missing(block.node, "hyperparameters", "nothing to tune: no hyperparameters", hint)
    return draft


def refuse_study(block: BlockForm, root: Node, dialect: str, findings: Findings) -> None:
    """Refuse in the block what has its place in the dialect beside it."""
    if dialect == vertex_ai.NAME:
        homes = _VERTEX
    elif not cloud_ml_engine.is_unwrapped(root):
        homes = _WRAPPED
    else:
        homes = _UNWRAPPED if "hyperparameters" in root.entries else _BARE
    for key, hint in homes.items():
        if not block.lacks(key):
            message = f"{key} does not belong here: the file holds more than the hpsearch block"
            findings.error(block.at(key), message, hint)
