"""A study as the resource that its service would show, for scripts that were written for it: pure.

Whatever dialect the file has, both are told; strict JSON, whole numbers of 64 bits as text, times in UTC.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from hpsearch.show import answers, dialects
from hpsearch.show.answers import Json
from hpsearch.spec.texts import text_of
from hpsearch.study.front import best_of
from hpsearch.study.trial import Measurement, Outcome, State, Study, Trial

if TYPE_CHECKING:
    from hpsearch.study.history import History

KILLED = "its driver was killed"

# The state of a job, and the code of google.rpc.Status for it: unknown, cancelled, deadline exceeded.
_JOB_STATES = {
    answers.RUNNING: ("RUNNING", 0),
    str(Outcome.COMPLETED): ("SUCCEEDED", 0),
    str(Outcome.FAILED): ("FAILED", 2),
    str(Outcome.DEADLINE): ("CANCELLED", 4),
    str(Outcome.INTERRUPTED): ("CANCELLED", 1),
}
_SUCCEEDED = frozenset({State.COMPLETED, State.PRUNED})


def cloudml(history: History, owned: bool) -> Json:
    """The Job of Cloud ML Engine and AI Platform Training, its ended trials the best first.

    Element 0 is the trial that `hpsearch best` names, where there is one.
    Source: the REST resource of `projects.jobs`.
    """
    spec, reason = history.study.spec, _trouble(history, owned)
    job = {"jobId": history.study.name, "trainingInput": dialects.training_input(spec)}
    job |= {"state": _state(history, owned)[0]} | _times(history, owned)
    if reason:
        job["errorMessage"] = reason
    ended = [trial for trial in history.trials if trial.ending]
    output: Json = {"isHyperparameterTuningJob": True}
    if ended:
        output |= {
            "completedTrialCount": str(sum(trial.state in _SUCCEEDED for trial in ended)),
            "hyperparameterMetricTag": spec.objective.metric,
            "trials": [_output(trial, history.study) for trial in _best_first(ended, history.study)],
        }
    return job | {"trainingOutput": output}


def vertex(history: History, owned: bool) -> Json:
    """The HyperparameterTuningJob of Vertex AI, all its trials in the order of their ids.

    Source: the REST resource of `projects.locations.hyperparameterTuningJobs`.
    """
    spec, reason = history.study.spec, _trouble(history, owned)
    state, code = _state(history, owned)
    job: Json = {
        "displayName": history.study.name,
        "studySpec": dialects.study_spec(spec),
        "maxTrialCount": spec.max_trials,
        "parallelTrialCount": spec.max_parallel_trials,
    }
    if spec.limits.max_failed_trials:
        job["maxFailedTrialCount"] = spec.limits.max_failed_trials
    job["trialJobSpec"] = dialects.trial_job_spec(spec)
    if history.trials:
        job["trials"] = [_trial(trial, history.study, owned) for trial in history.trials]
    job |= {"state": f"JOB_STATE_{state}"} | _times(history, owned)
    return job | ({"error": {"code": code, "message": reason}} if reason else {})


def _state(history: History, owned: bool) -> tuple[str, int]:
    return _JOB_STATES[answers.state(history, owned=owned)]


def _trouble(history: History, owned: bool) -> str:
    """Why a study failed or was cut short; empty where it did neither."""
    if _state(history, owned)[1] == 0:
        return ""
    return history.ending.reason if history.ending else KILLED


def _times(history: History, owned: bool) -> Json:
    """When a study was created, and where it is so far when its first trial started and when it ended."""
    started = [trial.attempts[0].started for trial in history.trials if trial.attempts]
    ended = history.ending.time if history.ending and not owned else None
    moments = {"createTime": history.study.created, "startTime": min(started, default=None), "endTime": ended}
    return {name: answers.moment(one) for name, one in moments.items() if one is not None}


def _trial_times(trial: Trial) -> Json:
    started = trial.attempts[0].started if trial.attempts else None
    moments = {"startTime": started, "endTime": trial.ending.time if trial.ending else None}
    return {name: answers.moment(one) for name, one in moments.items() if one is not None}


# -- Cloud ML Engine ------------------------------------------------------------------------------------


def _best_first(ended: list[Trial], study: Study) -> list[Trial]:
    """The best trial, the others by what counts of them, those without an objective by number."""
    objective, best = study.spec.objective, best_of(ended, study)

    def place(trial: Trial) -> tuple[bool, bool, float, int]:
        final = _final(trial, study)
        cost = objective.cost(final[1]) if final else 0.0
        return trial is not best, final is None, cost, trial.number

    return sorted(ended, key=place)


def _final(trial: Trial, study: Study) -> tuple[int, float] | None:
    """The (step, value) that counts of a trial that succeeded, stopped early or not."""
    if trial.state not in _SUCCEEDED:
        return None
    return answers.seen(trial, study.spec.objective, study.spec)


def _output(trial: Trial, study: Study) -> Json:
    """A HyperparameterOutput."""
    told: Json = {
        "trialId": str(trial.number + 1),
        "hyperparameters": {name: text_of(value) for name, value in trial.params.items()},
        "state": "SUCCEEDED" if trial.state in _SUCCEEDED else "FAILED",
    }
    if final := _final(trial, study):
        told["finalMetric"] = {"trainingStep": str(final[0]), "objectiveValue": final[1]}
    if trial.state is State.PRUNED:
        told["isTrialStoppedEarly"] = True
    return told | _trial_times(trial)


# -- Vertex AI ------------------------------------------------------------------------------------------


def _trial(trial: Trial, study: Study, owned: bool) -> Json:
    """A Trial of a Study; it has no word for failed, and so its service says infeasible.

    One that has not ended, and that nobody runs, is stopping: what is known of it may still count.
    """
    unfinished = "ACTIVE" if owned else "STOPPING"
    told: Json = {
        "id": str(trial.number + 1),
        "state": "SUCCEEDED" if trial.state in _SUCCEEDED else "INFEASIBLE" if trial.ending else unfinished,
        "parameters": [
            {"parameterId": name, "value": answers.strict(value)} for name, value in trial.params.items()
        ],
    }
    if final := _final_measurement(trial, study):
        told["finalMeasurement"] = final
    measurements = [_measurement(each, study) for each in trial.measurements]
    if any(measurements):
        told["measurements"] = [each for each in measurements if each]
    if trial.ending and trial.state not in _SUCCEEDED:
        told["infeasibleReason"] = trial.ending.reason
    return told | _trial_times(trial)


def _final_measurement(trial: Trial, study: Study) -> Json | None:
    """What counts of a trial that succeeded, at the step that counts for its first objective."""
    if trial.state not in _SUCCEEDED:
        return None
    spec = study.spec
    found = {each.metric: answers.seen(trial, each, spec) for each in spec.objectives}
    guards = [constraint.objective.metric for constraint in spec.constraints]
    found |= {metric: answers.last(trial, metric) for metric in guards}
    known = {metric: pair for metric, pair in found.items() if pair}
    if not known:
        return None
    step = next(iter(known.values()))[0]
    return _at(step, {metric: value for metric, (_, value) in known.items()})


def _measurement(found: Measurement, study: Study) -> Json | None:
    """A Measurement of the study's metrics, None if it has no finite value of any."""
    spec = study.spec
    names = [each.metric for each in (*spec.objectives, *(c.objective for c in spec.constraints))]
    values = {name: found.metrics[name] for name in names if name in found.metrics}
    finite = {name: value for name, value in values.items() if math.isfinite(value)}
    return _at(found.step, finite) if finite else None


def _at(step: int, values: dict[str, float]) -> Json:
    metrics = [{"metricId": metric, "value": value} for metric, value in values.items()]
    return {"stepCount": str(step), "metrics": metrics}
