"""Parameters of Vertex AI: their values, the tree of those that depend on others, and the first trial."""

from __future__ import annotations

import pytest

from hpsearch.spec.model import (
    Categorical,
    Condition,
    Discrete,
    Double,
    Integer,
    Parameter,
    Problem,
    Scale,
    Spec,
    key_of,
)
from hpsearch.spec.reading import parse

HEAD = """\
maxTrialCount: 9
parallelTrialCount: 2
trialJobSpec: {workerPoolSpecs: [{pythonPackageSpec: {pythonModule: trainer.task}}]}
studySpec:
  metrics: [{metricId: loss, goal: MINIMIZE}]
  parameters:
"""
RANGE = "integerValueSpec: {minValue: 1, maxValue: 4}"
OPTIMIZER = "parameterId: optimizer, categoricalValueSpec: {values: [adam, sgd, lion]}"


def job(*parameters: str) -> str:
    """A job whose parameters stand one a line from line 7, each in column 5."""
    return HEAD + "".join(f"  - {{{one}}}\n" for one in parameters)


def good(*parameters: str) -> Spec:
    reading = parse(job(*parameters))
    assert reading.spec is not None, reading.errors
    assert not reading.warnings
    return reading.spec


def below(condition: str, child: str) -> str:
    """One item of conditionalParameterSpecs."""
    return f"{{{condition}, parameterSpec: {{{child}}}}}"


def conditional(parent: str, *children: str) -> str:
    return f"{parent}, conditionalParameterSpecs: [{', '.join(children)}]"


def texts(*values: str) -> str:
    return f"parentCategoricalValues: {{values: [{', '.join(values)}]}}"


def one_error(*parameters: str) -> Problem:
    reading = parse(job(*parameters))
    assert reading.spec is None
    (problem,) = reading.errors
    assert problem.hint
    return problem


@pytest.mark.parametrize(
    ("text", "parameter"),
    [
        ("doubleValueSpec: {minValue: 1e-4, maxValue: 1}", Double("p", 1e-4, 1.0)),
        (
            "scaleType: UNIT_LOG_SCALE, doubleValueSpec: {minValue: 1, maxValue: 2}",
            Double("p", 1, 2, Scale.LOG),
        ),
        (
            "integerValueSpec: {minValue: '1', maxValue: \"4.0\"}, scaleType: UNIT_REVERSE_LOG_SCALE",
            Integer("p", 1, 4, Scale.REVERSE_LOG),
        ),
        (
            "integerValueSpec: {minValue: 3, maxValue: 3}, scaleType: SCALE_TYPE_UNSPECIFIED",
            Integer("p", 3, 3),
        ),
        ("discreteValueSpec: {values: [1, 2.5, '8.0']}", Discrete("p", (1, 2.5, 8))),
        (
            "discreteValueSpec: {values: [1, 2]}, scaleType: UNIT_LINEAR_SCALE",
            Discrete("p", (1, 2), Scale.LINEAR),
        ),
        ('categoricalValueSpec: {values: [a, "64 32", "1"]}', Categorical("p", ("a", "64 32", "1"))),
    ],
)
def test_every_kind_of_values_is_read(text: str, parameter: Parameter) -> None:
    assert good(f"parameterId: p, {text}").space.parameters == (parameter,)


