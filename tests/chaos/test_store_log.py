"""SQLite's log cut at every byte, damaged, deleted, swapped and read while it is written."""

from __future__ import annotations

import logging
import os
import random
import shutil
import signal
import sqlite3
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
from small_store import Files, Looker, begun, checkpoint, commits, flipped, history, killed, two_trials

from hpsearch.errors import StoreDamaged, UsageError
from hpsearch.study import opening, sqlite, wal
from hpsearch.study.health import examine
from hpsearch.study.history import StoreReader
from hpsearch.study.opening import DATABASE, LOG
from hpsearch.study.schema import checksum
from hpsearch.study.store import Store
from hpsearch.study.trial import Entry, Measurement
from hpsearch.study.wal import FRAME_HEADER, HEADER, LITTLE, VERSION, walk

FRAME = FRAME_HEADER + 4096
Fired = Callable[..., None]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "s"


@pytest.fixture
def quick() -> Iterator[Path]:
    """A directory in memory, where there is one: files are laid there thousands of times."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as directory:
        yield Path(directory)


# -- what we build on ---------------------------------------------------------------------------------


def test_sqlite_writes_the_log_that_the_walk_reads(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "a.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode=wal")
    connection.execute("CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT)")
    for n in range(8):
        connection.execute("INSERT INTO t VALUES (?, ?)", (n, "x" * 900))
    first = (tmp_path / "a.db-wal").read_bytes()
    magic, version, size, sequence, *salts = struct.unpack_from(">6I", first)
    assert (magic, version, size) == (LITTLE, VERSION, 4096)
    assert wal.walk(first) == wal.Walk(len(first), 9)
    assert wal.resealed(first, 4096) == first
    connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
    connection.execute("INSERT INTO t VALUES (100, 'again')")
    second = (tmp_path / "a.db-wal").read_bytes()
    connection.close()
    # A log that starts anew counts its first salt up, draws the second, and leaves old frames behind.
    fresh = struct.unpack_from(">6I", second)
    assert (fresh[3], fresh[4]) == (sequence + 1, salts[0] + 1)
    assert fresh[5] != salts[1]
    assert len(second) == len(first)
    assert wal.walk(second) == wal.Walk(HEADER + FRAME, 1)


def test_sqlite_itself_says_nothing_of_a_damaged_log(place: Path) -> None:
    """Why the log is walked at all: SQLite takes what comes before the damage for everything."""
    left = killed(place, two_trials)
    replace(left, log=flipped(left.log, 8 * (HEADER + FRAME_HEADER + 100))).put(place)
    connection = sqlite3.connect(place / DATABASE)
    [(lsn,)] = connection.execute("SELECT lsn FROM lease").fetchall()
    checked = connection.execute("PRAGMA integrity_check").fetchall()
    connection.close()
    assert (lsn, checked) == (6, [("ok",)])


# -- torn -----------------------------------------------------------------------------------------------


class Small:
    """A database of pages of 512 bytes, so that a log of several commits is small; a row for each."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "small.db"
        made = directory / "made.db"
        connection = sqlite3.connect(made, isolation_level=None)
        connection.execute("PRAGMA page_size=512")
        connection.execute("PRAGMA journal_mode=wal")
        connection.execute("CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT)")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        self.ends = []
        for size in (20, 900, 20, 400):
            connection.execute("INSERT INTO t (b) VALUES (?)", ("x" * size,))
            self.ends.append(Path(f"{made}-wal").stat().st_size)
        self.database, self.log = made.read_bytes(), Path(f"{made}-wal").read_bytes()
        connection.close()

    def rows(self, log: bytes) -> int:
        """How many rows SQLite itself finds with such a log."""
        Path(f"{self._path}-shm").unlink(missing_ok=True)
        self._path.write_bytes(self.database)
        Path(f"{self._path}-wal").write_bytes(log)
        connection = sqlite3.connect(f"{self._path.as_uri()}?mode=ro", uri=True)
        try:
            return int(connection.execute("SELECT count(*) FROM t").fetchone()[0])
        finally:
            connection.close()


