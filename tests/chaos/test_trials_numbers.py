"""Trials that report nonsense, extremes, floods, steps out of order: what is sound is kept, the rest told."""

from __future__ import annotations

import math
from collections.abc import Callable

import misbehaving
import numpy as np
import pytest
from bad_trials import Fired
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hpsearch.study.trial import Ending, Measurement, Report, State
from hpsearch.train.pace import BURST, RATE
from hpsearch.train.reporter import LONGEST_NAME, MOST_NAMES, Reporter, number

SHARED = [HealthCheck.function_scoped_fixture]  # `fired` only collects
ENDING = Ending(State.COMPLETED, "done")


class Heard:
    """A reporter and all that it sent on."""

    def __init__(self, every: int = 1, until: int = 2**62) -> None:
        self.reports: list[Report] = []
        self.reporter = Reporter(self._hear, "loss", every=every, until=until)

    def _hear(self, report: Report) -> bool:
        if report != Report():
            self.reports.append(report)
        return True

    @property
    def curve(self) -> list[tuple[int, dict[str, float]]]:
        return [(r.measurement.step, dict(r.measurement.metrics)) for r in self.reports if r.measurement]

    @property
    def notes(self) -> list[str]:
        return [report.note for report in self.reports if report.note]


@pytest.mark.fault("F28")
@pytest.mark.parametrize("value", [1e308, -1e308, 5e-324, -5e-324, 1.7976931348623157e308])
def test_extreme_numbers_are_numbers(value: float, fired: Fired) -> None:
    heard = Heard()
    heard.reporter.measure(Measurement(1, {"loss": value}))
    fired(heard.curve == [(1, {"loss": value})])
    assert heard.reporter.verdict() is None


@pytest.mark.fault("F28")
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_shown_as_such_and_is_no_success(value: float, fired: Fired) -> None:
    heard = Heard()
    heard.reporter.measure(Measurement(1, {"loss": value}))
    fired(not math.isfinite(heard.curve[0][1]["loss"]))
    assert heard.reporter.verdict() == Ending(State.INFEASIBLE, f"loss is {value} at step 1")


@pytest.mark.fault("F29")
@pytest.mark.parametrize("kind", misbehaving.NONSENSE)
def test_nonsense_is_rejected_with_a_note_and_the_trial_lives(kind: str, fired: Fired) -> None:
    heard = Heard()
    for step, value in ((1, 0.5), (2, misbehaving.NONSENSE[kind]), (3, 0.25)):
        assert heard.reporter.measure(Measurement(step, {"loss": value, "other": 1.0}))
    fired(len(heard.notes) == 1)
    assert heard.notes[0].startswith("metric loss at step 2 is ")
    assert heard.notes[0].endswith(", not a number: dropped")
    assert heard.curve == [
        (1, {"loss": 0.5, "other": 1.0}),
        (2, {"other": 1.0}),
        (3, {"loss": 0.25, "other": 1.0}),
    ]


@pytest.mark.fault("F29")
@pytest.mark.parametrize("kind", sorted(misbehaving.NUMBERS.keys() - {"huge_int"}))
def test_scalars_of_every_library_are_numbers(kind: str, fired: Fired) -> None:
    fired(number(misbehaving.NUMBERS[kind]) == 1.0)


STEPS = st.one_of(
    st.integers(), st.integers(0, 50), st.floats(), st.booleans(), st.none(), st.text(), st.integers(2**62)
)


@pytest.mark.fault("F30")
@settings(max_examples=300, deadline=None, suppress_health_check=SHARED)
@given(given_steps=st.lists(STEPS, max_size=30))
def test_the_steps_that_come_through_grow(given_steps: list[object], fired: Fired) -> None:
    heard = Heard()
    for value, step in enumerate(given_steps):
        assert heard.reporter.measure(Measurement(step, {"loss": float(value)}))  # type: ignore[arg-type]
    found = [step for step, _ in heard.curve]
    assert found == sorted(set(found))
    assert all(type(step) is int and 0 <= step < 2**63 for step in found)
    valid = [s for s in given_steps if type(s) is int and 0 <= s < 2**63]
    assert found[:1] == valid[:1], "the first value of a step is the one that counts"
    assert len(heard.notes) <= 1, "one note speaks for all"
    fired(True)


def test_a_numpy_integer_is_a_step() -> None:
    heard = Heard()
    heard.reporter.measure(Measurement(np.int64(7), {"loss": 1.0}))  # type: ignore[arg-type]
    assert heard.curve == [(7, {"loss": 1.0})]


