"""How a study searches: sampler, pruner and which measurement counts, the block's before the dialect's."""

from __future__ import annotations

from collections.abc import Mapping

from hpsearch.spec.block import BlockForm, PrunerForm, SamplerForm
from hpsearch.spec.draft import Draft
from hpsearch.spec.model import (
    Algorithm,
    Categorical,
    Discrete,
    Double,
    Integer,
    Parameter,
    PrunerSpec,
    PruningRule,
    SamplerSpec,
    Selection,
    Value,
    key_of,
)
from hpsearch.spec.node import Findings, Node

# A larger number of points says nothing to a reader.
_COUNTLESS = 10**12

_RUNGS = frozenset({PruningRule.ASHA, PruningRule.HYPERBAND})
_SETTINGS = {
    PruningRule.MEDIAN: {"minSteps", "minTrials", "useElapsedDuration"},
    PruningRule.ASHA: {"minSteps", "reductionFactor"},
    PruningRule.HYPERBAND: {"minSteps", "reductionFactor"},
    PruningRule.PATIENCE: {"minSteps", "patience", "minDelta"},
    PruningRule.THRESHOLD: {"minSteps", "lower", "upper"},
    PruningRule.DECAY_CURVE: {"minSteps", "useElapsedDuration"},
    PruningRule.CONVEX: {"minSteps", "useElapsedDuration", "maxStepCount", "minMeasurementCount"},
    PruningRule.NONE: set[str](),
}
_FIELDS = {
    "reduction_factor": "reduction_factor",
    "min_trials": "min_trials",
    "patience": "patience",
    "min_delta": "min_delta",
    "lower": "lower",
    "upper": "upper",
    "use_elapsed_duration": "use_elapsed",
    "max_step_count": "final_step",
    "min_measurement_count": "min_measurements",
}


def selection(block: BlockForm, draft: Draft, findings: Findings) -> Selection:
    """Which measurement counts: the block's choice, else the dialect's, else the last."""
    key = "measurementSelectionType"
    ours, theirs = block.measurement_selection_type, draft.selection
    place = draft.places.get(key, draft.node) if ours is None else block.at(key)
    if ours and theirs and ours is not theirs:
        message = f"{key} {place.shown} wins over {draft.places[key].shown}"
        findings.warn(place, message, "remove one of them")
    chosen = ours or theirs or Selection.LAST
    if chosen is Selection.BEST and len(draft.objectives) > 1:
        message = f"{key} {place.shown} means nothing for several objectives: the last measurement counts"
        findings.warn(place, message, "remove it")
        return Selection.LAST
    return chosen


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
        _cma_es(draft, place, findings)
    return SamplerSpec(chosen, form.seed or 0, form.startup_trials)


def _cma_es(draft: Draft, place: Node, findings: Findings) -> None:
    """It moves one cloud of points through one space towards one objective."""
    if len(draft.objectives) > 1:
        message = f"CMA_ES cannot search for {len(draft.objectives)} objectives"
        findings.error(place, message, "use TPE or NSGA_II")
    if any(each.condition for each in draft.parameters):
        findings.error(place, "CMA_ES cannot search a space with conditions", "use TPE")
    for each in draft.parameters:
        if isinstance(each, Categorical) and len(each.values) > 1:
            message = f"CMA_ES cannot model the CATEGORICAL {each.name}: it is sampled at random"
            findings.warn(place, message, "use TPE, or DISCRETE numbers")


def _grid(draft: Draft, place: Node, findings: Findings) -> None:
    """A grid needs finitely many points; more of them than trials are not all tried."""
    sizes = {key_of(each): _size(each) for each in draft.parameters}
    for each in draft.parameters:
        if sizes[key_of(each)] is None:
            node = draft.types.get(each.name, draft.node)
            message = f"parameter {each.name}: a grid over a DOUBLE has no end"
            findings.error(node, message, "use DISCRETE or INTEGER, or another sampler")
    points = _points(draft.parameters, {key: size or 1 for key, size in sizes.items()})
    if None not in sizes.values() and points > draft.max_trials:
        shown = f"{points:,}" if points < _COUNTLESS else f"more than {_COUNTLESS:,}"
        trials = draft.places.get("trials", draft.node).name
        name = trials if "rial" in trials else "maxTrials"
        message = f"the grid has {shown} points, but {name} is {draft.max_trials}"
        findings.warn(place, message, f"raise {name} to try all of them")


