"""The dialect of Cloud ML Engine and AI Platform Training: `trainingInput` -> Draft."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, ClassVar

from pydantic.alias_generators import to_camel

from hpsearch.spec.draft import Draft, counts
from hpsearch.spec.form import Form, Listed
from hpsearch.spec.machines import (
    Hint,
    Tier,
    accelerator_hint,
    machine_hint,
    tier_hint,
    warn_of_several,
    warn_of_tpus,
)
from hpsearch.spec.metrics import check_metric, goal_of
from hpsearch.spec.model import Algorithm, Goal, Objective, Program, PrunerSpec, PruningRule
from hpsearch.spec.node import Findings, Kind, Node
from hpsearch.spec.parameters import ParameterForm, parameters
from hpsearch.spec.programs import warn_of_packages
from hpsearch.spec.quantities import Duration
from hpsearch.spec.resource import resource
from hpsearch.spec.scalars import Boolean, Count, Module, Text, Verbatim
from hpsearch.spec.words import ALGORITHMS, GOALS

NAME = "cloud_ml_engine"
DEFAULT_TAG = "training/hptuning/metric"


class HyperparametersForm(Form):
    """The study, a HyperparameterSpec: what is better, how many trials, which parameters."""

    rules: ClassVar = {"required": ["params"]}
    goal: Annotated[Goal | None, GOALS] = None
    params: Listed[ParameterForm] | None = None
    max_trials: Count | None = None
    max_parallel_trials: Count | None = None
    max_failed_trials: Count | None = None
    hyperparameter_metric_tag: Text | None = None
    enable_trial_early_stopping: Boolean | None = None
    resume_previous_job_id: Text | None = None
    algorithm: Annotated[Algorithm | None, ALGORITHMS] = None


class SchedulingForm(Form):
    """The job's time limit; what is said of queues is not followed."""

    unread = frozenset({"maxWaitTime", "priority"})
    max_running_time: Duration | None = None


class AcceleratorForm(Form):
    """The accelerators of one machine."""

    count: Count | None = None
    type: Text | None = None


class ReplicaForm(Form):
    """What one kind of machine is made of; of the master, its command is run here."""

    unread = frozenset({"diskConfig", "tpuTfVersion"})
    accelerator_config: AcceleratorForm | None = None
    image_uri: Text | None = None
    container_command: Listed[Verbatim] | None = None
    container_args: Listed[Verbatim] | None = None


class TrainingInputForm(Form):
    """A training job: what runs on which machines, and the study."""

    unread = frozenset(
        {"runtimeVersion", "pythonVersion", "network", "serviceAccount", "encryptionConfig"}
        | {"enableWebAccess", "useChiefInTfConfig"}
    )
    rules: ClassVar = {"required": ["hyperparameters"]}
    scale_tier: Tier | None = None
    master_type: Text | None = None
    worker_type: Text | None = None
    parameter_server_type: Text | None = None
    evaluator_type: Text | None = None
    worker_count: Count | None = None
    parameter_server_count: Count | None = None
    evaluator_count: Count | None = None
    master_config: ReplicaForm | None = None
    worker_config: ReplicaForm | None = None
    parameter_server_config: ReplicaForm | None = None
    evaluator_config: ReplicaForm | None = None
    package_uris: Any = None
    python_module: Module | None = None
    args: Listed[Verbatim] | None = None
    job_dir: Text | None = None
    region: Text | None = None
    hyperparameters: HyperparametersForm | None = None
    scheduling: SchedulingForm | None = None


UNWRAPPED = frozenset({"hyperparameters"}) | HyperparametersForm.keys()


class JobForm(Form):
    """A Job resource, as written for a submission or as the service shows it."""

    unread = frozenset(
        {"hpsearch", "jobId", "labels", "state", "errorMessage", "createTime", "startTime", "endTime"}
        | {"etag", "trainingOutput"}
    )
    rules: ClassVar = {"required": ["trainingInput"]}
    training_input: TrainingInputForm | None = None


def understand(root: Node, findings: Findings) -> Draft:
    """What the file says in this dialect: a Job, or with a warning its inside without the wrapper."""
    if is_unwrapped(root):
        return _unwrapped(root, findings)
    job = JobForm.take(root, findings)
    if job.training_input:
        return _draft(job.training_input, job.training_input.node, findings)
    if job.lacks("trainingInput"):
        _nothing(root, "trainingInput", "trainingInput", findings)
    return Draft(root)


def is_unwrapped(root: Node) -> bool:
    """Whether the file is what belongs into a trainingInput, without that."""
    keys = {to_camel(key) if "_" in key else key for key in root.entries}
    return "trainingInput" not in keys and bool(keys & UNWRAPPED)


def study(form: HyperparametersForm, draft: Draft, findings: Findings) -> None:
    """Fill in what a HyperparameterSpec says."""
    draft.objectives = (Objective(_tag(form, findings), goal_of(form, form.goal, findings)),)
    draft.algorithm, draft.previous = form.algorithm, form.resume_previous_job_id or None
    if form.enable_trial_early_stopping is not None:
        rule = PruningRule.MEDIAN if form.enable_trial_early_stopping else PruningRule.NONE
        draft.pruner = PrunerSpec(rule)
    draft.places |= {
        "algorithm": form.at("algorithm"),
        "pruner": form.at("enableTrialEarlyStopping"),
        "trials": form.at("maxTrials"),
        "parallel": form.at("maxParallelTrials"),
        "failed": form.at("maxFailedTrials"),
    }
    if form.lacks("maxTrials"):
        findings.absent(form.node, "maxTrials", "maxTrials is absent: 1 trial is run", "write maxTrials:")
    counts(form.max_trials, form.max_parallel_trials, form.max_failed_trials, draft, findings)
    draft.texts["metrics"] = [form.at("hyperparameterMetricTag")]
    if form.lacks("params"):
        findings.missing(form.node, "params", "params is missing: nothing to tune", "list the parameters")
    elif form.params is not None:
        if not form.at("params").elements and not form.refused("params"):
            findings.error(form.at("params"), "params is empty: nothing to tune", "list the parameters")
        _parameters(form.params, draft, findings)


