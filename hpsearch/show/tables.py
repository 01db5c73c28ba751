"""Facts as tables of text for people: pure; the console draws them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from hpsearch.show import answers, lines
from hpsearch.spec.model import Spec
from hpsearch.study.front import best_of, broken, front_of
from hpsearch.study.trial import State, Study, Trial

if TYPE_CHECKING:  # `check` draws tables without loading the store's library
    from hpsearch.study.history import History

LEADERS = 10
GAP = 2  # blanks between columns
NOTE_WIDTH = 20  # characters without which a long text is no pleasure


@dataclass(frozen=True, slots=True)
class Grid:
    """A table: its columns, rows of as many texts, and the names of columns of numbers and of long texts."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: frozenset[str] = frozenset()
    notes: frozenset[str] = frozenset()

    @property
    def widths(self) -> tuple[int, ...]:
        """The room in characters that each column would like."""
        return tuple(max(map(len, column)) for column in zip(self.columns, *self.rows, strict=True))

    def fits(self, width: int) -> bool:
        """Whether long texts have some room beside the other columns; without any it always fits."""
        wanted = [
            min(w, NOTE_WIDTH) if name in self.notes else w
            for name, w in zip(self.columns, self.widths, strict=True)
        ]
        return not self.notes or sum(wanted) + GAP * (len(wanted) - 1) <= width


def stacked(grid: Grid) -> list[str]:
    """A table as lines for a narrow screen: the long texts of a row stand below it."""
    widths, said = grid.widths, []
    for row in (grid.columns, *grid.rows):
        cells: list[str] = []
        notes: list[str] = []
        for name, cell, width in zip(grid.columns, row, widths, strict=True):
            if name in grid.notes:
                notes.append(f"{name} {cell}" if cell not in ("", "-", name) else "")
            else:
                cells.append(cell.rjust(width) if name in grid.numeric else cell.ljust(width))
        said.append((" " * GAP).join(cells).rstrip())
        said += [f"{'':{widths[0] + GAP}}{note}" for note in notes if note]
    return said


def space(spec: Spec) -> Grid:
    """The parameters of a Spec; when they are active, where some are not always."""
    rows = []
    for answer in answers.parameters(spec.space):
        values = answer["values"]
        shown = (
            f"{lines.value(answer['min'])} to {lines.value(answer['max'])}"
            if values is None
            else ", ".join(lines.value(one) for one in values)
        )
        row = (answer["name"], answer["type"], shown, answer["scale"] or "-")
        rows.append((*row, _only_if(answer["condition"])) if spec.space.conditional else row)
    columns = ("parameter", "type", "values", "scale", *(["only if"] if spec.space.conditional else []))
    return Grid(columns, tuple(rows), notes=frozenset({"values", "only if"}))


def trials(history: History, *, owned: bool) -> Grid:
    """All trials in order of their numbers; their attempts, where one had more than one."""
    spec, metrics = history.study.spec, _metrics(history.study.spec)
    again = any(len(trial.attempts) > 1 for trial in history.trials)
    rows = tuple(
        (
            str(trial.number),
            lines.state(str(trial.state), owned=owned),
            *_values(trial, spec),
            lines.value(trial.step),
            *([str(len(trial.attempts))] if again else []),
            lines.params(trial.params),
            _reason(trial, spec),
        )
        for trial in history.trials
    )
    numeric = ("trial", *metrics, "step", *(["attempts"] if again else []))
    columns = ("trial", "state", *numeric[1:], "params", "reason")
    return Grid(columns, rows, frozenset(numeric), frozenset({"params", "reason"}))


def leaderboard(history: History) -> Grid:
    """The best completed trials, the best first, the earlier one of equals first; or some of the front."""
    spec = history.study.spec
    if len(spec.objectives) > 1:
        board = front(history)
        return replace(board, rows=board.rows[:LEADERS])
    completed = [
        trial for trial in history.trials if trial.state is State.COMPLETED and not broken(trial, spec)
    ]
    leaders = answers.ranked(completed, spec)[:LEADERS]
    rows = tuple((str(rank), *_leader(trial, spec)) for rank, trial in enumerate(leaders, 1))
    columns = ("rank", "trial", *_metrics(spec), "step", "params")
    return Grid(columns, rows, frozenset(columns[:-1]), frozenset({"params"}))


def front(history: History) -> Grid:
    """The Pareto front, the best of the first objective first."""
    spec = history.study.spec
    on_it = answers.ranked(front_of(history.trials, history.study), spec)
    columns = ("trial", *_metrics(spec), "step", "params")
    rows = tuple(_leader(trial, spec) for trial in on_it)
    return Grid(columns, rows, frozenset(columns[:-1]), frozenset({"params"}))


def beyond(history: History) -> str:
    """How much of the front the leaderboard leaves out, as a line; empty if it is all there."""
    if len(history.study.spec.objectives) == 1:
        return ""
    more = len(front_of(history.trials, history.study)) - LEADERS
    return f"and {lines.counted(more, 'trial')} more on the front" if more > 0 else ""


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
                ", ".join(each.metric for each in spec.objectives),
                _best_values(history.trials, history.study),
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


def _leader(trial: Trial, spec: Spec) -> tuple[str, ...]:
    """The row of a completed trial; its step is the one that counts for the first objective."""
    seen = answers.seen(trial, spec.objective, spec)
    step = lines.value(seen[0] if seen else None)
    return (str(trial.number), *_values(trial, spec), step, lines.params(trial.params))


def _reason(trial: Trial, spec: Spec) -> str:
    """Why a trial ended, and why a completed one does not count."""
    reason = trial.ending.reason if trial.ending else ""
    unsafe = lines.unsafe(trial, spec) if trial.state is State.COMPLETED else ""
    return "; ".join(part for part in (reason, unsafe) if part)


def _metrics(spec: Spec) -> tuple[str, ...]:
    """The columns of the objectives and of the constraints."""
    return (*(o.metric for o in spec.objectives), *(c.objective.metric for c in spec.constraints))


def _values(trial: Trial, spec: Spec) -> tuple[str, ...]:
    pairs = [answers.seen(trial, objective, spec) for objective in spec.objectives]
    pairs += [answers.last(trial, constraint.objective.metric) for constraint in spec.constraints]
    return tuple(lines.value(pair[1] if pair else None) for pair in pairs)


def _only_if(condition: answers.Json | None) -> str:
    if condition is None:
        return "-"
    return f"{condition['parent']} is {' or '.join(lines.value(value) for value in condition['values'])}"


def _best_values(trials: Sequence[Trial], study: Study) -> str:
    """The objectives of the best trial."""
    winner, spec = best_of(trials, study), study.spec
    if winner is None:
        return "-"
    return ", ".join(lines.value(value) for value in answers.objectives_of(winner, spec).values())
