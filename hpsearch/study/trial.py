"""Trials and the facts about them: measurements, attempts, endings; a trial's state is derived, never set."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from hpsearch.spec.model import Objective, Params, Program, Resources, Selection, Spec


class State(StrEnum):
    """What became of a trial; infeasible: it ran to its end without a finite objective."""

    RUNNING = "running"
    COMPLETED = "completed"
    PRUNED = "pruned"
    FAILED = "failed"
    INFEASIBLE = "infeasible"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A file from which an attempt can go on: its name within the trial's directory, and its proof."""

    step: int
    attempt: int
    name: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Measurement:
    """What was seen at a step; `time` is milliseconds since the epoch, fixed when first recorded."""

    step: int
    metrics: Mapping[str, float]
    time: int = 0
    checkpoint: Checkpoint | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether to prune; a decision to prune without a reason is invalid (ValueError)."""

    prune: bool
    reason: str = ""

    def __post_init__(self) -> None:
        if self.prune and not self.reason:
            raise ValueError("a decision to prune needs a reason")


KEEP = Decision(False)


@dataclass(frozen=True, slots=True)
class Suggestion:
    """What a sampler proposes: every parameter in the order of the file, constants too.

    `attributes` is private to the sampler: JSON types that the store keeps with the trial.
    """

    params: Params
    attributes: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Ending:
    """How a trial ended, why in words and numbers, and when (milliseconds since the epoch).

    `silent`: it ran to its end well, and yet never reported its objective; only a claim says so.
    """

    state: State
    reason: str
    time: int = 0
    silent: bool = field(default=False, compare=False)


class Cause(StrEnum):
    """Why an attempt was started: the first, or what became of the one before it."""

    FIRST = "first"
    CRASHED = "crashed"  # its process or its worker died
    HUNG = "hung"  # it neither reported nor worked for too long
    OOM = "oom"  # it used more memory than it may
    PREEMPTED = "preempted"  # its node was taken away
    DRIVER = "driver"  # the driver stopped or was killed

    @property
    def counts(self) -> bool:
        """Whether it was the trial's own failure, of which it may have so many and no more."""
        return self in (Cause.CRASHED, Cause.HUNG, Cause.OOM)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One execution of a trial, from its start (milliseconds) and, where it resumed, a checkpoint's step.

    `cause` is why it was started, `reason` says in words what became of the attempt before it.
    """

    number: int
    started: int
    resumed_from: int | None = None
    cause: Cause = Cause.FIRST
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Resumption:
    """Where an attempt really went on from, not being where it was to, and why; step 0 is the start."""

    attempt: int
    step: int
    reason: str


@dataclass(slots=True)
class Trial:
    """One evaluation of some params: its facts in the order they were recorded.

    The only record that grows: facts are appended to it, never changed.
    """

    number: int
    uid: str
    params: Params
    created: int
    attempts: list[Attempt] = field(default_factory=list)
    measurements: list[Measurement] = field(default_factory=list)
    checkpoints: list[Checkpoint] = field(default_factory=list)
    ending: Ending | None = None

    @property
    def state(self) -> State:
        """Derived from the ending, so that facts and status cannot disagree."""
        return self.ending.state if self.ending else State.RUNNING

    @property
    def step(self) -> int | None:
        """The last measured step, None before the first measurement."""
        return self.measurements[-1].step if self.measurements else None

    def values(self, metric: str) -> list[tuple[int, float]]:
        """The finite values of a metric as (step, value), in order of steps."""
        return [
            (m.step, m.metrics[metric])
            for m in self.measurements
            if metric in m.metrics and math.isfinite(m.metrics[metric])
        ]

    def outcome(self, objective: Objective, selection: Selection) -> tuple[int, float] | None:
        """The (step, value) that counts: the last finite one or the best; None where there is none."""
        values = self.values(objective.metric)
        if not values:
            return None
        if selection is Selection.LAST:
            return values[-1]
        return min(values, key=lambda pair: objective.cost(pair[1]))

    def outcomes(self, spec: Spec) -> tuple[float, ...] | None:
        """The values that count, one for each objective; None unless there are all."""
        found = [self.outcome(objective, spec.selection) for objective in spec.objectives]
        return None if None in found else tuple(each[1] for each in found if each)


@dataclass(frozen=True, slots=True)
class Context:
    """What a trainer is told about its trial; `checkpoint` is the file to resume from, if any.

    `earlier` are older checkpoints with their proofs, newest first, for when that one is damaged. `storage`:
    the URL of the trial where its checkpoints are objects of a bucket, under the keys that their paths have
    within `directory`; that is then this attempt's own, and its files go to the bucket when it is over.
    """

    number: int
    attempt: int
    seed: int
    max_steps: int
    measure_every: int
    directory: Path
    device: str = "cpu"
    resources: Resources = field(default_factory=Resources)
    checkpoint: Path | None = None
    checkpoint_sha256: str | None = None
    earlier: tuple[tuple[Path, str], ...] = ()
    storage: str = ""


@dataclass(frozen=True, slots=True)
class Team:
    """Which of the `size` processes of a trial this one is, and where the first of them is reached.

    `local_rank` of the `local_size` on the same node. `address` and `port` are of the first one's node;
    `devices` are the GPUs of all of them on this node, as CUDA_VISIBLE_DEVICES, None: as it finds them.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    address: str = ""
    port: int = 0
    devices: str | None = None