@pytest.mark.fault("F02", "F40")
def test_a_log_cut_at_any_byte_gives_the_longest_whole_prefix_and_a_tail(quick: Path, fired: Fired) -> None:
    small = Small(quick)
    assert len(small.ends) == 4
    for cut in range(len(small.log) + 1):
        whole = sum(end <= cut for end in small.ends)
        assert small.rows(small.log[:cut]) == whole
        seen = walk(small.log[:cut])
        end = ([0 if cut < HEADER else HEADER, *small.ends])[whole]
        assert (seen.end, seen.commits, seen.tail, seen.damage) == (end, whole, cut - end, None)
        # The header alone holds nothing that could be lost.
        assert (seen.tail > 0) == (cut not in (0, HEADER, *small.ends))
    fired(len(small.log) > 3000)


@pytest.mark.fault("F41")
def test_the_walk_knows_of_every_flipped_bit_by_which_sqlite_loses_a_commit(
    quick: Path, fired: Fired
) -> None:
    """SQLite drops commits in silence; the walk says damage, or a tail, and where."""
    small = Small(quick)
    draw = random.Random(41)
    bits = draw.sample(range(8 * len(small.log)), 3000)
    counted = {"damage": 0, "tail": 0}
    for bit in bits:
        log = flipped(small.log, bit)
        seen = walk(log)
        found = small.rows(log)
        assert found < len(small.ends), "each byte of such a log is under a checksum"
        if seen.damage is None:
            assert seen.tail > 0
            assert (seen.commits, seen.end) == (found, small.ends[found - 1])
            assert bit // 8 >= small.ends[-1] - 536, "only the last frame can pass for torn"
            counted["tail"] += 1
        else:
            assert seen.damage <= bit // 8 < max(HEADER, seen.damage + 536)
            counted["damage"] += 1
    fired(counted["damage"] > 2000 and counted["tail"] > 100)


@pytest.mark.fault("F41")
def test_what_an_earlier_log_left_behind_is_no_damage_whatever_becomes_of_it(
    tmp_path: Path, fired: Fired
) -> None:
    connection = sqlite3.connect(tmp_path / "a.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode=wal")
    connection.execute("CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT)")
    for n in range(4):
        connection.execute("INSERT INTO t VALUES (?, 'x')", (n,))
    connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
    connection.execute("INSERT INTO t VALUES (100, 'y')")
    log = (tmp_path / "a.db-wal").read_bytes()
    connection.close()
    seen = walk(log)
    left = random.Random(7).sample(range(8 * seen.end, 8 * len(log)), 400)
    fired(len(log) > seen.end)
    for bit in left:
        assert walk(flipped(log, bit)).damage is None, bit
        assert walk(flipped(log, bit)).end == seen.end
    # Of two salts that both differ one is known to be old by its number; a flip makes no good frame of it.
    hole = walk(flipped(log, 8 * (HEADER + FRAME_HEADER + 9)))
    assert (hole.damage, hole.tail) == (None, seen.end - HEADER), "the only frame: a tail"


@pytest.mark.fault("F02", "F40")
def test_a_study_whose_log_was_cut_goes_on_from_the_last_whole_commit_and_says_so(
    place: Path, fired: Fired, caplog: pytest.LogCaptureFixture
) -> None:
    """Its witness is that of the moment of the kill: nothing that was acknowledged is missing."""
    moments: list[Files] = []

    def write(store: Store) -> None:
        checkpoint(store, "TRUNCATE")
        for entries in commits(0):
            store.commit(entries)
            moments.append(Files.of(place))

    left = killed(place, write)
    ends = [len(moment.log) for moment in moments]
    wanted = [repr(history(moment.put(place))) for moment in moments]
    caplog.set_level(logging.WARNING, "hpsearch")
    looker = Looker(place)
    draw = random.Random(2)
    cuts = [*ends, *(end - 1 for end in ends[1:]), *draw.sample(range(ends[0], ends[-1]), 40)]
    for cut in cuts:
        whole = sum(end <= cut for end in ends)
        caplog.clear()
        replace(left, log=left.log[:cut], witness=moments[whole - 1].witness).put(place)
        assert repr(looker.history()) == wanted[whole - 1], cut
        told = [record.getMessage() for record in caplog.records]
        assert bool(told) == (cut not in ends), cut
        assert all(f"dropped tail is {cut - ends[whole - 1]} bytes at byte" in text for text in told)
    fired(len(set(cuts) - set(ends)))