@pytest.mark.parametrize(
    ("text", "at", "message", "hint"),
    [
        ("doubleValueSpec: {minValue: 1, maxValue: 2}", "", "the parameter has no name", "parameterId:"),
        (f"parameterId: 'a b', {RANGE}", "'a b'", 'the name holds " "', "use letters"),
        (f"parameterId: a=b, {RANGE}", "a=b", 'the name holds "="', "use letters"),
        ("parameterId: p", "", "the parameter has no values", "exactly one *ValueSpec"),
        (
            f"parameterId: p, doubleValueSpec: {{minValue: 1, maxValue: 2}}, {RANGE}",
            "",
            "doubleValueSpec and integerValueSpec stand side by side",
            "exactly one",
        ),
        (
            "parameterId: p, integerValueSpec: {minValue: 1}",
            "integerValueSpec",
            "maxValue is missing",
            "INTEGER needs",
        ),
        (
            "parameterId: p, integerValueSpec: {minValue: 1.5, maxValue: 3}",
            "1.5",
            "is not whole",
            "DOUBLE",
        ),
        (
            "parameterId: p, doubleValueSpec: {minValue: 5, maxValue: 3}",
            "5",
            "above maxValue 3",
            "swap",
        ),
        (
            "parameterId: p, doubleValueSpec: {minValue: 0, maxValue: 3}, scaleType: UNIT_LOG_SCALE",
            "0",
            "UNIT_LOG_SCALE needs numbers above 0",
            "small positive",
        ),
        ("parameterId: p, doubleValueSpec: {minValue: xyz, maxValue: 3}", "xyz", "not a number", "such as"),
        ("parameterId: p, doubleValueSpec: 3", "3", "where a map is due", "lines below"),
        ("parameterId: p, discreteValueSpec: {values: []}", "[]", "values is empty", "write values: [16"),
        (
            "parameterId: p, discreteValueSpec: {}",
            "discreteValueSpec",
            "values is missing",
            "write values: [16",
        ),
        ("parameterId: p, discreteValueSpec: {values: [1, 1]}", "1", "stands twice", "remove one"),
        ("parameterId: p, categoricalValueSpec: {values: [a, ~]}", "~", "is empty", "null"),
        ("parameterId: p, categoricalValueSpec: {values: []}", "[]", "values is empty", "adam"),
        (f"parameterId: p, {RANGE}, scaleType: QUAD", "QUAD", "scaleType QUAD is unknown", "use NONE"),
    ],
)
def test_a_wrong_parameter_is_one_error(text: str, at: str, message: str, hint: str) -> None:
    problem = one_error(text)
    column = 6 + text.rindex(at) if at else 5
    value = "" if at == "[]" or at.endswith("Spec") else at.strip("'")
    assert (problem.line, problem.column, problem.value) == (7, column, value), problem
    assert problem.path.startswith("studySpec.parameters[0].")
    assert message in problem.message
    assert hint in problem.hint
    if text.startswith("parameterId: p,"):
        assert problem.message.startswith("parameter p: ")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("categoricalValueSpec: {values: [64, b]}", "parameter p: 64 is a number to YAML, read as the text"),
        ("categoricalValueSpec: {values: [a, a]}", "values[1] a stands twice (see line 7): dropped"),
        (
            "categoricalValueSpec: {values: [a]}, scaleType: UNIT_LOG_SCALE",
            "scaleType is not used by a CATEGO",
        ),
        ("discreteValueSpec: {values: [3, 1]}", "values is not increasing: sorted"),
        (f"{RANGE}, scaleType: linear", "scaleType linear is read as UNIT_LINEAR_SCALE"),
        (f"{RANGE}, scale_type: NONE", "key scale_type is read as scaleType"),
        (f"{RANGE}, defaultValue: 3", "unknown key defaultValue: ignored"),
    ],
)
def test_a_doubtful_parameter_is_one_warning(text: str, message: str) -> None:
    reading = parse(job(f"parameterId: p, {text}"))
    assert reading.spec is not None, reading.errors
    (warning,) = reading.warnings
    assert message in warning.message
    assert warning.message.startswith("parameter p: ")
    assert warning.hint


def test_two_parameters_of_a_name_are_an_error() -> None:
    problem = one_error(f"parameterId: p, {RANGE}", f"parameterId: p, {RANGE}")
    assert (problem.line, problem.column) == (8, 19)
    assert problem.message == "parameter p: the name stands in line 7 already"


def test_children_stand_right_behind_their_parents_each_with_its_condition() -> None:
    spec = good(
        conditional(
            OPTIMIZER,
            below(
                texts("sgd", "lion"),
                conditional(
                    "parameterId: momentum, discreteValueSpec: {values: [0, 0.9]}",
                    below(
                        "parentDiscreteValues: {values: [0.90000000001]}",
                        conditional(
                            f"parameterId: steps, {RANGE}",
                            below("parentIntValues: {values: ['2', 3]}", f"parameterId: depth, {RANGE}"),
                        ),
                    ),
                ),
            ),
            below(texts("adam"), f"parameterId: beta, {RANGE}"),
        ),
        f"parameterId: last, {RANGE}",
    )
    momentum = Condition("optimizer", ("sgd", "lion"))
    steps = Condition(f"{momentum.key}/momentum", (0.9,))
    depth = Condition(f"{steps.key}/steps", (2, 3))
    assert spec.space.parameters == (
        Categorical("optimizer", ("adam", "sgd", "lion")),
        Discrete("momentum", (0, 0.9), condition=momentum),
        Integer("steps", 1, 4, condition=steps),
        Integer("depth", 1, 4, condition=depth),
        Integer("beta", 1, 4, condition=Condition("optimizer", ("adam",))),
        Integer("last", 1, 4),
    )
    drawn = {"optimizer": "sgd", "momentum": 0.9, "steps": 1}
    walked = spec.space.walk(lambda parameter: drawn.get(parameter.name, 4))
    assert list(walked) == ["optimizer", *map(key_of, spec.space.parameters[1:3]), "last"]


