"""The dialect of Vertex AI: a HyperparameterTuningJob -> Draft."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from hpsearch.spec.draft import Draft, counts
from hpsearch.spec.form import Form, Listed
from hpsearch.spec.metrics import check_metric, goal_of
from hpsearch.spec.model import Algorithm, Constraint, Goal, Objective, PrunerSpec, PruningRule, Selection
from hpsearch.spec.node import Findings, Node
from hpsearch.spec.scalars import Count, Real, Text
from hpsearch.spec.vertex_job import TrialJobForm, job
from hpsearch.spec.vertex_parameters import ParameterSpecForm, first, tree
from hpsearch.spec.vertex_stopping import (
    ConvexForm,
    ConvexStopForm,
    ElapsedForm,
    StoppingForm,
    convex,
    elapsed,
    stopping,
)
from hpsearch.spec.words import ALGORITHMS, GOALS, SELECTIONS

NAME = "vertex_ai"
# Keys that stand in a job without a study, in a job's inside, or in a study without its job.
FRAGMENTS = frozenset({"trialJobSpec", "jobSpec", "workerPoolSpecs", "metrics", "parameters"})
_RULES = (
    "medianAutomatedStoppingSpec",
    "decayCurveStoppingSpec",
    "convexAutomatedStoppingSpec",
    "convexStopConfig",
)


class SafetyForm(Form):
    """Makes a metric a constraint: it must not be worse than the threshold, 0 where there is none."""

    safety_threshold: Real | None = None
    desired_min_safe_trials_fraction: Real | None = None


class MetricForm(Form):
    """One metric that the trainer reports: an objective, or with a safetyConfig a constraint."""

    called = ("metric", "metricId")
    rules: ClassVar = {"required": ["metricId"]}
    metric_id: Text | None = None
    goal: Annotated[Goal | None, GOALS] = None
    safety_config: SafetyForm | None = None


class StudySpecForm(Form):
    """The study: what is better, which parameters, and when trials and the study stop."""

    rules: ClassVar = {"required": ["metrics", "parameters"]}
    metrics: Listed[MetricForm] | None = None
    parameters: Listed[ParameterSpecForm] | None = None
    algorithm: Annotated[Algorithm | None, ALGORITHMS] = None
    measurement_selection_type: Annotated[Selection | None, SELECTIONS] = None
    median_automated_stopping_spec: ElapsedForm | None = None
    decay_curve_stopping_spec: ElapsedForm | None = None
    convex_automated_stopping_spec: ConvexForm | None = None
    convex_stop_config: ConvexStopForm | None = None
    study_stopping_config: StoppingForm | None = None
    observation_noise: Any = None
    transfer_learning_config: Any = None


class TuningJobForm(Form):
    """A HyperparameterTuningJob, as written for a submission or as the service shows it."""

    unread = frozenset(
        {"hpsearch", "name", "displayName", "labels", "encryptionSpec", "trials", "state", "error"}
        | {"createTime", "startTime", "endTime", "updateTime", "satisfiesPzs", "satisfiesPzi"}
    )
    rules: ClassVar = {"required": ["studySpec"]}
    study_spec: StudySpecForm | None = None
    max_trial_count: Count | None = None
    parallel_trial_count: Count | None = None
    max_failed_trial_count: Count | None = None
    trial_job_spec: TrialJobForm | None = None


def understand(root: Node, findings: Findings) -> Draft:
    """What the file says in this dialect; a job without a study has nothing to tune."""
    draft = Draft(root)
    if not {"studySpec", "study_spec"} & root.entries.keys():
        hint = "write studySpec: with metrics and parameters; one plain run needs no search"
        findings.missing(root, "studySpec", "nothing to tune: the file has no studySpec", hint)
        return draft
    form = TuningJobForm.take(root, findings)
    if form.lacks("studySpec"):
        hint = "write metrics and parameters below it"
        findings.missing(root, "studySpec", "nothing to tune: studySpec is empty", hint)
    _counts(form, draft, findings)
    if form.study_spec:
        _study(form.study_spec, draft, findings)
    if form.trial_job_spec:
        draft.node = form.trial_job_spec.node
        job(form.trial_job_spec, draft, findings)
    return draft


def _counts(form: TuningJobForm, draft: Draft, findings: Findings) -> None:
    keys = {"trials": "maxTrialCount", "parallel": "parallelTrialCount", "failed": "maxFailedTrialCount"}
    draft.places |= {name: form.at(key) for name, key in keys.items()}
    absent = [key for key in ("maxTrialCount", "parallelTrialCount") if form.lacks(key)]
    if absent:
        said = f"{' and '.join(absent)} {'are' if len(absent) > 1 else 'is'} absent: 1 is used"
        findings.absent(form.node, absent[0], said, "write how many trials to run, and how many at a time")
    counts(form.max_trial_count, form.parallel_trial_count, form.max_failed_trial_count, draft, findings)


def _study(form: StudySpecForm, draft: Draft, findings: Findings) -> None:
    """Fill in what a StudySpec says."""
    _metrics(form, draft, findings)
    _parameters(form, draft, findings)
    draft.algorithm, draft.selection = form.algorithm, form.measurement_selection_type
    draft.places |= {key: form.at(key) for key in ("algorithm", "measurementSelectionType")}
    draft.pruner = _pruner(form, draft, findings)
    if form.study_stopping_config:
        draft.stopping = stopping(form.study_stopping_config, len(draft.objectives), findings)
    for key in ("observationNoise", "transferLearningConfig"):
        if not form.lacks(key) and not form.at(key).text.endswith("_UNSPECIFIED"):
            message = f"{key} is ignored: it is not for tuning jobs"
            findings.warn(form.at(key), message, "remove it")


def _metrics(form: StudySpecForm, draft: Draft, findings: Findings) -> None:
    """The objectives and the constraints, in the order of the file."""
    named: dict[str, Node] = {}
    draft.texts["metrics"] = [each.at("metricId") for each in form.metrics or ()]
    for each in form.metrics or ():
        with findings.about(each.subject(each.node)):
            objective = _metric(each, named, findings)
        if each.safety_config is None:
            draft.objectives += (objective,)
        else:
            threshold = float(each.safety_config.safety_threshold or 0)
            draft.constraints += (Constraint(objective, threshold),)
            _fraction(each.safety_config, findings)
    if form.lacks("metrics") or (form.metrics == [] and not form.refused("metrics")):
        findings.missing(form.node, "metrics", "metrics is missing: nothing is better", "write metrics:")
    elif form.metrics and not draft.objectives:
        message = "every metric has a safetyConfig: nothing is better"
        findings.error(form.at("metrics"), message, "remove the safetyConfig of the one to improve")


def _metric(form: MetricForm, named: dict[str, Node], findings: Findings) -> Objective:
    name, place = form.metric_id or "", form.at("metricId")
    if not name and not form.refused("metricId"):
        findings.missing(form.node, "metricId", "the metric has no name", "write metricId:")
    if any(c.isspace() for c in name):
        findings.error(place, "metricId holds a blank", "use letters, digits and `_`, as the trainer reports")
    check_metric(name, "metricId", form, findings)
    if name and name in named:
        message = f"the metricId stands in line {named[name].line} already"
        findings.error(place, message, "rename one of them")
    named.setdefault(name, place)
    return Objective(name, goal_of(form, form.goal, findings))


def _fraction(form: SafetyForm, findings: Findings) -> None:
    if form.desired_min_safe_trials_fraction:
        message = "desiredMinSafeTrialsFraction is not followed: the threshold alone counts"
        findings.warn(form.at("desiredMinSafeTrialsFraction"), message, "remove it")


def _parameters(form: StudySpecForm, draft: Draft, findings: Findings) -> None:
    if form.lacks("parameters"):
        message = "parameters is missing: nothing to tune"
        findings.missing(form.node, "parameters", message, "list the parameters")
    elif form.parameters is not None:
        if not form.at("parameters").elements and not form.refused("parameters"):
            message = "parameters is empty: nothing to tune"
            findings.error(form.at("parameters"), message, "list the parameters")
        found = tree(form.parameters, findings)
        draft.parameters, draft.types = tuple(found.parameters), found.types
        draft.texts["values"] = found.texts
        draft.first = first(found, findings)


def _pruner(form: StudySpecForm, draft: Draft, findings: Findings) -> PrunerSpec | None:
    """The one automated stopping rule of the file."""
    given = [key for key in _RULES if not form.lacks(key)]
    if len(given) > 1:
        message = f"{' and '.join(given)} exclude each other"
        findings.error(form.at(given[1]), message, "keep one of them")
    if not given:
        return None
    draft.places["pruner"] = form.at(given[0])
    names = {each.name for each in draft.parameters}
    if form.median_automated_stopping_spec:
        return elapsed(PruningRule.MEDIAN, form.median_automated_stopping_spec)
    if form.decay_curve_stopping_spec:
        return elapsed(PruningRule.DECAY_CURVE, form.decay_curve_stopping_spec)
    spec = form.convex_automated_stopping_spec or form.convex_stop_config
    return convex(spec, names, findings) if spec else None
