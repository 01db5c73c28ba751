"""The dialect of Cloud ML Engine and AI Platform Training: `trainingInput` -> Draft."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Annotated, ClassVar

from pydantic import BeforeValidator, ValidationInfo
from pydantic.alias_generators import to_camel

from hpsearch.spec.draft import Draft, warn_of_zero_failures
from hpsearch.spec.form import Form, Listed
from hpsearch.spec.model import Algorithm, Goal, Objective
from hpsearch.spec.node import Findings, Kind, Node
from hpsearch.spec.parameters import ParameterForm, parameters
from hpsearch.spec.scalars import Boolean, Choice, Count, Duration, Module, Text, Verbatim, scalar

NAME = "cloud_ml_engine"
DEFAULT_TAG = "training/hptuning/metric"
# Keys of a record in the metric file, which a metric of that name would overwrite.
RESERVED_TAGS = frozenset({"timestamp", "trial", "global_step", "checkpoint_path"})

_GOALS = Choice(
    words={"MAXIMIZE": Goal.MAXIMIZE, "MINIMIZE": Goal.MINIMIZE, "GOAL_TYPE_UNSPECIFIED": None},
    meant={"MAX": "MAXIMIZE", "MIN": "MINIMIZE"},
)
_ALGORITHMS = Choice(
    words={
        "ALGORITHM_UNSPECIFIED": None,
        "GRID_SEARCH": Algorithm.GRID,
        "RANDOM_SEARCH": Algorithm.RANDOM,
    },
    lenient={"GRID": Algorithm.GRID, "RANDOM": Algorithm.RANDOM},
    meant={
        **dict.fromkeys(("BAYESIAN", "BAYESIAN_OPTIMIZATION", "TPE"), "ALGORITHM_UNSPECIFIED"),
        **dict.fromkeys(("GP", "CMA_ES", "QMC", "NSGA_II"), "sampler.type in the hpsearch: block"),
    },
)
_TIERS = frozenset({"BASIC", "STANDARD_1", "PREMIUM_1", "BASIC_GPU", "BASIC_TPU", "CUSTOM"})


def _tier(node: Node, info: ValidationInfo[Findings]) -> str:
    """A scale tier in its documented spelling; an unknown one as it is."""
    text = scalar(node)
    folded = re.sub(r"[-\s]+", "_", text).upper()
    if folded == text or folded not in _TIERS:
        return text
    info.context.warn(node, f"scaleTier {node.shown} is read as {folded}", f"write {folded}")
    return folded


class HyperparametersForm(Form):
    """`trainingInput.hyperparameters`, the HyperparameterSpec."""

    goal: Annotated[Goal | None, _GOALS] = None
    params: Listed[ParameterForm] | None = None
    max_trials: Count | None = None
    max_parallel_trials: Count | None = None
    max_failed_trials: Count | None = None
    hyperparameter_metric_tag: Text | None = None
    enable_trial_early_stopping: Boolean | None = None
    resume_previous_job_id: Text | None = None
    algorithm: Annotated[Algorithm | None, _ALGORITHMS] = None


class SchedulingForm(Form):
    """`trainingInput.scheduling`, of which only the job's time limit is followed."""

    unread: ClassVar[frozenset[str]] = frozenset({"maxWaitTime", "priority"})
    max_running_time: Duration | None = None


class TrainingInputForm(Form):
    """`trainingInput`; the fields about Google's machines are known and not read."""

    unread: ClassVar[frozenset[str]] = frozenset(
        {
            *("masterType", "workerType", "parameterServerType", "evaluatorType"),
            *("masterConfig", "workerConfig", "parameterServerConfig", "evaluatorConfig"),
            *("packageUris", "jobDir", "region", "runtimeVersion", "pythonVersion", "network"),
            *("serviceAccount", "encryptionConfig", "enableWebAccess", "useChiefInTfConfig"),
        }
    )
    scale_tier: Annotated[str, BeforeValidator(_tier)] | None = None
    worker_count: Count | None = None
    parameter_server_count: Count | None = None
    evaluator_count: Count | None = None
    python_module: Module | None = None
    args: Listed[Verbatim] | None = None
    hyperparameters: HyperparametersForm | None = None
    scheduling: SchedulingForm | None = None


class JobForm(Form):
    """A Job resource, as written for a submission or as the service shows it."""

    unread: ClassVar[frozenset[str]] = frozenset(
        {
            *("hpsearch", "jobId", "labels", "state", "errorMessage", "createTime", "startTime", "endTime"),
            *("etag", "trainingOutput"),
        }
    )
    training_input: TrainingInputForm | None = None


def understand(root: Node, findings: Findings) -> Draft:
    """What the file says in this dialect: a Job, or with a warning its inside without the wrapper."""
    keys = {to_camel(key) if "_" in key else key for key in root.entries}
    if "trainingInput" not in keys and keys & {"hyperparameters", *_keys_of(HyperparametersForm)}:
        return _unwrapped(root, keys, findings)
    job = JobForm.take(root, findings)
    if job.training_input:
        return _draft(job.training_input, findings)
    if job.lacks("trainingInput"):
        _nothing(root, "trainingInput", "trainingInput", findings)
    return Draft(root)