def _points(parameters: tuple[Parameter, ...], sizes: Mapping[str, int]) -> int:
    """How many points a space has; a parameter's children multiply the values for which they are active."""
    points = 1
    below: dict[str, dict[Value, int]] = {}
    for each in reversed(parameters):
        active = below.get(key_of(each), {})
        size = sizes[key_of(each)] + sum(factor - 1 for factor in active.values())
        if each.condition is None:
            points *= size
            continue
        factors = below.setdefault(each.condition.parent, {})
        for value in each.condition.values:
            factors[value] = factors.get(value, 1) * size
    return points


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
    """The pruner: the block's, else the dialect's, else none; several objectives have none."""
    form, theirs = block.pruner, draft.pruner
    if form is None:
        return _theirs(draft, findings)
    if form.type is None:
        if form.lacks("type"):
            hint = "write type: " + ", ".join(each.value for each in PruningRule)
            findings.missing(form.node, "type", "the pruner has no type", hint)
        return PrunerSpec()
    if theirs and (theirs.type is PruningRule.NONE) is not (form.type is PruningRule.NONE):
        place = draft.places["pruner"]
        said = f"{place.name}: {place.shown}" if place.text else place.name
        message = f"pruner.type {form.type} wins over {said}"
        findings.warn(form.at("type"), message, "remove one of them")
    if form.type is not PruningRule.NONE and len(draft.objectives) > 1:
        message = f"{form.type} compares one objective, but there are {len(draft.objectives)}"
        findings.error(form.at("type"), message, "write type: NONE")
    _check_pruner(form, form.type, max_steps, findings)
    default = measure_every if form.type in _RUNGS else 0
    if form.type is PruningRule.CONVEX:
        default = (form.max_step_count or 0) // 10
    given = {to: getattr(form, name) for name, to in _FIELDS.items() if getattr(form, name) is not None}
    return PrunerSpec(form.type, default if form.min_steps is None else form.min_steps, **given)


def _theirs(draft: Draft, findings: Findings) -> PrunerSpec:
    if draft.pruner and draft.pruner.type is not PruningRule.NONE and len(draft.objectives) > 1:
        place = draft.places["pruner"]
        message = f"{place.name} compares one objective, but there are {len(draft.objectives)}: it is off"
        findings.warn(place, message, "remove it")
        return PrunerSpec()
    return draft.pruner or PrunerSpec()


def _check_pruner(form: PrunerForm, rule: PruningRule, max_steps: int, findings: Findings) -> None:
    for key in sorted(key for keys in _SETTINGS.values() for key in keys - _SETTINGS[rule]):
        if not form.lacks(key):
            findings.warn(form.at(key), f"{key} is not used by {rule}: ignored", "remove it")
    _check_start(form, rule, max_steps, findings)
    if rule is not PruningRule.THRESHOLD:
        return
    if form.lacks("lower") and form.lacks("upper"):
        hint = "write lower: or upper:"
        findings.missing(form.node, "lower", "THRESHOLD has neither lower nor upper", hint)
    elif form.lower is not None and form.upper is not None and form.lower >= form.upper:
        message = f"lower {form.lower:g} is not below upper {form.upper:g}: every trial would be pruned"
        findings.error(form.at("lower"), message, "swap them")


def _check_start(form: PrunerForm, rule: PruningRule, max_steps: int, findings: Findings) -> None:
    """The first step at which a trial is pruned must come, and for rungs not at once."""
    if form.min_steps is None:
        return
    place = form.at("minSteps")
    last, key = (form.max_step_count, "maxStepCount") if rule is PruningRule.CONVEX else (None, "")
    if last is None and not form.use_elapsed_duration:
        last, key = max_steps, "maxSteps"
    if last is not None and form.min_steps > last:
        message = f"minSteps {form.min_steps} is above {key} {last}: nothing would be pruned"
        findings.error(place, message, f"give less than {last}")
    if rule in _RUNGS and form.min_steps == 0:
        findings.error(place, f"minSteps is 0, but {rule} compares there first", "give 1 or more")
