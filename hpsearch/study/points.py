"""Points of a search space: the sampler's internal values and the values handed to trials.

A reverse-log parameter is drawn as t on a log scale and handed out as x = low + high - t
(Vizier's definition); a discrete one is drawn as the index of its value.
"""

from __future__ import annotations

from collections.abc import Iterable

from hpsearch.spec.model import Categorical, Discrete, Double, Integer, Parameter, Scale, Value


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


def size(parameters: Iterable[Parameter]) -> int | None:
    """How many points a space has; None if it has a real range."""
    points = 1
    for parameter in parameters:
        values = count(parameter)
        if values is None:
            return None
        points *= values
    return points


def value_at(parameter: Parameter, position: int) -> Value:
    """The value at a position (from 0) of a parameter that is not a real range."""
    match parameter:
        case Double(low=low):
            return float(low)
        case Integer(low=low):
            return low + position
        case Discrete(values=values) | Categorical(values=values):
            return values[position]


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
