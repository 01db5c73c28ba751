"""Which checkpoints stay: what a resume needs, and those of the best trials; the rest goes, never by a link.

A file is deleted only when the row that makes it superfluous is durable. What has no row, because its life
was cut short, is swept at the next start.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence, Set
from pathlib import PurePath

from hpsearch.spec.model import Keep, Selection
from hpsearch.study.front import best_of, front_of
from hpsearch.study.launching import KNOWN
from hpsearch.study.shelf import shelf_of
from hpsearch.study.trial import Checkpoint, Ending, Entry, State, Study, Trial


class Retention:
    """The checkpoint files of a study.

    What earlier lives left is swept first: files that no fact speaks of, or that it made superfluous.
    `trials` are looked at when a fact about them is durable; they hold all but the last ones by then.
    """

    def __init__(self, study: Study, trials: Mapping[int, Trial]) -> None:
        self._study = study
        self._shelf = shelf_of(study)
        self._keep = study.spec.checkpoints
        self._trials = trials
        self._best: list[Trial] = []
        self._there: dict[int, list[Checkpoint]] = {}
        # A trial that is stopped saves its state once more, which nobody records any more.
        self._late: deque[int] = deque()
        self._sweep()

    def _sweep(self) -> None:
        ended = [trial for trial in self._trials.values() if trial.ending]
        self._best = self._best_of(ended)
        best = {trial.number for trial in self._best}
        found = self._shelf.names(self._trials)
        for trial in self._trials.values():
            names = found[trial.number] | self._hidden(trial, found[trial.number])
            # Rows stay for ever; of files that went nothing can be kept.
            self._there[trial.number] = [each for each in trial.checkpoints if _name(each) in names]
            kept = self._of_ended(trial, trial.number in best) if trial.ending else self._of_running(trial)
            self._there[trial.number] = kept
            self._shelf.delete(trial.number, names - {_name(each) for each in kept})

    def _hidden(self, trial: Trial, listed: Set[str]) -> Set[str]:
        """The files that a listing does not show, of those that an unfinished trial may yet end with.

        All but what it ends with is deleted then: no listing may have said that this is not there.
        """
        if trial.ending or self._keep is Keep.ALL:
            return set()
        self._there[trial.number] = trial.checkpoints
        wanted = {_name(each) for each in self._of_running(trial)}
        return self._shelf.hidden(trial.number, wanted - listed)

    def take(self, entries: Iterable[Entry]) -> None:
        """These facts are durable: delete what is superfluous now."""
        for entry in entries:
            if entry.trial is None:
                continue
            if isinstance(entry.fact, Checkpoint):
                self._there.setdefault(entry.trial, []).append(entry.fact)
                self._reduce(entry.trial, self._of_running(self._trials[entry.trial]))
            elif isinstance(entry.fact, Ending):
                self._ended(self._trials[entry.trial], entry.fact)

    def finish(self) -> None:
        """No trial runs any more: delete what those that were stopped left when they had ended."""
        while self._late:
            self._sweep_late()
        self._shelf.finish()

    def _sweep_late(self) -> None:
        number = self._late.popleft()
        self._shelf.delete_others(number, {_name(each) for each in self._there.get(number, ())})

    def _ended(self, trial: Trial, ending: Ending) -> None:
        # The search gives it its ending only when this one is durable.
        over = Trial(trial.number, trial.uid, trial.params, trial.created, ending=ending)
        over.measurements, over.checkpoints = trial.measurements, trial.checkpoints
        before, self._best = self._best, self._best_of([*self._best, over])
        best = {each.number for each in self._best}
        if self._keep is not Keep.ALL:
            self._late.append(trial.number)
        if len(self._late) > self._study.spec.max_parallel_trials:  # its process is long gone
            self._sweep_late()
        self._reduce(trial.number, self._of_ended(over, trial.number in best))
        for each in before:
            if each.number not in best:
                self._reduce(each.number, self._of_ended(each, False))

    def _best_of(self, trials: Sequence[Trial]) -> list[Trial]:
        """Those whose checkpoints are kept for being the best: one, or the front of several objectives."""
        if len(self._study.spec.objectives) > 1:
            return front_of(trials, self._study)
        best = best_of(trials, self._study)
        return [best] if best else []

    def _of_running(self, trial: Trial) -> list[Checkpoint]:
        """What an unfinished trial needs: the newest, and the one that its best value so far belongs to."""
        there = self._known(trial)
        if self._keep is Keep.ALL:
            return there
        kept = there[-KNOWN:]
        if self._study.spec.selection is Selection.BEST and self._keep is not Keep.NONE:
            kept = [*(each for each in self._nearest(trial, there) if each not in kept), *kept]
        return kept

    def _of_ended(self, trial: Trial, best: bool) -> list[Checkpoint]:
        if self._keep is Keep.ALL:
            return self._known(trial)
        wanted = (best and self._keep is Keep.BEST) or self._keep is Keep.EACH
        return self._nearest(trial, self._known(trial)) if wanted else []

    def _nearest(self, trial: Trial, there: Sequence[Checkpoint]) -> list[Checkpoint]:
        """The checkpoint nearest to the step whose value counts, the later one of equals."""
        spec = self._study.spec
        outcome = trial.outcome(spec.objective, spec.selection)
        if not there or (outcome is None and trial.state is not State.RUNNING):
            return []
        step = outcome[0] if outcome else trial.step or 0
        return [min(reversed(there), key=lambda each: abs(each.step - step))]

    def _known(self, trial: Trial) -> list[Checkpoint]:
        """The checkpoints whose files are there as far as is known, the oldest first."""
        there = self._there.get(trial.number, ())
        return sorted(there, key=lambda each: (each.attempt, each.step))

    def _reduce(self, number: int, kept: list[Checkpoint]) -> None:
        gone = [each for each in self._there.get(number, ()) if each not in kept]
        self._there[number] = kept
        if gone:
            self._shelf.delete(number, [_name(each) for each in gone])


def _name(checkpoint: Checkpoint) -> str:
    """A checkpoint's name in its directory."""
    return PurePath(checkpoint.name).name
