"""A Spec in the documented words of Cloud ML Engine and of Vertex AI, whichever of them its file has: pure.

What a dialect has no word for is left out: conditions, further objectives and constraints in Cloud ML
Engine, pruning rules of ours in Vertex AI. Defaults are left out, as the services do when they echo a file,
and so are secrets in what is run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from hpsearch.show.answers import SCALES, Json, moment
from hpsearch.show.secrets import masked
from hpsearch.spec.model import (
    Algorithm,
    Categorical,
    Discrete,
    Double,
    Integer,
    Parameter,
    PrunerSpec,
    PruningRule,
    Scale,
    Selection,
    Spec,
    Stopping,
    Value,
    key_of,
)
from hpsearch.spec.texts import text_of

CLOUD_ML_ENGINE = "cloud_ml_engine"
VERTEX_AI = "vertex_ai"

_ALGORITHMS = {Algorithm.GRID: "GRID_SEARCH", Algorithm.RANDOM: "RANDOM_SEARCH"}


def training_input(spec: Spec) -> Json:
    """The `trainingInput`: the file's own where it has one, always with the hyperparameters of the Spec.

    Source: the REST resource of `projects.jobs`.
    """
    run: Json = masked(_own(spec, CLOUD_ML_ENGINE) or _given(_master(spec)))
    return run | {"hyperparameters": _hyperparameters(spec)}


def trial_job_spec(spec: Spec) -> Json:
    """The `trialJobSpec`: the file's own where it has one. Source: Vertex AI, `CustomJobSpec`."""
    env = [{"name": name, "value": value} for name, value in spec.program.env]
    started = {"args": list(spec.args), "env": env}
    if spec.program.command:
        pool = {"containerSpec": _given({"command": list(spec.program.command)} | started)}
    else:
        pool = {"pythonPackageSpec": _given({"pythonModule": spec.module} | started)}
    rebuilt = {
        "workerPoolSpecs": [{"replicaCount": "1"} | _given(pool)],
        "scheduling": _given({"timeout": _seconds(spec.limits.trial_timeout)}),
        "baseOutputDirectory": _given({"outputUriPrefix": spec.program.output}),
    }
    run: Json = masked(_own(spec, VERTEX_AI) or _given(rebuilt))
    return run


def study_spec(spec: Spec) -> Json:
    """The `studySpec`. Source: Vertex AI, `StudySpec`."""
    metrics: list[Json] = [{"metricId": each.metric, "goal": str(each.goal)} for each in spec.objectives]
    for constraint in spec.constraints:
        guarded = {"metricId": constraint.objective.metric, "goal": str(constraint.objective.goal)}
        metrics.append(guarded | {"safetyConfig": {"safetyThreshold": constraint.threshold}})
    best = spec.selection is Selection.BEST
    rebuilt = {
        "metrics": metrics,
        "parameters": _tree(spec),
        "algorithm": _ALGORITHMS.get(spec.sampler.type),
        "measurementSelectionType": "BEST_MEASUREMENT" if best else None,
        "studyStoppingConfig": _stopping(spec.stopping),
    }
    return _given(rebuilt) | _automated_stopping(spec.pruner)


def _master(spec: Spec) -> Json:
    """What runs, and where its output goes."""
    command = list(spec.program.command)
    container = {"containerCommand": command, "containerArgs": list(spec.args)} if command else {}
    return {
        "pythonModule": "" if command else spec.module,
        "args": [] if command else list(spec.args),
        "masterConfig": _given(container),
        "jobDir": spec.program.job_dir,
        "region": spec.program.region,
        "scheduling": _given({"maxRunningTime": _seconds(spec.limits.study_timeout)}),
    }


def _hyperparameters(spec: Spec) -> Json:
    """A HyperparameterSpec; of the children of one name, which it cannot tell apart, it has the first."""
    names = {each.name: each for each in reversed(spec.space.parameters)}
    rebuilt = {
        "goal": str(spec.objective.goal),
        "hyperparameterMetricTag": spec.objective.metric,
        "maxTrials": spec.max_trials,
        "maxParallelTrials": spec.max_parallel_trials,
        "maxFailedTrials": spec.limits.max_failed_trials or None,
        "enableTrialEarlyStopping": spec.pruner.type is not PruningRule.NONE or None,
        "algorithm": _ALGORITHMS.get(spec.sampler.type),
        "resumePreviousJobId": spec.previous,
        "params": [_flat(each) for each in spec.space.parameters if names[each.name] is each],
    }
    return _given(rebuilt)


def _flat(parameter: Parameter) -> Json:
    """A ParameterSpec of Cloud ML Engine."""
    said: Json = {"parameterName": parameter.name, "type": type(parameter).__name__.upper()}
    match parameter:
        case Double(low=low, high=high) | Integer(low=low, high=high):
            said |= {"minValue": low, "maxValue": high}
        case Discrete(values=numbers):
            said["discreteValues"] = list(numbers)
        case Categorical(values=texts):
            said["categoricalValues"] = list(texts)
    return said | _scale(parameter)


