"""The `hpsearch:` block beside a dialect: its forms, and how it is laid over the dialect's Draft."""

from __future__ import annotations

import math
from typing import Annotated, Any

from hpsearch.spec.draft import Draft, warn_of_zero_failures
from hpsearch.spec.form import Form
from hpsearch.spec.model import (
    Algorithm,
    Categorical,
    Discrete,
    Double,
    Integer,
    Limits,
    Parameter,
    PrunerSpec,
    PruningRule,
    Resources,
    SamplerSpec,
    Selection,
    Tracking,
)
from hpsearch.spec.node import Findings, Node
from hpsearch.spec.scalars import Choice, Count, Duration, Module, Numeric, Positive, Real, Size, Text

MAX_SEED = 2**32 - 1
DEFAULT_MAX_STEPS = 1000
# Enough points for a curve, few enough to cost nothing.
MEASUREMENTS = 20

_SAMPLERS = Choice(
    words={
        **{each.value: each for each in Algorithm},
        "CMA-ES": Algorithm.CMA_ES,
        "NSGA-II": Algorithm.NSGA_II,
        "NSGA2": Algorithm.NSGA_II,
    },
    lenient={
        "CMAES": Algorithm.CMA_ES,
        "NSGAII": Algorithm.NSGA_II,
        "GRID_SEARCH": Algorithm.GRID,
        "RANDOM_SEARCH": Algorithm.RANDOM,
    },
    meant={"BAYESIAN": "TPE", "SOBOL": "QMC", "HALTON": "QMC", "GAUSSIAN_PROCESS": "GP", "BO": "GP"},
)
_RULES = Choice(
    words={each.value: each for each in PruningRule},
    meant={"SUCCESSIVE_HALVING": "ASHA", "SHA": "ASHA", "PATIENT": "PATIENCE", "OFF": "NONE", "NOP": "NONE"},
)
_SELECTIONS = Choice(
    words={
        "LAST": Selection.LAST,
        "BEST": Selection.BEST,
        "LAST_MEASUREMENT": Selection.LAST,
        "BEST_MEASUREMENT": Selection.BEST,
        "MEASUREMENT_SELECTION_TYPE_UNSPECIFIED": Selection.LAST,
    }
)
_RUNGS = frozenset({PruningRule.ASHA, PruningRule.HYPERBAND})
_SETTINGS = {
    PruningRule.MEDIAN: {"minSteps", "minTrials"},
    PruningRule.ASHA: {"minSteps", "reductionFactor"},
    PruningRule.HYPERBAND: {"minSteps", "reductionFactor"},
    PruningRule.PATIENCE: {"minSteps", "patience", "minDelta"},
    PruningRule.THRESHOLD: {"minSteps", "lower", "upper"},
    PruningRule.NONE: set[str](),
}


class SamplerForm(Form):
    """`hpsearch.sampler`."""

    type: Annotated[Algorithm | None, _SAMPLERS] = None
    seed: Annotated[int, Numeric(low=0, high=MAX_SEED, whole=True)] | None = None
    startup_trials: Count | None = None


class PrunerForm(Form):
    """`hpsearch.pruner`."""

    type: Annotated[PruningRule | None, _RULES] = None
    min_steps: Count | None = None
    reduction_factor: Annotated[int, Numeric(low=2, whole=True)] | None = None
    min_trials: Positive | None = None
    patience: Positive | None = None
    min_delta: Annotated[float, Numeric(low=0)] | None = None
    lower: Real | None = None
    upper: Real | None = None


class ResourcesForm(Form):
    """`hpsearch.resources`, what one trial asks for."""

    cpu: Annotated[float, Numeric(low=0)] | None = None
    gpu: Annotated[float, Numeric(low=0)] | None = None
    memory: Size | None = None


class LimitsForm(Form):
    """`hpsearch.limits`."""

    trial_timeout: Duration | None = None
    study_timeout: Duration | None = None
    max_failed_trials: Count | None = None
    max_attempts: Positive | None = None


class TrackingForm(Form):
    """`hpsearch.tracking`, where null means the embedded default."""

    uri: Text | None = None
    experiment: Text | None = None


