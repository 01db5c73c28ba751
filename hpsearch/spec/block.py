"""The forms of the `hpsearch:` block."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from hpsearch.spec.cloud_ml_engine import HyperparametersForm
from hpsearch.spec.conditions import Conditions
from hpsearch.spec.form import Form, Listed
from hpsearch.spec.model import Algorithm, Keep, PruningRule, Selection
from hpsearch.spec.quantities import Duration, Patience, Size
from hpsearch.spec.scalars import (
    Boolean,
    Choice,
    Count,
    Module,
    Numeric,
    Positive,
    Real,
    Text,
    Verbatim,
)

MAX_SEED = 2**32 - 1
MAX_GRACE = 300.0
MAX_WORKERS = 1024

_Amount = Annotated[float, Numeric(low=0)]

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
_KEPT = Choice(words={each.value: each for each in Keep}, meant={"LAST": "EACH", "OFF": "NONE"})
_DIRECTORIES = Choice(words={"TRIAL": True, "CALLER": False})


class SamplerForm(Form):
    """Which sampler proposes the parameters of a trial."""

    type: Annotated[
        Algorithm | None, _SAMPLERS, Field(description="TPE where nothing else is asked for.")
    ] = None
    seed: Annotated[
        Annotated[int, Numeric(low=0, high=MAX_SEED, whole=True)] | None,
        Field(description="The same seed proposes the same parameters; 0 by default."),
    ] = None
    startup_trials: Annotated[
        Count | None, Field(description="Trials drawn at random before the sampler learns.")
    ] = None


class PrunerForm(Form):
    """Which rule stops a trial because others are better, or because it does not improve."""

    rules: ClassVar = {"required": ["type"]}
    type: Annotated[PruningRule | None, _RULES] = None
    min_steps: Annotated[
        Count | None, Field(description="No trial is pruned before; for ASHA and HYPERBAND the first rung.")
    ] = None
    reduction_factor: Annotated[
        Annotated[int, Numeric(low=2, whole=True)] | None,
        Field(description="Of so many trials at a rung of ASHA or HYPERBAND one goes on."),
    ] = None
    min_trials: Annotated[Positive | None, Field(description="Completed trials before MEDIAN compares.")] = (
        None
    )
    patience: Annotated[Positive | None, Field(description="Measurements without an improvement.")] = None
    min_delta: Annotated[
        Annotated[float, Numeric(low=0)] | None,
        Field(description="A smaller improvement is none for PATIENCE."),
    ] = None
    lower: Annotated[Real | None, Field(description="THRESHOLD prunes below.")] = None
    upper: Annotated[Real | None, Field(description="THRESHOLD prunes above.")] = None
    use_elapsed_duration: Annotated[
        Boolean | None, Field(description="Go by the seconds that a trial has run instead of by steps.")
    ] = None
    max_step_count: Annotated[
        Positive | None, Field(description="Where CONVEX predicts; learned from completed trials otherwise.")
    ] = None
    min_measurement_count: Annotated[
        Positive | None, Field(description="Measurements of a trial before CONVEX judges it.")
    ] = None


class ResourcesForm(Form):
    """What one trial asks for, or each of its workers."""

    cpu: Annotated[_Amount | None, Field(description="CPUs, or a part of one; 1 by default.")] = None
    gpu: Annotated[_Amount | None, Field(description="GPUs, or a part of one.")] = None
    memory: Annotated[Size | None, Field(description="Such as 2Gi or 512Mi; more stops a trial.")] = None
    workers: Annotated[
        Annotated[int, Numeric(low=1, high=MAX_WORKERS, whole=True)] | None,
        Field(description="Processes that share a trial's work, by torch.distributed; 1 by default."),
    ] = None


class LimitsForm(Form):
    """Bounds of time, such as 90s, 30m, 8h or 1d, and of failures."""

    trial_timeout: Annotated[Duration | None, Field(description="How long one trial may run.")] = None
    study_timeout: Annotated[Duration | None, Field(description="How long the study may run.")] = None
    startup_timeout: Annotated[
        Patience | None,
        Field(
            description="When a trial's first report is due; 0s: never. By default one that neither reports,"
            " prints nor computes for 10 minutes is taken for hung."
        ),
    ] = None
    progress_timeout: Annotated[
        Patience | None,
        Field(
            description="When its next report is due; 0s: never. By default one that neither reports, prints"
            " nor computes for 10 minutes, or 20 times its usual interval, is taken for hung."
        ),
    ] = None
    max_failed_trials: Annotated[
        Count | None, Field(description="The study stops at so many failed trials; 0: when most fail.")
    ] = None
    max_attempts: Annotated[
        Positive | None,
        Field(
            description="Executions of a trial that crashes, the first included; one that hangs or outgrows"
            " its memory gets two at most. A lost node and a stopped driver do not count."
        ),
    ] = None
    grace_period: Annotated[
        Duration | None, Field(description="Between SIGTERM and SIGKILL for a program; at most 5 minutes.")
    ] = None
    max_processes: Annotated[
        Positive | None, Field(description="Processes of one trial at once; 200 by default.")
    ] = None
    max_output: Annotated[
        Size | None,
        Field(description="Of what a trial prints so much is kept, the last of it; 64Mi by default."),
    ] = None


class TrackingForm(Form):
    """Where MLflow is; null means the embedded default."""

    uri: Annotated[Text | None, Field(description="The address of the tracking server.")] = None
    experiment: Annotated[Text | None, Field(description="The experiment's name; the file's otherwise.")] = (
        None
    )
    strict: Annotated[
        Boolean | None,
        Field(description="Do not start while MLflow cannot be reached; otherwise the facts wait for it."),
    ] = None


class CheckpointsForm(Form):
    """Which checkpoints stay once a trial has ended; an unfinished one keeps what it needs to go on."""

    keep: Annotated[
        Keep | None,
        _KEPT,
        Field(description="BEST: the best trial's, at the step that counts; EACH: every trial's; ALL; NONE."),
    ] = None


class BlockForm(Form):
    """What the services have no word for; steps are optimizer updates."""

    max_steps: Annotated[Positive | None, Field(description="Steps of a full training.")] = None
    measure_every: Annotated[
        Positive | None, Field(description="Steps from one measurement to the next.")
    ] = None
    sampler: SamplerForm | None = None
    pruner: PrunerForm | None = None
    resources: ResourcesForm | None = None
    limits: LimitsForm | None = None
    tracking: TrackingForm | None = None
    checkpoints: CheckpointsForm | None = None
    measurement_selection_type: Annotated[
        Selection | None, _SELECTIONS, Field(description="Which measurement of a trial is its objective.")
    ] = None
    python_module: Annotated[Module | None, Field(description="The module that trains.")] = None
    command: Annotated[
        Listed[Verbatim] | None,
        Field(description="What runs instead of a module, such as [Rscript, train.R]."),
    ] = None
    working_directory: Annotated[
        bool | None, _DIRECTORIES, Field(description="Where a program starts: its trial's, or the caller's.")
    ] = None
    job_dir: Annotated[
        Text | None, Field(description="The base of --job-dir, which a program then gets.")
    ] = None
    conditions: Annotated[
        Conditions | None,
        Field(description="`child: {parent: [values]}`: when a parameter is active."),
    ] = None
    args: Annotated[
        Listed[Verbatim] | None,
        Field(description="Fixed arguments, in a file that holds nothing but hpsearch:."),
    ] = None
    hyperparameters: Annotated[
        HyperparametersForm | None,
        Field(description="The study, in a file that holds nothing but hpsearch:."),
    ] = None
