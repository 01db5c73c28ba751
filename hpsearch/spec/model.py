"""The Spec: one parsed search-space file as frozen plain data, in the field's own terms."""

from __future__ import annotations

import math
from collections.abc import Mapping
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
    NONE = "NONE"


@dataclass(frozen=True, slots=True)
class Double:
    """A real number in [low, high], both ends included."""

    name: str
    low: float
    high: float
    scale: Scale = Scale.LINEAR


@dataclass(frozen=True, slots=True)
class Integer:
    """A whole number in [low, high], both ends included."""

    name: str
    low: int
    high: int
    scale: Scale = Scale.LINEAR


@dataclass(frozen=True, slots=True)
class Discrete:
    """One of some numbers in increasing order; whole numbers are held as int."""

    name: str
    values: tuple[int | float, ...]
    scale: Scale = Scale.LINEAR


@dataclass(frozen=True, slots=True)
class Categorical:
    """One of some texts, without order."""

    name: str
    values: tuple[str, ...]


Parameter = Double | Integer | Discrete | Categorical


@dataclass(frozen=True, slots=True)
class SearchSpace:
    """What may be tried: the parameters in the order of the file."""

    parameters: tuple[Parameter, ...]


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
class SamplerSpec:
    """Which sampler proposes, and the study's seed (0 to 2^32-1)."""

    type: Algorithm = Algorithm.TPE
    seed: int = 0
    startup_trials: int | None = None


@dataclass(frozen=True, slots=True)
class PrunerSpec:
    """Which rule prunes, and its settings; steps are optimizer updates.

    `min_steps`: no trial is pruned before this step; for ASHA and HYPERBAND the first rung.
    `reduction_factor`: eta, of which one in eta trials passes a rung.
    `min_trials`: completed trials before MEDIAN compares.
    `patience`: measurements without an improvement of more than `min_delta`.
    `lower`, `upper`: THRESHOLD prunes values outside of them.
    """

    type: PruningRule = PruningRule.NONE
    min_steps: int = 0
    reduction_factor: int = 3
    min_trials: int = 5
    patience: int = 10
    min_delta: float = 0.0
    lower: float | None = None
    upper: float | None = None


@dataclass(frozen=True, slots=True)
class Resources:
    """What one trial asks of Ray: CPUs and GPUs (fractions allowed), memory in bytes or None."""

    cpu: float = 1.0
    gpu: float = 0.0
    memory: int | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of time (seconds) and failures; 0 failed trials means that the service decides.

    `max_attempts`: executions of one trial whose process was lost, the first included.
    """

    trial_timeout: float | None = None
    study_timeout: float | None = None
    max_failed_trials: int = 0
    max_attempts: int = 3


@dataclass(frozen=True, slots=True)
class Tracking:
    """Where MLflow is and what its experiment is called; None: the embedded default, the file's stem."""

    uri: str | None = None
    experiment: str | None = None


@dataclass(frozen=True, slots=True)
class Spec:
    """One search-space file: what may be tried, what is better, and how trials are run.

    `max_steps` and `measure_every` count optimizer updates. `sha256` is that of `text`.
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
    sampler: SamplerSpec = field(default_factory=SamplerSpec)
    pruner: PrunerSpec = field(default_factory=PrunerSpec)
    resources: Resources = field(default_factory=Resources)
    limits: Limits = field(default_factory=Limits)
    tracking: Tracking = field(default_factory=Tracking)

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
