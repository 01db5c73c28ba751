"""Trials that die, leave, multiply or refuse to go: the attempt's end is told, and nothing is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from multiprocessing import forkserver
from pathlib import Path

import pytest
from bad_trials import (
    FORMS,
    HERE,
    Fired,
    Slot,
    follow,
    launch,
    left_of,
    noted,
    slot,
    start_and_hear_first,
    state_of,
    wait_until,
    works,
)

from hpsearch.study.trial import Cause, State

__all__ = ["slot"]
forms = pytest.mark.parametrize("form", FORMS)


def gone(directory: Path) -> None:
    wait_until(lambda: not left_of(directory), f"still there: {left_of(directory)}")


@pytest.mark.fault("F15")
@forms
def test_a_killed_trial_is_a_lost_attempt_and_the_next_goes_on(
    slot: Slot, tmp_path: Path, form: str, fired: Fired
) -> None:
    said = follow(slot, launch(tmp_path / "t", "killed", form))
    fired(said.lost == "its process was killed by signal 9 (SIGKILL)")
    assert said.cause is Cause.CRASHED
    assert [m.step for m in said.measurements] == [100]
    assert not left_of(tmp_path / "t")
    again = follow(slot, launch(tmp_path / "t", "killed", form, attempt=2))
    assert again.ending.state is State.COMPLETED


@pytest.mark.fault("F16")
@forms
def test_a_segmentation_fault_is_told_by_its_number(
    slot: Slot, tmp_path: Path, form: str, fired: Fired
) -> None:
    said = follow(slot, launch(tmp_path / "t", "segfault", form))
    fired(said.lost)
    assert (said.lost, said.cause) == ("its process was killed by signal 11 (SIGSEGV)", Cause.CRASHED)
    works(slot, tmp_path / "next")


@pytest.mark.fault("F17")
@forms
def test_an_exit_without_a_metric_is_a_failure(slot: Slot, tmp_path: Path, form: str, fired: Fired) -> None:
    said = follow(slot, launch(tmp_path / "t", "exits_zero", form))
    fired("all is well" in (tmp_path / "t/output.log").read_text())
    assert said.ending.state is State.FAILED
    reason = {
        "module": "its process exited with code 0 before the trial was finished: all is well",
        "program": "metric tag loss never reported; tags seen: none",
    }[form]
    assert said.ending.reason.startswith(reason)


@pytest.mark.fault("F18")
@forms
@pytest.mark.parametrize(
    ("kind", "reasons"),
    [
        ("exits_three", ("exited with code 3 before the trial was finished: line 59", "code 3: line 59")),
        ("raises", ("ValueError: no good (misbehaving.py:", "code 1: ValueError: no good")),
        ("system_exit", ("SystemExit: gave up (misbehaving.py:", "code 1: gave up")),
        ("own_exception", ("Strange: (its message cannot be shown) (misb", "code 1:")),
        ("recursion", ("RecursionError: maximum recursion depth", "RecursionError: maximum recursion depth")),
    ],
)
def test_a_failure_tells_its_type_and_keeps_the_last_lines(
    slot: Slot, tmp_path: Path, form: str, kind: str, reasons: tuple[str, str], fired: Fired
) -> None:
    said = follow(slot, launch(tmp_path / "t", kind, form))
    assert said.ending.state is State.FAILED
    fired(reasons[FORMS.index(form)] in said.ending.reason)
    last = (tmp_path / "t/last-lines.txt").read_text().splitlines()
    assert last == (tmp_path / "t/output.log").read_text().splitlines()[-50:]
    if kind == "exits_three":
        assert last == [f"line {number}" for number in range(10, 60)]


@pytest.mark.fault("F21")
@forms
def test_a_trial_that_ignores_the_request_to_end_is_killed_with_its_group(
    slot: Slot, tmp_path: Path, form: str, fired: Fired
) -> None:
    start_and_hear_first(slot, launch(tmp_path / "t", "ignores_term", form))
    for pid in noted(tmp_path / "t"):
        os.kill(pid, signal.SIGTERM)
    fired(len(left_of(tmp_path / "t")) == 2)
    slot.kill()
    assert not left_of(tmp_path / "t")


@pytest.mark.fault("F22")
@forms
def test_a_fork_bomb_is_held_and_its_neighbour_unharmed(
    slot: Slot, tmp_path: Path, form: str, fired: Fired
) -> None:
    neighbour = Slot(preload=(), execute="daemonic:execute")
    start_and_hear_first(neighbour, launch(tmp_path / "n", ""))
    said = follow(slot, launch(tmp_path / "t", "bomb", form, processes=50))
    fired(len(noted(tmp_path / "t")) > 50)
    assert said.ending.state is State.FAILED
    assert said.ending.reason.startswith("maxProcesses: it had ")
    assert said.ending.reason.endswith(" processes at once, 50 are allowed")
    gone(tmp_path / "t")
    assert len(left_of(tmp_path / "n")) == 3
    assert neighbour.poll(0.1).lost is None
    neighbour.kill()
    gone(tmp_path / "n")


@pytest.mark.fault("F23")
@forms
def test_daemons_are_gone_with_their_trial(slot: Slot, tmp_path: Path, form: str, fired: Fired) -> None:
    assert follow(slot, launch(tmp_path / "t", "daemons", form)).ending.state is State.COMPLETED
    # A program's supervisor has ended what it left by now.
    fired(len(noted(tmp_path / "t")) == 4 and (form == "program" or len(left_of(tmp_path / "t")) > 2))
    slot.kill()
    assert not left_of(tmp_path / "t")


@pytest.mark.fault("F23")
@pytest.mark.parametrize("victim", ["owner", "server", "trial"])
def test_daemons_are_gone_whoever_is_killed(tmp_path: Path, victim: str, fired: Fired) -> None:
    script = tmp_path / "owner.py"
    script.write_text(
        f"import sys; sys.path[:0] = [{HERE!r}]\n"
        "from multiprocessing import forkserver\n"
        "from pathlib import Path\n"
        "from bad_trials import Slot, launch, start_and_hear_first\n"
        "if __name__ == '__main__':\n"
        "    slot = Slot(preload=['hpsearch.run.child', 'daemonic'], execute='daemonic:execute')\n"
        f"    start_and_hear_first(slot, launch(Path({str(tmp_path / 't')!r}), ''))\n"
        "    print(forkserver._forkserver._forkserver_pid, slot._process.pid, flush=True)\n"
        "    while not slot.poll(0.2).lost: pass\n"
        "    print('lost', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout
        server, trial = (int(pid) for pid in owner.stdout.readline().split())
        fired(len(left_of(tmp_path / "t")) == 3)
        os.kill({"owner": owner.pid, "server": server, "trial": trial}[victim], signal.SIGKILL)
        if victim != "owner":
            assert owner.stdout.readline() == "lost\n"
            # What a dead server has left is for the system to bury.
            assert not left_of(tmp_path / "t", gone="Z"), "the next attempt may start now"
        wait_until(lambda: not left_of(tmp_path / "t", gone="Z"), "they are still there")
        owner.kill()
    wait_until(lambda: not state_of(server), "the server is still there")


@pytest.mark.fault("F24")
@forms
def test_no_zombie_is_left(slot: Slot, tmp_path: Path, form: str, fired: Fired) -> None:
    assert follow(slot, launch(tmp_path / "t", "zombies", form)).ending.state is State.COMPLETED
    fired((tmp_path / "t/undead").read_text() == "20")
    slot.kill()
    gone(tmp_path / "t")
    server = forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]
    assert state_of(server) in "SR"


@pytest.mark.fault("F35")
def test_nothing_of_a_trial_is_found_by_the_next(slot: Slot, tmp_path: Path, fired: Fired) -> None:
    found = [follow(slot, launch(tmp_path / name, "counts_trials")).measurements[0] for name in ("a", "b")]
    fired(len(found) == 2)
    assert found[0].metrics["loss"] == found[1].metrics["loss"] == 1.0
    assert found[0].metrics["drawn"] == found[1].metrics["drawn"], "its random numbers are its own"
