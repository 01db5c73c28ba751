"""A disk that is full, read-only or failing under the store: nothing acknowledged is lost or doubled."""

from __future__ import annotations

import errno
import functools
import hashlib
import logging
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import alone
import pytest

from hpsearch import faults, sweep
from hpsearch.errors import Interrupted, StoreFull, UsageError
from hpsearch.study.full import is_full
from hpsearch.study.home import Home
from hpsearch.study.journal import Waiting
from hpsearch.study.trial import Checkpoint
from hpsearch.train.checkpoint import Writer

Fired = Callable[..., None]
Reference = tuple[list[tuple[object, ...]], dict[str, int]]
ROOT = os.geteuid() == 0


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody tells MLflow, and a full disk is looked at again at once."""
    monkeypatch.setattr(sweep, "following", alone.unheard)
    monkeypatch.setattr(sweep, "Waiting", functools.partial(Waiting, look=0.0, patience=30.0))


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    """An uninterrupted study's table, and how often it passes each point."""
    directory = tmp_path_factory.mktemp("reference")
    with pytest.MonkeyPatch.context() as patch, faults.watched(lambda *_: None) as counts:
        patch.setattr(sweep, "following", alone.unheard)
        alone.play(alone.lay(directory), directory / "home")
        seen = dict(counts)
    return alone.table(directory / "home"), seen


@pytest.fixture
def fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Path]]:
    """Arms a fault in this process; gives the file with a line for each time that it fired."""
    fired = tmp_path / "fired"

    def arm(text: str) -> Path:
        monkeypatch.setattr(faults._board, "faults", faults.parse(text))
        monkeypatch.setattr(faults._board, "fired", str(fired))
        faults._board.counts.clear()
        fired.unlink(missing_ok=True)
        return fired

    yield arm
    faults._board.counts.clear()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB of its own."""
    if not ROOT:
        pytest.skip(
            "mounting a small file system needs root: the tests with failpoints are its rootless twins"
        )
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,mode=0700", "tmpfs", place], check=True)
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def fill(place: Path) -> Path:
    """Take what is left of a disk."""
    filler = place / "filler"
    with filler.open("ab", buffering=0) as file:
        for size in (1 << 16, 1 << 12, 1):
            try:
                while file.write(b"x" * size):
                    pass
            except OSError as error:
                assert error.errno == errno.ENOSPC
    return filler


# -- ENOSPC at every N-th write -------------------------------------------------------------------------


@pytest.mark.fault("F36")
@pytest.mark.parametrize("point", ["store.begin", "store.commit"])
def test_a_disk_that_is_full_for_a_moment_at_any_write_changes_nothing(
    tmp_path: Path, reference: Reference, fault: Callable[[str], Path], point: str, fired: Fired
) -> None:
    table, counts = reference
    file = alone.lay(tmp_path)
    assert counts[point] > 10, "too few writes to test anything"
    for number in range(1, counts[point] + 1):
        # After it the commit has happened, which only reading back tells.
        for phase in ("before", "after")[: 1 + (number % 3 == 1)]:
            home = tmp_path / f"{number}-{phase}"
            told = fault(f"{point}:{number}:{phase}=RAISE ENOSPC")
            if number == 1:
                # Nothing runs yet: taking the study is refused, and the next start goes on.
                with pytest.raises(StoreFull):
                    alone.play(file, home)
            alone.play(file, home)
            fired(told.read_text().count("ENOSPC") == 1)
            assert alone.table(home) == table, f"{point} {number} {phase}"
            shutil.rmtree(home)


@pytest.mark.fault("F36")
@pytest.mark.parametrize("code", ["ENOSPC", "EROFS"])
def test_a_disk_that_stays_full_ends_the_study_with_75_and_the_next_start_goes_on(
    tmp_path: Path,
    reference: Reference,
    fault: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    code: str,
    fired: Fired,
) -> None:
    table, counts = reference
    monkeypatch.setattr(sweep, "Waiting", functools.partial(Waiting, look=0.01, patience=0.05))
    file = alone.lay(tmp_path)
    for number in range(2, counts["store.commit"] + 1, 3 if code == "ENOSPC" else 8):
        home = tmp_path / f"{number}"
        told = fault(f"store.commit:{number}+:before=RAISE {code}")
        caplog.clear()
        with pytest.raises(StoreFull) as ended:
            alone.play(file, home)
        assert ended.value.exit_code == 75
        fired(told.read_text().count(code) > 1)
        [pause] = [r.getMessage() for r in caplog.records if "nothing new starts" in r.getMessage()]
        assert "for 0.05 s at most; free some space" in pause, "it waits once, and says for how long"
        acknowledged = set(alone.table(home))
        fault("store.commit:99999:before=KILL")
        alone.play(file, home)
        assert acknowledged <= set(alone.table(home))
        assert alone.table(home) == table


class Filling(alone.Quiet):
    """Fills the disk when the study's first trial has ended."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.filler: Path | None = None

    def committed(self, entries: object) -> None:
        kinds = [type(entry.fact).__name__ for entry in entries]  # type: ignore[attr-defined]
        if "Ending" in kinds and self.filler is None:
            self.filler = fill(self.place)


