"""What is written to MLflow, as plain rows: names and texts it accepts, the tags of studies and trials."""

from __future__ import annotations

import getpass
import hashlib
import json
import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hpsearch.spec.model import Goal, Params, Spec, Value
from hpsearch.study.trial import Outcome, State, Study, Trial

STUDY_UID = "hpsearch.study_uid"
TRIAL_UID = "hpsearch.trial_uid"
PARENT = "mlflow.parentRunId"
NOTE = "mlflow.note.content"
# The tag `state` of a run whose driver stopped before its trial ended; a resume goes on with it.
INTERRUPTED = "interrupted"

# The limits of MLflow 3.17 (mlflow/utils/validation.py).
NAME_LIMIT = 250
PARAM_LIMIT = 6_000
TAG_LIMIT = 8_000

STATUS = {
    State.RUNNING: "RUNNING",
    State.COMPLETED: "FINISHED",
    State.PRUNED: "KILLED",
    State.FAILED: "FAILED",
    State.INFEASIBLE: "FAILED",
}
STUDY_STATUS = {
    Outcome.COMPLETED: "FINISHED",
    Outcome.FAILED: "FAILED",
    Outcome.DEADLINE: "KILLED",
    Outcome.INTERRUPTED: "KILLED",
}

_INT64 = 2**63
_REFUSED_IN_NAMES = re.compile(r"[^\w/.\- :]")


@dataclass(frozen=True, slots=True)
class Point:
    """One value of a metric at a step; `time` is milliseconds since the epoch."""

    name: str
    value: float
    time: int
    step: int

    @property
    def sound(self) -> bool:
        """True if every store can hold it; a number beyond 64 bits fails in ways that look like an outage."""
        return 0 <= self.time < _INT64 and -_INT64 <= self.step < _INT64


@dataclass(frozen=True, slots=True)
class Param:
    """One param of a run; write-once."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Tag:
    """One tag of a run; the last one written counts."""

    name: str
    text: str


Row = Point | Param | Tag


def clean_name(name: str) -> str:
    """The name with what MLflow refuses written as `_xx` (hexadecimal); too long ones end in a hash."""
    text = _REFUSED_IN_NAMES.sub(lambda found: f"_{ord(found[0]):02x}", name)
    # MLflow takes names for paths: "a//b", "/a", "../a", "a/" and "." would be other names.
    if posixpath.normpath(text) != text or text == "." or text.startswith(("..", "/")):
        text = re.sub(r"(^|(?<=/))\.+(?=/|$)|(?<=/)/|^/|/$|^\.\.", _escaped, text) or "_"
    if len(text) <= NAME_LIMIT:
        return text
    return f"{text[: NAME_LIMIT - 9]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _escaped(found: re.Match[str]) -> str:
    return "".join(f"_{ord(character):02x}" for character in found[0])


def clean_text(text: str, limit: int) -> str:
    """The text without what databases refuse (NUL, lone surrogates), cut to a limit in characters."""
    text = text.replace("\0", "\ufffd").encode("utf-8", "replace").decode("utf-8")
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def value_text(value: Value) -> str:
    """A number as plain digits, which MLflow's charts read as a numeric axis; a text as it is."""
    if isinstance(value, str):
        return clean_text(value, PARAM_LIMIT)
    # float() and int() also turn NumPy's scalars into plain numbers.
    return repr(float(value)) if isinstance(value, float) else repr(int(value))


def param_rows(params: Params) -> list[Param]:
    """The params of a trial as rows."""
    return [Param(clean_name(name), value_text(value)) for name, value in params.items()]


def tag_rows(tags: Mapping[str, str]) -> list[Tag]:
    """Tags as rows."""
    return [Tag(name, text) for name, text in tags.items()]


def tags_of(texts: Mapping[str, str | None]) -> dict[str, str]:
    """The tags that have a text, with names and texts that MLflow accepts."""
    return {clean_name(name): clean_text(text, TAG_LIMIT) for name, text in texts.items() if text}