def _parameters(forms: list[ParameterForm], draft: Draft, findings: Findings) -> None:
    draft.parameters = tuple(parameters(forms, findings).values())
    draft.types = {each.parameter_name: each.at("type") for each in forms if each.parameter_name}
    draft.texts["values"] = [item for each in forms for item in each.at("categoricalValues").items]


def _unwrapped(root: Node, findings: Findings) -> Draft:
    findings.warn(
        Node(Kind.MAP, root.line, root.column),
        "trainingInput: is missing around this; it is read as if it were there",
        "write trainingInput: with hyperparameters: below it",
    )
    entries = {key: node for key, node in root.entries.items() if key not in JobForm.unread}
    inside = replace(root, entries=entries)
    if "hyperparameters" in inside.entries:
        return _draft(TrainingInputForm.take(inside, findings), inside, findings)
    draft = Draft(root)
    study(HyperparametersForm.take(inside, findings), draft, findings)
    job = Node(Kind.MAP, root.line, root.column, entries={"hyperparameters": inside})
    draft.program = Program(job=resource(job))
    return draft


def _nothing(node: Node, key: str, what: str, findings: Findings) -> None:
    hint = "write trainingInput.hyperparameters with params; one plain run needs no search"
    findings.missing(node, key, f"nothing to tune: {what} is absent or empty", hint)


def _draft(form: TrainingInputForm, whole: Node, findings: Findings) -> Draft:
    """All that a training job says; `whole` is what TF_CONFIG shows of it."""
    draft = Draft(form.node)
    if form.hyperparameters:
        study(form.hyperparameters, draft, findings)
    elif form.lacks("hyperparameters"):
        _nothing(form.node, "hyperparameters", "trainingInput.hyperparameters", findings)
        return draft
    if form.scheduling:
        draft.study_timeout = form.scheduling.max_running_time
    _program(form, draft, findings)
    draft.program = replace(draft.program, job=resource(whole))
    draft.gpus = _machines(form, findings)
    return draft


def _program(form: TrainingInputForm, draft: Draft, findings: Findings) -> None:
    """What runs: the module, or the container's command where there is one, and what is given to it."""
    master = form.master_config or ReplicaForm.empty()
    draft.module = form.python_module or ""
    draft.args = (*(master.container_args or ()), *(form.args or ()))
    draft.program = Program(
        command=tuple(master.container_command or ()),
        job_dir=form.job_dir or None,
        region=form.region or None,
    )
    places = (("pythonModule", form), ("jobDir", form), ("containerCommand", master), ("imageUri", master))
    draft.places |= {key: owner.at(key) for key, owner in places if not owner.lacks(key)}
    draft.texts |= {
        "module": [form.at("pythonModule")],
        "command": master.at("containerCommand").items,
        "args": master.at("containerArgs").items + form.at("args").items,
        "jobDir": [form.at("jobDir")],
    }
    warn_of_packages(form.at("packageUris"), findings)
    # An image with nothing that could run instead of it is told with the block.
    if (image := draft.places.get("imageUri")) and (draft.module or draft.program.command):
        message = f"image {image.shown} is not pulled: only local code is run"
        findings.warn(image, message, "write hpsearch.pythonModule or hpsearch.command with what is in it")


def _machines(form: TrainingInputForm, findings: Findings) -> Hint | None:
    """The GPUs of the master, and warnings of what there is only one of, or none."""
    replicas = {
        "workerCount": form.worker_count,
        "parameterServerCount": form.parameter_server_count,
        "evaluatorCount": form.evaluator_count,
    }
    warn_of_several([form.at(key) for key, count in replicas.items() if count], findings)
    configs = (form.master_config, form.worker_config, form.parameter_server_config, form.evaluator_config)
    given = [each.accelerator_config for each in configs if each and each.accelerator_config]
    kinds = ("scaleTier", "masterType", "workerType", "parameterServerType", "evaluatorType")
    warn_of_tpus([*map(form.at, kinds), *(each.at("type") for each in given)], findings)
    tier = machine = own = None
    if form.scale_tier:
        tier = tier_hint(form.scale_tier, form.at("scaleTier"), findings)
    if form.master_type:
        machine = machine_hint(form.master_type, form.at("masterType"), findings)
    if form.scale_tier == "CUSTOM" and form.lacks("masterType"):
        message = "masterType is absent, but scaleTier is CUSTOM: no machine is known"
        findings.absent(form.node, "masterType", message, "write masterType, or hpsearch.resources")
    if form.master_config and (mine := form.master_config.accelerator_config):
        own = accelerator_hint(mine.count, mine.type, mine.at("count"))
    return own or machine or tier


def _tag(form: HyperparametersForm, findings: Findings) -> str:
    key, tag = "hyperparameterMetricTag", form.hyperparameter_metric_tag
    check_metric(tag, key, form, findings)
    if not tag and not form.refused(key):
        message = f"{key} is absent: {DEFAULT_TAG} is used"
        findings.absent(form.node, key, message, f"write {key}: and the metric that the trainer reports")
    return tag or DEFAULT_TAG
