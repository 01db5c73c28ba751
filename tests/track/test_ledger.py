"""What the ledger makes of facts: the news of each page, and little memory of the past."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow_facts import Facts, make_facts

from hpsearch.spec.model import Constraint, Goal, Objective, Selection
from hpsearch.study.trial import Attempt, Outcome, State
from hpsearch.track.ledger import Ledger


def fold(ledger: Ledger, facts: Facts, after: int = 0) -> tuple[list[float], int | None]:
    """The improvements told, and the number of the best."""
    news = ledger.fold(facts.read(after, sys.maxsize))
    return [point.value for point in news.points], news.best.number if news.best else None


@pytest.fixture
def facts(tmp_path: Path) -> Facts:
    return make_facts(tmp_path, "")


def test_only_completed_trials_can_be_best(facts: Facts) -> None:
    facts.trial(0, loss=0.5)
    for number, state in enumerate((State.PRUNED, State.FAILED, State.INFEASIBLE), 1):
        facts.trial(number, loss=0.1, state=state)
    assert fold(Ledger(facts.study.spec), facts) == ([0.5], 0)


def test_the_first_of_equals_stays_the_best(facts: Facts) -> None:
    facts.trial(0, loss=0.5)
    facts.trial(1, loss=0.5)
    assert fold(Ledger(facts.study.spec), facts) == ([0.5], 0)


@pytest.mark.parametrize(
    ("goal", "selection", "expected"),
    [
        (Goal.MINIMIZE, Selection.LAST, (40, 3.0)),
        (Goal.MINIMIZE, Selection.BEST, (20, 1.0)),
        (Goal.MAXIMIZE, Selection.BEST, (10, 5.0)),
    ],
)
def test_the_measurement_that_counts_is_kept_over_pages(
    facts: Facts, goal: Goal, selection: Selection, expected: tuple[int, float]
) -> None:
    facts.suggest(0)
    for step, loss in ((10, 5.0), (20, 1.0), (30, 1.0), (40, 3.0), (50, math.nan)):
        facts.measure(0, step, loss=loss)
    facts.measure(0, 60, accuracy=1.0)
    facts.end(0)
    spec = replace(facts.study.spec, selection=selection, objectives=(Objective("loss", goal),))
    ledger = Ledger(spec)
    for change in facts.changes:
        news = ledger.fold([change])
    assert news.best is not None
    assert (news.best.step, news.best.value) == expected
    assert news.trials[0].trial is not None
    assert news.trials[0].trial.step == 60
    assert len(news.trials[0].trial.measurements) <= 2


def test_what_follows_an_ending_of_the_study_resumes_it(facts: Facts) -> None:
    ledger = Ledger(facts.study.spec)
    facts.trial(0, loss=0.5)
    facts.finish(Outcome.INTERRUPTED)
    first = ledger.fold(facts.changes)
    assert first.ending is not None
    assert not first.resumed
    assert not ledger.fold([]).resumed
    seen = len(facts.changes)
    facts.trial(1, loss=0.4)
    second = ledger.fold(facts.changes[seen:])
    assert (second.resumed, second.ending) == (True, None)
    facts.finish()
    third = ledger.fold(facts.changes[-1:])
    assert third.ending is not None
    assert not third.resumed


def test_a_resume_and_its_ending_on_one_page_is_an_ending(facts: Facts) -> None:
    facts.finish(Outcome.INTERRUPTED)
    facts.trial(0, loss=0.4)
    facts.finish(Outcome.COMPLETED)
    ending = Ledger(facts.study.spec).fold(facts.changes).ending
    assert ending is not None
    assert ending.outcome is Outcome.COMPLETED


def test_a_measurement_after_the_ending_is_news_and_changes_nothing_else(facts: Facts) -> None:
    ledger = Ledger(facts.study.spec)
    facts.trial(0, loss=0.5)
    ledger.fold(facts.changes)
    facts.measure(0, 99, loss=0.1)
    facts.add(0, Attempt(2, 1))
    news = ledger.fold(facts.changes[-2:])
    assert [point.step for point in news.trials[0].points] == [99]
    assert news.trials[0].trial is None
    assert news.best is not None
    assert news.best.value == 0.5


def test_facts_of_an_unknown_trial_are_passed_over(facts: Facts) -> None:
    facts.measure(7, 10, loss=1.0)
    assert Ledger(facts.study.spec).fold(facts.changes).trials == {}


def test_the_best_of_several_objectives_is_safe_and_the_best_in_the_first(facts: Facts) -> None:
    spec = replace(
        facts.study.spec,
        objectives=(Objective("loss", Goal.MINIMIZE), Objective("speed", Goal.MAXIMIZE)),
        constraints=(Constraint(Objective("memory", Goal.MINIMIZE), 2.0),),
    )
    for number, (loss, speed, memory) in enumerate(((0.5, 1.0, 1.0), (0.1, 9.0, 3.0), (0.5, 2.0, 2.0))):
        facts.suggest(number)
        # One metric after the other, the objective first: the others must not push it out.
        facts.measure(number, 10, loss=loss)
        facts.measure(number, 20, speed=speed)
        facts.measure(number, 30, memory=memory)
        facts.measure(number, 40, other=1.0)
        facts.end(number)
    facts.trial(3, loss=0.01)
    assert fold(Ledger(spec), facts) == ([0.5, 0.5], 2)


def test_of_equals_the_lower_number_is_the_best_also_if_it_ended_later(facts: Facts) -> None:
    facts.suggest(0)
    facts.trial(1, loss=0.5)
    facts.measure(0, 10, loss=0.5)
    facts.end(0)
    assert fold(Ledger(facts.study.spec), facts) == ([0.5], 0)
