"""Readers that are gone, stopped or slow: a study goes on, and what it could not say is counted."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from watching import LOCAL, ending, steps, stored, until
from zygote import Zygote

pytestmark = [pytest.mark.timeout(180), pytest.mark.fault("F09")]

Place = Callable[..., Path]
Fired = Callable[..., None]
TRIALS = 3


class Pipe:
    """A pipe by name, both ends of it held here; `fill` leaves no room in it."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = path
        self.descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        fcntl.fcntl(self.descriptor, fcntl.F_SETPIPE_SZ, 4096)

    def fill(self) -> int:
        filled = 0
        try:
            while True:
                filled += os.write(self.descriptor, b"." * 512)
        except BlockingIOError:
            return filled

    def take(self) -> bytes:
        try:
            return os.read(self.descriptor, 1 << 16)
        except BlockingIOError:
            return b""


@contextmanager
def pipe(path: Path) -> Iterator[Pipe]:
    made = Pipe(path)
    try:
        yield made
    finally:
        os.close(made.descriptor)


def assert_whole(directory: Path) -> None:
    assert ending(directory)[0] == "completed"
    assert stored(directory, "SELECT count(*) FROM ending WHERE state = 'completed'") == [(TRIALS,)]
    assert stored(directory, "SELECT count(*) FROM measurement WHERE metric = 'loss'") == [(TRIALS * 8,)]


def test_a_run_does_not_wait_for_a_pipe_that_nobody_reads(zygote: Zygote, place: Place, fired: Fired) -> None:
    directory = place(trials=TRIALS)
    with pipe(directory / "out") as out:
        fired(out.fill())
        driver = zygote.start(*LOCAL, cwd=directory, out=out.path)
        assert driver.wait() == 0
        assert set(out.take()) == set(b"."), "there was room for what it said"
    assert_whole(directory)
    assert "of output dropped, which nobody read" in driver.err


def test_a_run_does_not_wait_for_a_reader_that_was_stopped(
    zygote: Zygote, place: Place, fired: Fired
) -> None:
    directory = place(trials=TRIALS)
    with pipe(directory / "out") as out, (directory / "out").open("rb") as end:
        reader = subprocess.Popen(["cat"], stdin=end, stdout=subprocess.DEVNULL)
        reader.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, reader.pid, os.WSTOPPED)
        fired(out.fill())
        assert zygote.start(*LOCAL, cwd=directory, out=out.path).wait() == 0
        reader.kill()
        reader.wait()
    assert_whole(directory)


def test_a_run_does_not_wait_for_errors_that_nobody_reads(zygote: Zygote, place: Place, fired: Fired) -> None:
    directory = place(trials=TRIALS)
    with pipe(directory / "err") as err:
        fired(err.fill())
        down = ("--tracking-uri", "http://127.0.0.1:1")  # which is warned of
        assert zygote.start(*LOCAL, *down, cwd=directory, err=err.path).wait() == 0
        said = err.take()
    assert set(said) == set(b".")
    assert_whole(directory)


def test_a_run_outlives_a_reader_that_wanted_one_line(zygote: Zygote, place: Place, fired: Fired) -> None:
    directory = place(trials=TRIALS, pause=0.01)
    os.mkfifo(directory / "out")
    driver_starts = subprocess.Popen(["head", "-1", "out"], cwd=directory, stdout=subprocess.PIPE, text=True)
    driver = zygote.start(*LOCAL, cwd=directory, out=directory / "out")
    line, _ = driver_starts.communicate(timeout=60)
    fired(driver.alive)
    assert line.startswith("study s: ")
    assert driver.wait() == 0
    assert_whole(directory)


def test_a_run_without_standard_streams_puts_nothing_into_its_files(
    zygote: Zygote, place: Place, fired: Fired
) -> None:
    directory = place(trials=TRIALS)
    driver = zygote.start(*LOCAL, cwd=directory, closed=(0, 1, 2))
    until(lambda: steps(directory))
    if driver.alive:  # a fast one may have ended
        links = {Path(f"/proc/{driver.pid}/fd/{n}").readlink() for n in (0, 1, 2)}
        assert links == {Path("/dev/null")}
    assert driver.wait() == 0
    fired(driver.out == driver.err == "" and "closed")
    assert_whole(directory)


@pytest.mark.parametrize("stream", ["out", "err"])
def test_a_run_on_a_full_disk_goes_on_and_says_what_it_could_not_write(
    zygote: Zygote, place: Place, fired: Fired, stream: str
) -> None:
    directory = place(trials=TRIALS)
    streams = {stream: Path("/dev/full")}
    down = ("--tracking-uri", "http://127.0.0.1:1")
    driver = zygote.start(*LOCAL, *down, cwd=directory, **streams)  # type: ignore[arg-type]
    assert driver.wait() == 0
    assert_whole(directory)
    said = driver.err if stream == "out" else driver.out
    fired(said)
    if stream == "out":
        assert "of output dropped: No space left on device" in said


@pytest.mark.parametrize("json_wanted", [True, False])
def test_a_question_whose_answer_cannot_be_written_is_no_success(
    zygote: Zygote, place: Place, fired: Fired, json_wanted: bool
) -> None:
    directory = place(trials=1, steps=1)
    zygote.run(*LOCAL, cwd=directory)
    words = ("trials", "s", *(["--json"] if json_wanted else []))
    driver = zygote.run(*words, cwd=directory, code=75, out=Path("/dev/full"))
    assert driver.err == "error: the answer could not be written: No space left on device\n"
    fired(driver.err)
    with pipe(directory / "out") as out:
        os.close(os.open(out.path, os.O_RDONLY | os.O_NONBLOCK))
    # A reader that has seen enough: nobody has it open any more when it is written to.
    gone = subprocess.Popen(["true"], stdin=subprocess.PIPE)
    gone.wait()
    assert gone.stdin
    target = Path(f"/proc/{os.getpid()}/fd/{gone.stdin.fileno()}")
    zygote.run(*words, cwd=directory, out=target)
    gone.stdin.close()


@pytest.mark.parametrize("words", [LOCAL, ("trials", "s")])
def test_a_json_answer_is_whole_when_its_reader_is_late(
    zygote: Zygote, place: Place, fired: Fired, words: tuple[str, ...]
) -> None:
    directory = place(trials=TRIALS)
    if words != LOCAL:
        zygote.run(*LOCAL, cwd=directory)
    with pipe(directory / "out") as out:
        filled = out.fill()
        driver = zygote.start(*words, "--json", cwd=directory, out=out.path)
        # Asleep in its write, or in the wait for it, after all else is done.
        until(lambda: (directory / "studies/s/study.db").exists() and _is_ended(directory))
        assert driver.alive
        fired(filled)
        said = b""
        while driver.alive:
            said += out.take()
        said += out.take()
        assert driver.wait() == 0
    answer = json.loads(said.lstrip(b"."))
    assert answer["study"] == "s"


def _is_ended(directory: Path) -> bool:
    try:
        return bool(stored(directory, "SELECT * FROM study_ending"))
    except Exception:  # the tables are being made
        return False
