"""The status file: whole at every moment, for its owner's eyes, and told dead when its driver is."""

from __future__ import annotations

import json
import logging
import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from hpsearch.errors import UsageError
from hpsearch.ship import status_file
from hpsearch.ship.status_file import LEASE, RUNNING, StatusFile, is_dead, read

NOON = 1_769_860_800.0


def test_it_says_running_at_once_and_how_it_ended_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "tick.json"
    with StatusFile(path, clock=lambda: NOON) as status:
        begun = json.loads(path.read_text())
        status.end("completed", 0, "every trial is done", {"study": "n-1", "counts": {"completed": 2}})
    ended = json.loads(path.read_text())
    assert begun["outcome"] == RUNNING
    assert (begun["exit_code"], begun["ended"], begun["pid"]) == (None, None, os.getpid())
    assert begun["started"] == "2026-01-31T12:00:00Z"
    assert (ended["outcome"], ended["exit_code"], ended["study"]) == ("completed", 0, "n-1")
    assert ended["ended"] == "2026-01-31T12:00:00Z"
    # Scripts find the code without a JSON parser: a line of its own.
    assert '\n  "exit_code": 0,\n' in path.read_text()


def test_only_its_owner_reads_it_and_nothing_else_is_left_behind(tmp_path: Path) -> None:
    earlier = os.umask(0)
    try:
        with StatusFile(tmp_path / "tick.json") as status:
            status.end("failed", 3, None, {})
    finally:
        os.umask(earlier)
    assert stat.S_IMODE((tmp_path / "tick.json").stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["tick.json"]


def test_a_reader_never_sees_a_half_of_it(tmp_path: Path) -> None:
    path, seen, done = tmp_path / "tick.json", 0, threading.Event()
    with StatusFile(path) as status:

        def write() -> None:
            for number in range(40):
                status.tell({"counts": {"completed": number}, "best": {"params": {"x" * 200: number}}})
                status._try()
            done.set()

        writer = threading.Thread(target=write)
        writer.start()
        while not done.is_set():
            assert read(path) is not None
            seen += 1
        writer.join()
    assert seen > 10


def test_it_is_renewed_while_nothing_happens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status_file, "RENEWAL", 0.01)
    times = iter(range(10_000))
    renewed = threading.Event()

    def clock() -> float:
        now = NOON + next(times)
        if now > NOON + 4:
            renewed.set()
        return now

    with StatusFile(tmp_path / "tick.json", clock=clock):
        first = read(tmp_path / "tick.json")
        assert renewed.wait(10)
    last = read(tmp_path / "tick.json")
    assert first and last
    assert last["renewed"] > first["renewed"]
    assert last["outcome"] == RUNNING


def test_a_killed_driver_leaves_running_and_is_told_dead_at_once_here(tmp_path: Path) -> None:
    path = tmp_path / "tick.json"
    code = (
        "import sys, time; from pathlib import Path; from hpsearch.ship.status_file import StatusFile\n"
        "with StatusFile(Path(sys.argv[1])):\n  print('up', flush=True); time.sleep(60)"
    )
    driver = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True)
    assert driver.stdout
    assert driver.stdout.readline() == "up\n"
    facts = read(path)
    assert facts
    now = NOON * 2  # its own clock says otherwise: what is asked here is the process
    renewed = facts | {"renewed": "2096-01-31T12:00:00Z"}
    assert not is_dead(renewed, 0.0)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    driver.stdout.close()
    after = read(path)
    assert after
    assert after["outcome"] == RUNNING
    assert is_dead(after | {"renewed": "2096-01-31T12:00:00Z"}, now)


@pytest.mark.parametrize(("late", "dead"), [(LEASE - 1, False), (LEASE + 1, True)])
def test_a_driver_elsewhere_is_dead_when_its_lease_is_over(tmp_path: Path, late: float, dead: bool) -> None:
    with StatusFile(tmp_path / "tick.json", clock=lambda: NOON):
        pass
    facts = read(tmp_path / "tick.json")
    assert facts
    elsewhere = facts | {"owner": "another-boot/1 1 1", "host": "elsewhere"}
    assert is_dead(elsewhere, NOON + late) is dead


def test_a_file_that_another_driver_keeps_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "tick.json"
    with StatusFile(path) as status:
        status.tell({"study": "theirs"})
    facts = read(path)
    assert facts
    path.write_text(json.dumps(facts | {"owner": "another-boot/1 1 1", "host": "elsewhere"}))
    with pytest.raises(UsageError, match="which runs"), StatusFile(path):
        pass
    assert json.loads(path.read_text())["host"] == "elsewhere"


@pytest.mark.parametrize("text", ["", "{", "[]", '"x"', '{"outcome": "running"}', "\udc80"])
def test_what_is_no_status_file_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "tick.json").write_bytes(text.encode(errors="surrogateescape"))
    assert read(tmp_path / "tick.json") is None
    assert read(tmp_path / "nowhere") is None


def test_a_place_that_cannot_be_written_is_refused_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot write the status file") as refused:
        StatusFile(tmp_path / "nowhere" / "tick.json").__enter__()
    assert "--status-file" in refused.value.hint


def test_trouble_later_is_told_once_and_ends_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = tmp_path / "place"
    place.mkdir()
    with caplog.at_level(logging.WARNING), StatusFile(place / "tick.json") as status:
        (place / "tick.json").unlink()
        place.rmdir()
        status._try()
        status.end("completed", 0, None, {})
    assert [record.message for record in caplog.records] == [
        f"the status file {place / 'tick.json'} cannot be written: No such file or directory"
    ]
