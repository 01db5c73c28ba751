"""Any text at all: a Reading or an HpsearchError, never anything else, and every problem has a place."""

from __future__ import annotations

from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hpsearch.errors import HpsearchError
from hpsearch.spec.reading import parse, read

VALID = """\
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
"""
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
    if reading.spec:
        again = parse(reading.spec.text).spec
        assert again == parse(text).spec


@BOUNDED
@given(st.text(max_size=200))
def test_any_text_is_a_reading(text: str) -> None:
    holds(text)


@BOUNDED
@given(st.lists(st.sampled_from(BITS), max_size=30).map("".join))
def test_any_heap_of_yaml_signs_is_a_reading(text: str) -> None:
    holds(text)


@settings(BOUNDED, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.integers(0, len(VALID)), st.integers(0, 12), st.sampled_from(BITS)), max_size=3))
def test_any_damage_to_a_good_file_is_a_reading(cuts: list[tuple[int, int, str]]) -> None:
    text = VALID
    for start, length, bit in cuts:
        text = text[:start] + bit + text[start + length :]
    holds(text)


VALUES = [line.split(": ", 1) for line in VALID.splitlines() if ": " in line and "{" not in line]


@BOUNDED
@given(
    st.sampled_from(VALUES), st.one_of(st.sampled_from(BITS), st.floats().map(str), st.integers().map(str))
)
def test_any_value_in_place_of_a_good_one_is_a_reading(pair: list[str], value: str) -> None:
    holds(VALID.replace(": ".join(pair), f"{pair[0]}: {value}", 1))


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


def test_the_good_file_is_good() -> None:
    assert parse(VALID).spec is not None
    assert not parse(VALID).warnings
