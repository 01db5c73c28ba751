"""How the `hpsearch:` block is laid over a dialect's Draft: steps, what runs, resources and limits."""

from __future__ import annotations

import math
from dataclasses import replace

from hpsearch.spec.block import MAX_GRACE, BlockForm, LimitsForm, ResourcesForm, TrackingForm
from hpsearch.spec.conditions import conditioned
from hpsearch.spec.draft import Draft, warn_of_zero_failures
from hpsearch.spec.model import Keep, Limits, Program, Resources, Tracking
from hpsearch.spec.node import Findings, Node
from hpsearch.spec.programs import is_remote, warn_of_placeholders

DEFAULT_MAX_STEPS = 1000
# Enough points for a curve, few enough to cost nothing.
MEASUREMENTS = 20


def steps(block: BlockForm, findings: Findings) -> tuple[int, int]:
    """max_steps and measure_every; 1000 and a twentieth of them where the file is silent."""
    max_steps = block.max_steps or DEFAULT_MAX_STEPS
    measure_every = block.measure_every or max(1, round(max_steps / MEASUREMENTS))
    if measure_every > max_steps:
        message = f"measureEvery {measure_every} is above maxSteps {max_steps}: nothing would be measured"
        findings.error(block.at("measureEvery"), message, f"give {max_steps} or less")
    return max_steps, measure_every


def conditions(block: BlockForm, draft: Draft, tree: bool, findings: Findings) -> None:
    """Give the parameters the block's conditions; a `tree` has its own."""
    if block.conditions is None:
        return
    if tree:
        message = "conditions do not belong here: parameters of studySpec hold their own"
        findings.error(block.at("conditions"), message, "write conditionalParameterSpecs below the parent")
        return
    draft.parameters = conditioned(draft.parameters, block.conditions, draft.types, findings)


def module(block: BlockForm, draft: Draft, findings: Findings) -> str:
    """The module that runs: the dialect's before the block's; empty where there is none."""
    ours, theirs = block.python_module or "", draft.module
    if block.command and ours:
        message = f"pythonModule {ours} is ignored: command is run instead"
        findings.warn(block.at("pythonModule"), message, "keep one of them")
    elif ours and theirs and ours != theirs:
        place = draft.places["pythonModule"]
        message = f"pythonModule {ours} is ignored: {place.path} is {theirs}"
        findings.warn(block.at("pythonModule"), message, "keep one of them")
    return theirs or ours


def program(block: BlockForm, draft: Draft, findings: Findings) -> Program:
    """What runs beside or instead of a module: the block's before the dialect's."""
    found = draft.program
    if block.command == [] and not block.refused("command"):
        findings.error(block.at("command"), "command is empty", "write what runs, or remove the line")
    if block.command or block.python_module:
        # What is in an image is not here; what the block names is.
        found = replace(found, command=tuple(block.command or ()))
    place = block.at("jobDir") if block.job_dir else draft.places.get("jobDir")
    job_dir = block.job_dir or found.job_dir
    if job_dir and place and is_remote(job_dir):
        message = (
            f"jobDir {place.shown} is passed to the trainer as it is: nothing is written there from here"
        )
        findings.warn(place, message, "write a path of this machine, if the trainer takes one")
    _check_start(block, draft, findings)
    return replace(found, job_dir=job_dir, own_directory=bool(block.working_directory))


def _check_start(block: BlockForm, draft: Draft, findings: Findings) -> None:
    """Warn where there is nothing to run; a value that was refused is told already."""
    named = ("pythonModule", "command", "containerCommand")
    given = draft.program.command or any(key in draft.places and _said(draft.places[key]) for key in named)
    if given or any(not block.lacks(key) for key in named[:2]) or not draft.objectives:
        return
    hint = "write hpsearch.pythonModule or hpsearch.command with what trains, such as trainer.task"
    if image := draft.places.get("imageUri"):
        message = f"imageUri {image.shown} is not pulled, and no command is given: nothing to run"
        findings.warn(image, message, hint)
    else:
        findings.absent(draft.node, "pythonModule", "pythonModule is absent: nothing to run", hint)


def _said(place: Node) -> bool:
    return bool(place.text or place.elements)


def placeholders(block: BlockForm, draft: Draft, findings: Findings) -> None:
    """Warn of shell variables in the texts that are used."""
    replaced = {"jobDir": block.job_dir, "command": block.command or block.python_module}
    replaced |= {"module": block.command}
    texts = [each for name, found in draft.texts.items() if not replaced.get(name) for each in found]
    ours = [block.at(key) for key in ("pythonModule", "jobDir")]
    listed = [item for key in ("command", "args") for item in block.at(key).items]
    warn_of_placeholders([*texts, *ours, *listed], findings)


def resources(block: BlockForm, draft: Draft, findings: Findings) -> Resources:
    """What one trial asks of the cluster: the block's, else the GPUs of the dialect's machine, and 1 CPU."""
    form = block.resources or ResourcesForm.empty()
    cpu, gpu = 1.0 if form.cpu is None else form.cpu, form.gpu or 0.0
    hint = draft.gpus if form.lacks("gpu") else None
    if hint:
        gpu = float(hint.gpus)
        message = f"resources.gpu is {hint.gpus}, read from {hint.place.name} {hint.place.shown}"
        findings.warn(hint.place, message, "write hpsearch.resources.gpu: 0 to do without")
    if cpu == 0 and gpu == 0 and form.memory is None:
        findings.error(form.at("cpu"), "resources are all 0: a trial needs something", "write cpu: 1")
    if gpu > 1 and gpu != int(gpu):
        message = f"gpu is {gpu:g}: above 1 only whole GPUs can be given"
        findings.error(form.at("gpu"), message, f"write {math.ceil(gpu)}")
    return Resources(cpu, gpu, form.memory, hinted=hint is not None, workers=form.workers or 1)


def limits(block: BlockForm, draft: Draft, findings: Findings) -> Limits:
    """Bounds of time and failures; the block's win over the dialect's."""
    form, theirs = block.limits or LimitsForm.empty(), draft.max_failed_trials
    failed = form.max_failed_trials
    if failed is not None and theirs is not None and failed != theirs:
        place = draft.places["failed"]
        message = f"limits.maxFailedTrials {failed} wins over {place.path} {theirs}"
        findings.warn(form.at("maxFailedTrials"), message, "remove one of them")
    if failed == 0:
        warn_of_zero_failures(form.at("maxFailedTrials"), findings)
    if form.grace_period is not None and form.grace_period > MAX_GRACE:
        place = form.at("gracePeriod")
        message = f"gracePeriod is {place.shown}: nobody would wait so long for a trial to stop"
        findings.error(place, message, "give 5m or less")
    names = ("max_attempts", "grace_period", "startup_timeout", "progress_timeout")
    given = {name: getattr(form, name) for name in (*names, "max_processes", "max_output")}
    return Limits(
        trial_timeout=form.trial_timeout or draft.trial_timeout,
        study_timeout=form.study_timeout or draft.study_timeout,
        max_failed_trials=(failed if failed is not None else theirs) or 0,
        **{name: value for name, value in given.items() if value is not None},
    )


def checkpoints(block: BlockForm) -> Keep:
    """Which checkpoints stay."""
    return (block.checkpoints and block.checkpoints.keep) or Keep.BEST


def tracking(block: BlockForm) -> Tracking:
    """Where MLflow is, and the experiment's name."""
    form = block.tracking or TrackingForm.empty()
    return Tracking(form.uri or None, form.experiment or None, bool(form.strict))
