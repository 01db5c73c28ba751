"""Facts of the store folded into what MLflow has not heard yet; pure: a resume folds without sending."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from hpsearch.spec.model import Params, Selection, Spec
from hpsearch.study.front import costs
from hpsearch.study.trial import Attempt, Change, Ending, Measurement, State, StudyEnding, Trial
from hpsearch.track.rows import Point, clean_name


@dataclass(slots=True)
class TrialNews:
    """One trial with news: `suggested` if it is new; `trial` is None once it ended in earlier news."""

    uid: str
    trial: Trial | None
    suggested: bool = False
    points: list[Point] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Best:
    """The best completed trial so far, the (step, value) that counts, and when the trial ended."""

    number: int
    uid: str
    params: Params
    step: int
    value: float
    time: int


@dataclass(slots=True)
class News:
    """What some facts change: trials by number, and on the study's own run.

    `points`: improvements of the best; `best`: the best after them.
    `ending`: the study ended, and nothing followed; `unfinished`: the uids of trials that did not end with
    it. `resumed`: something followed an ending.
    """

    trials: dict[int, TrialNews] = field(default_factory=dict)
    points: list[Point] = field(default_factory=list)
    best: Best | None = None
    ending: StudyEnding | None = None
    unfinished: tuple[str, ...] = ()
    resumed: bool = False


class Ledger:
    """What must be known of the past to tell the news; its size is that of the running trials."""

    def __init__(self, spec: Spec) -> None:
        self._spec = spec
        limits = [(constraint.objective, Selection.LAST) for constraint in spec.constraints]
        self._counts = [*((objective, spec.selection) for objective in spec.objectives), *limits]
        self._live: dict[int, Trial] = {}
        self._uids: dict[int, str] = {}
        self._completed = 0
        self._ended = False
        self._best: Best | None = None
        self._rank: tuple[tuple[float, ...], int] | None = None

    def fold(self, changes: Iterable[Change]) -> News:
        """Take in facts in the order of the store; return what they change."""
        news = News()
        for change in changes:
            if isinstance(change.fact, StudyEnding):
                self._ended, news.ending = True, change.fact
            elif change.trial is not None:
                if self._ended:
                    self._ended, news.ending, news.resumed = False, None, True
                self._fold_trial(news, change.trial, change.fact)
        news.best = self._best
        if news.ending:
            news.unfinished = tuple(trial.uid for trial in self._live.values())
        return news

    def _fold_trial(self, news: News, number: int, fact: object) -> None:
        if isinstance(fact, Trial):
            self._uids[number] = fact.uid
            self._live[number] = Trial(number, fact.uid, fact.params, fact.created)
        if number not in self._uids:
            return
        trial = self._live.get(number)
        told = news.trials.get(number)
        if told is None:
            told = news.trials[number] = TrialNews(self._uids[number], trial)
        if isinstance(fact, Measurement):
            told.points.extend(
                Point(clean_name(name), value, fact.time, fact.step) for name, value in fact.metrics.items()
            )
        if trial is not None:
            self._advance(news, told, trial, fact)

    def _advance(self, news: News, told: TrialNews, trial: Trial, fact: object) -> None:
        match fact:
            case Trial():
                told.suggested = True
            case Attempt():
                trial.attempts.append(fact)
            case Measurement():
                self._remember(trial, fact)
            case Ending():
                trial.ending = fact
                del self._live[trial.number]
                self._compare(news, trial, fact)

    def _remember(self, trial: Trial, measurement: Measurement) -> None:
        """Append a measurement and drop those that neither count nor are the last."""
        trial.measurements.append(measurement)
        kept = {id(measurement)}
        for objective, selection in self._counts:
            outcome = trial.outcome(objective, selection)
            found = (m for m in trial.measurements if (m.step, m.metrics.get(objective.metric)) == outcome)
            kept.add(id(next(found, None)))
        trial.measurements[:] = [m for m in trial.measurements if id(m) in kept]

    def _compare(self, news: News, trial: Trial, ending: Ending) -> None:
        if ending.state is not State.COMPLETED:
            return
        self._completed += 1
        objective, found = self._spec.objective, costs(trial, self._spec)
        outcome = trial.outcome(objective, self._spec.selection)
        if outcome is None or found is None or (self._rank and (found, trial.number) >= self._rank):
            return
        better = self._rank is None or found < self._rank[0]
        self._best, self._rank = (
            Best(trial.number, trial.uid, trial.params, *outcome, ending.time),
            (found, trial.number),
        )
        if better:  # else it is as good as one with a higher number, which ended before
            name = clean_name(f"best/{objective.metric}")
            news.points.append(Point(name, outcome[1], ending.time, self._completed))