def _tree(spec: Spec) -> list[Json]:
    """The parameters of a StudySpec, each with those that are active for some of its values below it."""
    first = spec.first or {}
    active = spec.space.active(first) if first else {}
    known: dict[str, tuple[Parameter, Json]] = {}
    top: list[Json] = []
    for parameter in spec.space.parameters:
        default = first[parameter.name] if active.get(parameter.name) is parameter else None
        said = _node(parameter, default)
        known[key_of(parameter)] = parameter, said
        if parameter.condition is None:
            top.append(said)
            continue
        parent, above = known[parameter.condition.parent]
        below = _when(parent, parameter.condition.values) | {"parameterSpec": said}
        above.setdefault("conditionalParameterSpecs", []).append(below)
    return top


def _node(parameter: Parameter, default: Value | None) -> Json:
    """A ParameterSpec of Vertex AI, without what is below it; its whole numbers are int64 texts."""
    said: Json = {"parameterId": parameter.name}
    match parameter:
        case Double(low=low, high=high):
            said["doubleValueSpec"] = _given({"minValue": low, "maxValue": high, "defaultValue": default})
        case Integer(low=low, high=high):
            ends = {"minValue": low, "maxValue": high, "defaultValue": default}
            said["integerValueSpec"] = {name: str(one) for name, one in _given(ends).items()}
        case Discrete(values=numbers):
            said["discreteValueSpec"] = _given({"values": list(numbers), "defaultValue": default})
        case Categorical(values=texts):
            said["categoricalValueSpec"] = _given({"values": list(texts), "defaultValue": default})
    return said | _scale(parameter)


def _when(parent: Parameter, values: tuple[Value, ...]) -> Json:
    match parent:
        case Integer():
            return {"parentIntValues": {"values": [str(value) for value in values]}}
        case Discrete():
            return {"parentDiscreteValues": {"values": list(values)}}
        case _:
            return {"parentCategoricalValues": {"values": list(values)}}


def _scale(parameter: Parameter) -> Json:
    """The scale, which says something of a range always, of listed numbers unless it is linear."""
    if isinstance(parameter, Categorical):
        return {}
    if isinstance(parameter, Discrete) and parameter.scale is Scale.LINEAR:
        return {}
    return {"scaleType": SCALES[parameter.scale]}


def _automated_stopping(rule: PrunerSpec) -> Json:
    """The one of Vertex AI's three rules that prunes; nothing for a rule that they do not have."""
    elapsed = {"useElapsedDuration": rule.use_elapsed or None}
    match rule.type:
        case PruningRule.MEDIAN:
            return {"medianAutomatedStoppingSpec": _given(elapsed)}
        case PruningRule.DECAY_CURVE:
            return {"decayCurveStoppingSpec": _given(elapsed)}
        case PruningRule.CONVEX:
            few, start, last = rule.min_measurements, rule.min_steps, rule.final_step
            counts = {
                "maxStepCount": None if last is None else text_of(last),
                "minStepCount": str(start) if start != (last or 0) // 10 else None,
                "minMeasurementCount": str(few) if few != PrunerSpec().min_measurements else None,
            }
            return {"convexAutomatedStoppingSpec": _given(counts | elapsed)}
    return {}


def _stopping(rules: Stopping) -> Json:
    """The `studyStoppingConfig`; empty where there is none."""

    def runtime(seconds: float | None, end: int | None) -> Json:
        return _given({"maxDuration": _seconds(seconds), "endTime": moment(end)})

    return _given(
        {
            "shouldStopAsap": rules.as_soon_as_possible or None,
            "minimumRuntimeConstraint": runtime(rules.min_runtime, rules.min_end),
            "maximumRuntimeConstraint": runtime(rules.max_runtime, rules.max_end),
            "minNumTrials": rules.min_trials,
            "maxNumTrials": rules.max_trials,
            "maxNumTrialsNoProgress": rules.max_trials_no_progress,
            "maxDurationNoProgress": _seconds(rules.max_seconds_no_progress),
        }
    )


def _own(spec: Spec, dialect: str) -> Json:
    """The file's own resource, empty where the file has another dialect or says nothing there."""
    if spec.dialect != dialect:
        return {}
    own: Json = json.loads(spec.program.job, parse_constant=str)
    return own


def _seconds(duration: float | None) -> str | None:
    """A time span as the services write it: 7200s."""
    return None if duration is None else f"{text_of(duration)}s"


def _given(fields: Mapping[str, Any]) -> Json:
    """The fields that say something."""
    return {name: value for name, value in fields.items() if value is not None and value not in ("", [], {})}