@pytest.mark.fault("F40")
def test_a_cut_that_loses_what_was_acknowledged_is_refused_and_nothing_is_overwritten(
    place: Path, fired: Fired
) -> None:
    left = killed(place, two_trials)
    lost = replace(left, log=left.log[:-FRAME])
    lost.put(place)
    for look in (lambda: history(place), lambda: Store.open(place)):
        with pytest.raises(StoreDamaged, match="lsn 12 was acknowledged") as told:
            look()
        assert "store repair" in told.value.hint
    assert Files.of(place) == lost
    fired(wal.walk(lost.log).tail)


@pytest.mark.fault("F02")
def test_what_a_kill_left_of_a_long_commit_never_looks_like_damage_later(place: Path, fired: Fired) -> None:
    """A short commit written over a longer torn one would leave good frames behind a bad one."""
    long: list[Files] = []

    def write(store: Store) -> None:
        checkpoint(store, "TRUNCATE")
        store.commit(commits(0)[0])
        long.append(Files.of(place))
        store.commit([entry for number in (1, 2, 3) for entry in commits(number)[0]])

    left = killed(place, write)
    torn = replace(left, log=left.log[:-FRAME], witness=long[0].witness).put(place)
    fired(walk((place / LOG).read_bytes()).tail > FRAME)
    for turn in range(2):
        store = Store.open(torn)
        assert [trial.number for trial in store.take(3).trials] == [0]
        dead = Files.of(place)
        store.close()
        dead.put(place)
        assert walk(dead.log).damage is None, turn


@pytest.mark.fault("F02")
def test_a_driver_killed_while_a_transaction_is_open_leaves_what_was_before(
    place: Path, fired: Fired
) -> None:
    script = (
        "from pathlib import Path\n"
        "from small_store import begun, commits\n"
        f"store = begun(Path({str(place)!r}))\n"
        "for entries in commits(0): store.commit(entries)\n"
    )
    # 1: the lease; 2, 3: the trial begins and is measured; 4: it ends.
    environment = {"HPSEARCH_TESTING": "1", "HPSEARCH_FAIL": "store.commit:4:before=KILL"}
    environment |= {"PYTHONPATH": str(Path(__file__).parent), "PATH": os.environ["PATH"]}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, timeout=60, check=False
    )
    fired(done.returncode == -signal.SIGKILL)
    [trial] = history(place).trials
    assert trial.ending is None
    assert [each.step for each in trial.measurements] == [10]


@pytest.mark.fault("F41")
def test_a_hole_in_the_log_is_refused_by_the_byte_where_nobody_else_knows_of_it(
    place: Path, fired: Fired
) -> None:
    left = replace(killed(place, two_trials), witness=b"")
    hole = HEADER + 3 * FRAME
    hurt = replace(left, log=flipped(left.log, 8 * (hole + FRAME_HEADER + 7)))
    hurt.put(place)
    fired(hurt.log != left.log and not (place / "witness").exists())
    for look in (history, Store.open):
        with pytest.raises(StoreDamaged, match=f"study.db-wal is damaged at byte {hole}"):
            look(place)
    assert Files.of(place) == hurt


def test_nobody_walks_a_log_that_a_driver_may_be_writing(place: Path) -> None:
    left = killed(place, two_trials)
    replace(left, log=flipped(left.log, 8 * (HEADER + FRAME_HEADER + 7))).put(place)
    lock = sqlite.FileLock(place)
    assert opening.prove_log(place) == wal.Walk()
    lock.release()
    with pytest.raises(StoreDamaged):
        opening.prove_log(place)


# -- missing, stale, swapped ------------------------------------------------------------------------------