@pytest.mark.fault("F36")
def test_a_small_disk_that_is_full_pauses_the_study_until_it_is_enlarged(
    tmp_path: Path,
    small_disk: Path,
    reference: Reference,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    fired: Fired,
) -> None:
    file = alone.lay(tmp_path)
    enlarged: list[bool] = []

    def wait(seconds: float) -> None:
        if not enlarged:
            enlarged.append(True)
            subprocess.run(["mount", "-o", "remount,size=8m", small_disk], check=True)

    monkeypatch.setattr(sweep, "Waiting", functools.partial(Waiting, look=0.01, patience=60.0, sleep=wait))
    file.write_text(alone.TEXT.replace("maxTrials: 3", "maxTrials: 40"))
    history = alone.play(file, small_disk / "home", watcher=Filling(small_disk))
    fired(enlarged)
    said = [record.getMessage() for record in caplog.records]
    assert any("database or disk is full; nothing new starts" in line for line in said)
    assert any(line.startswith("the store takes writes again") for line in said)
    assert len(history.trials) == 40
    assert all(trial.ending for trial in history.trials)
    with sqlite3.connect(small_disk / "home/s/study.db") as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


def test_whoever_wants_it_to_stop_ends_the_wait_at_once() -> None:
    now = [0.0]
    wanted: list[bool] = []

    def sleep(seconds: float) -> None:
        now[0] += seconds
        if now[0] > 5:
            wanted.append(True)

    waiting = Waiting(patience=300, unwanted=lambda: wanted, clock=lambda: now[0], sleep=sleep)
    while waiting.another_look(300):
        pass
    assert 5 < now[0] < 5.5


def test_patience_is_bounded_by_the_clock() -> None:
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    waiting = Waiting(patience=300, clock=lambda: now[0], sleep=sleep)
    looks = 0
    while waiting.another_look(300):
        looks += 1
    assert 290 <= looks <= 310
    assert now[0] == pytest.approx(300, abs=1)


# -- EIO: never acknowledged, never repeated ------------------------------------------------------------


@pytest.mark.fault("F38")
@pytest.mark.parametrize("phase", ["before", "after"])
def test_a_commit_that_raised_is_not_repeated_and_read_again_at_the_next_start(
    tmp_path: Path, reference: Reference, fault: Callable[[str], Path], phase: str, fired: Fired
) -> None:
    table, counts = reference
    file = alone.lay(tmp_path)
    for number in range(2, counts["store.commit"] + 1, 4):
        home = tmp_path / f"{number}"
        told = fault(f"store.commit:{number}:{phase}=RAISE EIO")
        with pytest.raises(Interrupted) as ended:
            alone.play(file, home)
        assert (ended.value.exit_code, isinstance(ended.value, StoreFull)) == (75, False)
        fired(told.read_text().count("EIO") == 1)
        assert faults._board.counts["store.commit"] == number, "something was written after it"
        before = set(alone.table(home))
        alone.play(file, home)
        assert before <= set(alone.table(home)), "a commit that was there is kept"
        assert alone.table(home) == table


