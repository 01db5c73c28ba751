"""The Spec: one parsed search-space file as frozen plain data, in the field's own terms."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

Value = int | float | str
Params = Mapping[str, Value]


class Scale(StrEnum):
    """How a numeric range is measured; reverse log puts the resolution near the upper end."""

    LINEAR = "linear"
    LOG = "log"
    REVERSE_LOG = "reverse_log"


class Goal(StrEnum):
    """Which way an objective is better."""

    MINIMIZE = "MINIMIZE"
    MAXIMIZE = "MAXIMIZE"


class Selection(StrEnum):
    """Which measurement of a trial is its objective value."""

    LAST = "LAST"
    BEST = "BEST"


class Algorithm(StrEnum):
    """The samplers on offer."""

    TPE = "TPE"
    GP = "GP"
    CMA_ES = "CMA_ES"
    QMC = "QMC"
    RANDOM = "RANDOM"
    GRID = "GRID"
    NSGA_II = "NSGA_II"


class PruningRule(StrEnum):
    """The pruners on offer."""

    MEDIAN = "MEDIAN"
    ASHA = "ASHA"
    HYPERBAND = "HYPERBAND"
    PATIENCE = "PATIENCE"
    THRESHOLD = "THRESHOLD"
    DECAY_CURVE = "DECAY_CURVE"
    CONVEX = "CONVEX"
    NONE = "NONE"


class Keep(StrEnum):
    """Which checkpoints stay once a trial has ended; what an unfinished one needs always stays."""

    BEST = "BEST"  # of the best trial the one that its value belongs to
    EACH = "EACH"  # the same of each trial
    ALL = "ALL"
    NONE = "NONE"


@dataclass(frozen=True, slots=True)
class Condition:
    """When a parameter is active: while its parent, named by its key, has one of the values."""

    parent: str
    values: tuple[Value, ...]

    @property
    def key(self) -> str:
        """What tells this condition from others of the same file, whatever the values hold."""
        return f"{self.parent}={'|'.join(map(repr, self.values))}"


@dataclass(frozen=True, slots=True)
class Double:
    """A real number in [low, high], both ends included."""

    name: str
    low: float
    high: float
    scale: Scale = Scale.LINEAR
    condition: Condition | None = None


@dataclass(frozen=True, slots=True)
class Integer:
    """A whole number in [low, high], both ends included."""

    name: str
    low: int
    high: int
    scale: Scale = Scale.LINEAR
    condition: Condition | None = None


@dataclass(frozen=True, slots=True)
class Discrete:
    """One of some numbers in increasing order; whole numbers are held as int."""

    name: str
    values: tuple[int | float, ...]
    scale: Scale = Scale.LINEAR
    condition: Condition | None = None


@dataclass(frozen=True, slots=True)
class Categorical:
    """One of some texts, without order."""

    name: str
    values: tuple[str, ...]
    condition: Condition | None = None


Parameter = Double | Integer | Discrete | Categorical


def key_of(parameter: Parameter) -> str:
    """A parameter's name, with its condition where it has one: children of a name share only the name."""
    return f"{parameter.condition.key}/{parameter.name}" if parameter.condition else parameter.name


@dataclass(frozen=True, slots=True)
class SearchSpace:
    """What may be tried: the parameters in the order of the file, children right behind their parents."""

    parameters: tuple[Parameter, ...]

    @property
    def conditional(self) -> bool:
        """Whether some parameter is active for some values of another only."""
        return any(parameter.condition for parameter in self.parameters)

    def walk(self, choose: Callable[[Parameter], Value]) -> dict[str, Value]:
        """The values of the active parameters by key; `choose` is asked for active ones only, in order."""
        values: dict[str, Value] = {}
        for parameter in self.parameters:
            condition = parameter.condition
            if condition is None or values.get(condition.parent) in condition.values:
                values[key_of(parameter)] = choose(parameter)
        return values

    def active(self, params: Params) -> dict[str, Parameter]:
        """The parameters by name that some params hold values for; KeyError if one is missing."""
        found: dict[str, Parameter] = {}

        def known(parameter: Parameter) -> Value:
            found[parameter.name] = parameter
            return params[parameter.name]

        self.walk(known)
        return found


@dataclass(frozen=True, slots=True)
class Objective:
    """A metric and its goal; the only code that knows which way is better."""

    metric: str
    goal: Goal

    def cost(self, value: float) -> float:
        """The value turned so that lower is better; NaN is the worst of all."""
        if math.isnan(value):
            return math.inf
        return value if self.goal is Goal.MINIMIZE else -value

    def better(self, value: float, other: float) -> bool:
        """True if the first value is strictly better than the second."""
        return self.cost(value) < self.cost(other)


@dataclass(frozen=True, slots=True)
class Constraint:
    """A metric that must not be worse than its threshold in a safe trial (Vertex AI: safetyConfig)."""

    objective: Objective
    threshold: float

    def violation(self, value: float) -> float:
        """How much worse than the threshold a value is; 0 or less is safe."""
        return self.objective.cost(value) - self.objective.cost(self.threshold)


@dataclass(frozen=True, slots=True)
class SamplerSpec:
    """Which sampler proposes, and the study's seed (0 to 2^32-1)."""

    type: Algorithm = Algorithm.TPE
    seed: int = 0
    startup_trials: int | None = None