class BlockForm(Form):
    """The `hpsearch:` block; steps are optimizer updates."""

    max_steps: Positive | None = None
    measure_every: Positive | None = None
    sampler: SamplerForm | None = None
    pruner: PrunerForm | None = None
    resources: ResourcesForm | None = None
    limits: LimitsForm | None = None
    tracking: TrackingForm | None = None
    measurement_selection_type: Annotated[Selection | None, _SELECTIONS] = None
    python_module: Module | None = None


def steps(block: BlockForm, findings: Findings) -> tuple[int, int]:
    """max_steps and measure_every; 1000 and a twentieth of them where the file is silent."""
    max_steps = block.max_steps or DEFAULT_MAX_STEPS
    measure_every = block.measure_every or max(1, round(max_steps / MEASUREMENTS))
    if measure_every > max_steps:
        message = f"measureEvery {measure_every} is above maxSteps {max_steps}: nothing would be measured"
        findings.error(block.at("measureEvery"), message, f"give {max_steps} or less")
    return max_steps, measure_every


def module(block: BlockForm, draft: Draft, findings: Findings) -> str:
    """What is run: the dialect's module before the block's; empty, with a warning, where there is none."""
    ours, theirs = block.python_module or "", draft.module
    if ours and theirs and ours != theirs:
        message = f"pythonModule {ours} is ignored: trainingInput.pythonModule is {theirs}"
        findings.warn(block.at("pythonModule"), message, "keep one of them")
    given = not block.lacks("pythonModule") or "pythonModule" in draft.places
    if not ours and not theirs and not given and draft.objective:
        hint = "write pythonModule: with the module that trains, such as trainer.task"
        findings.absent(draft.node, "pythonModule", "pythonModule is absent: nothing to run", hint)
    return theirs or ours


def sampler(block: BlockForm, draft: Draft, findings: Findings) -> SamplerSpec:
    """The sampler: the block's, else the dialect's algorithm, else TPE."""
    form = block.sampler or SamplerForm.empty()
    place = draft.places.get("algorithm", draft.node) if form.type is None else form.at("type")
    if form.type and draft.algorithm and form.type is not draft.algorithm:
        message = f"sampler.type {form.type} wins over algorithm {draft.places['algorithm'].shown}"
        findings.warn(place, message, "remove one of them")
    chosen = form.type or draft.algorithm or Algorithm.TPE
    if chosen is Algorithm.GRID:
        _grid(draft, place, findings)
    if chosen is Algorithm.CMA_ES:
        for each in draft.parameters:
            if isinstance(each, Categorical) and len(each.values) > 1:
                message = f"CMA_ES cannot model the CATEGORICAL {each.name}: it is sampled at random"
                findings.warn(place, message, "use TPE, or DISCRETE numbers")
    return SamplerSpec(chosen, form.seed or 0, form.startup_trials)


def _grid(draft: Draft, place: Node, findings: Findings) -> None:
    """A grid needs finitely many points; more of them than trials are not all tried."""
    sizes = [_size(each) for each in draft.parameters]
    for each, size in zip(draft.parameters, sizes, strict=True):
        if size is None:
            node = draft.types.get(each.name, draft.node)
            message = f"parameter {each.name}: a grid over a DOUBLE has no end"
            findings.error(node, message, "use DISCRETE or INTEGER, or another sampler")
    points = math.prod(size or 1 for size in sizes)
    if None not in sizes and points > draft.max_trials:
        message = f"the grid has {points:,} points, but maxTrials is {draft.max_trials}"
        findings.warn(place, message, "raise maxTrials to try all of them")


def _size(parameter: Parameter) -> int | None:
    """How many values a parameter can take; None without end."""
    if isinstance(parameter, Categorical | Discrete):
        return len(parameter.values)
    if isinstance(parameter, Integer):
        return parameter.high - parameter.low + 1
    assert isinstance(parameter, Double)
    return 1 if parameter.low == parameter.high else None