@pytest.mark.fault("F38")
def test_a_sync_that_fails_for_real_means_75_and_nothing_is_doubled(
    tmp_path: Path, reference: Reference, fired: Fired
) -> None:
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed: see the test with failpoints, its twin without")
    file = alone.lay(tmp_path)
    home, log = tmp_path / "home", tmp_path / "strace.log"
    inject = "inject=fdatasync:error=EIO:when=6"
    command = [strace, "-f", "-qq", "-e", "trace=fdatasync", "-e", inject, "-o", str(log)]
    command += ["-P", str(home / "s/study.db-wal")]
    command += [sys.executable, alone.__file__, str(file), str(home)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if not log.exists() or "ptrace" in done.stderr:
        pytest.skip(f"strace may not trace here ({done.stderr.strip()[:100]}): see the twin without it")
    fired("(INJECTED)" in log.read_text())
    assert done.returncode == 75, done.stderr
    assert "refused a write: (sqlite3.OperationalError) disk I/O error" in done.stderr or (
        "disk I/O error" in done.stderr
    )
    alone.play(file, home)
    assert alone.table(home) == reference[0]


# -- read-only ------------------------------------------------------------------------------------------


@pytest.mark.fault("F39")
@pytest.mark.parametrize("what", ["home", "study"])
def test_a_read_only_disk_is_one_clear_error_within_a_second(
    tmp_path: Path, small_disk: Path, what: str, fired: Fired
) -> None:
    file = alone.lay(tmp_path)
    if what == "study":
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sweep, "_execute", lambda *_: None)
            alone.play(file, small_disk / "home")
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    fired(os.statvfs(small_disk).f_flag & os.ST_RDONLY)
    began = time.monotonic()
    with pytest.raises((UsageError, Interrupted)) as refused:
        alone.play(file, small_disk / "home")
    assert time.monotonic() - began < 1
    assert refused.value.exit_code in (2, 75)
    assert "Read-only file system" in refused.value.message or "readonly" in refused.value.message
    assert str(small_disk) in refused.value.message


@pytest.mark.fault("F39")
def test_a_disk_that_becomes_read_only_under_a_study_is_waited_for(
    tmp_path: Path,
    reference: Reference,
    fault: Callable[[str], Path],
    caplog: pytest.LogCaptureFixture,
    fired: Fired,
) -> None:
    told = fault("store.commit:5:before=RAISE EROFS")
    alone.play(alone.lay(tmp_path), tmp_path / "home")
    fired("EROFS" in told.read_text())
    assert any("Read-only file system" in record.getMessage() for record in caplog.records)
    assert alone.table(tmp_path / "home") == reference[0]


def test_what_is_no_room_and_what_may_have_happened_are_told_apart(tmp_path: Path) -> None:
    def by_sqlite(code: int) -> object:
        return SimpleNamespace(orig=SimpleNamespace(sqlite_errorcode=code))

    for number in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
        assert is_full(OSError(number, ""), tmp_path)
    for code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR_SHMSIZE):
        assert is_full(by_sqlite(code), tmp_path)  # type: ignore[arg-type]
    for code in (sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_CORRUPT):
        assert not is_full(by_sqlite(code), tmp_path)  # type: ignore[arg-type]
    assert not is_full(OSError(errno.EIO, ""), tmp_path)
    assert is_full(SimpleNamespace(orig=SimpleNamespace(sqlstate="53100")), tmp_path)  # type: ignore[arg-type]
    assert not is_full(SimpleNamespace(orig=SimpleNamespace(sqlstate="08006")), tmp_path)  # type: ignore[arg-type]


def test_a_write_that_fails_on_a_disk_made_read_only_is_no_room(small_disk: Path) -> None:
    error = SimpleNamespace(orig=SimpleNamespace(sqlite_errorcode=sqlite3.SQLITE_IOERR_WRITE))
    assert not is_full(error, small_disk)  # type: ignore[arg-type]
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    assert is_full(error, small_disk)  # type: ignore[arg-type]


