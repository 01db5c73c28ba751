"""The dialect of files that hold nothing but the `hpsearch:` block -> Draft."""

from __future__ import annotations

from dataclasses import replace

from hpsearch.spec import vertex_ai
from hpsearch.spec.block import BlockForm
from hpsearch.spec.cloud_ml_engine import study
from hpsearch.spec.draft import Draft
from hpsearch.spec.model import Program
from hpsearch.spec.node import Findings
from hpsearch.spec.resource import resource

NAME = "hpsearch"
# What a trainingInput would hold of it.
_JOB = frozenset({"pythonModule", "args", "jobDir", "hyperparameters"})
_HOMES = {
    "cloud_ml_engine": {"args": "trainingInput.args", "hyperparameters": "trainingInput.hyperparameters"},
    vertex_ai.NAME: {
        "args": "trialJobSpec.workerPoolSpecs[0].containerSpec.args",
        "hyperparameters": "studySpec",
    },
}


def understand(block: BlockForm, findings: Findings) -> Draft:
    """What the block alone says: the study, and the arguments of the trainer."""
    job = {key: node for key, node in block.node.entries.items() if key in _JOB}
    draft = Draft(block.node, args=tuple(block.args or ()))
    draft.program = Program(job=resource(replace(block.node, entries=job)))
    if block.hyperparameters:
        study(block.hyperparameters, draft, findings)
    elif block.lacks("hyperparameters"):
        hint = "write hyperparameters with params below hpsearch:; one plain run needs no search"
        findings.missing(block.node, "hyperparameters", "nothing to tune: no hyperparameters", hint)
    return draft


def refuse_study(block: BlockForm, dialect: str, findings: Findings) -> None:
    """Refuse in the block what has its place in the dialect beside it."""
    for key, home in _HOMES[dialect].items():
        if not block.lacks(key):
            message = f"{key} does not belong here: the file has {home.partition('.')[0]}"
            findings.error(block.at(key), message, f"write {home}")