def _unwrapped(root: Node, keys: set[str], findings: Findings) -> Draft:
    findings.warn(
        Node(Kind.MAP, root.line, root.column),
        "trainingInput: is missing around this; it is read as if it were there",
        "write trainingInput: with hyperparameters: below it",
    )
    entries = {key: node for key, node in root.entries.items() if key not in JobForm.unread}
    inside = replace(root, entries=entries)
    if "hyperparameters" in keys:
        return _draft(TrainingInputForm.take(inside, findings), findings)
    draft = Draft(root)
    _study(HyperparametersForm.take(inside, findings), draft, findings)
    return draft


def _keys_of(form: type[Form]) -> set[str]:
    return {field.alias or name for name, field in form.model_fields.items()}


def _nothing(node: Node, key: str, what: str, findings: Findings) -> None:
    hint = "write trainingInput.hyperparameters with params; one plain run needs no search"
    findings.missing(node, key, f"nothing to tune: the file has no {what}", hint)


def _draft(form: TrainingInputForm, findings: Findings) -> Draft:
    draft = Draft(form.node, module=form.python_module or "", args=tuple(form.args or ()))
    if not form.lacks("pythonModule"):
        draft.places["pythonModule"] = form.at("pythonModule")
    if form.scheduling:
        draft.study_timeout = form.scheduling.max_running_time
    if form.hyperparameters:
        _study(form.hyperparameters, draft, findings)
    elif form.lacks("hyperparameters"):
        _nothing(form.node, "hyperparameters", "trainingInput.hyperparameters", findings)
    return draft


def _study(form: HyperparametersForm, draft: Draft, findings: Findings) -> None:
    """Fill in what the HyperparameterSpec says."""
    draft.objective = Objective(_tag(form, findings), _goal(form, findings))
    draft.algorithm, draft.early_stopping = form.algorithm, form.enable_trial_early_stopping
    for key in ("algorithm", "enableTrialEarlyStopping", "maxFailedTrials", "maxTrials"):
        draft.places[key] = form.at(key)
    _counts(form, draft, findings)
    if not form.lacks("resumePreviousJobId"):
        message = "resumePreviousJobId is not followed: a new study starts"
        findings.warn(form.at("resumePreviousJobId"), message, "use hpsearch resume STUDY, and remove it")
    if form.lacks("params"):
        findings.missing(form.node, "params", "params is missing: nothing to tune", "list the parameters")
    elif form.params is not None:
        if not form.at("params").elements and not form.refused("params"):
            findings.error(form.at("params"), "params is empty: nothing to tune", "list the parameters")
        draft.parameters = tuple(parameters(form.params, findings).values())
        draft.types = {each.parameter_name: each.at("type") for each in form.params if each.parameter_name}


def _goal(form: HyperparametersForm, findings: Findings) -> Goal:
    if form.goal is None and form.lacks("goal"):
        findings.absent(
            form.node, "goal", "goal is absent: MAXIMIZE is used", "write goal: MAXIMIZE or MINIMIZE"
        )
    elif form.goal is None and not form.refused("goal"):
        findings.warn(form.at("goal"), "goal is unspecified: MAXIMIZE is used", "write MAXIMIZE or MINIMIZE")
    return form.goal or Goal.MAXIMIZE


def _tag(form: HyperparametersForm, findings: Findings) -> str:
    key, tag = "hyperparameterMetricTag", form.hyperparameter_metric_tag
    if tag in RESERVED_TAGS:
        message = f"{key} is {tag}, which every record of the metric file holds already"
        findings.error(form.at(key), message, "report the metric under another name")
    elif not tag and not form.refused(key):
        message = f"{key} is absent: {DEFAULT_TAG} is used"
        findings.absent(form.node, key, message, f"write {key}: and the metric that the trainer reports")
    return tag or DEFAULT_TAG


def _counts(form: HyperparametersForm, draft: Draft, findings: Findings) -> None:
    """The three counts; a 0 is the service's word for absent, except that no trial at all is refused."""
    if form.lacks("maxTrials"):
        findings.absent(form.node, "maxTrials", "maxTrials is absent: 1 trial is run", "write maxTrials:")
    elif form.max_trials == 0:
        findings.error(form.at("maxTrials"), "maxTrials is 0: no trial would run", "give 1 or more")
    if form.max_parallel_trials == 0:
        message = "maxParallelTrials is 0: the default of 1 is used"
        findings.warn(form.at("maxParallelTrials"), message, "give 1 or more")
    if form.max_failed_trials == 0:
        warn_of_zero_failures(form.at("maxFailedTrials"), findings)
    draft.max_trials = form.max_trials or 1
    draft.max_parallel_trials = min(form.max_parallel_trials or 1, draft.max_trials)
    draft.max_failed_trials = form.max_failed_trials
