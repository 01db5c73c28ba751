"""Any text at all: a Reading or an HpsearchError, never anything else, and every problem has a place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hpsearch.errors import HpsearchError
from hpsearch.spec.model import Categorical, Discrete, Parameter, Spec, Value, key_of
from hpsearch.spec.reading import parse, read

ENGINE = """\
trainingInput:
  scaleTier: BASIC_GPU
  pythonModule: trainer.task
  args: ["--a=1", --b]
  hyperparameters:
    goal: MINIMIZE
    hyperparameterMetricTag: loss
    maxTrials: 40
    maxParallelTrials: 2
    enableTrialEarlyStopping: true
    params:
      - {parameterName: lr, type: DOUBLE, minValue: 1e-5, maxValue: 1e-1, scaleType: UNIT_LOG_SCALE}
      - {parameterName: n, type: INTEGER, minValue: 1, maxValue: 8}
      - parameterName: b
        type: DISCRETE
        discreteValues: [16, 32.0, 64]
      - parameterName: o
        type: CATEGORICAL
        categoricalValues: [adam, "sgd"]
hpsearch:
  maxSteps: 2000
  sampler: {type: TPE, seed: 0}
  pruner: {type: ASHA, minSteps: 200, reductionFactor: 3}
  resources: {cpu: 1, gpu: 0, memory: 2Gi}
  limits: {trialTimeout: 30m, studyTimeout: 8h, maxFailedTrials: 5}
  tracking: {uri: null, experiment: auto_mpg}
  conditions:
    lr: {o: [sgd]}
    n: {b: [16, 32.0]}
"""
VERTEX = """\
maxTrialCount: 20
parallelTrialCount: "2"
studySpec:
  metrics:
  - metricId: loss
    goal: MINIMIZE
  - metricId: time
    goal: MINIMIZE
    safetyConfig: {safetyThreshold: 3.5}
  parameters:
  - parameterId: o
    categoricalValueSpec:
      values: [adam, sgd]
      defaultValue: sgd
    conditionalParameterSpecs:
    - parentCategoricalValues: {values: [sgd]}
      parameterSpec:
        parameterId: m
        discreteValueSpec:
          values: [0.8, 0.9]
          defaultValue: 0.8
        conditionalParameterSpecs:
        - parentDiscreteValues:
            values: [0.8]
          parameterSpec:
            parameterId: n
            scaleType: UNIT_LOG_SCALE
            integerValueSpec: {minValue: "1", maxValue: 8, defaultValue: 2}
    - parentCategoricalValues: {values: [adam]}
      parameterSpec: {parameterId: m, doubleValueSpec: {minValue: 0, maxValue: 1}}
  measurementSelectionType: BEST_MEASUREMENT
  convexAutomatedStoppingSpec:
    maxStepCount: 100
    useElapsedDuration: true
  studyStoppingConfig:
    shouldStopAsap: true
    maximumRuntimeConstraint:
      endTime: 2030-01-01T00:00:00Z
    maxDurationNoProgress: 3600s
trialJobSpec:
  workerPoolSpecs:
  - machineSpec:
      machineType: n1-standard-8
      acceleratorCount: 0
    replicaCount: 1
    containerSpec:
      imageUri: image
      command: [python3, train.py]
      args: ["--a=1", b]
      env:
      - name: X
        value: "1"
  scheduling:
    timeout: 3600s
  baseOutputDirectory:
    outputUriPrefix: /data/out
hpsearch:
  jobDir: out
  workingDirectory: TRIAL
"""
OWN = """\
hpsearch:
  command: [./train]
  args: [a]
  hyperparameters:
    goal: MINIMIZE
    hyperparameterMetricTag: loss
    maxTrials: 9
    algorithm: GRID_SEARCH
    params:
    - parameterName: n
      type: INTEGER
      minValue: 1
      maxValue: 4
    - parameterName: o
      type: CATEGORICAL
      categoricalValues: [a, b]
  conditions:
    n: {o: [b]}