def study_tags(study: Study) -> dict[str, str]:
    """What the parent run and every child have in common; the study's own words win over given ones."""
    spec = study.spec
    git_sha = study.git_sha or study.tags.get("git_sha")  # an image holds no working tree
    return tags_of(study.tags) | tags_of(
        {
            "mlflow.user": _user(),
            "mlflow.source.name": Path(spec.source).name,
            "mlflow.source.type": "JOB",
            "mlflow.source.git.commit": git_sha,
            STUDY_UID: study.uid,
            "study": study.name,
            "state": State.RUNNING.value,
            "spec_sha256": spec.sha256,
            # What is scheduled is found by the file that it tried.
            "space_sha256": spec.sha256 if study.tags else None,
            "git_sha": git_sha,
            "seed": str(spec.sampler.seed),
            "sampler": spec.sampler.type.value,
            "pruner": spec.pruner.type.value,
            "previous": spec.previous,
            "versions": ", ".join(f"{package} {version}" for package, version in study.versions.items()),
        }
    )


def birth_tags(trial: Trial, parent_run_id: str) -> dict[str, str]:
    """What makes a run the child of a study and the run of a trial."""
    return {PARENT: parent_run_id, TRIAL_UID: trial.uid, "trial": str(trial.number)}


def is_parent(tags: Mapping[str, str]) -> bool:
    """True for the tags of a study's own run, which has no parent and is no trial's."""
    return PARENT not in tags and TRIAL_UID not in tags


def trial_tags(trial: Trial) -> dict[str, str]:
    """What changes in the life of a trial: attempts beyond the first, and how it ended."""
    tags: dict[str, str | None] = {}
    if len(trial.attempts) > 1 or trial.ending:
        tags["attempts"] = str(len(trial.attempts))
    if trial.attempts and trial.attempts[-1].resumed_from is not None:
        tags["resumed_from"] = str(trial.attempts[-1].resumed_from)
    if trial.ending:
        tags["state"] = trial.ending.state.value
        tags["reason"] = tags[NOTE] = trial.ending.reason
        tags["step"] = None if trial.step is None else str(trial.step)
    return tags_of(tags)


def interrupted_tags(reason: str) -> dict[str, str]:
    """What the run of a trial says whose driver stopped before its end."""
    return tags_of({"state": INTERRUPTED, "reason": reason, NOTE: reason})


def reopened_tags() -> dict[str, str]:
    """The same when a later driver goes on with it."""
    return {"state": State.RUNNING.value, "reason": "resumed", NOTE: "resumed"}


def experiment_tags(spec: Spec) -> dict[str, str]:
    """What lets MLflow's pages know the metric that counts, its good direction, and what is done here."""
    return {
        "mlflow.experimentKind": "custom_model_development",
        "mlflow.experiment.primaryMetric.name": clean_name(spec.objective.metric),
        "mlflow.experiment.primaryMetric.greaterIsBetter": str(spec.objective.goal is Goal.MAXIMIZE),
    }


def artifact_name(source: str) -> str:
    """The name under which the text of a Spec is stored: that of its file."""
    name = Path(source).name
    return name if re.fullmatch(r"[\w.\-]+\.(yaml|yml|json)", name) else "spec.yaml"


def best_tags(number: int, params: Params, run_id: str | None) -> dict[str, str]:
    """What the parent run says of the best completed trial."""
    return tags_of(
        {
            "best_trial": str(number),
            "best_params": json.dumps(dict(params), ensure_ascii=False),
            "best_run_id": run_id,
        }
    )


def description(study: Study) -> str:
    """The study in a few words, for people who open its run."""
    spec = study.spec
    goals = ", ".join(f"{objective.goal.value.lower()} {objective.metric}" for objective in spec.objectives)
    return (
        f"Study {study.name}: {goals}. Sampler {spec.sampler.type.value} (seed {spec.sampler.seed}), "
        f"pruner {spec.pruner.type.value}, {spec.max_trials} trials, {spec.max_parallel_trials} at a time"
        + (
            f", up to {spec.max_steps} steps each, measured every {spec.measure_every}."
            if spec.paced
            else "."
        )
    )


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without an entry in the password file
        return "unknown"