def test_children_of_one_name_may_share_it_where_their_conditions_are_disjoint() -> None:
    spec = good(
        conditional(
            OPTIMIZER,
            below(texts("sgd"), f"parameterId: rate, {RANGE}"),
            below(texts("adam"), "parameterId: rate, doubleValueSpec: {minValue: 0, maxValue: 1}"),
        )
    )
    assert [type(each).__name__ for each in spec.space.parameters] == ["Categorical", "Integer", "Double"]
    assert len({key_of(each) for each in spec.space.parameters}) == 3


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        (
            (
                conditional(
                    OPTIMIZER,
                    below(texts("sgd"), "parameterId: a, " + RANGE),
                    below(texts("adam", "sgd"), "parameterId: a, " + RANGE),
                ),
            ),
            "parameter a: it is active twice when optimizer is sgd",
        ),
        (
            (
                conditional(
                    OPTIMIZER,
                    below(texts("sgd"), f"parameterId: a, {RANGE}"),
                    below(
                        texts("sgd"),
                        conditional(
                            f"parameterId: b, {RANGE}",
                            below("parentIntValues: {values: [1]}", f"parameterId: a, {RANGE}"),
                        ),
                    ),
                ),
            ),
            "parameter a: it is active twice when optimizer is sgd",
        ),
        (
            (conditional(OPTIMIZER, below(texts("sgd"), f"parameterId: optimizer, {RANGE}")),),
            "parameter optimizer: a parameter above it has the same name",
        ),
        (
            (
                f"parameterId: a, {RANGE}",
                conditional(OPTIMIZER, below(texts("sgd"), f"parameterId: a, {RANGE}")),
            ),
            "parameter a: the name stands in line 7 already",
        ),
    ],
)
def test_a_name_cannot_be_active_twice_at_once(parameters: tuple[str, ...], message: str) -> None:
    assert one_error(*parameters).message == message


@pytest.mark.parametrize(
    ("parent", "condition", "message", "hint"),
    [
        (OPTIMIZER, texts("sgdm"), "values[0] sgdm is no value of optimizer", "can take"),
        (
            f"parameterId: optimizer, {RANGE}",
            "parentIntValues: {values: [5]}",
            "values[0] 5 is no value",
            "take",
        ),
        (f"parameterId: optimizer, {RANGE}", "parentIntValues: {values: [1.5]}", "1.5 is no value", "take"),
        (
            "parameterId: optimizer, discreteValueSpec: {values: [1, 2]}",
            "parentDiscreteValues: {values: [1.001]}",
            "1.001 is no value of optimizer",
            "take",
        ),
        (
            "parameterId: optimizer, doubleValueSpec: {minValue: 1, maxValue: 2}",
            "parentDiscreteValues: {values: [1]}",
            "parentDiscreteValues cannot be a condition on a DOUBLE",
            "cannot be a parent",
        ),
        (
            OPTIMIZER,
            "parentIntValues: {values: [1]}",
            "parentIntValues cannot be a condition on a CATEGORICAL",
            "write parentCategoricalValues",
        ),
        (
            OPTIMIZER,
            "parentCategoricalValues: {values: []}",
            "values is empty: it would never",
            "some values",
        ),
        (OPTIMIZER, "parentCategoricalValues: {}", "values is missing", "list values of the parent"),
        (OPTIMIZER, "parentCategoricalValues: {values: [~]}", "values[0] is empty", "null"),
        (
            OPTIMIZER,
            texts("sgd") + ", parentIntValues: {values: [1]}",
            "parentIntValues and parentCategoricalValues stand side by side",
            "exactly one of",
        ),
    ],
)
def test_a_condition_that_cannot_be_met_is_one_error(
    parent: str, condition: str, message: str, hint: str
) -> None:
    problem = one_error(conditional(parent, below(condition, f"parameterId: a, {RANGE}")))
    assert problem.message.startswith("parameter optimizer: ")
    assert message in problem.message
    assert hint in problem.hint


def test_a_conditional_spec_needs_its_two_halves() -> None:
    without = conditional(OPTIMIZER, f"{{parameterSpec: {{parameterId: a, {RANGE}}}}}")
    assert "the values of the parent are missing" in one_error(without).message
    assert "parameterSpec is missing" in one_error(conditional(OPTIMIZER, f"{{{texts('sgd')}}}")).message


def test_mistakes_below_a_wrong_parent_are_told_as_well() -> None:
    child = below(texts("sgd"), "parameterId: a, integerValueSpec: {minValue: 3, maxValue: 1}")
    reading = parse(job(conditional("parameterId: optimizer, categoricalValueSpec: {values: []}", child)))
    assert [problem.message for problem in reading.errors] == [
        "parameter optimizer: values is empty",
        "parameter a: minValue 3 is above maxValue 1",
    ]


