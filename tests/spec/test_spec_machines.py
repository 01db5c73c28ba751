"""What the names of machines say: GPUs to ask for, and warnings of what there is only one of, or none."""

from __future__ import annotations

import pytest

from hpsearch.spec.model import Problem, Reading, Resources
from hpsearch.spec.reading import parse

ENGINE = """\
trainingInput:
  pythonModule: trainer.task
  hyperparameters:
    goal: MINIMIZE
    hyperparameterMetricTag: loss
    maxTrials: 4
    params: [{parameterName: n, type: INTEGER, minValue: 1, maxValue: 2}]
"""
VERTEX = """\
maxTrialCount: 1
parallelTrialCount: 1
studySpec:
  metrics: [{metricId: loss, goal: MINIMIZE}]
  parameters: [{parameterId: n, integerValueSpec: {minValue: 1, maxValue: 2}}]
trialJobSpec:
  workerPoolSpecs:
"""
RUN = "pythonPackageSpec: {pythonModule: trainer.task}"


def engine(*lines: str) -> Reading:
    return parse(ENGINE + "".join(f"  {line}\n" for line in lines))


def vertex(*pools: str) -> Reading:
    """A job whose pools stand one a line from line 8."""
    return parse(VERTEX + "".join(f"  - {{{RUN}, {pool}}}\n" for pool in pools))


def resources(reading: Reading) -> Resources:
    assert reading.spec is not None, reading.errors
    return reading.spec.resources


def only(reading: Reading) -> Problem:
    """The only warning."""
    assert reading.spec is not None, reading.errors
    (warning,) = reading.warnings
    assert warning.hint
    return warning


@pytest.mark.parametrize(
    ("lines", "gpus", "source"),
    [
        (["scaleTier: BASIC_GPU"], 1, "scaleTier BASIC_GPU"),
        *(
            (["scaleTier: CUSTOM", f"masterType: {name}"], gpus, f"masterType {name}")
            for gpus, names in {
                1: ("standard_gpu", "standard_p100", "standard_v100", "large_model_v100"),
                4: ("complex_model_m_gpu", "complex_model_m_p100", "complex_model_m_v100"),
                8: ("complex_model_l_gpu", "complex_model_l_v100"),
            }.items()
            for name in names
        ),
        (
            [
                "masterType: n1-standard-8",
                'masterConfig: {acceleratorConfig: {count: "2", type: NVIDIA_TESLA_T4}}',
            ],
            2,
            "count 2",
        ),
        (["masterType: standard_gpu", "scaleTier: BASIC"], 1, "masterType standard_gpu"),
    ],
)
def test_a_machine_says_how_many_gpus_a_trial_asks_for(lines: list[str], gpus: int, source: str) -> None:
    reading = engine(*lines)
    assert resources(reading) == Resources(1.0, gpus, hinted=True)
    assert only(reading).message == f"resources.gpu is {gpus}, read from {source}"
    assert only(reading).value == source.partition(" ")[2]


@pytest.mark.parametrize(
    "lines",
    [
        ["scaleTier: BASIC"],
        ["scaleTier: STANDARD_1"],
        ["scaleTier: PREMIUM_1"],
        *(
            ["scaleTier: CUSTOM", f"masterType: {name}"]
            for name in ("standard", "large_model", "complex_model_s", "complex_model_m", "complex_model_l")
        ),
        *(
            ["masterType: " + name]
            for name in ("n1-highmem-2", "e2-standard-4", "n2d-standard-8", "c2-standard-60")
        ),
        ["masterType: n1-standard-4", "masterConfig: {acceleratorConfig: {count: 0, type: NVIDIA_TESLA_T4}}"],
        ["workerType: standard_gpu", "workerCount: 0", "evaluatorCount: '0'"],
    ],
)
def test_a_machine_without_gpus_asks_for_none_without_a_word(lines: list[str]) -> None:
    reading = engine(*lines)
    assert resources(reading) == Resources()
    assert not reading.warnings


