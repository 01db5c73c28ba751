"""The rules of `params`, one table row each: where the problem is, what it says, what it advises."""

from __future__ import annotations

import pytest

from hpsearch.spec.model import (
    Categorical,
    Discrete,
    Double,
    Integer,
    Parameter,
    Problem,
    Reading,
    Scale,
    Spec,
)
from hpsearch.spec.reading import parse

HEAD = """\
trainingInput:
  pythonModule: trainer.task
  hyperparameters:
    goal: MINIMIZE
    hyperparameterMetricTag: loss
    maxTrials: 4
    params:
"""
LR = "    - {parameterName: lr, type: DOUBLE, minValue: 0.1, maxValue: 1}\n"


def one(parameter: str) -> Reading:
    """The reading of a good file with one parameter, written in line 8 from column 8 on (`{` is column 7)."""
    return parse(f"{HEAD}    - {{{parameter}}}\n")


def good(text: str) -> Spec:
    reading = parse(text)
    assert reading.spec is not None, reading.errors
    assert not reading.warnings
    return reading.spec


def check(problem: Problem, line: int, column: int, value: str, message: str, hint: str) -> None:
    assert (problem.line, problem.column, problem.value) == (line, column, value), problem
    assert message in problem.message
    assert hint in problem.hint


def column_of(parameter: str, value: str) -> int:
    """The column of the last occurrence of a value in the text given to `one`."""
    return 8 + parameter.rindex(value)


def test_the_four_types_and_their_scales_become_parameters() -> None:
    spec = good(
        HEAD
        + "    - {parameterName: a-b.c, type: DOUBLE, minValue: 1, maxValue: 2, scaleType: UNIT_LOG_SCALE}\n"
        + "    - {parameterName: i, type: INTEGER, minValue: -3, maxValue: 40.0,\n"
        + "       scaleType: UNIT_LINEAR_SCALE}\n"
        + "    - {parameterName: r, type: INTEGER, minValue: 1, maxValue: 9,\n"
        + "       scaleType: UNIT_REVERSE_LOG_SCALE}\n"
        + "    - {parameterName: d, type: DISCRETE, discreteValues: [0.5, 16.0, 32],\n"
        + "       scaleType: UNIT_LOG_SCALE}\n"
        + "    - {parameterName: c, type: CATEGORICAL, categoricalValues: [adam, '64 32', \"0.10\"]}\n"
        + "    - {parameterName: n, type: DOUBLE, minValue: 0, maxValue: 1, scaleType: NONE}\n"
    )
    assert spec.space.parameters == (
        Double("a-b.c", 1.0, 2.0, Scale.LOG),
        Integer("i", -3, 40),
        Integer("r", 1, 9, Scale.REVERSE_LOG),
        Discrete("d", (0.5, 16, 32), Scale.LOG),
        Categorical("c", ("adam", "64 32", "0.10")),
        Double("n", 0.0, 1.0),
    )
    kinds = [
        type(v) for p in spec.space.parameters if isinstance(p, Double | Integer) for v in (p.low, p.high)
    ]
    assert kinds == [float, float, int, int, int, int, float, float]
    assert [type(v) for v in spec.space.parameters[3].values] == [float, int, int]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1E-4", 1e-4),
        ("5e-05", 5e-5),
        ("1e5", 1e5),
        ("1e+5", 1e5),
        ("1.0e5", 1e5),
        ("-.5", -0.5),
        (".5", 0.5),
        ("+.5", 0.5),
        ("1.", 1.0),
        ("1.e-4", 1e-4),
        ('"0.01"', 0.01),
        ("'.0001'", 1e-4),
        ("1_000", 1000),
        ("0x10", 16),
        ("0o17", 15),
        ("0b11", 3),
        ("08", 8),
        ("007", 7),
        ('"010"', 10),
        ("-0.0", 0.0),
    ],
)
def test_numbers_are_read_from_their_source_text(text: str, value: float) -> None:
    spec = good(f"{HEAD}    - {{parameterName: x, type: DOUBLE, minValue: {text}, maxValue: 1e9}}\n")
    assert spec.space.parameters == (Double("x", value, 1e9),)


@pytest.mark.parametrize(("text", "value"), [("010", 8), ("-010", -8), ("1:30", 90), ("-1:30", -90)])
def test_octal_and_sixties_are_read_with_a_warning(text: str, value: int) -> None:
    reading = one(f"parameterName: x, type: DOUBLE, minValue: {text}, maxValue: 1e9")
    assert reading.spec is not None
    assert reading.spec.space.parameters == (Double("x", value, 1e9),)
    assert f"{value}" in reading.warnings[0].message
    assert reading.warnings[0].value == text


