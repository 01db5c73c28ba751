"""Points of a search space: the sampler's internal values and the values handed to trials.

A reverse-log parameter is drawn as t on a log scale and handed out as x = low + high - t
(Vizier's definition); a discrete one is drawn as the index of its value.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from hpsearch.spec.model import (
    Categorical,
    Discrete,
    Double,
    Integer,
    Parameter,
    Params,
    Scale,
    SearchSpace,
    Value,
    key_of,
)

_REDRAWS = 100


def is_constant(parameter: Parameter) -> bool:
    """Whether a parameter leaves nothing to choose; it is passed to trials all the same."""
    return count(parameter) == 1


def count(parameter: Parameter) -> int | None:
    """How many values a parameter can take; None for a real range."""
    match parameter:
        case Double(low=low, high=high):
            return 1 if low == high else None
        case Integer(low=low, high=high):
            return high - low + 1
        case Discrete(values=values) | Categorical(values=values):
            return len(values)


def value_at(parameter: Parameter, position: int) -> Value:
    """The value at a position (from 0) of a parameter that is not a real range."""
    match parameter:
        case Double(low=low):
            return float(low)
        case Integer(low=low):
            return low + position
        case Discrete(values=values) | Categorical(values=values):
            return values[position]


def position_of(parameter: Parameter, value: Value) -> int:
    """The position of a value: the inverse of `value_at`; ValueError if it is not one."""
    internal = encode(parameter, value)
    match parameter:
        case Integer(low=low) if type(value) is int:
            return value - low
        case Discrete():
            return int(internal)
        case Categorical(values=texts):
            return texts.index(str(value))
    raise ValueError(f"{parameter.name} has no positions")


def decode(parameter: Parameter, internal: Value) -> Value:
    """The value handed to a trial for a sampler's internal value, within the bounds."""
    match parameter:
        case Double(low=low, high=high, scale=scale):
            x = low + high - float(internal) if scale is Scale.REVERSE_LOG else float(internal)
            return min(max(x, float(low)), float(high))
        case Integer(low=low, high=high, scale=scale):
            whole = low + high - int(internal) if scale is Scale.REVERSE_LOG else int(internal)
            return min(max(whole, low), high)
        case Discrete(values=values):
            return values[int(internal)]
        case Categorical():
            return internal


def encode(parameter: Parameter, value: Value) -> Value:
    """The internal value for a trial's value; ValueError if it is not a value of the parameter."""
    match parameter:
        case Double(low=low, high=high, scale=scale) if not isinstance(value, str) and low <= value <= high:
            return float(min(max(low + high - value, low), high) if scale is Scale.REVERSE_LOG else value)
        case Integer(low=low, high=high, scale=scale) if type(value) is int and low <= value <= high:
            return low + high - value if scale is Scale.REVERSE_LOG else value
        case Discrete(values=values) if value in values:
            return values.index(value)
        case Categorical(values=texts) if value in texts:
            return value
    raise ValueError(f"{parameter.name} = {value!r} is not in the search space")


def is_inexact(parameter: Parameter) -> bool:
    """Whether `encode` may miss a value's internal value by rounding, so that it must be kept."""
    return isinstance(parameter, Double) and parameter.scale is Scale.REVERSE_LOG


class Points:
    """The points of a space and, where it is finite, which of them have been tried.

    A point's position counts as in a grid whose first parameter varies fastest; a parameter with children
    counts as one whose every value brings the points of the children that are active with it.
    """

    def __init__(self, space: SearchSpace) -> None:
        self._roots = _trees(space)
        self.size = _product(self._roots)
        self._tried: set[tuple[tuple[str, Value], ...]] = set()
        self._position = 0

    @property
    def exhausted(self) -> bool:
        """Whether every point has been tried; a space with a real range never ends."""
        return self.size is not None and len(self._tried) >= self.size

    def add(self, params: Params) -> None:
        """Take note of a point that is being tried; nothing is kept of a space with a real range."""
        if self.size is not None:
            self._tried.add(tuple(params.items()))

    def tried(self, params: Params) -> bool:
        """Whether the point has been tried before."""
        return tuple(params.items()) in self._tried

    def next_untried(self) -> Params:
        """The first untried point of a finite space in the order of the grid."""
        return self._walk(self._position)

    def random_untried(self, seed: int) -> Params:
        """A random untried point of a finite space; it is not enumerated, however big."""
        assert self.size is not None
        draws = random.Random(seed)
        for _ in range(_REDRAWS):
            position = draws.randrange(self.size)
            if not self.tried(point := self._at(position)):
                return point
        return self._walk(position)  # the space is nearly full

    def _walk(self, position: int) -> Params:
        assert self.size is not None
        while self.tried(point := self._at(position)):
            position = (position + 1) % self.size
        self._position = position
        return point

    def _at(self, position: int) -> Params:
        point: dict[str, Value] = {}
        _place(self._roots, position, point)
        return point


@dataclass(frozen=True, slots=True)
class _Tree:
    """A parameter, its children by the positions of the values that activate them, and its points' number."""

    parameter: Parameter
    below: Mapping[int, tuple[_Tree, ...]]
    size: int | None


def _trees(space: SearchSpace) -> tuple[_Tree, ...]:
    """The parameters without a condition, each with all that hangs on it."""
    children: dict[str, list[_Tree]] = {}
    roots: list[_Tree] = []
    # Children stand behind their parents, so that from the end each is complete when its parent comes.
    for parameter in reversed(space.parameters):
        tree = _tree(parameter, children.pop(key_of(parameter), [])[::-1])
        if parameter.condition:
            children.setdefault(parameter.condition.parent, []).append(tree)
        else:
            roots.append(tree)
    return tuple(reversed(roots))


def _tree(parameter: Parameter, children: Sequence[_Tree]) -> _Tree:
    below: dict[int, tuple[_Tree, ...]] = {}
    for child in children:
        condition = child.parameter.condition
        for value in condition.values if condition else ():
            position = position_of(parameter, value)
            below[position] = (*below.get(position, ()), child)
    size, sizes = count(parameter), [_product(trees) for trees in below.values()]
    if size is None or None in sizes:
        return _Tree(parameter, below, None)
    return _Tree(parameter, below, size - len(sizes) + sum(each or 0 for each in sizes))


def _product(trees: Iterable[_Tree]) -> int | None:
    sizes = [tree.size for tree in trees]
    return None if None in sizes else math.prod(size or 1 for size in sizes)


def _place(trees: Iterable[_Tree], position: int, point: dict[str, Value]) -> None:
    """Add the values of a position to a point, children right behind their parents."""
    for tree in trees:
        position, rest = divmod(position, tree.size or 1)
        index = 0
        for special in sorted(tree.below):
            # Every value before this one that has no children is one point.
            if rest < special - index:
                break
            rest, index = rest - (special - index), special
            block = _product(tree.below[special]) or 1
            if rest < block:
                point[tree.parameter.name] = value_at(tree.parameter, index)
                _place(tree.below[special], rest, point)
                break
            rest, index = rest - block, index + 1
        if tree.parameter.name not in point:
            point[tree.parameter.name] = value_at(tree.parameter, index + rest)
