"""Facts as tables of text for people: pure; the console draws them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hpsearch.show import answers, lines
from hpsearch.spec.model import Spec
from hpsearch.study.search import best_of
from hpsearch.study.trial import State, Study, Trial

if TYPE_CHECKING:  # `check` draws tables without loading the store's library
    from hpsearch.study.history import History

LEADERS = 10


@dataclass(frozen=True, slots=True)
class Grid:
    """A table: its columns (those that hold numbers by name), and rows of as many texts."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: frozenset[str] = frozenset()


def space(spec: Spec) -> Grid:
    """The parameters of a Spec."""
    rows = []
    for parameter in spec.space.parameters:
        answer = answers.parameter(parameter)
        values = answer["values"]
        shown = (
            f"{lines.value(answer['min'])} to {lines.value(answer['max'])}"
            if values is None
            else ", ".join(lines.value(one) for one in values)
        )
        rows.append((parameter.name, answer["type"], shown, answer["scale"] or "-"))
    return Grid(("parameter", "type", "values", "scale"), tuple(rows))


def trials(history: History) -> Grid:
    """All trials in order of their numbers."""
    study = history.study
    rows = tuple(
        (
            str(trial.number),
            str(trial.state),
            lines.value(answers.objective_of(trial, study)),
            lines.value(trial.step),
            str(len(trial.attempts)),
            lines.params(trial.params),
            trial.ending.reason if trial.ending else "",
        )
        for trial in history.trials
    )
    columns = ("trial", "state", study.spec.objective.metric, "step", "attempts", "params", "reason")
    return Grid(columns, rows, frozenset({"trial", columns[2], "step", "attempts"}))


def leaderboard(history: History) -> Grid:
    """The best completed trials, the best first, the earlier one of equals first."""
    study = history.study
    objective, selection = study.spec.objective, study.spec.selection
    scored = [
        (objective.cost(outcome[1]), trial.number, outcome, trial)
        for trial in history.trials
        if trial.state is State.COMPLETED and (outcome := trial.outcome(objective, selection))
    ]
    scored.sort(key=lambda one: one[:2])
    rows = tuple(
        (str(rank), str(number), lines.value(value), str(step), lines.params(trial.params))
        for rank, (_, number, (step, value), trial) in enumerate(scored[:LEADERS], 1)
    )
    columns = ("rank", "trial", objective.metric, "step", "params")
    return Grid(columns, rows, frozenset(columns[:-1]))


def studies(found: Sequence[tuple[str, History | None, bool]]) -> Grid:
    """The studies of a home directory: (name, history or None if unreadable, owned by a driver)."""
    rows = []
    for name, history, owned in found:
        if history is None:
            rows.append((name, answers.UNREADABLE, "-", "-", "-", "-"))
            continue
        spec = history.study.spec
        ended = sum(trial.ending is not None for trial in history.trials)
        rows.append(
            (
                name,
                answers.state(history, owned=owned),
                f"{ended}/{spec.max_trials}",
                spec.objective.metric,
                _best_value(history.trials, history.study),
                (answers.moment(history.study.created) or "")[:16].replace("T", " "),
            )
        )
    return Grid(
        ("study", "state", "trials", "metric", "best", "created (UTC)"), tuple(rows), frozenset({"best"})
    )


def failures(trials: Sequence[Trial]) -> str:
    """The most frequent reason of the failed trials and how often it came; empty if none failed."""
    seen = Counter(t.ending.reason for t in trials if t.ending and t.state is State.FAILED)
    if not seen:
        return ""
    reason, often = seen.most_common(1)[0]
    return f"{often} of {lines.counted(seen.total(), 'failure')}: {reason}"


def _best_value(trials: Sequence[Trial], study: Study) -> str:
    winner = best_of(trials, study)
    return lines.value(answers.objective_of(winner, study)) if winner else "-"