@pytest.mark.parametrize(
    ("parameter", "at", "message", "hint"),
    [
        (
            "parameterName: a b, type: DOUBLE, minValue: 0, maxValue: 1",
            "a b",
            'the name holds " "',
            "letters",
        ),
        ('parameterName: "a=b", type: DOUBLE, minValue: 0, maxValue: 1', '"a=b"', 'holds "="', "letters"),
        (
            f"parameterName: {'n' * 251}, type: DOUBLE, minValue: 0, maxValue: 1",
            "n" * 251,
            "251 char",
            "shorten",
        ),
        ("parameterName: [a], type: DOUBLE, minValue: 0, maxValue: 1", "[a]", "is a list where", "one value"),
        ("parameterName: x, type: FDOUBLE", "FDOUBLE", "type FDOUBLE is unknown", "did you mean DOUBLE?"),
        ("parameterName: x, type: FLOAT", "FLOAT", "parameter x: type FLOAT", "did you mean DOUBLE?"),
        ("parameterName: x, type: INT", "INT", "is unknown", "did you mean INTEGER?"),
        ("parameterName: x, type: bool", "bool", "is unknown", "did you mean CATEGORICAL?"),
        ("parameterName: x, type: CHOICE", "CHOICE", "is unknown", "did you mean DISCRETE?"),
        ("parameterName: x, type: QQQ", "QQQ", "is unknown", "use DOUBLE, INTEGER, CATEGORICAL, DISCRETE"),
        (
            "parameterName: x, type: PARAMETER_TYPE_UNSPECIFIED",
            "PARAMETER_TYPE_UNSPECIFIED",
            "unknown",
            "use DOU",
        ),
        (
            "parameterName: x, type: DOUBLE, maxValue: 1, minValue: abc",
            "abc",
            "minValue is abc, not a n",
            "0.01",
        ),
        (
            "parameterName: x, type: DOUBLE, maxValue: 1, minValue: '0,1'",
            "'0,1'",
            "not a number",
            "mean 0.1?",
        ),
        (
            "parameterName: x, type: DOUBLE, minValue: 0, maxValue: .inf",
            ".inf",
            "not a finite number",
            "finite",
        ),
        (
            "parameterName: x, type: DOUBLE, minValue: 0, maxValue: .nan",
            ".nan",
            "not a finite number",
            "finite",
        ),
        ("parameterName: x, type: DOUBLE, minValue: 0, maxValue: 1e400", "1e400", "too large", "smaller"),
        ("parameterName: x, type: DOUBLE, minValue: 0, maxValue: true", "true", "true, not a number", "1e-4"),
        (
            "parameterName: x, type: DOUBLE, minValue: 0, maxValue: [1]",
            "[1]",
            "maxValue is a list",
            "one value",
        ),
        (
            "parameterName: x, type: DOUBLE, maxValue: 1, minValue: 2",
            "2",
            "minValue 2 is above maxValue 1",
            "swap",
        ),
        (
            "parameterName: x, type: INTEGER, minValue: 1, maxValue: 2.5",
            "2.5",
            "2.5 of an INTEGER",
            "write 2, or",
        ),
        (
            "parameterName: x, type: INTEGER, minValue: 1, maxValue: 1e17",
            "1e17",
            "too large for an INTEGER",
            "92",
        ),
        (
            "parameterName: x, type: DOUBLE, scaleType: UNIT_LOG_SCALE, maxValue: 1, minValue: 0.0",
            "0.0",
            "parameter x: minValue is 0.0, but UNIT_LOG_SCALE needs numbers above 0",
            "UNIT_LINEAR_SCALE",
        ),
        (
            "parameterName: x, type: INTEGER, scaleType: UNIT_REVERSE_LOG_SCALE, maxValue: 3, minValue: -1",
            "-1",
            "UNIT_REVERSE_LOG_SCALE needs",
            "positive",
        ),
        (
            "parameterName: x, type: DISCRETE, scaleType: UNIT_LOG_SCALE, discreteValues: [ 0, 1]",
            "0,",
            "discreteValues[0] is 0, but",
            "positive",
        ),
        (
            "parameterName: x, type: DOUBLE, minValue: 0, maxValue: 1, scaleType: QQ",
            "QQ",
            "unknown",
            "use NONE, UN",
        ),
        ("parameterName: x, type: DISCRETE, discreteValues: []", "[]", "discreteValues is empty", "[16, 32"),
        ("parameterName: x, type: DISCRETE, discreteValues: 5", "5", "is 5, not a list", "write [5]"),
        (
            "parameterName: x, type: DISCRETE, discreteValues: [1, abc]",
            "abc",
            "[1] is abc, not a number",
            "0.01",
        ),
        (
            "parameterName: x, type: DISCRETE, discreteValues: [1, 2, 1.0]",
            "1.0",
            "1.0 stands twice",
            "remove",
        ),
        (
            "parameterName: x, type: DISCRETE, discreteValues: [1, 1.00000000001]",
            "1.00000000001",
            "closer than 1e-10 to 1",
            "remove",
        ),
        (
            f"parameterName: x, type: DISCRETE, discreteValues: {list(range(1001))}",
            "[0, 1,",
            "1001 values; at most 1,000",
            "INTEGER",
        ),
        (
            "parameterName: x, type: CATEGORICAL, categoricalValues: []",
            "[]",
            "categoricalValues is empty",
            "adam",
        ),
        ("parameterName: x, type: CATEGORICAL, categoricalValues: [a, ~]", "~", "[1] is empty", '"null"'),
        (
            "parameterName: x, type: CATEGORICAL, categoricalValues: [a, null]",
            "null",
            "[1] is empty",
            '"null"',
        ),
        (
            "parameterName: x, type: CATEGORICAL, categoricalValues: [a, [b]]",
            "[b]",
            "[1] is a list",
            "one value",
        ),
        (
            "parameterName: x, type: CATEGORICAL, categoricalValues: [a, {b: c}]",
            "{b",
            "[1] is a map",
            "one value",
        ),
    ],
)
def test_a_wrong_value_is_one_error_at_the_value(parameter: str, at: str, message: str, hint: str) -> None:
    reading = one(parameter)
    assert reading.spec is None
    assert len(reading.errors) == 1, reading.errors
    value = "" if at[0] in "[{" else at.strip("\"',")
    check(reading.errors[0], 8, column_of(parameter, at), value, message, hint)