def pruner(
    block: BlockForm, draft: Draft, max_steps: int, measure_every: int, findings: Findings
) -> PrunerSpec:
    """The pruner: the block's, else the median rule where the dialect asks for early stopping."""
    form, early = block.pruner, draft.early_stopping
    if form is None:
        return PrunerSpec(PruningRule.MEDIAN, min_trials=5) if early else PrunerSpec()
    if form.type is None:
        if form.lacks("type"):
            hint = "write type: " + ", ".join(each.value for each in PruningRule)
            findings.missing(form.node, "type", "the pruner has no type", hint)
        return PrunerSpec()
    if early is not None and early is (form.type is PruningRule.NONE):
        said = str(early).lower()
        message = f"pruner.type {form.type} wins over enableTrialEarlyStopping: {said}"
        findings.warn(form.at("type"), message, "remove one of them")
    _check_pruner(form, form.type, max_steps, findings)
    default = measure_every if form.type in _RUNGS else 0
    names = ("reduction_factor", "min_trials", "patience", "min_delta", "lower", "upper")
    given = {name: getattr(form, name) for name in names if getattr(form, name) is not None}
    return PrunerSpec(form.type, default if form.min_steps is None else form.min_steps, **given)


def _check_pruner(form: PrunerForm, rule: PruningRule, max_steps: int, findings: Findings) -> None:
    for key in sorted(key for keys in _SETTINGS.values() for key in keys - _SETTINGS[rule]):
        if not form.lacks(key):
            findings.warn(form.at(key), f"{key} is not used by {rule}: ignored", "remove it")
    if form.min_steps is not None and form.min_steps > max_steps:
        message = f"minSteps {form.min_steps} is above maxSteps {max_steps}: nothing would be pruned"
        findings.error(form.at("minSteps"), message, f"give less than {max_steps}")
    if rule in _RUNGS and form.min_steps == 0:
        findings.error(
            form.at("minSteps"), f"minSteps is 0, but {rule} compares there first", "give 1 or more"
        )
    if rule is not PruningRule.THRESHOLD:
        return
    if form.lacks("lower") and form.lacks("upper"):
        findings.missing(
            form.node, "lower", "THRESHOLD has neither lower nor upper", "write lower: or upper:"
        )
    elif form.lower is not None and form.upper is not None and form.lower >= form.upper:
        message = f"lower {form.lower:g} is not below upper {form.upper:g}: every trial would be pruned"
        findings.error(form.at("lower"), message, "swap them")


def resources(block: BlockForm, findings: Findings) -> Resources:
    """What one trial asks of the cluster: 1 CPU where the file is silent."""
    form = block.resources or ResourcesForm.empty()
    cpu, gpu = 1.0 if form.cpu is None else form.cpu, form.gpu or 0.0
    if cpu == 0 and gpu == 0 and form.memory is None:
        findings.error(form.at("cpu"), "resources are all 0: a trial needs something", "write cpu: 1")
    if gpu > 1 and gpu != int(gpu):
        message = f"gpu is {gpu:g}: above 1 only whole GPUs can be given"
        findings.error(form.at("gpu"), message, f"write {math.ceil(gpu)}")
    return Resources(cpu, gpu, form.memory)


def limits(block: BlockForm, draft: Draft, findings: Findings) -> Limits:
    """Bounds of time and failures; the block's win over the dialect's."""
    form, theirs = block.limits or LimitsForm.empty(), draft.max_failed_trials
    failed = form.max_failed_trials
    if failed is not None and theirs is not None and failed != theirs:
        message = f"limits.maxFailedTrials {failed} wins over hyperparameters.maxFailedTrials {theirs}"
        findings.warn(form.at("maxFailedTrials"), message, "remove one of them")
    if failed == 0:
        warn_of_zero_failures(form.at("maxFailedTrials"), findings)
    given: dict[str, Any] = {} if form.max_attempts is None else {"max_attempts": form.max_attempts}
    return Limits(
        trial_timeout=form.trial_timeout,
        study_timeout=form.study_timeout or draft.study_timeout,
        max_failed_trials=(failed if failed is not None else theirs) or 0,
        **given,
    )


def tracking(block: BlockForm) -> Tracking:
    """Where MLflow is, and the experiment's name."""
    form = block.tracking or TrackingForm.empty()
    return Tracking(form.uri or None, form.experiment or None)