@pytest.mark.fault("F40", "F48")
def test_a_study_without_its_log_is_refused_where_a_witness_knows_more(place: Path, fired: Fired) -> None:
    left = killed(place, two_trials)
    bare = replace(left, log=b"").put(place)
    fired(not (bare / LOG).exists() and walk(left.log).commits)
    with pytest.raises(StoreDamaged, match="store ends at lsn 6, and lsn 12 was acknowledged"):
        history(bare)
    with pytest.raises(StoreDamaged, match="a log left behind"):
        Store.open(bare)
    assert (bare / DATABASE).read_bytes() == left.database


@pytest.mark.fault("F48")
def test_a_copy_without_log_and_witness_is_betrayed_by_its_trials_directories(
    place: Path, fired: Fired
) -> None:
    left = killed(place, two_trials)
    bare = Files(left.database, b"", b"").put(place)
    for number in (0, 1):
        (bare / "trials" / f"{number:04d}").mkdir(parents=True)
    assert len(history(bare).trials) == 1
    fired(len(list((bare / "trials").iterdir())) > 1)
    with pytest.raises(StoreDamaged, match=r"knows no trial of the directory .*0001"):
        Store.open(bare)


@pytest.mark.fault("F40")
def test_a_lost_or_stale_shm_is_made_anew(place: Path, fired: Fired) -> None:
    left = killed(place, two_trials)
    left.put(place)
    expected = repr(history(place))
    shm = place / f"{DATABASE}-shm"
    for stale in (None, b"\0" * 32768, random.Random(1).randbytes(32768), b"short"):
        left.put(place)
        assert not shm.exists()
        if stale is not None:
            shm.write_bytes(stale)
        assert repr(history(place)) == expected
        store = Store.open(place)
        assert store.take(3).trials == history(place).trials
        store.close()
    fired(stale)


@pytest.mark.fault("F40")
def test_an_older_copy_of_the_database_is_known_by_the_witness(place: Path, fired: Fired) -> None:
    moments: list[Files] = []

    def write(store: Store) -> None:
        for entries in commits(0):
            store.commit(entries)
        checkpoint(store, "TRUNCATE")
        moments.append(Files.of(place))
        for entries in commits(1):
            store.commit(entries)
        checkpoint(store, "TRUNCATE")

    left = killed(place, write)
    swapped = replace(left, database=moments[0].database).put(place)
    fired(left.database != moments[0].database)
    with pytest.raises(StoreDamaged, match="an older copy"):
        history(swapped)
    gone = replace(left, database=b"").put(place)
    with pytest.raises(StoreDamaged, match="holds no study, and its witness says"):
        history(gone)


def test_a_witness_that_proves_nothing_hinders_nobody(place: Path) -> None:
    left = killed(place, two_trials)
    left.put(place)
    expected = repr(history(place))
    for data in (b"", b"nonsense" * 40, left.witness[:100], b"\0" * 256):
        replace(left, witness=data).put(place)
        assert repr(history(place)) == expected


# -- alive ----------------------------------------------------------------------------------------------

WRITER = """
import sys
from pathlib import Path
from small_store import begun
from hpsearch.study.trial import Attempt, Entry, Measurement, Trial
store = begun(Path(sys.argv[1]))
store.commit([Entry(0, Trial(0, "u-0", {"x": 0.1}, 5), attributes={}), Entry(0, Attempt(1, 5))])
print("writing", flush=True)
step = 0
while True:
    step += 1
    store.commit([Entry(0, Measurement(step, {f"m{n}": 0.5 for n in range(1 + step % 20)}, 7), 1)])
    if step % 50 == 0:
        driver = store._connection.connection.driver_connection
        driver.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()
"""


