"""When Vertex AI stops a trial, and when the whole study: automated stopping and studyStoppingConfig."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated

from pydantic import BeforeValidator, WithJsonSchema

from hpsearch.spec.form import Form
from hpsearch.spec.model import PrunerSpec, PruningRule, Stopping
from hpsearch.spec.node import Findings, Node
from hpsearch.spec.quantities import Duration
from hpsearch.spec.scalars import Boolean, Count, Positive, Text, refuse, scalar

# Completed trials before the median rule compares; the service does not say how many.
MEDIAN_TRIALS = 5
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_RFC_3339 = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?([Zz]|[-+][0-9]{2}:[0-9]{2})"
)


def _moment(node: Node) -> int:
    """A point in time as RFC 3339 writes it, in milliseconds since the epoch."""
    text = scalar(node)
    hint = "write it like 2024-01-31T18:00:00Z"
    if not _RFC_3339.fullmatch(text):
        refuse(f"{node.name} is {node.shown}, not a time with its offset", hint)
    try:
        return (datetime.fromisoformat(text.upper()) - _EPOCH) // timedelta(milliseconds=1)
    except (ValueError, OverflowError):
        refuse(f"{node.name} is {node.shown}: there is no such time", hint)


Moment = Annotated[int, BeforeValidator(_moment), WithJsonSchema({"type": "string", "format": "date-time"})]


class ElapsedForm(Form):
    """A rule that goes by steps, or by the seconds that a trial has run."""

    use_elapsed_duration: Boolean | None = None


class ConvexForm(Form):
    """The convex rule: where it predicts, and what it needs before it judges."""

    max_step_count: Count | None = None
    min_step_count: Count | None = None
    min_measurement_count: Count | None = None
    use_elapsed_duration: Boolean | None = None
    learning_rate_parameter_name: Text | None = None
    update_all_stopped_trials: Boolean | None = None


class ConvexStopForm(Form):
    """The convex rule under its older name."""

    max_num_steps: Count | None = None
    min_num_steps: Count | None = None
    autoregressive_order: Count | None = None
    use_seconds: Boolean | None = None
    learning_rate_parameter_name: Text | None = None


class RuntimeForm(Form):
    """How long a study runs: a duration since its creation, or a point in time."""

    max_duration: Duration | None = None
    end_time: Moment | None = None


class StoppingForm(Form):
    """When the study ends before its trials are all run."""

    should_stop_asap: Boolean | None = None
    minimum_runtime_constraint: RuntimeForm | None = None
    maximum_runtime_constraint: RuntimeForm | None = None
    min_num_trials: Count | None = None
    max_num_trials: Positive | None = None
    max_num_trials_no_progress: Positive | None = None
    max_duration_no_progress: Duration | None = None


def elapsed(rule: PruningRule, form: ElapsedForm) -> PrunerSpec:
    """The median rule or the decay curve."""
    return PrunerSpec(rule, min_trials=MEDIAN_TRIALS, use_elapsed=bool(form.use_elapsed_duration))


def convex(form: ConvexForm | ConvexStopForm, names: set[str], findings: Findings) -> PrunerSpec:
    """The convex rule; `names` are those of the parameters, one of which may be a learning rate."""
    if isinstance(form, ConvexForm):
        last, start, few = form.max_step_count, form.min_step_count, form.min_measurement_count
        seconds, key = form.use_elapsed_duration, "minStepCount"
    else:
        last, start, few = form.max_num_steps, form.min_num_steps, form.autoregressive_order
        seconds, key = form.use_seconds, "minNumSteps"
    _unused(form, names, findings)
    if start and last and start > last:
        message = f"{key} {start} is above the last step {last}: no trial would be stopped"
        findings.error(form.at(key), message, f"give less than {last}")
    return PrunerSpec(
        PruningRule.CONVEX,
        min_steps=(last or 0) // 10 if start is None else start,
        use_elapsed=bool(seconds),
        final_step=last or None,
        min_measurements=few or PrunerSpec().min_measurements,
    )


def _unused(form: ConvexForm | ConvexStopForm, names: set[str], findings: Findings) -> None:
    """Tell what the rule here does without."""
    name = form.learning_rate_parameter_name
    place = form.at("learningRateParameterName")
    if name and name not in names:
        message = f"learningRateParameterName {name} is no parameter"
        findings.error(place, message, "name one of the parameters, or remove the line")
    elif name:
        message = f"learningRateParameterName {name} is not used: curves are predicted without it"
        findings.warn(place, message, "remove it")
    if isinstance(form, ConvexForm) and form.update_all_stopped_trials:
        message = "updateAllStoppedTrials is not used: only running trials are judged"
        findings.warn(form.at("updateAllStoppedTrials"), message, "remove it")


def stopping(form: StoppingForm, objectives: int, findings: Findings) -> Stopping:
    """The rules that end a study; those about progress need one objective to look at."""
    for key in ("maxNumTrialsNoProgress", "maxDurationNoProgress"):
        if objectives > 1 and not form.lacks(key):
            message = f"{key} needs one objective, but there are {objectives}"
            findings.error(form.at(key), message, "remove it, or keep one metric")
    least = _runtime(form.minimum_runtime_constraint, findings)
    most = _runtime(form.maximum_runtime_constraint, findings)
    return Stopping(
        as_soon_as_possible=bool(form.should_stop_asap),
        min_runtime=least.max_duration,
        min_end=least.end_time,
        max_runtime=most.max_duration,
        max_end=most.end_time,
        min_trials=form.min_num_trials or None,
        max_trials=form.max_num_trials,
        max_trials_no_progress=form.max_num_trials_no_progress,
        max_seconds_no_progress=form.max_duration_no_progress,
    )


def _runtime(form: RuntimeForm | None, findings: Findings) -> RuntimeForm:
    """The form, in which a duration and an end exclude each other."""
    if form is None:
        return RuntimeForm.empty()
    if not form.lacks("maxDuration") and not form.lacks("endTime"):
        findings.error(form.at("endTime"), "maxDuration and endTime exclude each other", "remove one of them")
    return form