@pytest.mark.parametrize(
    ("parameter", "path", "message", "hint"),
    [
        ("type: DOUBLE, minValue: 0, maxValue: 1", "parameterName", "has no name", "parameterName:"),
        (
            'parameterName: "", type: DOUBLE, minValue: 0, maxValue: 1',
            "parameterName",
            "has no name",
            "write",
        ),
        ("parameterName: x", "type", "parameter x: the parameter has no type", "DOUBLE, INTEGER"),
        ("parameterName: x, type: DOUBLE, minValue: 0", "maxValue", "maxValue is missing", "DOUBLE needs"),
        (
            "parameterName: x, type: INTEGER, minValue: null, maxValue: 2",
            "minValue",
            "is missing",
            "INTEGER needs",
        ),
        ("parameterName: x, type: DISCRETE", "discreteValues", "is missing", "[16, 32, 64]"),
        ("parameterName: x, type: CATEGORICAL", "categoricalValues", "is missing", "adam"),
    ],
)
def test_a_missing_value_is_one_error_at_its_parameter(
    parameter: str, path: str, message: str, hint: str
) -> None:
    reading = one(parameter)
    assert len(reading.errors) == 1, reading.errors
    check(reading.errors[0], 8, 7, "", message, hint)
    assert reading.errors[0].path == f"trainingInput.hyperparameters.params[0].{path}"


def test_a_name_given_twice_is_an_error_that_names_the_first_line() -> None:
    reading = parse(HEAD + LR + LR)
    check(reading.errors[0], 9, 23, "lr", "stands in line 8 already", "rename")
    assert len(reading.errors) == 1


def test_equal_bounds_are_a_constant_on_any_scale() -> None:
    spec = good(
        HEAD
        + "    - {parameterName: a, type: DOUBLE, minValue: 0, maxValue: 0, scaleType: UNIT_LOG_SCALE}\n"
        + "    - {parameterName: b, type: INTEGER, minValue: 100, maxValue: 100}\n"
        + "    - {parameterName: c, type: DISCRETE, discreteValues: [0], scaleType: UNIT_LOG_SCALE}\n"
    )
    bounds = [(p.low, p.high) for p in spec.space.parameters if isinstance(p, Double | Integer)]
    assert bounds == [(0.0, 0.0), (100, 100)]
    assert spec.space.parameters[2] == Discrete("c", (0,), Scale.LOG)


