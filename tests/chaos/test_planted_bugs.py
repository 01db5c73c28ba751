"""The suite can fail: each of these bugs, planted in the product or in the harness, breaks an invariant."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import optuna
import pytest
import simulation
from histories import parsed, play
from sqlalchemy import bindparam, update

from hpsearch import faults
from hpsearch.run import simulated
from hpsearch.study import journal as journals
from hpsearch.study import retention, shelf, store
from hpsearch.study.schema import lease_table
from hpsearch.study.search import Search
from hpsearch.study.trial import Attempt, Checkpoint, Ending, Entry, Trial
from hpsearch.track.outbox import Outbox
from hpsearch.track.rows import Point
from hpsearch.track.runs import Runs
from hpsearch.train import checkpoint

SCENE = "seed=6 trials=8 steps=4 parallel=3"
Plant = Callable[[], contextlib.AbstractContextManager[Any]]


def acknowledged_before_it_is_committed() -> Any:
    """A COMMIT that is swallowed: facts are written with the next ones."""
    real, held = store.Store.commit, {}

    def commit(self: Any, entries: Sequence[Entry]) -> None:
        waiting = held.pop(id(self), [])
        held[id(self)] = list(entries)
        real(self, waiting)

    return mock.patch.object(store.Store, "commit", commit)


def the_lease_is_not_checked() -> Any:
    """`WHERE epoch` is gone."""
    anybody = update(lease_table).where(
        lease_table.c.study == bindparam("ours"),
        bindparam("our_epoch") == bindparam("our_epoch"),
        bindparam("our_lsn") == bindparam("our_lsn"),
    )
    return mock.patch.object(store, "_GUARD", anybody)


def any_attempt_may_report() -> Any:
    """Reports are not asked which attempt they are of."""
    real = Search.measure

    def measure(self: Search, number: int, attempt: int, *rest: Any) -> bool:
        return real(self, number, self.trials[number].attempts[-1].number, *rest)

    return mock.patch.object(Search, "measure", measure)


def the_row_of_a_checkpoint_comes_before_its_file() -> Any:
    """A file appears only when the next one is written."""
    real, waiting = checkpoint.write_durably, []

    def write_durably(path: Path, data: memoryview) -> None:
        for each in waiting:
            with contextlib.suppress(OSError):
                real(*each)
        waiting[:] = [(path, data)]

    return mock.patch.object(checkpoint, "write_durably", write_durably)


def a_checkpoint_is_adopted_without_its_row() -> Any:
    """The newest file of a directory is what a trial goes on from."""
    real = simulated._stands_at

    def stands_at(context: Any) -> int:
        found = sorted((context.directory / "checkpoints").glob("*.pt"))
        return int(found[-1].name.split("-")[1]) if found else real(context)

    @contextlib.contextmanager
    def planted() -> Iterator[None]:
        with (
            mock.patch.object(simulated, "_stands_at", stands_at),
            mock.patch.object(shelf, "_delete", lambda trial, names: None),  # nor is it swept
        ):
            yield

    return planted()


def the_offset_moves_before_the_reply() -> Any:
    """What is about to be sent counts as delivered."""

    def step(self: Any) -> int:
        page = self._read(self._offset)
        if page:
            with faults.point("outbox.offset") as event:
                event.inside()
                self._offset = page[-1].lsn
            self._delivery.tell(self._ledger.fold(page))
        return len(page)

    return mock.patch.object(Outbox, "_step", step)


def points_have_the_time_of_their_sending() -> Any:
    """A clock that goes on with each request."""
    real, sent = Runs.log, []

    def log(self: Runs, run_id: str, rows: Sequence[Any]) -> None:
        sent.append(run_id)
        moved = [
            Point(r.name, r.value, 10**12 + len(sent), r.step) if isinstance(r, Point) else r for r in rows
        ]
        real(self, run_id, moved)

    return mock.patch.object(Runs, "log", log)


def runs_are_made_without_looking_for_them() -> Any:
    """No search by uid."""
    return mock.patch.object(Runs, "find", lambda self, tag, text: [])


def one_sampler_seed_for_the_whole_study() -> Any:
    """The draws go on from those before, which a new life has not made."""
    made: dict[int, Any] = {}

    def sampler(self: Any, number: int) -> Any:
        return made.setdefault(id(self), optuna.samplers.RandomSampler(seed=self._spec.sampler.seed))

    return mock.patch.object(simulation._Sampler, "_sampler", sampler)


def the_log_is_not_copied_with_the_database() -> Any:
    """A bug of the harness, and of many a backup."""
    return mock.patch.object(simulation, "UNCOPIED", {*simulation.UNCOPIED, simulation.WAL})


def a_checkpoint_is_deleted_before_the_next_one_has_its_row() -> Any:
    """Retention runs ahead of the commit, and keeps but one."""
    real = journals.Journal.commit

    def commit(self: Any, entries: Sequence[Entry]) -> None:
        if self.retention:
            self.retention.take(entry for entry in entries if isinstance(entry.fact, Checkpoint))
        real(self, entries)

    @contextlib.contextmanager
    def planted() -> Iterator[None]:
        with (
            mock.patch.object(retention, "KNOWN", 1),
            mock.patch.object(journals.Journal, "commit", commit),
        ):
            yield

    return planted()


def a_trial_is_launched_before_its_intent_is_committed() -> Any:
    """The row of an attempt comes with the next commit."""
    real, held = journals.Journal.commit, {}

    def commit(self: Any, entries: Sequence[Entry]) -> None:
        ready = [*held.pop(id(self), []), *entries]
        if any(isinstance(entry.fact, Attempt) for entry in entries):
            held[id(self)] = ready
        else:
            real(self, ready)

    return mock.patch.object(journals.Journal, "commit", commit)


def the_sampler_hears_of_an_ending_before_it_is_committed() -> Any:
    """Told when it is decided."""
    real = Search._settle

    def settle(self: Search, trial: Trial, ending: Ending, now: int) -> Ending:
        settled = real(self, trial, ending, now)
        trial.ending = settled
        self._sampler.ended(trial)
        trial.ending = None
        return settled

    return mock.patch.object(Search, "_settle", settle)


BUGS: list[tuple[Callable[[], Any], str, str]] = [
    (acknowledged_before_it_is_committed, "tune.report:5:after=KILL", ""),
    (the_lease_is_not_checked, "between:5=RIVAL", ""),
    (any_attempt_may_report, "store.commit:14:after=KILL | between:2=STALE", ""),
    (the_row_of_a_checkpoint_comes_before_its_file, "ckpt.row:8:after=KILL", "pruner=MEDIAN"),
    (a_checkpoint_is_adopted_without_its_row, "ckpt.rename:5:after=KILL", "together=True"),
    (the_offset_moves_before_the_reply, "outbox.send:5:before=LATE", ""),
    (points_have_the_time_of_their_sending, "outbox.send:5:inside=LOST", ""),
    (runs_are_made_without_looking_for_them, "outbox.create_run:4:inside=KILL", ""),
    (one_sampler_seed_for_the_whole_study, "store.commit:14:after=KILL", ""),
    (the_log_is_not_copied_with_the_database, "store.commit:14:after=KILL", ""),
    (a_checkpoint_is_deleted_before_the_next_one_has_its_row, "ckpt.row:8:before=KILL", "pruner=MEDIAN"),
    (a_trial_is_launched_before_its_intent_is_committed, "store.commit:14:after=KILL", ""),
    (the_sampler_hears_of_an_ending_before_it_is_committed, "store.commit:14:after=KILL", ""),
]


@pytest.mark.parametrize(("plant", "faults", "also"), BUGS, ids=[bug[0].__name__ for bug in BUGS])
def test_a_planted_bug_is_caught(plant: Plant, faults: str, also: str) -> None:
    history = parsed(f"{SCENE} {also} | {faults}")
    sound = play(history)
    assert sound.fired, "the history has no fault"
    assert not sound.wrong, "the same history without the bug"
    with plant():
        caught = play(history)
    assert caught.wrong, f"nobody noticed that {plant.__name__.replace('_', ' ')}"
    print(caught.wrong[0][:200])