@dataclass(frozen=True, slots=True)
class PrunerSpec:
    """Which rule prunes, and its settings; steps are optimizer updates.

    `min_steps`: no trial is pruned before this step; for ASHA and HYPERBAND the first rung; 0 for CONVEX
    without a `final_step`: a tenth of the one that it learns.
    `reduction_factor`: eta, of which one in eta trials passes a rung.
    `min_trials`: completed trials before MEDIAN compares.
    `patience`: measurements without an improvement of more than `min_delta`.
    `lower`, `upper`: THRESHOLD prunes values outside of them.
    `use_elapsed`: MEDIAN, DECAY_CURVE and CONVEX go by seconds of running instead of steps; then `min_steps`
    and `final_step` are seconds, too.
    `final_step`: where CONVEX predicts; None: learned from the completed trials.
    `min_measurements`: before CONVEX judges a trial; also one completed trial more than that is needed.
    """

    type: PruningRule = PruningRule.NONE
    min_steps: int = 0
    reduction_factor: int = 3
    min_trials: int = 5
    patience: int = 10
    min_delta: float = 0.0
    lower: float | None = None
    upper: float | None = None
    use_elapsed: bool = False
    final_step: float | None = None
    min_measurements: int = 5


@dataclass(frozen=True, slots=True)
class Stopping:
    """When a study ends before its trials are all run (Vertex AI's studyStoppingConfig); None: never for it.

    Times are seconds since the study was created, or since its best improved; ends are milliseconds since
    the epoch.
    `as_soon_as_possible`: running trials are stopped, too.
    """

    as_soon_as_possible: bool = False
    min_runtime: float | None = None
    min_end: int | None = None
    max_runtime: float | None = None
    max_end: int | None = None
    min_trials: int | None = None
    max_trials: int | None = None
    max_trials_no_progress: int | None = None
    max_seconds_no_progress: float | None = None


@dataclass(frozen=True, slots=True)
class Resources:
    """What each process of a trial asks of Ray: CPUs and GPUs (fractions allowed), memory in bytes or None.

    `hinted`: the GPUs come from the name of a machine, so that a machine with fewer will do.
    `workers`: of how many processes a trial consists, which share its work.
    """

    cpu: float = 1.0
    gpu: float = 0.0
    memory: int | None = None
    hinted: bool = False
    workers: int = 1


@dataclass(frozen=True, slots=True)
class Program:
    """What an unmodified program of the services is started with, beside its module, args and params.

    `command`: what runs instead of `python -m <module>`. `env`: variables of the file, by name.
    `job_dir`: the base of `--job-dir`. `output`: the base of the AIP_* directories, None: the trial's own.
    `job`: the resource that TF_CONFIG shows, as JSON text. `region`: of the file.
    `own_directory`: it starts in the trial's directory instead of the driver's.
    """

    command: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    job_dir: str | None = None
    output: str | None = None
    job: str = "{}"
    region: str | None = None
    own_directory: bool = False


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of time (seconds) and failures; 0 failed trials means that the service decides.

    `startup_timeout`, `progress_timeout`: within which the first and each further report is due; None: judged
    by the trial's own pace and work, 0: never.
    `max_attempts`: executions of one trial that crashed, the first included.
    `grace_period`: seconds between SIGTERM and SIGKILL for a program that must stop.
    `max_processes` and `max_output` (bytes of what it prints that are kept) are those of one trial.
    """

    trial_timeout: float | None = None
    study_timeout: float | None = None
    max_failed_trials: int = 0
    max_attempts: int = 3
    grace_period: float = 5.0
    startup_timeout: float | None = None
    progress_timeout: float | None = None
    max_processes: int = 200
    max_output: int = 1 << 26


@dataclass(frozen=True, slots=True)
class Tracking:
    """Where MLflow is and what its experiment is called; None: the embedded default, the file's stem.

    `strict`: a study does not start while MLflow cannot be reached.
    """

    uri: str | None = None
    experiment: str | None = None
    strict: bool = False


@dataclass(frozen=True, slots=True)
class Spec:
    """One search-space file: what may be tried, what is better, and how trials are run.

    `max_steps` and `measure_every` count optimizer updates; `paced`: the file says one of them itself, which
    means nothing to a program that counts on its own. `sha256` is that of `text`.
    `first`: the params of the first trial, None: the sampler's choice. `previous`: the study whose trials
    are known from the start.
    """

    source: str
    text: str
    sha256: str
    dialect: str
    module: str
    args: tuple[str, ...]
    space: SearchSpace
    objectives: tuple[Objective, ...]
    max_trials: int = 1
    max_parallel_trials: int = 1
    selection: Selection = Selection.LAST
    max_steps: int = 1000
    measure_every: int = 100
    paced: bool = False
    sampler: SamplerSpec = field(default_factory=SamplerSpec)
    pruner: PrunerSpec = field(default_factory=PrunerSpec)
    resources: Resources = field(default_factory=Resources)
    limits: Limits = field(default_factory=Limits)
    tracking: Tracking = field(default_factory=Tracking)
    checkpoints: Keep = Keep.BEST
    constraints: tuple[Constraint, ...] = ()
    stopping: Stopping = field(default_factory=Stopping)
    program: Program = field(default_factory=Program)
    first: Params | None = None
    previous: str | None = None

    @property
    def objective(self) -> Objective:
        """The first objective, the only one of a single-objective study."""
        return self.objectives[0]


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong in a file: where (1-based line and column, YAML path), the value, and a hint."""

    line: int
    column: int
    path: str
    value: str
    message: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Reading:
    """What came of reading a file: a Spec unless there are errors, and all problems in file order."""

    file: str
    dialect: str
    spec: Spec | None
    errors: tuple[Problem, ...]
    warnings: tuple[Problem, ...]