@dataclass(frozen=True, slots=True)
class Launch:
    """All that a runner needs to execute one attempt: plain data that travels as JSON.

    `timeout` and `grace` (between SIGTERM and SIGKILL) are seconds, as are the times in which the first and
    each further report is due; None: judged by the trial's own pace and work, 0: never.
    Unless `judged`, no decision waits for a report, and reports may travel together. `metrics` are those of
    all objectives, `metric` the first. `output` is how many bytes of what it prints are kept. `team` is known
    only where it runs.
    """

    module: str
    args: tuple[str, ...]
    params: Params
    context: Context
    metric: str
    python_path: tuple[str, ...] = ()
    timeout: float | None = None
    judged: bool = True
    study: str = ""
    metrics: tuple[str, ...] = ()
    program: Program = field(default_factory=Program)
    grace: float = 5.0
    startup_timeout: float | None = None
    progress_timeout: float | None = None
    processes: int = 200
    output: int = 1 << 26
    team: Team = field(default_factory=Team)

    def to_json(self) -> dict[str, Any]:
        """The launch as JSON types; `from_json` is its inverse."""
        context = {name: getattr(self.context, name) for name in Context.__slots__}
        context["directory"] = str(self.context.directory)
        context["checkpoint"] = str(self.context.checkpoint) if self.context.checkpoint else None
        context["earlier"] = [[str(path), sha256] for path, sha256 in self.context.earlier]
        context["resources"] = {n: getattr(self.context.resources, n) for n in Resources.__slots__}
        return {
            "module": self.module,
            "args": list(self.args),
            "params": dict(self.params),
            "context": context,
            "metric": self.metric,
            "python_path": list(self.python_path),
            "timeout": self.timeout,
            "judged": self.judged,
            "study": self.study,
            "metrics": list(self.metrics),
            "program": asdict(self.program),
            "grace": self.grace,
            "startup_timeout": self.startup_timeout,
            "progress_timeout": self.progress_timeout,
            "processes": self.processes,
            "output": self.output,
            "team": asdict(self.team),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Launch:
        """A launch from what `to_json` made."""
        context = dict(data["context"])
        context["directory"] = Path(context["directory"])
        context["checkpoint"] = Path(context["checkpoint"]) if context["checkpoint"] else None
        context["earlier"] = tuple((Path(path), sha256) for path, sha256 in context["earlier"])
        context["resources"] = Resources(**context["resources"])
        program = dict(data["program"])
        program["command"] = tuple(program["command"])
        program["env"] = tuple((name, value) for name, value in program["env"])
        return cls(
            module=data["module"],
            args=tuple(data["args"]),
            params=dict(data["params"]),
            context=Context(**context),
            metric=data["metric"],
            python_path=tuple(data["python_path"]),
            timeout=data["timeout"],
            judged=data["judged"],
            study=data["study"],
            metrics=tuple(data["metrics"]),
            program=Program(**program),
            grace=data["grace"],
            startup_timeout=data["startup_timeout"],
            progress_timeout=data["progress_timeout"],
            processes=data["processes"],
            output=data["output"],
            team=Team(**data["team"]),
        )


@dataclass(frozen=True, slots=True)
class Report:
    """What a trial's process says: a measurement, a checkpoint, a note, or its ending.

    `resumed_from`: the step that it goes on from, not being its newest checkpoint's; the note says why.
    """

    measurement: Measurement | None = None
    checkpoint: Checkpoint | None = None
    ending: Ending | None = None
    note: str = ""
    resumed_from: int | None = None


@dataclass(frozen=True, slots=True)
class Study:
    """One search as it was created: its name, its Spec, where it lies, and what code made it.

    `created` is milliseconds since the epoch; `versions` maps packages to their versions. `started_in` is
    the directory that it was started in, from which trials start, too. `tags` are what its runs in MLflow say
    beside: of which schedule it is a tick, and what whoever started it wants to find it by. `storage` is the
    path or the URL below which its trials' files lie, empty where that is its own directory.
    """

    name: str
    uid: str
    created: int
    spec: Spec
    directory: Path
    git_sha: str | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    started_in: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    storage: str = ""

    @property
    def in_bucket(self) -> bool:
        """Whether its trials' files lie in a bucket, not in directories."""
        return "://" in self.storage

    @property
    def files(self) -> Path:
        """The directory below which its trials have theirs."""
        return Path(self.storage) if self.storage and not self.in_bucket else self.directory


@dataclass(frozen=True, slots=True)
class Known:
    """An ended trial of an earlier study that a study knows from its start, and what its sampler kept."""

    trial: Trial
    attributes: Mapping[str, object] = field(default_factory=dict)


class Outcome(StrEnum):
    """How one driver's work on a study ended; only `completed` and `failed` are final."""

    COMPLETED = "completed"
    FAILED = "failed"
    DEADLINE = "deadline"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True, slots=True)
