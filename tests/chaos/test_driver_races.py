"""Many drivers want one study at once: exactly one has it, the others are told who."""

from __future__ import annotations

import multiprocessing
import os
import socket
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest
from watching import LOCAL, faulty, has_fired, stored, until
from zygote import Zygote

from hpsearch.errors import StudyBusy
from hpsearch.study import sqlite
from hpsearch.study.home import Home

pytestmark = [pytest.mark.timeout(180), pytest.mark.fault("F12")]

Place = Callable[..., Path]
Fired = Callable[..., None]
RACERS = 4
RACES = 1_000  # for the lock, which decides
OPENINGS = 25  # of them with all that a driver does to own a study


def race(studies: Path, barrier: Barrier, told: Connection) -> None:
    """Want the study again and again, at the same moment as others; say what came of each try."""
    seen = []
    for number in range(RACES):
        # Who waits longer than the first needs for its name in the file reads that name.
        sqlite.GLANCE = 0.2 if number < OPENINGS else 0.0
        barrier.wait(60)
        free: Callable[[], None] | None = None
        try:
            if number < OPENINGS:
                store = Home(studies).open("s")
                free, outcome = store.close, f"epoch {store.take(1).epoch}"
            else:
                free, outcome = sqlite.FileLock(studies / "s").release, "lock"
        except StudyBusy as error:
            outcome = error.message
        barrier.wait(60)
        if free:
            free()
        seen.append(outcome)
    told.send(seen)
    told.close()


def test_of_all_that_race_for_a_study_exactly_one_runs_it(zygote: Zygote, place: Place, fired: Fired) -> None:
    directory = place(trials=1, steps=1)
    zygote.run(*LOCAL, cwd=directory)
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(RACERS)
    pipes, racers = [], []
    for _ in range(RACERS):
        reader, writer = context.Pipe(duplex=False)
        racers.append(context.Process(target=race, args=(directory / "studies", barrier, writer)))
        racers[-1].start()
        writer.close()
        pipes.append(reader)
    seen = [reader.recv() for reader in pipes]
    for racer, reader in zip(racers, pipes, strict=True):
        racer.join(30)
        reader.close()
    for number, outcomes in enumerate(zip(*seen, strict=True)):
        own = f"epoch {number + 2}" if number < OPENINGS else "lock"  # the first was the run's
        assert outcomes.count(own) == 1, (number, outcomes)
        named = "is being run by process" if number < OPENINGS else "is being run by"
        assert sum(named in each for each in outcomes) == RACERS - 1, outcomes
    assert stored(directory, "SELECT epoch FROM lease") == [(OPENINGS + 1,)]
    wins = [sum(not each.startswith("study") for each in one) for one in seen]
    fired(sum(wins) == RACES and len([w for w in wins if w]) > 1, "F12")


def test_a_second_driver_leaves_with_73_within_a_second_and_names_the_first(
    zygote: Zygote, place: Place, fired: Fired
) -> None:
    directory = place(trials=2, steps=2)
    environment = faulty(directory, "store.commit:8:after=DELAY 60")
    first = zygote.start(*LOCAL, cwd=directory, environment=environment)
    until(lambda: has_fired(directory))
    began = time.monotonic()
    rivals = [zygote.start("resume", "s", "--local", cwd=directory) for _ in range(3)]
    for rival in rivals:
        assert rival.wait() == 73
        assert f"process {first.pid} on {socket.gethostname()}" in rival.err
    took = time.monotonic() - began
    # Three at once on two cores, and whatever else runs here: a second for each.
    assert took < 3 * max(1.0, os.getloadavg()[0] / 2), f"they took {took:.1f} s"
    fired(first.alive)
    first.kill()
    assert first.wait() == -9


def test_of_drivers_that_start_together_one_finishes_the_study(
    zygote: Zygote, place: Place, fired: Fired
) -> None:
    directory = place(trials=6, pause=0.03)
    first = zygote.start(*LOCAL, cwd=directory, environment=faulty(directory, "store.commit:9:after=KILL"))
    assert first.wait() == -9
    drivers = [zygote.start("resume", "s", "--local", cwd=directory) for _ in range(4)]
    codes = sorted(driver.wait() for driver in drivers)
    assert codes == [0, 73, 73, 73]
    fired(codes.count(73))
    assert stored(directory, "SELECT epoch FROM lease") == [(2,)]
    assert stored(directory, "SELECT count(*) FROM ending WHERE state = 'completed'") == [(6,)]
