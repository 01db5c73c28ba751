"""The block's `conditions`: parameters that are active only for some values of another."""

from __future__ import annotations

from itertools import pairwise

import pytest

from hpsearch.spec.model import Condition, Reading, SearchSpace
from hpsearch.spec.reading import parse

HEAD = """\
trainingInput:
  pythonModule: trainer.task
  hyperparameters:
    goal: MINIMIZE
    hyperparameterMetricTag: loss
    maxTrials: 4
    params:
    - {parameterName: momentum, type: DOUBLE, minValue: 0, maxValue: 1}
    - {parameterName: optimizer, type: CATEGORICAL, categoricalValues: [sgd, adam, "64"]}
    - {parameterName: layers, type: INTEGER, minValue: 1, maxValue: 3}
    - {parameterName: batch, type: DISCRETE, discreteValues: [0.5, 16, 32]}
    - {parameterName: beta, type: DOUBLE, minValue: 0, maxValue: 1}
hpsearch:
  conditions:
"""


def reading(*conditions: str) -> Reading:
    """The conditions stand one a line from line 15, each in column 5."""
    return parse(HEAD + "".join(f"    {one}\n" for one in conditions))


def space(*conditions: str) -> SearchSpace:
    found = reading(*conditions)
    assert found.spec is not None, found.errors
    assert not found.warnings
    return found.spec.space


def test_children_move_behind_their_parents_and_the_rest_stays_in_file_order() -> None:
    found = space("momentum: {optimizer: [sgd]}", "beta: {layers: [1]}")
    assert [each.name for each in found.parameters] == ["optimizer", "momentum", "layers", "beta", "batch"]
    conditions = {each.name: each.condition for each in found.parameters if each.condition}
    assert conditions == {
        "momentum": Condition("optimizer", ("sgd",)),
        "beta": Condition("layers", (1,)),
    }


def test_conditions_may_follow_one_another() -> None:
    found = space(
        "momentum: {batch: [16.00000000001, '0.5']}",
        "batch: {layers: [2, 3.0]}",
        "layers: {optimizer: [adam, 64]}",
    )
    assert [each.name for each in found.parameters] == ["optimizer", "layers", "batch", "momentum", "beta"]
    layers = Condition("optimizer", ("adam", "64"))
    batch = Condition(f"{layers.key}/layers", (2, 3))
    momentum = Condition(f"{batch.key}/batch", (16, 0.5))
    assert [each.condition for each in found.parameters[1:4]] == [layers, batch, momentum]
    drawn = {"optimizer": "adam", "layers": 2, "batch": 32, "beta": 1.0}
    assert list(found.active(drawn)) == ["optimizer", "layers", "batch", "beta"]


@pytest.mark.parametrize(
    ("conditions", "at", "message", "hint"),
    [
        (
            ["momentum: {optimiser: [sgd]}"],
            "optimiser",
            "optimiser is no parameter",
            "did you mean optimizer?",
        ),
        (["momentun: {optimizer: [sgd]}"], "momentun", "momentun is no parameter", "did you mean momentum?"),
        (["xyz: {optimizer: [sgd]}"], "xyz", "xyz is no parameter", "a parameter of this file"),
        (
            ["momentum: {optimizer: [sdg]}"],
            "sdg",
            "parameter momentum: optimizer[0] sdg is no value",
            "can take",
        ),
        (["momentum: {layers: [4]}"], "4", "layers[0] 4 is no value of layers", "can take"),
        (["momentum: {layers: [1.5]}"], "1.5", "layers[0] 1.5 is no value of layers", "can take"),
        (["momentum: {layers: [one]}"], "one", "layers[0] is one, not a number", "such as 10"),
        (["momentum: {batch: [17]}"], "17", "batch[0] 17 is no value of batch", "can take"),
        (["momentum: {beta: [1]}"], "[1]", "beta is a DOUBLE: no condition", "DISCRETE"),
        (["momentum: {optimizer: []}"], "[]", "optimizer is empty: it would never be active", "some values"),
        (["momentum: {optimizer: [~]}"], "~", "optimizer[0] is empty", "null"),
        (["momentum: {optimizer: [[sgd]]}"], "[sgd]", "optimizer[0] is a list where", "one value"),
        (["momentum: {optimizer: sgd}"], "sgd", "optimizer is sgd, not a list", "write [sgd]"),
        (
            ["momentum: {optimizer: [sgd], layers: [1]}"],
            "momentum",
            "needs exactly one parent",
            "parent: [values]",
        ),
        (
            ["momentum: {}"],
            "momentum",
            "the condition of momentum needs exactly one parent",
            "parent: [values]",
        ),
        (
            ["momentum: [sgd]"],
            "momentum",
            "the condition of momentum needs exactly one parent",
            "parent: [values]",
        ),
        (["layers: {layers: [1]}"], "layers: {", "layers depends on itself", "remove one"),
        (
            ["batch: {layers: [1]}", "layers: {batch: [16]}", "momentum: {batch: [16]}"],
            "layers: {",
            "layers depends on itself: it would never be active",
            "remove one of the conditions",
        ),
    ],
)
def test_a_wrong_condition_is_one_error(conditions: list[str], at: str, message: str, hint: str) -> None:
    found = reading(*conditions)
    assert found.spec is None
    (error,) = found.errors
    index = next(
        index for index, line in enumerate(conditions) if at in line and not line.startswith("batch")
    )
    assert (error.line, error.column) == (15 + index, 5 + conditions[index].index(at)), error
    assert error.path.startswith("hpsearch.conditions.")
    assert message in error.message
    assert hint in error.hint


@pytest.mark.parametrize("text", ["3", "[a]", "a"])
def test_conditions_are_a_map(text: str) -> None:
    (error,) = parse(HEAD.replace("  conditions:\n", f"  conditions: {text}\n")).errors
    assert "where a map is due" in error.message


def test_nothing_is_said_of_the_conditions_of_a_parameter_that_is_wrong_itself() -> None:
    text = HEAD.replace("type: CATEGORICAL", "type: CATEGORY") + "    momentum: {optimizer: [sgd]}\n"
    (error,) = parse(text).errors
    assert "type CATEGORY is unknown" in error.message


def test_cma_es_and_conditions_do_not_go_together() -> None:
    (error,) = parse(HEAD + "    momentum: {optimizer: [sgd]}\n  sampler: {type: CMA_ES}\n").errors
    assert "CMA_ES cannot search a space with conditions" in error.message


def test_a_long_chain_of_conditions_is_no_trouble() -> None:
    names = [f"p{index}" for index in range(400)]
    params = "".join(
        f"    - {{parameterName: {n}, type: INTEGER, minValue: 1, maxValue: 2}}\n" for n in names
    )
    chain = "".join(f"    {n}: {{{above}: [2]}}\n" for above, n in pairwise(names))
    text = (
        HEAD[: HEAD.index("    - ")] + params + "hpsearch:\n  sampler: {type: GRID}\n  conditions:\n" + chain
    )
    found = parse(text)
    assert found.spec is not None, found.errors
    assert [each.name for each in found.spec.space.parameters] == names
    assert "the grid has 401 points" in found.warnings[0].message