class StudyEnding:
    """The end of one driver's work on a study (a resume may follow an interrupted one)."""

    outcome: Outcome
    reason: str
    time: int = 0


@dataclass(frozen=True, slots=True)
class Revision:
    """What a study goes by from here on: its file, the trainer's code and the versions, as they are now.

    The first has number 1. `text` is None where the file is the one before; `edits` say in words what a new
    one changed. `code` maps the files of the trainer's code to the sha256 of their content.
    """

    number: int
    time: int
    source: str
    text: str | None
    edits: tuple[str, ...] = ()
    git_sha: str | None = None
    code: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)


Fact = Trial | Attempt | Resumption | Measurement | Checkpoint | Ending | StudyEnding | Revision


@dataclass(frozen=True, slots=True)
class Change:
    """One committed fact in the order of the store's counter (lsn); `trial` is None for the study's own.

    A `Trial` as fact means "suggested": only number, uid, params and created count.
    A `Measurement` as fact may hold a part of a step's metrics.
    """

    lsn: int
    trial: int | None
    fact: Fact


@dataclass(frozen=True, slots=True)
class Entry:
    """A fact about to be committed: of which trial (None: of the study), by which attempt."""

    trial: int | None
    fact: Fact
    attempt: int = 1
    attributes: Mapping[str, object] | None = None
