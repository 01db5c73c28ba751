"""A program that must stop is asked first, and whatever it started is gone when it is gone."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from program_run import (
    Slot,
    commands,
    follow,
    forks,
    is_alive,
    launch,
    slot,
    start_and_hear_first,
    wait_for,
)

from hpsearch.run.listener import Listener
from hpsearch.run.output import Output
from hpsearch.run.program import _Supervisor
from hpsearch.spec.model import Program
from hpsearch.train.reporter import Reporter

__all__ = ["commands", "forks", "slot"]
HERE = Path(__file__).parent


@contextlib.contextmanager
def within(least: float, most: float) -> Iterator[None]:
    before = time.monotonic()
    yield
    assert least <= time.monotonic() - before <= most


def pid_in(path: Path) -> int:
    return int(wait_for(path))


def left_on(directory: Path) -> list[int]:
    """The processes that a program noted, and those of them that are alive."""
    notes = [path for name in ("pid", "child", "daemon") if (path := directory / name).exists()]
    return [pid for note in notes if is_alive(pid := int(note.read_text()))]


def test_a_program_may_save_when_it_is_asked_to_stop(slot: Slot, tmp_path: Path) -> None:
    start_and_hear_first(slot, launch(tmp_path, "until_stopped", {"then": "save"}))
    with within(0.0, 3.0):
        slot.kill()
    assert (tmp_path / "saved").read_text() == "here"
    records = [json.loads(line) for line in (tmp_path / "output.metrics").read_text().splitlines()]
    assert records[-1]["saved"] == "1.0", "what it reported while it ended was heard"
    assert left_on(tmp_path) == []


def test_a_program_that_ignores_the_request_is_killed_after_the_grace(slot: Slot, tmp_path: Path) -> None:
    start_and_hear_first(slot, launch(tmp_path, "until_stopped", {"then": "ignore"}, grace=1.0))
    pid = pid_in(tmp_path / "pid")
    assert is_alive(pid)
    with within(1.0, 3.0):
        slot.kill()
    assert left_on(tmp_path) == []


def test_a_program_that_does_not_care_stops_at_once(slot: Slot, tmp_path: Path) -> None:
    start_and_hear_first(slot, launch(tmp_path, "until_stopped", grace=30.0))
    with within(0.0, 3.0):
        slot.kill()
    assert left_on(tmp_path) == []


def test_a_program_that_was_stopped_by_job_control_stops_too(slot: Slot, tmp_path: Path) -> None:
    start_and_hear_first(slot, launch(tmp_path, "until_stopped", {"then": "save"}, grace=30.0))
    os.kill(pid_in(tmp_path / "pid"), signal.SIGSTOP)
    with within(0.0, 5.0):
        slot.kill()
    assert (tmp_path / "saved").exists()


@pytest.mark.parametrize("steps", [0, 1])
def test_a_daemon_does_not_outlive_its_program(slot: Slot, tmp_path: Path, steps: int) -> None:
    given = launch(tmp_path, "until_stopped", {"steps": steps}, args=("--daemon",), grace=2.0)
    if steps:
        assert follow(slot, given).verdict == ("completed", "finished at step 1")
    else:
        start_and_hear_first(slot, given)
        assert is_alive(pid_in(tmp_path / "daemon"))
        slot.kill()
    assert pid_in(tmp_path / "daemon")
    assert left_on(tmp_path) == []


def test_a_childs_last_work_is_waited_for_when_its_parent_goes_at_once(slot: Slot, tmp_path: Path) -> None:
    script = tmp_path / "train.sh"
    script.write_text("#!/bin/sh\npython -m until_stopped --then=save &\nwait\n")
    script.chmod(0o755)
    program = Program(command=("./train.sh",), own_directory=True)
    start_and_hear_first(slot, launch(tmp_path, "", program=program))
    pid_in(tmp_path / "pid")
    slot.kill()
    assert (tmp_path / "saved").exists()
    assert left_on(tmp_path) == []


def test_a_program_over_its_time_is_stopped_the_same_way(slot: Slot, tmp_path: Path) -> None:
    given = launch(tmp_path, "until_stopped", {"then": "save"}, timeout=1.5)
    said = follow(slot, given)
    assert said.verdict == ("failed", "trialTimeout: not finished after 1.5 s")
    assert said.curve == [(1, {"loss": 1.0}), (9, {"saved": 1.0})]
    assert left_on(tmp_path) == []


def test_a_killed_program_is_a_lost_attempt_without_leftovers(slot: Slot, tmp_path: Path) -> None:
    given = launch(tmp_path, "until_stopped", args=("--daemon",))
    start_and_hear_first(slot, given)
    os.kill(pid_in(tmp_path / "pid"), signal.SIGKILL)
    deadline = time.monotonic() + 20
    while not (heard := slot.poll(1.0)).lost:
        assert time.monotonic() < deadline
    assert heard.lost == "its process was killed by signal 9 (SIGKILL)"
    assert left_on(tmp_path) == []


def test_nothing_outlives_a_killed_supervisor(slot: Slot, tmp_path: Path) -> None:
    slot.kill()
    bystander = subprocess.Popen(["sleep", "600"], start_new_session=True)
    try:
        start_and_hear_first(slot, launch(tmp_path, "leaves_a_family"))
        assert len(left_on(tmp_path)) == 3, "the fault was not injected"
        os.kill(slot._process.pid, signal.SIGKILL)
        deadline = time.monotonic() + 20
        while not (heard := slot.poll(1.0)).lost:
            assert time.monotonic() < deadline
        assert heard.lost == "its process was killed by signal 9 (SIGKILL)"
        assert left_on(tmp_path) == [], "the next attempt may start at once"
        slot.kill()
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_a_group_that_may_not_be_signalled_is_still_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(group: int, number: int) -> None:
        raise PermissionError("the program of another user")

    given, reporter = launch(tmp_path, "m"), Reporter(lambda _: True, "loss")
    listener = Listener(given, tmp_path / "output.metrics", reporter)
    supervisor = _Supervisor(given, listener, reporter, Output(tmp_path, 1 << 20))
    supervisor._status, supervisor._told = 0, True
    monkeypatch.setattr(os, "killpg", refuse)
    assert not supervisor._has_ended()
    listener.finish(set)


def test_a_trials_process_that_does_not_hear_is_killed_with_all_beneath_it(tmp_path: Path) -> None:
    slot = Slot(preload=(), execute="stubborn:execute")
    start_and_hear_first(slot, launch(tmp_path, "", grace=0.0))
    assert len(left_on(tmp_path)) == 2, "the fault was not injected"
    with within(0.5, 5.0):
        slot.kill()
    assert left_on(tmp_path) == []


@pytest.mark.parametrize("fork", [True, False])
def test_no_program_outlives_a_killed_owner_and_it_may_save_first(tmp_path: Path, fork: bool) -> None:
    script = tmp_path / "owner.py"
    script.write_text(
        f"import sys; sys.path.insert(0, {str(HERE)!r})\n"
        "from pathlib import Path\n"
        "from program_run import *\n"
        "if __name__ == '__main__':\n"
        f"    slot = Slot() if {fork} else Slot(preload=(), execute=EXECUTE_COMMAND)\n"
        f"    directory, args = Path({str(tmp_path)!r}), ('--then=save', '--daemon')\n"
        "    given = launch(directory, 'until_stopped', args=args)\n"
        "    start_and_hear_first(slot, given)\n"
        "    print('ready', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as owner:
        assert owner.stdout
        assert owner.stdout.readline() == b"ready\n"
        pid_in(tmp_path / "pid")
        os.kill(owner.pid, signal.SIGKILL)
    wait_for(tmp_path / "saved")
    deadline = time.monotonic() + 10
    while left_on(tmp_path):
        assert time.monotonic() < deadline, left_on(tmp_path)
        time.sleep(0.02)


def test_a_signal_to_the_supervisor_alone_loses_the_attempt(slot: Slot, tmp_path: Path) -> None:
    start_and_hear_first(slot, launch(tmp_path, "until_stopped", {"then": "save"}))
    pid_in(tmp_path / "pid")
    os.kill(slot._process.pid, signal.SIGTERM)
    deadline = time.monotonic() + 20
    while not (heard := slot.poll(1.0)).lost:
        assert time.monotonic() < deadline
    assert heard.lost == "its process was killed by signal 15 (SIGTERM)"
    assert (tmp_path / "saved").exists()


def test_a_program_stops_at_whatever_moment_of_its_start(forks: Slot, tmp_path: Path) -> None:
    for moment in range(40):
        given = launch(tmp_path / str(moment), "until_stopped", grace=30.0)
        forks.start(given)
        forks.poll(moment * 0.002)
        with within(0.0, 5.0):
            forks.kill()
        assert left_on(given.context.directory) == []


def test_a_module_of_ours_still_stops_at_once(forks: Slot, tmp_path: Path) -> None:
    (tmp_path / "ours.py").write_text(
        "import time\n"
        "from hpsearch.train.learner import Measurement\n"
        "def train(params, context):\n"
        "    yield Measurement(1, {'loss': 1.0})\n"
        "    time.sleep(600)\n"
    )
    start_and_hear_first(forks, launch(tmp_path / "t", "ours", grace=30.0, python_path=(str(tmp_path),)))
    with within(0.0, 5.0):
        forks.kill()


def test_a_program_hears_a_terminals_interrupt_as_any_program(slot: Slot, tmp_path: Path) -> None:
    (tmp_path / "asks.py").write_text(
        "import signal, sys, os, hypertune\n"
        "same = signal.getsignal(signal.SIGINT) is signal.default_int_handler\n"
        "same = same and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL and not sys.stdin.read()\n"
        "same = same and os.getpgid(0) == os.getpid()\n"
        "hypertune.HyperTune().report_hyperparameter_tuning_metric('loss', same)\n"
        "os.kill(os.getpid(), signal.SIGINT)\n"
    )
    said = follow(slot, launch(tmp_path / "t", "asks", python_path=(str(tmp_path),)))
    assert said.curve == [(0, {"loss": 1.0})]
    assert "KeyboardInterrupt" in (tmp_path / "t" / "output.log").read_text()


def test_nothing_is_left_open_that_a_program_did_not_open(slot: Slot, tmp_path: Path) -> None:
    (tmp_path / "lists.py").write_text(
        "import os, hypertune\n"
        "numbers = sorted(map(int, os.listdir('/proc/self/fd')))[:-1]\n"
        "found = [os.readlink(f'/proc/self/fd/{n}') for n in numbers]\n"
        "print(found)\n"
        "hypertune.HyperTune().report_hyperparameter_tuning_metric('loss', len(found))\n"
    )
    said = follow(slot, launch(tmp_path / "t", "lists", python_path=(str(tmp_path),)))
    null, out, errors = json.loads((tmp_path / "t/output.log").read_text().replace("'", '"'))
    assert null == "/dev/null"
    assert out == errors
    assert out.startswith("pipe:")
    assert said.curve == [(0, {"loss": 3.0})]


def test_a_supervisor_waits_without_working(forks: Slot, tmp_path: Path) -> None:
    start_and_hear_first(forks, launch(tmp_path, "until_stopped"))
    ticks = os.sysconf("SC_CLK_TCK")

    def worked() -> float:
        stat = Path(f"/proc/{forks._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(stat[11]) + int(stat[12])) / ticks

    before = worked()
    select.select([], [], [], 1.0)
    assert worked() - before < 0.1
    forks.kill()
