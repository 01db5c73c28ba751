"""The largest files that are read at all, right or wrong: an answer in less than a second of computing."""

from __future__ import annotations

import random

import pytest
from quick import in_a_second

ENGINE = """\
trainingInput:
  pythonModule: t
  hyperparameters:
    goal: MINIMIZE
    maxTrials: 4
    hyperparameterMetricTag: l
    params:
"""
VERTEX = """\
trialJobSpec: {workerPoolSpecs: [{pythonPackageSpec: {pythonModule: t}}]}
maxTrialCount: 1
parallelTrialCount: 1
studySpec:
  metrics: [{metricId: l, goal: MINIMIZE}]
  parameters:
"""
RANGE = "integerValueSpec: {minValue: 0, maxValue: 10000}"
LONG = ", ".join(f'"{"v" * 50}{index}"' for index in range(900))


def params(count: int) -> str:
    return "".join(
        f"    - {{parameterName: p{index}, type: INTEGER, minValue: 1, maxValue: 9007199254740992}}\n"
        for index in range(count)
    )


def conditions(*pairs: tuple[str, str]) -> str:
    return "hpsearch:\n  conditions:\n" + "".join(f"    {a}: {{{b}: [1, 2]}}\n" for a, b in pairs)


def children(*values: str) -> str:
    """A parameter with children of one name, each for some values of their parent."""
    return f"  - parameterId: c\n    {RANGE}\n    conditionalParameterSpecs:\n" + "".join(
        f"    - {{parentIntValues: {{values: [{some}]}}, parameterSpec: {{parameterId: k, {RANGE}}}}}\n"
        for some in values
    )


def wrong(depth: int) -> str:
    """A chain of conditional parameters, each wrong in several places, with a thousand below the last."""
    if depth:
        inner = f"[{{zzz: 1, parentIntValues: 7, parameterSpec: {wrong(depth - 1)}}}]"
    else:
        inner = "[" + ", ".join(["{a: 1, parameterSpec: 3}"] * 1000) + "]"
    return (
        "{parameterId: [1], qqq: 1, scaleType: [3], categoricalValueSpec: {values: 9}, "
        f"conditionalParameterSpecs: {inner}}}"
    )


def anagram(index: int) -> str:
    """A word that takes long to tell from a known one."""
    letters = list("parameterServerConfig")
    random.Random(index).shuffle(letters)
    return "".join(letters)


def binary(depth: int, name: str = "p") -> str:
    """A tree in which every parameter has two children."""
    if not depth:
        return f"{{parameterId: {name}, {RANGE}}}"
    below = ", ".join(
        f"{{parentCategoricalValues: {{values: [{word}]}}, parameterSpec: {binary(depth - 1, name + word)}}}"
        for word in "ab"
    )
    values = "categoricalValueSpec: {values: [a, b]}"
    return f"{{parameterId: {name}, {values}, conditionalParameterSpecs: [{below}]}}"


RIGHT = {
    "1,000 parameters": ENGINE + params(1000),
    "a chain of 600 conditions": ENGINE
    + params(600)
    + conditions(*((f"p{index + 1}", f"p{index}") for index in range(599))),
    "a binary tree": f"{VERTEX}  - {binary(7)}\n",
    "500 children of one name": VERTEX + children(*map(str, range(500))),
    "9,000 arguments": ENGINE.replace("  hyper", f"  args: [{', '.join(['a'] * 9000)}]\n  hyper", 1)
    + params(1),
}
WRONG = {
    "600 conditions in a circle": (
        ENGINE + params(600) + conditions(*((f"p{(index + 1) % 600}", f"p{index}") for index in range(600))),
        "depends on itself",
    ),
    "1,200 unknown names in conditions": (
        ENGINE + params(400) + conditions(*((f"q{index}", f"r{index}") for index in range(600))),
        "is no parameter",
    ),
    "errors at every level": (f"{VERTEX}  - {wrong(8)}\n", "where a map is due"),
    "480 children that are active together": (VERTEX + children(*["1, 2"] * 480), "it is active twice"),
    "3,000 wrong parameters": (
        ENGINE.replace("MINIMIZE", "BAD") + "".join(f"    - {{type: D{index}}}\n" for index in range(3000)),
        "is unknown",
    ),
    "4,900 unknown keys": (
        "trainingInput:\n" + "".join(f"  abcdefghijkl{index}: D\n" for index in range(4900)),
        "nothing to tune",
    ),
    "1,900 worker pools": (
        "studySpec: {a: 1}\nmaxTrialCount: x\ntrialJobSpec:\n  scheduling: 3\n  workerPoolSpecs:\n"
        + "  - {machineSpec: 3, replicaCount: x}\n" * 1900,
        "not a number",
    ),
    "one key 4,900 times": ("a: 1\n" * 4900, "stands twice in one map"),
    "10,000 keys": ("".join(f"k{index}: 1\n" for index in range(10_000)), "more than 10,000 values"),
    "a deep tree": (
        VERTEX + "  - " + "{conditionalParameterSpecs: [{parameterSpec: " * 300,
        "nested more than 32",
    ),
    "9,500 values below long keys": (
        "".join(" " * depth + "k" * 980 + ":\n" for depth in range(30)) + f"{' ' * 31}- 1\n" * 9500,
        "nothing to tune",
    ),
    "4,900 keys with the letters of a known one": (
        "trainingInput:\n" + "".join(f"  {anagram(index)}: 1\n" for index in range(4900)),
        "nothing to tune",
    ),
    "tabs": ("a:\n" + "\t" * 100_000, "a tab is used"),
    "a text of study words": ("studySpec" * 100_000, "without a value that ends"),
}


@pytest.mark.parametrize("text", RIGHT.values(), ids=RIGHT.keys())
def test_a_large_file_is_read_in_less_than_a_second(text: str) -> None:
    reading = in_a_second(text)
    assert reading.spec is not None, reading.errors


@pytest.mark.parametrize(("text", "message"), WRONG.values(), ids=WRONG.keys())
def test_a_large_wrong_file_is_refused_in_less_than_a_second(text: str, message: str) -> None:
    reading = in_a_second(text)
    assert reading.spec is None
    assert any(message in error.message for error in reading.errors), reading.errors[:3]


def test_long_keys_of_many_children_are_no_trouble() -> None:
    values = f"{{values: [{LONG}]}}"
    middle = (
        f"parentCategoricalValues: {values}\n      parameterSpec:\n        parameterId: k\n        {RANGE}\n"
    )
    below = "".join(
        f"        - {{parentIntValues: {{values: [1]}}, parameterSpec: {{parameterId: k{index}, {RANGE}}}}}\n"
        for index in range(400)
    )
    text = f"{VERTEX}  - parameterId: c\n    categoricalValueSpec: {values}\n    conditionalParameterSpecs:\n"
    reading = in_a_second(f"{text}    - {middle}        conditionalParameterSpecs:\n{below}")
    assert reading.spec is not None, reading.errors
    assert len(reading.spec.space.parameters) == 402


def test_a_grid_with_more_points_than_digits_can_say_is_still_a_warning() -> None:
    text = ENGINE.replace("    params:", "    algorithm: GRID_SEARCH\n    params:") + params(1000)
    (warning,) = in_a_second(text).warnings
    assert warning.message == "the grid has more than 1,000,000,000,000 points, but maxTrials is 4"
