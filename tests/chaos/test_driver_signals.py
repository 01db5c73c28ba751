"""Signals at every phase of a driver: in order within bounded time, and nothing lost."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from watching import LOCAL, ending, faulty, has_fired, is_pending, parent_status, steps, stored, until
from zygote import Driver, Zygote

pytestmark = pytest.mark.timeout(180)

Place = Callable[..., Path]
Fired = Callable[..., None]
IN_ORDER = 25.0  # seconds
DOWN = ("--tracking-uri", "http://127.0.0.1:1")


def completed(directory: Path) -> list[tuple[object, ...]]:
    return stored(directory, "SELECT trial, state, reason, time FROM ending WHERE state = 'completed'")


def stop(driver: Driver, number: int) -> float:
    """Send a signal; how long the driver took to leave with 75."""
    sent = time.monotonic()
    driver.send(number)
    assert driver.wait() == 75, driver.said()
    return time.monotonic() - sent


def finish(zygote: Zygote, directory: Path, trials: int, kept: list[tuple[object, ...]]) -> None:
    """Resume to the end; what had been completed is as it was."""
    zygote.run("resume", "s", "--local", cwd=directory)
    assert set(kept) <= set(completed(directory))
    assert len(completed(directory)) == trials


@pytest.mark.fault("F06")
@pytest.mark.parametrize(
    ("point", "mlflow"),
    [
        ("lease.take:1:before", ()),
        ("sampler.ask:1:before", ()),
        ("store.commit:40:before", ()),
        ("store.commit:40:after", DOWN),
    ],
)
def test_a_sigterm_at_any_phase_is_75_in_time_and_loses_nothing(
    zygote: Zygote, place: Place, fired: Fired, point: str, mlflow: tuple[str, ...]
) -> None:
    directory = place(trials=8, pause=0.005)
    held = f"{point}=DELAY 1"
    driver = zygote.start(*LOCAL, *mlflow, cwd=directory, environment=faulty(directory, held))
    fired(until(lambda: has_fired(directory)))
    assert stop(driver, signal.SIGTERM) < IN_ORDER
    assert ending(directory) == ("interrupted", "interrupted by SIGTERM")
    if not mlflow:
        assert parent_status(directory) == "KILLED"
    answer = zygote.run("show", "s", cwd=directory)
    assert answer.out.startswith("study s: interrupted (interrupted by SIGTERM)")
    kept = completed(directory)
    assert len(kept) < 8, "the signal came too late to test anything"
    finish(zygote, directory, 8, kept)


@pytest.mark.fault("F06")
def test_a_sigterm_before_there_is_a_study_is_75_and_leaves_none(
    zygote: Zygote, place: Place, fired: Fired
) -> None:
    directory = place()
    os.mkfifo(directory / "slow.yaml")
    driver = zygote.start("run", "slow.yaml", "--local", "--study", "s", cwd=directory)
    # The driver waits for its file: it is the one reader that lets a writer in.
    writer = os.open(directory / "slow.yaml", os.O_WRONLY)
    driver.send(signal.SIGTERM)
    os.write(writer, (directory / "toy.yaml").read_bytes())
    os.close(writer)
    assert driver.wait() == 75
    assert "interrupted by SIGTERM before the study was opened" in driver.err
    fired("SIGTERM" in driver.err)
    assert not (directory / "studies/s/study.db").exists()


@pytest.mark.fault("F06")
def test_a_sigterm_after_the_last_trial_leaves_a_completed_study(
    zygote: Zygote, place: Place, fired: Fired
) -> None:
    directory = place(trials=3)
    environment = faulty(directory, "cleanup.begin:1:before=DELAY 1")
    driver = zygote.start(*LOCAL, cwd=directory, environment=environment)
    fired(until(lambda: has_fired(directory)))
    driver.send(signal.SIGTERM)
    assert driver.wait() == 0, "every trial is terminal and one completed"
    assert ending(directory)[0] == "completed"


@pytest.mark.fault("F06")
def test_after_a_sigterm_between_two_measurements_no_step_is_trained_again(
    zygote: Zygote, place: Place, fired: Fired
) -> None:
    directory = place(trials=1, steps=150, every=150, pause=0.02)
    driver = zygote.start(*LOCAL, cwd=directory)
    until(lambda: len(steps(directory)) > 20)
    assert stop(driver, signal.SIGTERM) < IN_ORDER
    before = len(steps(directory))
    fired(20 < before < 150 and before)
    assert stored(directory, "SELECT * FROM measurement") == []
    [(kept,)] = stored(directory, "SELECT step FROM checkpoint")
    assert kept == before
    finish(zygote, directory, 1, [])
    assert [step for _, step, _ in steps(directory)] == list(range(1, 151))
    assert stored(directory, "SELECT value FROM measurement WHERE metric = 'taken'") == [(150.0,)]


@pytest.mark.fault("F06")
def test_three_seconds_between_sigterm_and_sigkill_lose_nothing_completed(
    zygote: Zygote, place: Place, fired: Fired
) -> None:
    directory = place(trials=4, steps=2)
    environment = faulty(directory, "store.commit:14:after=DELAY 60")
    driver = zygote.start(*LOCAL, cwd=directory, environment=environment)
    until(lambda: has_fired(directory))
    kept = completed(directory)
    assert kept
    driver.send(signal.SIGTERM)
    time.sleep(3)  # the fault itself: what `ray job stop` waits before it kills
    driver.send(signal.SIGKILL)
    fired(driver.wait() == -signal.SIGKILL)
    finish(zygote, directory, 4, kept)


@pytest.mark.fault("F06")
def test_a_driver_that_cannot_stop_in_order_leaves_in_time_all_the_same(
    zygote: Zygote, place: Place, fired: Fired
) -> None:
    directory = place(trials=2, steps=2, pause=60)
    driver = zygote.start(*LOCAL, cwd=directory, settings={"hpsearch.run.signals:LIMIT": 1.0})
    until(lambda: steps(directory))
    took = stop(driver, signal.SIGTERM)
    fired("not stopped in order within 1 s" in driver.err)
    assert took < 10
    assert zygote.run("show", "s", cwd=directory).out.startswith("study s: interrupted")


@pytest.mark.fault("F07")
@pytest.mark.parametrize("form", ["closed_form", "closed_form_program"])
def test_one_ctrl_c_is_a_sigterm_and_a_second_during_clean_up_leaves_at_once(
    zygote: Zygote, place: Place, fired: Fired, form: str
) -> None:
    directory = place(module=form, trials=3, pause=0.05)
    environment = faulty(directory, "cleanup.begin:1:before=DELAY 60")
    driver = zygote.start(*LOCAL, cwd=directory, environment=environment)
    until(lambda: steps(directory, 1))
    driver.send(signal.SIGINT)
    until(lambda: has_fired(directory))
    kept = completed(directory)
    sent = time.monotonic()
    driver.send(signal.SIGINT)
    assert driver.wait() == 130
    assert time.monotonic() - sent < 10, "it waited for the clean-up, or for the limit of all"
    fired("interrupted again: left at once" in driver.err)
    for _, _, pid in steps(directory, 1):
        until(lambda pid=pid: not Path(f"/proc/{pid}").exists(), 10)
    assert len(kept) >= 1
    finish(zygote, directory, 3, kept)


@pytest.mark.fault("F07")
def test_a_second_ctrl_c_is_heard_while_the_main_thread_waits_inside_of_a_library(
    zygote: Zygote, place: Place, fired: Fired
) -> None:
    directory = place(module="deaf", trials=1)
    (directory / "deaf.py").write_text(
        "import ctypes, os\n"
        "def train(params, context):\n"
        "    ledger = os.open(context.directory / 'ledger', os.O_WRONLY | os.O_CREAT)\n"
        "    os.write(ledger, b'1 1 1\\n')\n"
        "    while True:\n"
        "        ctypes.CDLL(None).poll(None, 0, 10_000)\n"
        "    yield\n"
    )
    driver = zygote.start(*LOCAL, cwd=directory)
    until(lambda: steps(directory))
    driver.send(signal.SIGINT)
    until(lambda: not is_pending(driver.pid, signal.SIGINT))
    sent = time.monotonic()
    driver.send(signal.SIGINT)
    assert driver.wait() == 130
    assert time.monotonic() - sent < 8
    fired("interrupted again" in driver.err)


@pytest.mark.fault("F08")
def test_a_terminal_that_goes_away_is_a_sigterm(zygote: Zygote, place: Place, fired: Fired) -> None:
    directory = place(trials=8, pause=0.02)
    master, slave = os.openpty()
    terminal = Path(os.ttyname(slave))
    environment = faulty(directory, "store.commit:20:before=DELAY 2")
    driver = zygote.start(*LOCAL, cwd=directory, out=terminal, err=terminal, environment=environment)
    until(lambda: has_fired(directory))
    os.close(slave)
    sent = time.monotonic()
    os.close(master)
    assert driver.wait() == 75
    assert time.monotonic() - sent < IN_ORDER
    assert ending(directory) == ("interrupted", "interrupted by SIGHUP")
    fired(ending(directory)[1].endswith("SIGHUP"))
    finish(zygote, directory, 8, completed(directory))


@pytest.mark.fault("F08")
def test_a_detached_driver_does_not_mind_a_lost_terminal(zygote: Zygote, place: Place, fired: Fired) -> None:
    directory = place(trials=3, pause=0.02)
    driver = zygote.start(*LOCAL, cwd=directory, ignored=(signal.SIGHUP,))
    until(lambda: steps(directory))
    driver.send(signal.SIGHUP)
    fired(driver.alive)
    assert driver.wait() == 0
    assert ending(directory)[0] == "completed"