def nested(depth: int) -> str:
    """A parameter with a chain of that many children, each below the one before."""
    text = f"parameterId: p{depth}, {RANGE}"
    for level in reversed(range(depth)):
        child = below("parentIntValues: {values: [1]}", text)
        text = conditional(f"parameterId: p{level}, {RANGE}", child)
    return text


def test_a_tree_is_as_deep_as_a_file_may_be() -> None:
    spec = good(nested(8))
    assert [each.name for each in spec.space.parameters] == [f"p{level}" for level in range(9)]
    assert spec.space.active(dict.fromkeys((f"p{level}" for level in range(9)), 1)).keys() == {
        f"p{level}" for level in range(9)
    }
    (error,) = parse(job(nested(12))).errors
    assert "nested more than 32 deep" in error.message


def test_the_points_of_a_grid_are_counted_through_the_conditions() -> None:
    parameters = (
        conditional(
            OPTIMIZER,
            below(
                texts("sgd", "adam"),
                conditional(
                    f"parameterId: a, {RANGE}",
                    below("parentIntValues: {values: [4]}", f"parameterId: b, {RANGE}"),
                ),
            ),
            below(texts("sgd"), f"parameterId: c, {RANGE}"),
        ),
        "parameterId: d, discreteValueSpec: {values: [1, 2]}",
    )
    text = job(*parameters).replace("  parameters:", "  algorithm: GRID_SEARCH\n  parameters:")
    # adam: a 1, 2, 3 and 4 with four of b; sgd: the same times four of c; lion: one; all times two of d.
    (warning,) = parse(text).warnings
    assert "the grid has 72 points, but maxTrialCount is 9" in warning.message
    assert not parse(text.replace("maxTrialCount: 9", "maxTrialCount: 72")).warnings


def test_defaults_of_all_active_parameters_are_the_first_trial() -> None:
    rate = "parameterId: rate, doubleValueSpec: {minValue: 0, maxValue: 1, defaultValue: '0.5'}"
    beta = "parameterId: beta, integerValueSpec: {minValue: 1, maxValue: 4, defaultValue: '3'}"
    parent = OPTIMIZER.replace("]}", "], defaultValue: sgd}")
    spec = good(
        conditional(parent, below(texts("sgd"), rate), below(texts("adam"), f"parameterId: rate, {RANGE}")),
        beta,
        "parameterId: batch, discreteValueSpec: {values: [16, 32], defaultValue: 32.00000000001}",
    )
    assert spec.first == {"optimizer": "sgd", "rate": 0.5, "beta": 3, "batch": 32}
    assert [type(value) for value in spec.first.values()] == [str, float, int, int]
    assert good(f"parameterId: p, {RANGE}").first is None


def test_defaults_of_some_parameters_are_ignored_with_a_warning() -> None:
    with_default = RANGE.replace("4}", "4, defaultValue: 2}")
    reading = parse(job(f"parameterId: a, {with_default}", f"parameterId: b, {RANGE}"))
    assert reading.spec is not None
    assert reading.spec.first is None
    (warning,) = reading.warnings
    assert (warning.line, warning.value) == (7, "2")
    assert "defaultValue is ignored: parameter b is active, too, and has none" in warning.message


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("integerValueSpec: {minValue: 1, maxValue: 4, defaultValue: 5}", "5"),
        ("integerValueSpec: {minValue: 1, maxValue: 4, defaultValue: 1.5}", "1.5"),
        ("doubleValueSpec: {minValue: 1, maxValue: 4, defaultValue: 0.999}", "0.999"),
        ("discreteValueSpec: {values: [1, 2], defaultValue: 3}", "3"),
        ("categoricalValueSpec: {values: [a, b], defaultValue: c}", "c"),
    ],
)
def test_a_default_that_the_parameter_cannot_take_is_an_error(text: str, value: str) -> None:
    problem = one_error(f"parameterId: p, {text}")
    assert problem.value == value
    assert problem.message == f"parameter p: defaultValue {value} is none of its values"


def test_cma_es_cannot_search_a_conditional_space() -> None:
    text = job(conditional(OPTIMIZER, below(texts("sgd"), f"parameterId: a, {RANGE}")))
    reading = parse(text + "hpsearch: {sampler: {type: CMA_ES}}\n")
    (error,) = reading.errors
    assert (error.value, error.message) == ("CMA_ES", "CMA_ES cannot search a space with conditions")
    assert "use TPE" in error.hint


def test_conditions_of_the_block_do_not_mix_with_a_tree() -> None:
    (error,) = parse(job(f"parameterId: a, {RANGE}") + "hpsearch: {conditions: {a: {b: [1]}}}\n").errors
    assert (error.path, "write conditionalParameterSpecs" in error.hint) == ("hpsearch.conditions", True)