def test_a_log_that_is_being_written_is_never_called_damaged(place: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    command = [sys.executable, "-c", WRITER, str(place)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as writer:
        try:
            assert writer.stdout
            assert writer.stdout.readline() == b"writing\n"
            seen = [0]
            while len(seen) < 40:
                reader = StoreReader(place)
                page = reader.changes(seen[-1], 100)
                reader.close()
                seen.append(page[-1].lsn if page else seen[-1])
        finally:
            writer.kill()
    assert seen == sorted(seen)
    assert seen[-1] > 500
    reader = StoreReader(place)
    assert reader.changes(seen[-1] - 1, 1)
    reader.close()
    Store.open(place).close()


def test_only_the_writer_moves_the_log_into_the_file(place: Path) -> None:
    """A reader that closes last, as after a kill, leaves database and log as they are."""
    left = killed(place, two_trials)
    left.put(place)
    for _ in range(3):
        reader = StoreReader(place)
        reader.history()
        reader.changes(0, 100)
        reader.close()
    assert Files.of(place) == left
    Store.open(place).close()  # it never took the lease
    assert Files.of(place) == left
    store = Store.open(place)
    store.take(3)
    store.close()
    assert not (place / LOG).exists() or (place / LOG).stat().st_size == 0


def test_readers_do_not_keep_the_log_from_shrinking(place: Path) -> None:
    """A transaction that stays open stops checkpoints; ours end with each answer."""
    store = begun(place)
    store.commit(commits(0)[0])
    reader = StoreReader(place)
    driver = store._connection.connection.driver_connection
    assert isinstance(driver, sqlite3.Connection)
    pinned = sqlite3.connect(place / DATABASE)
    most = {}
    for name, keep_open in (("ours", False), ("long", True)):
        if keep_open:
            pinned.execute("BEGIN")
            pinned.execute("SELECT * FROM lease").fetchall()
        for step in range(30):
            first = 1000 * (len(most) + 1) + step
            wide = Measurement(first, {f"metric-{n}": 0.5 for n in range(60)}, 7)
            store.commit([Entry(0, wide, 1)])
            reader.changes(store.lsn - 10, 100)
            if step % 10 == 0:
                driver.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            most[name] = max(most.get(name, 0), (place / LOG).stat().st_size)
    pinned.close()
    reader.close()
    store.close()
    assert most["ours"] * 2 < most["long"], "the second loop shows what the first would be with a long reader"


# -- settings and versions ----------------------------------------------------------------------------


class Deaf:
    """A connection that takes a setting and says another one when asked."""

    def __init__(self, real: sqlite3.Connection, setting: str) -> None:
        self._real, self._setting = real, setting

    def execute(self, text: str) -> sqlite3.Cursor:
        return self._real.execute("SELECT 'other'" if text == f"PRAGMA {self._setting}" else text)


def test_every_setting_of_a_connection_is_read_back(place: Path) -> None:
    store = begun(place)
    driver = store._connection.connection.driver_connection
    assert isinstance(driver, sqlite3.Connection)
    names = ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
    assert [driver.execute(f"PRAGMA {name}").fetchone()[0] for name in names] == ["wal", 2, 1, 30000]
    store.close()
    for name in (*names, "query_only"):
        real = sqlite3.connect(place / DATABASE, isolation_level=None)
        with pytest.raises(StoreDamaged, match=f"SQLite says {name}=other where"):
            sqlite._settings(cast(sqlite3.Connection, Deaf(real, name)), name == "query_only")
        real.close()


@pytest.mark.parametrize(("version", "age"), [(1, "an older"), (1000, "a newer")])
def test_a_store_of_another_version_is_told_from_a_damaged_one(place: Path, version: int, age: str) -> None:
    begun(place).close()
    connection = sqlite3.connect(place / DATABASE)
    connection.row_factory = sqlite3.Row
    row = dict(connection.execute("SELECT * FROM study").fetchone()) | {"schema_version": version}
    connection.execute("UPDATE study SET schema_version=?, checksum=?", (version, checksum(row)))
    connection.commit()
    connection.close()
    for look in (history, Store.open, examine):
        with pytest.raises(UsageError, match=f"schema version {version}, this hpsearch reads") as told:
            opened = look(place)
            opened.take(3)  # type: ignore[union-attr]
        assert age in told.value.hint


def test_the_walk_reads_only_the_log_so_no_lock_of_sqlite_is_dropped(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = killed(place, two_trials)
    left.put(place)
    opened: list[str] = []
    really = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: (opened.append(path.name), really(path))[1])
    opening.prove_log(place)
    assert opened == [LOG]
    shutil.rmtree(place)
