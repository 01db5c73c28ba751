"""Flipped bits in whole stores, and what check, repair and backup make of damage."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import stat
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from small_store import Files, Looker, begun, checkpoint, commits, flipped, history, killed, two_trials

from hpsearch import cli
from hpsearch.errors import StoreDamaged, StudyBusy, UsageError
from hpsearch.study import opening, repair, witness
from hpsearch.study.backup import backup
from hpsearch.study.health import examine
from hpsearch.study.opening import DATABASE, LOG
from hpsearch.study.store import Store

Fired = Callable[..., None]
FRAME = 24 + 4096


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "studies").mkdir()
    return tmp_path / "studies/s"


@pytest.fixture
def quick() -> Iterator[Path]:
    """A study's directory in memory, where there is one: files are laid there thousands of times."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as directory:
        yield Path(directory) / "s"


# -- flipped bits -------------------------------------------------------------------------------------


@pytest.mark.fault("F41")
@pytest.mark.parametrize(
    ("part", "flips", "seed"),
    [("database", 250, 1), ("database", 250, 2), ("database", 250, 3), ("log", 250, 1), ("witness", 60, 1)],
)
def test_a_flipped_bit_is_told_or_changes_nothing(
    quick: Path, fired: Fired, part: str, flips: int, seed: int
) -> None:
    left = killed(quick, two_trials)
    looker = Looker(left.put(quick))
    expected = repr(looker.history())
    data: bytes = getattr(left, part)
    draw = random.Random(f"{part} {seed}")
    written = [place for place, byte in enumerate(data) if byte]
    outcomes: Counter[str] = Counter()
    for number in range(flips):
        byte = draw.choice(written) if number % 2 else draw.randrange(len(data))
        bit = 8 * byte + draw.randrange(8)
        replace(left, **{part: flipped(data, bit)}).put(quick)
        try:
            assert repr(looker.history()) == expected, f"bit {bit} changed what is told, in silence"
            outcomes["harmless"] += 1
        except StoreDamaged:
            outcomes["told"] += 1
    fired(outcomes["told"] > flips // 5 or part == "witness")
    assert outcomes["told"] if part != "witness" else not outcomes["told"]


@pytest.mark.fault("F41")
@pytest.mark.parametrize(
    ("table", "change"),
    [
        ("lease", "epoch = epoch + 1"),
        ("lease", "lsn = lsn - 1"),
        ("lease", "outbox_offset = outbox_offset + 1"),
        ("lease", "tracking_uri = 'sqlite:///n.db'"),
        ("lease", "parent_run_id = 'another'"),
        ("study_ending", "reason = 'lately'"),
        ("known", "ended = ended + 1"),
    ],
)
def test_no_column_that_a_study_depends_on_is_without_proof(
    place: Path, fired: Fired, table: str, change: str
) -> None:
    killed(place, two_trials).put(place)
    connection = sqlite3.connect(place / DATABASE)
    fired(connection.execute(f"UPDATE {table} SET {change}").rowcount == 1)
    connection.commit()
    connection.close()
    with pytest.raises(StoreDamaged, match=f"of table {table} does not match"):
        history(place)
    assert examine(place).problems[0].table == table


@pytest.mark.fault("F41")
def test_a_damaged_definition_of_a_table_is_told(place: Path, fired: Fired) -> None:
    """A column's type decides how numbers come back that are written later."""
    left = killed(place, lambda store: checkpoint(store, "TRUNCATE"))
    spot = left.database.index(b"value FLOAT")
    changed = left.database.replace(b"value FLOAT", b"value FLOAU", 1)
    replace(left, database=changed).put(place)
    fired(spot and changed != left.database)
    with pytest.raises(StoreDamaged, match="not what they were made as"):
        history(place)
    repaired = repair.repair(place)
    assert repaired.lost == ()
    assert history(place).known


# -- check ----------------------------------------------------------------------------------------------


@pytest.fixture
def hpsearch(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, place: Path) -> Any:
    """Runs a command of the door in this process: its exit code, both streams."""

    def command(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["hpsearch", *words, "--home", str(place.parent)])
        with pytest.raises(SystemExit) as left:
            cli.main()
        code = left.value.code
        return (code if isinstance(code, int) else 0, *capsys.readouterr())

    return command


def test_check_of_a_whole_store_counts_what_it_proved(hpsearch: Any, place: Path) -> None:
    killed(place, two_trials).put(place)
    code, out, _ = hpsearch("store", "check", "s")
    assert (code, out) == (0, "s: whole, 15 rows proven up to lsn 12\n")
    code, out, _ = hpsearch("store", "check", "s", "--json")
    answer = json.loads(out)
    assert (code, answer["whole"], answer["problems"]) == (0, True, [])
    assert (answer["lsn"], answer["witness_lsn"], answer["rows"]) == (12, 12, 15)


def test_check_names_every_problem_with_its_place(hpsearch: Any, place: Path) -> None:
    killed(place, two_trials).put(place)
    connection = sqlite3.connect(place / DATABASE)
    connection.execute("UPDATE trial SET uid = 'other' WHERE number = 0")
    connection.execute("UPDATE measurement SET value = 7 WHERE trial = 1 AND metric = 'loss'")
    connection.execute("DELETE FROM study_ending")
    connection.commit()
    connection.close()
    (place / "trials/0005").mkdir(parents=True)
    code, out, err = hpsearch("store", "check", "s", "--json")
    found = [(p["kind"], p["table"], p["lsn"]) for p in json.loads(out)["problems"]]
    assert code == 74
    assert ("row", "trial", 1) in found
    assert ("row", "measurement", 9) in found
    assert ("missing", None, 12) in found
    assert ("witness", None, None) in found
    assert "the store of s has" in err
    assert hpsearch("store", "check", "s")[0] == 74


def test_check_names_the_byte_of_a_damaged_log(hpsearch: Any, place: Path) -> None:
    left = killed(place, two_trials)
    replace(left, log=flipped(left.log, 8 * (32 + 2 * FRAME + 500))).put(place)
    code, out, _ = hpsearch("store", "check", "s", "--json")
    [first, *_] = json.loads(out)["problems"]
    assert (code, first["kind"], first["offset"]) == (74, "log", 32 + 2 * FRAME)


# -- repair -----------------------------------------------------------------------------------------------


@pytest.mark.fault("F41")
def test_repair_takes_rows_that_prove_themselves_from_behind_the_damage(place: Path, fired: Fired) -> None:
    """A flip in the empty part of a page: SQLite would drop all that follows, and not a row is hurt."""
    left = killed(place, two_trials)
    expected = repr(history(left.put(place)))
    hurt = replace(left, log=flipped(left.log, 8 * (32 + 24 + 2000))).put(place)
    with pytest.raises(StoreDamaged, match="good ones follow it") as told:
        Store.open(place)
    fired(told.value)
    done = repair.repair(hurt)
    assert (done.lsn, done.lost) == (12, ())
    assert repr(history(place)) == expected
    assert Files.of(done.kept or place).log == flipped(left.log, 8 * (32 + 24 + 2000))
    store = Store.open(place)
    store.take(3)
    store.close()


@pytest.mark.fault("F40")
def test_repair_accepts_a_lost_log_and_names_what_went(hpsearch: Any, place: Path, fired: Fired) -> None:
    left = killed(place, two_trials)
    bare = replace(left, log=b"").put(place)
    (place / "trials/0000").mkdir(parents=True)
    (place / "trials/0001").mkdir()
    (place / "trials/0001/output.log").write_text("what it said")
    fired(not (bare / LOG).exists())
    assert hpsearch("show", "s")[0] == 74
    code, out, _ = hpsearch("store", "repair", "s", "--json")
    answer = json.loads(out)
    assert (code, answer["lsn"], answer["moved"]) == (0, 6, ["trials/0001"])
    assert answer["lost"] == [{"lsn": 7, "until": 12, "what": None}]
    assert (Path(answer["old_files"]) / "trials/0001/output.log").read_text() == "what it said"
    assert hpsearch("store", "check", "s")[0] == 0
    store = Store.open(place)
    found = store.take(3)
    assert ([trial.number for trial in found.trials], found.offset) == ([0], 0)
    for entries in commits(1):
        store.commit(entries)
    store.close()
    assert hpsearch("store", "repair", "s")[1] == "s: whole up to lsn 12, nothing to repair\n"


def test_repair_keeps_what_comes_before_the_first_lost_row_and_tears_no_commit(place: Path) -> None:
    killed(place, two_trials).put(place)
    connection = sqlite3.connect(place / DATABASE)
    connection.execute("UPDATE measurement SET value = 7 WHERE trial = 1 AND metric = 'acc'")
    connection.commit()
    connection.close()
    done = repair.repair(place)
    # The loss of that step is proven, but not all of its metrics are there.
    assert done.lsn == 8
    assert [(each.lsn, each.what) for each in done.lost] == [
        (9, "loss=2.5 at step 10 of trial 1"),
        (10, None),
        (11, "the checkpoint checkpoints/step-10.pt of trial 1"),
        (12, "the study's ending: deadline (late)"),
    ]
    found = history(place)
    assert [len(trial.measurements) for trial in found.trials] == [1, 0]
    assert examine(place).whole


def test_repair_gives_up_where_the_study_itself_is_lost_and_changes_nothing(place: Path) -> None:
    killed(place, two_trials).put(place)
    connection = sqlite3.connect(place / DATABASE)
    connection.execute("UPDATE study SET spec_text = 'else'")
    connection.commit()
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    connection.close()
    before = Files.of(place)
    with pytest.raises(StoreDamaged, match="cannot be read from any version") as told:
        repair.repair(place)
    assert "nothing was changed" in told.value.hint
    assert Files.of(place) == before
    assert not list(place.glob("repair-*"))


def test_repair_waits_for_no_driver_and_hinders_none(hpsearch: Any, place: Path) -> None:
    store = begun(place)
    with pytest.raises(StudyBusy):
        repair.repair(place)
    assert hpsearch("store", "repair", "s")[0] == 73
    store.commit(commits(0)[0])
    store.close()


@pytest.mark.parametrize("step", ["_read_back", "_moved", "_exchange", "replace", "write"])
def test_a_repair_that_is_killed_is_finished_by_the_next_one(
    place: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    left = killed(place, two_trials)
    expected = repr(history(left.put(place)))
    replace(left, log=flipped(left.log, 8 * (32 + 24 + 2000))).put(place)

    class Killed(BaseException):
        pass

    def kill(*_: object) -> None:
        raise Killed

    owner: Any = {"replace": Path, "write": witness}.get(step, repair)
    with monkeypatch.context() as within:
        within.setattr(owner, step, kill)
        with pytest.raises(Killed):
            repair.repair(place)
    if step != "write":
        with pytest.raises(StoreDamaged):
            Store.open(place)
        done = repair.repair(place)
        assert (done.lsn, done.lost) == (12, ())
    assert repr(history(place)) == expected
    assert not list(place.glob(f"*{opening.UNFINISHED}"))
    assert examine(place).whole


def test_no_driver_goes_on_beside_an_unfinished_repair(place: Path) -> None:
    """Its copies are taken for the truth by the next one, so nothing may be written meanwhile."""
    killed(place, two_trials).put(place)
    (place / f"repair-1{opening.UNFINISHED}").mkdir()
    with pytest.raises(StoreDamaged, match="was not finished"):
        Store.open(place)
    assert repair.repair(place).lsn == 12
    store = Store.open(place)
    assert len(store.take(3).trials) == 2
    store.close()


# -- backup -----------------------------------------------------------------------------------------------

WRITER = """
import sys
from pathlib import Path
from small_store import begun
from hpsearch.study.trial import Attempt, Entry, Measurement, Trial
store = begun(Path(sys.argv[1]))
store.commit([Entry(0, Trial(0, "u-0", {"x": 0.1}, 5), attributes={}), Entry(0, Attempt(1, 5))])
print("writing", flush=True)
for step in range(1, 100_000):
    store.commit([Entry(0, Measurement(step, {"loss": 0.5, "acc": 1.0}, 7), 1)])
"""


def test_a_backup_of_a_running_study_is_one_moment_of_it_and_can_be_gone_back_to(place: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    command = [sys.executable, "-c", WRITER, str(place)]
    copies = []
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as writer:
        try:
            assert writer.stdout
            assert writer.stdout.readline() == b"writing\n"
            copies = [backup(place, place.parent / f"copy-{number}.db") for number in range(3)]
        finally:
            writer.send_signal(signal.SIGKILL)
    assert sorted(copy.lsn for copy in copies) == [copy.lsn for copy in copies]
    assert copies[0].lsn < copies[-1].lsn
    last = copies[-1].target
    assert stat.S_IMODE(last.stat().st_mode) == 0o600
    assert not list(place.parent.glob("copy-*.db-*")), "a copy is one file"
    again = place.parent / "again"
    again.mkdir(mode=0o700)
    last.rename(again / DATABASE)
    store = Store.open(again)
    [trial] = store.take(3).trials
    assert len(trial.measurements) == (copies[-1].lsn - 2) // 2
    store.close()


def test_a_backup_overwrites_nothing_and_copies_no_damage(hpsearch: Any, place: Path) -> None:
    left = killed(place, two_trials)
    left.put(place)
    target = place.parent / "copy.db"
    code, out, _ = hpsearch("store", "backup", "s", str(target), "--json")
    assert (code, json.loads(out)["lsn"], json.loads(out)["rows"]) == (0, 12, 15)
    before = target.read_bytes()
    with pytest.raises(UsageError, match="exists"):
        backup(place, target)
    assert target.read_bytes() == before
    connection = sqlite3.connect(place / DATABASE)
    connection.execute("UPDATE trial SET uid = 'other' WHERE number = 0")
    connection.commit()
    connection.close()
    with pytest.raises(StoreDamaged, match="so would be its copy"):
        backup(place, place.parent / "second.db")
    assert not (place.parent / "second.db").exists()