# -- homes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["a file", "below a file", "a full disk", "not ours"])
def test_a_home_that_cannot_be_used_is_one_clear_error(
    tmp_path: Path, what: str, request: pytest.FixtureRequest
) -> None:
    file = alone.lay(tmp_path)
    home = tmp_path / "home"
    if what == "a file":
        home.write_text("")
    elif what == "below a file":
        (tmp_path / "plain").write_text("")
        home = tmp_path / "plain/home"
    elif what == "a full disk":
        disk: Path = request.getfixturevalue("small_disk")
        fill(disk)
        home = disk / "home"
    else:
        if ROOT:
            pytest.skip("root may write everywhere: as another user this is tested with a real directory")
        home.mkdir(mode=0o500)
    with pytest.raises((UsageError, Interrupted)) as refused:
        alone.play(file, home)
    assert refused.value.exit_code in (2, 75)
    assert "home" in refused.value.message
    assert refused.value.hint


def test_a_home_that_another_user_may_not_read_is_one_clear_error(tmp_path: Path) -> None:
    """The same as root, by a process that has become another user."""
    if not ROOT:
        pytest.skip("only root can become another user: the test above is its rootless twin")
    home = tmp_path / "home"
    alone.play(alone.lay(tmp_path), home)
    nobody = 65534
    for path in (home, *home.rglob("*")):
        os.chown(path, 1, 1)
    for path in (*tmp_path.parents, tmp_path):
        if path.stat().st_uid == 0 and not path.stat().st_mode & 0o001:
            path.chmod(path.stat().st_mode | 0o011)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.setgid(nobody)
        os.setuid(nobody)
        found = []
        for call in (Home(home).names, lambda: Home(home).history("s"), lambda: Home(home).open("s")):
            try:
                found.append(f"{call()}")
            except BaseException as error:
                found.append(f"{type(error).__name__} {getattr(error, 'exit_code', '')}")
        os.write(writer, "|".join(found).encode())
        os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    answers = os.read(reader, 1000).decode().split("|")
    os.close(reader)
    assert answers == ["UsageError 2", "UsageError 2", "UsageError 2"]


# -- checkpoints ----------------------------------------------------------------------------------------


@pytest.mark.fault("F37")
def test_a_full_disk_at_a_checkpoint_leaves_the_previous_one_whole(small_disk: Path, fired: Fired) -> None:
    made: list[Checkpoint] = []
    complaints: list[str] = []
    writer = Writer(small_disk / "trial", 1, made.append, complaints.append)
    states = [os.urandom(300_000) for _ in range(5)]
    for step, state in enumerate(states):
        before = len(made) + len(complaints)
        writer.offer(step, memoryview(state))
        while len(made) + len(complaints) == before:
            time.sleep(0.001)
    fired(any("No space left on device" in line for line in complaints))
    names = {path.name for path in (small_disk / "trial/checkpoints").iterdir()}
    assert names == {Path(each.name).name for each in made}, "nothing half written stays"
    for each in made:
        data = (small_disk / "trial" / each.name).read_bytes()
        assert hashlib.sha256(data).hexdigest() == each.sha256
    (small_disk / "trial" / made[0].name).unlink()
    writer.offer(9, memoryview(states[0]))
    writer.close()
    assert made[-1].step == 9, "with room again it goes on"


def test_a_warning_of_a_full_disk_reaches_the_log_once(caplog: pytest.LogCaptureFixture) -> None:
    from hpsearch.study.journal import Journal

    class Full:
        directory = Path()

        def __init__(self) -> None:
            self.tries = 0

        def commit(self, entries: object) -> None:
            self.tries += 1
            if self.tries < 50:
                raise StoreFull("no room", hint="free some")

    store = Full()
    journal = Journal(store, lambda entries: None, waiting=Waiting(look=0.0, patience=30))
    with caplog.at_level(logging.WARNING):
        journal.commit([])
    assert store.tries == 50
    assert len(caplog.records) == 2