@pytest.mark.parametrize(
    ("parameter", "at", "message", "hint", "result"),
    [
        (
            "parameterName: x, type: integer, minValue: 1, maxValue: 2",
            "integer",
            "type integer is read as INTEGER",
            "write INTEGER",
            Integer("x", 1, 2),
        ),
        (
            "parameterName: x, type: DOUBLE, minValue: 1, maxValue: 2, scaleType: LOG",
            "LOG",
            "scaleType LOG is read as UNIT_LOG_SCALE",
            "write UNIT_LOG_SCALE",
            Double("x", 1, 2, Scale.LOG),
        ),
        (
            "parameterName: x, type: DOUBLE, minValue: 1, maxValue: 2, scaleType: unit-reverse-log-scale",
            "unit-reverse-log-scale",
            "is read as UNIT_REVERSE_LOG_SCALE",
            "write UNIT_REVERSE_LOG_SCALE",
            Double("x", 1, 2, Scale.REVERSE_LOG),
        ),
        (
            "parameterName: x, type: DISCRETE, discreteValues: [0.1, 0.01]",
            "[0.1",
            "not increasing: sorted",
            "write 0.01, 0.1",
            Discrete("x", (0.01, 0.1)),
        ),
        (
            "parameterName: x, type: CATEGORICAL, categoricalValues: [a, b, 'a']",
            "'a'",
            "a stands twice (see line 8): dropped",
            "remove it",
            Categorical("x", ("a", "b")),
        ),
        (
            "parameterName: x, type: CATEGORICAL, categoricalValues: [a], scaleType: UNIT_LOG_SCALE",
            "UNIT_LOG_SCALE",
            "scaleType is not used by a CATEGORICAL",
            "remove it",
            Categorical("x", ("a",)),
        ),
        (
            "parameterName: x, type: CATEGORICAL, categoricalValues: [a], minValue: 3",
            "3",
            "minValue is not used by a CATEGORICAL",
            "remove it",
            Categorical("x", ("a",)),
        ),
        (
            "parameterName: x, type: DISCRETE, discreteValues: [1], maxValue: 3",
            "3",
            "maxValue is not used by a DISCRETE",
            "remove it",
            Discrete("x", (1,)),
        ),
        (
            "parameterName: x, type: DOUBLE, minValue: 1, maxValue: 2, discreteValues: [3]",
            "[3]",
            "discreteValues is not used by a DOUBLE",
            "remove it",
            Double("x", 1.0, 2.0),
        ),
        (
            "parameterName: x, type: DOUBLE, minValue: 1, max_value: 2",
            "max_value",
            "key max_value is read as maxValue",
            "write maxValue",
            Double("x", 1.0, 2.0),
        ),
        (
            "parameterName: x, type: DOUBLE, minValue: 1, maxValue: 2, scaletype: UNIT_LOG_SCALE",
            "scaletype",
            "unknown key scaletype: ignored",
            "did you mean scaleType?",
            Double("x", 1.0, 2.0),
        ),
        (
            "parameterName: x, type: DOUBLE, minValue: 1, maxValue: 2, max: 3",
            "max",
            "unknown key max: ignored",
            "did you mean maxValue?",
            Double("x", 1.0, 2.0),
        ),
        (
            "parameterName: x, type: INTEGER, minValue: 1, maxValue: 2, discreteValues: [3]",
            "[3]",
            "discreteValues is not used by an INTEGER",
            "remove it",
            Integer("x", 1, 2),
        ),
    ],
)
def test_a_doubtful_value_is_taken_with_one_warning_at_the_value(
    parameter: str, at: str, message: str, hint: str, result: Parameter
) -> None:
    reading = one(parameter)
    assert reading.spec is not None, reading.errors
    assert reading.spec.space.parameters == (result,)
    assert len(reading.warnings) == 1, reading.warnings
    value = "" if at[0] in "[{" else at.strip("'")
    check(reading.warnings[0], 8, column_of(parameter, at), value, message, hint)


@pytest.mark.parametrize(
    "text",
    [
        "128",
        "0.5",
        "true",
        "no",
        "y",
        "0.10",
        "1e-4",
        "256_128",
        "2020-01-01",
        "010",
        "1:30",
        "0x1F",
        ".inf",
        "-1",
    ],
)
def test_an_unquoted_categorical_value_that_yaml_takes_for_another_kind_keeps_its_text(text: str) -> None:
    reading = one(f"parameterName: x, type: CATEGORICAL, categoricalValues: [{text}, other]")
    assert reading.spec is not None
    assert reading.spec.space.parameters == (Categorical("x", (text, "other")),)
    (warning,) = reading.warnings
    check(warning, 8, 65, text, "read as the text as written", f'write "{text}"')


@pytest.mark.parametrize(
    "text", ["10,10", "256 128", "l1", '"128"', "'no'", "inf", "1.2.3", "e5", "--x", '""']
)
def test_a_categorical_value_that_is_text_is_taken_silently(text: str) -> None:
    spec = good(
        HEAD + f"    - parameterName: x\n      type: CATEGORICAL\n      categoricalValues:\n      - {text}\n"
    )
    assert spec.space.parameters == (Categorical("x", (text.strip("\"'"),)),)


def test_one_map_stands_for_a_list_of_one_parameter() -> None:
    spec = good(HEAD.rstrip("\n") + " {parameterName: x, type: INTEGER, minValue: 1, maxValue: 2}\n")
    assert spec.space.parameters == (Integer("x", 1, 2),)
