"""Where a curve will end: pure functions on costs (lower is better), robust to whatever a trial reports."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Points = tuple[Floats, Floats]  # places in increasing order, and the cost at each

_HUGE = 1e300
_LENGTHS = (0.5, 2.0, 8.0)  # of the kernel, in typical distances between two curves
_NOISES = (0.01, 0.1, 1.0)  # variance beside the kernel's, which is 1: at 1 curves say little
_MISS = 0.1  # on the scale of `predict`: by so much every model is taken to have missed once
_PLACES = 16  # of a curve, at which it is compared with others, or to which a model of it is fitted
_RECENT = 0.75  # of a curve's points, from which its slope is taken: curves fall fastest at their start


@dataclass(frozen=True, slots=True)
class Forecast:
    """A trial's predicted final cost, its deviation (to first order), and its chance to beat the best."""

    cost: float
    deviation: float
    chance: float


def predict(mine: Points, others: Sequence[Points], best: float) -> Forecast | None:
    """The end of a curve by Gaussian-process regression on completed ones; None if all ended equally well.

    Predicted is the change from now to the end, by how similarly the others went up to now. Costs are
    measured from the best on a scale that is linear near it and logarithmic far from it (asinh); its unit
    is the distance within which the nearest quarter lies, so that diverged trials do not drown the others.
    """
    chosen = np.linspace(0, len(mine[0]) - 1, min(len(mine[0]), _PLACES)).round().astype(int)
    places, costs = (each[chosen] for each in mine)
    with np.errstate(all="ignore"):
        seen = np.array([np.interp(places, *other) for other in others])
        finals = np.array([other[1][-1] for other in others])
        gaps, away = (np.minimum(np.abs(each - best), _HUGE) for each in (finals, seen))
        if not gaps.any():
            return None
        unit = max(_quantile(gaps[gaps > 0], 0.25), _quantile(away, 0.25))

        def scaled(costs: Floats) -> Floats:
            distance = np.clip((costs - best) / unit, -_HUGE, _HUGE)
            return np.arcsinh(distance, dtype=np.float64)

        curve, curves = scaled(costs), scaled(seen)
        change, deviation, weight = _process(curves, curve, scaled(finals) - curves[:, -1])
        ends = np.clip(curve[-1] + change, -690, 690)  # beyond it sinh is too large for a float
        chances = [_student(-end / off, len(others)) for end, off in zip(ends, deviation, strict=True)]
        end = float(weight @ ends)
        spread = math.sqrt(weight @ (deviation**2 + (ends - end) ** 2))
        cost, stretch = best + unit * math.sinh(end), unit * math.cosh(end)
        return Forecast(cost, stretch * spread, float(weight @ np.array(chances)))


def _process(curves: Floats, mine: Floats, targets: Floats) -> tuple[Floats, Floats, Floats]:
    """A Gaussian process's prediction for one more curve: mean, deviation and weight by model.

    The curves (n, points) have the targets (n,), `mine` (points,) asks for one. The kernel is a Gaussian of
    the distance between curves, the mean an unknown constant. The models, all pairs of _LENGTHS and
    _NOISES, are weighted by their marginal likelihood, so that five curves cannot make one of them certain.
    Source: Rasmussen and Williams 2006, "Gaussian Processes for Machine Learning", 2.2, 2.7 and 5.4.1.
    """
    n = len(curves)
    between = ((curves[:, None] - curves) ** 2).mean(axis=2)
    to_mine = ((curves - mine) ** 2).mean(axis=1)
    typical = _quantile(between[between > 0], 0.5) if between.any() else 1.0
    lengths, noises = (each.ravel() for each in np.meshgrid(_LENGTHS, _NOISES))
    width = 2 * typical * lengths**2
    kernel = np.exp(-between / width[:, None, None]) + noises[:, None, None] * np.eye(n)
    root = np.linalg.cholesky(kernel)
    right = np.empty((len(width), n, 3))
    right[..., 0], right[..., 1], right[..., 2] = targets, 1, np.exp(-to_mine / width[:, None])
    target, one, like = np.moveaxis(np.linalg.solve(root, right), 2, 0)
    ones = _dot(one, one)
    constant = _dot(target, one) / ones
    rest = target - constant[:, None] * one
    variance = (_dot(rest, rest) + _MISS**2) / n
    unsure = 1 + noises - _dot(like, like) + (1 - _dot(like, one)) ** 2 / ones
    determinant = np.log(np.diagonal(root, axis1=1, axis2=2)).sum(axis=1)
    likelihood = -n / 2 * np.log(variance) - determinant - np.log(ones) / 2
    weight = np.exp(likelihood - likelihood.max())
    return constant + _dot(like, rest), np.sqrt(variance * unsure), weight / weight.sum()


def extrapolate(curve: Points, best: float, end: float) -> tuple[float, float]:
    """The least cost that a curve can come to at a place ahead by its slope, and the one to be expected.

    The least is its best so far, changed by the slope of its recent points; a curve that bends as learning
    curves do cannot come lower. NaN where there is no slope, or numbers are too large.
    """
    places, costs = curve
    recent = slice(-max(3, math.ceil(_RECENT * len(places))), None)
    places, costs = places[recent], costs[recent]
    length = places[-1] - places[0]
    if length <= 0:
        return math.nan, math.nan
    along, ahead = (places - places[0]) / length, (end - places[-1]) / length
    with np.errstate(all="ignore"):
        least = best + min(_slope(along, costs), 0.0) * ahead
        even = np.linspace(0, 1, min(len(costs), _PLACES))
        expected = _autoregress(np.interp(even, along, costs), ahead * (len(even) - 1))
    return least, max(least, expected) if math.isfinite(expected) else least


def _autoregress(values: Floats, ahead: float) -> float:
    """The value so many steps ahead if each is a share (0 to 1) of the one before and a constant."""
    before, after = values[:-1], values[1:]
    share = min(max(_slope(before, after), 0.0), 1.0)
    constant = float(after.mean() - share * before.mean())
    if share == 1.0:
        return float(values[-1]) + constant * ahead
    limit = constant / (1 - share)
    return float(limit + (values[-1] - limit) * share**ahead)


def _slope(x: Floats, y: Floats) -> float:
    """The slope of the line of least squares, 0 where all x are equal."""
    off = x - x.mean()
    square = float(off @ off)
    return float(off @ y) / square if square else 0.0


def _dot(a: Floats, b: Floats) -> Floats:
    """The scalar products of the rows of two matrices."""
    products: Floats = np.einsum("ij,ij->i", a, b)
    return products


def _quantile(values: Floats, share: float) -> float:
    """The value that a share of all are below, itself one of them: a mean of two could be too large."""
    return float(np.sort(values, axis=None)[int((values.size - 1) * share)])


def _student(t: float, freedom: int) -> float:
    """The probability of less than t under Student's distribution, by the approximation of Wallace 1959."""
    normal = math.sqrt(freedom * math.log1p(t * t / freedom)) * (8 * freedom + 1) / (8 * freedom + 3)
    return 0.5 * math.erfc(math.copysign(normal, -t) / math.sqrt(2))