"""
JSON = json.dumps(
    {
        "studySpec": {
            "metrics": [{"metricId": "loss", "goal": "MINIMIZE"}],
            "parameters": [{"parameterId": "n", "integerValueSpec": {"minValue": "1", "maxValue": 8.0}}],
            "medianAutomatedStoppingSpec": {},
        },
        "maxTrialCount": 3,
        "parallelTrialCount": 1,
        "hpsearch": {"pythonModule": "trainer.task", "sampler": {"seed": 1}},
    },
    indent=1,
)
VALID = (ENGINE, VERTEX, OWN, JSON)
BITS = [
    *"\t\n :-?[]{},#&*!|>'\"%@`\\~=0.e\x00\x85\u2028\ufeff\ud800é",
    *(
        "null",
        "true",
        "1e999",
        "-1",
        "0x",
        "1:99",
        "[[[[",
        "&a ",
        "*a",
        "!!str ",
        "!!int ",
        "!x ",
        "<<: ",
        "---\n",
    ),
    *(
        "...\n",
        "%YAML 1.1\n",
        "|2\n",
        ">-\n",
        "? ",
        ": ",
        "params",
        "DOUBLE",
        "{",
        "hpsearch:\n",
        '"\\ud83d"',
        "_",
        "$X",
        "[]",
        "{a: [b]}",
        "gs://b",
    ),
    *("9" * 400, "-0", ".inf", "1_", "1e-400", "٣", "²", "2Gi", "30m", "CATEGORICAL", "    "),
]
BOUNDED = settings(max_examples=200, derandomize=True, deadline=None, database=None)


def holds(text: str) -> None:
    """The promise of every reading."""
    reading = parse(text)
    lines = max(len(text.splitlines()), text.count("\n") + 1)
    assert (reading.spec is None) == bool(reading.errors)
    for problem in reading.errors + reading.warnings:
        assert 1 <= problem.line <= lines + 1
        assert problem.column >= 1
        assert problem.message.isprintable()
        assert problem.hint.isprintable()
    strict = parse(text, strict=True)
    assert (strict.spec is None) == bool(reading.errors or reading.warnings)
    assert not strict.warnings
    if reading.spec:
        assert parse(reading.spec.text).spec == reading.spec
        sound(reading.spec)


def sound(spec: Spec) -> None:
    """A space can be walked, and no name is active twice."""
    keys = [key_of(parameter) for parameter in spec.space.parameters]
    assert len(set(keys)) == len(keys)
    for parameter in spec.space.parameters:
        if parameter.condition:
            assert parameter.condition.parent in keys[: keys.index(key_of(parameter))]
    for last in (False, True):
        names: list[str] = []

        def choose(parameter: Parameter, last: bool = last, names: list[str] = names) -> Value:
            names.append(parameter.name)
            return an_end(parameter, last)

        spec.space.walk(choose)
        assert len(set(names)) == len(names)
    if spec.first:
        assert spec.space.active(spec.first).keys() == spec.first.keys()
    assert isinstance(json.loads(spec.program.job), dict)


def an_end(parameter: Parameter, last: bool) -> Value:
    if isinstance(parameter, Categorical | Discrete):
        return parameter.values[-1 if last else 0]
    return parameter.high if last else parameter.low


@BOUNDED
@given(st.text(max_size=200))
def test_any_text_is_a_reading(text: str) -> None:
    holds(text)


@BOUNDED
@given(st.lists(st.sampled_from(BITS), max_size=30).map("".join))
def test_any_heap_of_yaml_signs_is_a_reading(text: str) -> None:
    holds(text)


cuts = st.tuples(st.floats(0, 1), st.integers(0, 12), st.sampled_from(BITS))


@settings(BOUNDED, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(VALID), st.lists(cuts, max_size=3))
def test_any_damage_to_a_good_file_is_a_reading(text: str, damage: list[tuple[float, int, str]]) -> None:
    for where, length, bit in damage:
        start = int(where * len(text))
        text = text[:start] + bit + text[start + length :]
    holds(text)


# Every line that has a key and a value of its own, with the file in which it stands.
VALUES = [
    (text, line.partition(":")[0], line)
    for text in VALID
    for line in text.splitlines()
    if ":" in line and "{" not in line.partition(":")[0]
]


@BOUNDED
@given(
    st.sampled_from(VALUES), st.one_of(st.sampled_from(BITS), st.floats().map(str), st.integers().map(str))
)
def test_any_value_in_place_of_a_good_one_is_a_reading(place: tuple[str, str, str], value: str) -> None:
    text, key, line = place
    holds(text.replace(line, f"{key}: {value}" + "," * line.endswith(","), 1))


@BOUNDED
@given(st.sampled_from(VALID), st.lists(st.floats(0, 0.999), max_size=4), st.booleans())
def test_any_lines_that_are_lost_or_stand_twice_leave_a_reading(
    text: str, places: list[float], twice: bool
) -> None:
    lines = text.splitlines()
    for place in places:
        index = int(place * len(lines))
        lines[index : index + 1] = [lines[index]] * 2 * twice
    holds("\n".join(lines))


# A kind of values: what a parameter of it says, and how a child names some of its values.
KINDS: dict[str, tuple[Any, str, list[Any]]] = {
    "doubleValueSpec": ({"minValue": 0, "maxValue": 1}, "parentDiscreteValues", [0.5]),
    "integerValueSpec": ({"minValue": "1", "maxValue": 4}, "parentIntValues", [1, "2", 3]),
    "discreteValueSpec": ({"values": [1, 2.5, 4]}, "parentDiscreteValues", [1, 2.5, 4]),
    "categoricalValueSpec": (
        {"values": ["u", "v|w", "v", "w"]},
        "parentCategoricalValues",
        ["u", "v|w", "v", "w"],
    ),
}


@st.composite
def trees(draw: st.DrawFn, depth: int = 0) -> dict[str, Any]:
    """A ParameterSpec with some below it: nearly right, so that most are wrong in one place at most."""
    kind = draw(st.sampled_from(list(KINDS)))
    said, key, values = KINDS[kind]
    spec: dict[str, Any] = {"parameterId": draw(st.sampled_from("abcdefghijklmnopqrst")), kind: dict(said)}
    if draw(st.booleans()):
        spec[kind]["defaultValue"] = draw(st.sampled_from(values * 6 + [9]))
    if depth < 3 and kind != "doubleValueSpec" and draw(st.booleans()):
        key = draw(st.sampled_from([key] * 15 + ["parentIntValues"]))
        spec["conditionalParameterSpecs"] = [
            {
                key: {"values": draw(st.lists(st.sampled_from(values * 12 + [9]), min_size=1, max_size=3))},
                "parameterSpec": draw(trees(depth + 1)),
            }
            for _ in range(draw(st.integers(1, 2)))
        ]
    return spec


@settings(BOUNDED, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(trees(), min_size=1, max_size=2))
def test_any_tree_of_parameters_is_a_reading(parameters: list[Any]) -> None:
    study = {"metrics": [{"metricId": "m", "goal": "MINIMIZE"}], "parameters": parameters}
    holds(json.dumps({"maxTrialCount": 3, "parallelTrialCount": 1, "studySpec": study}))


@BOUNDED
@given(
    st.dictionaries(
        st.sampled_from(["lr", "n", "b", "o", "x"]),
        st.dictionaries(
            st.sampled_from(["lr", "n", "b", "o", "x"]),
            st.lists(st.sampled_from([1, 8, 9, 16, "32", "adam", "sgd", None, [1]]), max_size=2),
            max_size=2,
        ),
        max_size=4,
    )
)
def test_any_conditions_are_a_reading(conditions: dict[str, Any]) -> None:
    head = ENGINE[: ENGINE.index("  conditions:")]
    holds(head + f"  conditions: {json.dumps(conditions)}\n")


def test_any_bytes_in_a_file_are_a_reading_or_a_named_error(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"

    @BOUNDED
    @given(st.binary(max_size=100))
    def check(data: bytes) -> None:
        file.write_bytes(data)
        try:
            read(file)
        except HpsearchError as error:
            assert error.exit_code == 2
            assert error.hint

    check()


def test_the_good_files_are_good() -> None:
    for text in VALID:
        reading = parse(text)
        assert reading.spec is not None, reading.errors
        assert not reading.warnings