@pytest.mark.fault("F31")
def test_ten_thousand_names_are_too_many_and_the_objective_is_not_among_those_that_go(fired: Fired) -> None:
    heard = Heard()
    for step in range(10):
        heard.reporter.measure(Measurement(step, {f"name {step} {n}": 1.0 for n in range(1000)}))
    heard.reporter.measure(Measurement(10, {"loss": 1.0, "one more": 2.0, "name 0 0": 3.0}))
    heard.reporter.end(ENDING)
    names = {name for _, metrics in heard.curve for name in metrics}
    assert len(names) == MOST_NAMES
    assert heard.curve[-1] == (10, {"loss": 1.0, "name 0 0": 3.0})
    fired("is one more than the 1000 that a trial may have: dropped" in heard.notes[0])
    assert heard.notes[1] == "metric names: 9001 more like the first"


@pytest.mark.fault("F31")
def test_a_name_of_a_megabyte_is_told_in_a_line(fired: Fired) -> None:
    heard = Heard()
    heard.reporter.measure(Measurement(1, {"x" * (1 << 20): 1.0, "y" * LONGEST_NAME: 1.0}))
    fired("has 1048576 characters, 250 are allowed: dropped" in heard.notes[0])
    assert len(heard.notes[0]) < 200
    assert heard.curve == [(1, {"y" * LONGEST_NAME: 1.0})]


@pytest.mark.fault("F31")
@settings(max_examples=200, deadline=None, suppress_health_check=SHARED)
@given(names=st.lists(st.text(st.characters(), max_size=40), max_size=8))
def test_any_name_that_is_a_text_travels(names: list[str], fired: Fired) -> None:
    heard = Heard()
    heard.reporter.measure(Measurement(1, dict.fromkeys([*names, "../up", "loss"], 1.0)))
    found = heard.curve[0][1].keys()
    assert {name for name in names if name and name.isprintable()} <= found
    assert all(name.encode() for name in found)
    fired("../up" in found)


def _flood(heard: Heard, reports: int, per_second: float, value: Callable[[int], float]) -> None:
    for step in range(1, reports + 1):
        stamp = 1_600_000_000_000 + int(1000 * step / per_second)
        heard.reporter.measure(Measurement(step, {"loss": value(step)}, stamp))


@pytest.mark.fault("F32")
def test_ten_thousand_reports_a_second_become_some(fired: Fired) -> None:
    heard = Heard(every=1000, until=100_000)
    _flood(heard, 100_000, 10_000.0, float)
    heard.reporter.end(ENDING)
    steps = [step for step, _ in heard.curve]
    assert steps == sorted(set(steps))
    assert set(range(1000, 100_001, 1000)) <= set(steps), "there trials are compared"
    assert steps[-1] == 100_000, "the last value counts"
    assert BURST + 10 * RATE <= len(steps) <= BURST + 10 * RATE + 101
    fired(heard.notes[0].startswith("over 2000 reports, faster than 50 a second"))
    assert heard.notes[1] == f"pace: {100_000 - len(steps)} values were replaced by later ones"


@pytest.mark.fault("F32")
def test_steps_beyond_the_last_buy_no_place(fired: Fired) -> None:
    heard = Heard(every=100, until=1000)
    for step in range(0, 10_000_000, 1000):
        heard.reporter.measure(Measurement(step, {"loss": 1.0}, 1_600_000_000_000))
    fired(len(heard.curve) <= BURST + 11)


def test_a_slow_trial_loses_nothing_however_long_it_is() -> None:
    heard = Heard(every=1000)
    _flood(heard, 20_000, RATE, float)
    assert [step for step, _ in heard.curve] == list(range(1, 20_001))
    assert heard.notes == []


def test_the_metrics_of_one_step_go_out_together_and_the_last_of_each_is_kept() -> None:
    heard = Heard(every=10**9, until=0)
    now = 1_600_000_000_000
    for step in range(BURST):
        heard.reporter.measure(Measurement(step, {"loss": 1.0}, now))
    for step in range(BURST, BURST + 10):
        heard.reporter.measure(Measurement(step, {"loss": float(step)}, now))
        heard.reporter.measure(Measurement(step, {f"other {step % 2}": float(step)}, now))
    assert len(heard.curve) == BURST
    heard.reporter.end(ENDING)
    assert heard.curve[BURST:] == [
        (BURST + 8, {"other 0": BURST + 8.0}),
        (BURST + 9, {"loss": BURST + 9.0, "other 1": BURST + 9.0}),
    ]


@pytest.mark.fault("F33")
def test_a_metric_may_be_missing_at_some_steps(fired: Fired) -> None:
    heard = Heard()
    for step in range(1, 7):
        heard.reporter.measure(Measurement(step, {"loss": 1.0} if step % 2 else {"other": 1.0}))
    fired([step for step, metrics in heard.curve if "loss" not in metrics] == [2, 4, 6])
    assert heard.reporter.verdict() is None