def test_the_gpus_of_the_block_are_no_hint() -> None:
    lines = ["masterType: complex_model_m_p100\nhpsearch: {resources: {gpu: 0.5}}"]
    reading = engine(*lines)
    assert resources(reading) == Resources(1.0, 0.5)
    assert not reading.warnings
    cpu = engine("masterType: standard_gpu\nhpsearch: {resources: {cpu: 0}}")
    assert resources(cpu) == Resources(0.0, 1.0, hinted=True)


@pytest.mark.parametrize(
    ("lines", "message", "line"),
    [
        (["scaleTier: BASIC_TPU"], "scaleTier BASIC_TPU asks for a TPU", 8),
        (["masterType: cloud_tpu"], "masterType cloud_tpu asks for a TPU", 8),
        (["workerType: cloud_tpu"], "workerType cloud_tpu asks for a TPU", 8),
        (
            ["masterType: n1-standard-4", "masterConfig: {acceleratorConfig: {count: 8, type: TPU_V3}}"],
            "type TPU_V3 asks for a TPU",
            9,
        ),
        (["workerConfig: {acceleratorConfig: {count: 8, type: TPU_V2}}"], "type TPU_V2 asks for a TPU", 8),
        (["scaleTier: BASIC_TPU", "workerType: cloud_tpu"], "scaleTier BASIC_TPU asks for a TPU", 8),
        (["scaleTier: HUGE"], "scaleTier HUGE is unknown", 8),
        (["masterType: standart_gpu"], "masterType standart_gpu is an unknown machine", 8),
        (["scaleTier: CUSTOM"], "masterType is absent, but scaleTier is CUSTOM", 1),
        (
            ["workerCount: 9", "parameterServerCount: 3"],
            "workerCount 9 and parameterServerCount 3: more than",
            8,
        ),
        (["evaluatorCount: '1'"], "evaluatorCount 1: more than one machine", 8),
        (["scaleTier: basic"], "scaleTier basic is read as BASIC", 8),
    ],
)
def test_what_cannot_be_had_is_one_warning(lines: list[str], message: str, line: int) -> None:
    reading = engine(*lines)
    assert resources(reading) == Resources()
    assert message in only(reading).message
    assert only(reading).line == line


def test_vertex_ai_counts_its_accelerators() -> None:
    reading = vertex(
        "machineSpec: {machineType: ANYTHING, acceleratorType: NVIDIA_TESLA_V100, acceleratorCount: '2'}"
    )
    assert resources(reading) == Resources(1.0, 2.0, hinted=True)
    assert only(reading).message == "resources.gpu is 2, read from acceleratorCount 2"
    assert not vertex("machineSpec: {machineType: TRAIN_COMPUTE}, replicaCount: 1").warnings


@pytest.mark.parametrize(
    ("pools", "message", "line"),
    [
        (["replicaCount: 2"], "replicaCount 2: more than one machine", 8),
        (["replicaCount: 1", "replicaCount: '3'"], "workerPoolSpecs[1]: more than one machine", 9),
        (["replicaCount: 2", "diskSpec: {}"], "replicaCount 2 and workerPoolSpecs[1]: more than", 8),
        (
            ["machineSpec: {machineType: cloud-tpu, acceleratorType: TPU_V2, acceleratorCount: 8}"],
            "cloud-tpu asks",
            8,
        ),
        (["machineSpec: {machineType: ct5lp-hightpu-4t}"], "ct5lp-hightpu-4t asks for a TPU", 8),
        (["machineSpec: {acceleratorType: TPU_V3, acceleratorCount: 8}"], "acceleratorType TPU_V3 asks", 8),
    ],
)
def test_what_vertex_ai_cannot_have_here_is_one_warning(pools: list[str], message: str, line: int) -> None:
    reading = vertex(*pools)
    assert resources(reading) == Resources()
    assert message in only(reading).message
    assert only(reading).line == line


def test_pools_that_ask_for_nothing_are_no_further_machines() -> None:
    text = VERTEX + f"  - {{{RUN}}}\n  - {{}}\n  - {{machineSpec: {{}}, replicaCount: 0}}\n"
    reading = parse(text)
    assert reading.spec is not None
    assert not reading.warnings
