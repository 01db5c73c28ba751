"""Two drivers, one PostgreSQL: a lease ends by the server's clock, and its former holder writes nothing."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from postgres_driver import measure, new_study
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from hpsearch import faults
from hpsearch.errors import HpsearchError, StudyBusy
from hpsearch.study import owner
from hpsearch.study.home import Home
from hpsearch.study.postgresql import PostgresStore
from hpsearch.study.store import Store
from hpsearch.study.tenure import Tenure
from hpsearch.study.trial import Attempt, Entry

Fired = Callable[..., None]
LEASE = 1.0
DRIVER = Path(__file__).with_name("postgres_driver.py")


@pytest.fixture
def home(postgres: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv("HPSEARCH_LEASE", str(LEASE))
    return Home(tmp_path, postgres.make_database())


@contextlib.contextmanager
def driver(home: Home, prefix: tuple[str, ...] = (), **environment: str) -> Iterator[subprocess.Popen[str]]:
    """A driver in a process of its own, which has a new study and writes when it is told to."""
    words = [*prefix, sys.executable, str(DRIVER), str(home.directory), "s"]
    assert home.store
    child = subprocess.Popen(
        words,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "HPSEARCH_STORE": home.store, "HPSEARCH_LEASE": str(LEASE), **environment},
    )
    try:
        assert said(child) == "ready"
        yield child
    finally:
        child.kill()
        child.communicate()


def said(child: subprocess.Popen[str]) -> str:
    assert child.stdout
    return child.stdout.readline().strip()


def tell(child: subprocess.Popen[str], step: int) -> None:
    assert child.stdin
    child.stdin.write(f"{step}\n")
    child.stdin.flush()


def take_over(home: Home, patience: float = 20) -> Store:
    """The study, as soon as its former driver may be succeeded."""
    deadline = time.monotonic() + patience
    while True:
        try:
            store = home.open("s")
            try:
                store.take(9)
            except HpsearchError:
                store.close()
                raise
            return store
        except StudyBusy:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def steps(home: Home) -> list[int]:
    [trial] = home.history("s").trials
    return [measurement.step for measurement in trial.measurements]


def is_stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


@pytest.mark.fault("F10")
@pytest.mark.parametrize("where", ["between its writes", "inside of a transaction"])
def test_a_driver_that_was_stopped_past_its_lease_writes_nothing_when_it_wakes(
    home: Home, fired: Fired, where: str
) -> None:
    inside = where == "inside of a transaction"
    fault = {"HPSEARCH_TESTING": "1", "HPSEARCH_FAIL": "store.commit:4:before=STOP"} if inside else {}
    with driver(home, **fault) as child:
        tell(child, 1)
        assert said(child) == "wrote 1"
        who = rf"process {child.pid} on {socket.gethostname()}, whose lease ends in"
        with pytest.raises(StudyBusy, match=who):
            home.open("s")
        if inside:
            tell(child, 2)
        else:
            child.send_signal(signal.SIGSTOP)
        while not is_stopped(child.pid):
            time.sleep(0.01)
        rival = take_over(home)
        measure(rival, 7)
        fired(is_stopped(child.pid))
        child.send_signal(signal.SIGCONT)
        if not inside:
            tell(child, 2)
        assert "taken over by another driver" in said(child)
        assert child.wait(20) == 73
        measure(rival, 8)
        rival.close()
    assert steps(home) == [1, 7, 8]


@pytest.mark.fault("F10")
def test_a_driver_that_was_stopped_and_missed_by_nobody_goes_on(home: Home, fired: Fired) -> None:
    with driver(home) as child:
        child.send_signal(signal.SIGSTOP)
        while home.is_owned("s"):  # which is when the lease has ended
            time.sleep(0.05)
        fired(is_stopped(child.pid))
        child.send_signal(signal.SIGCONT)
        tell(child, 1)
        assert said(child) == "wrote 1"
    assert steps(home) == [1]


def test_a_lease_is_renewed_while_its_driver_does_nothing(home: Home, postgres: Any) -> None:
    assert home.store
    database = home.store.rpartition("/")[2]
    store = new_study(home, "s")
    counted: list[object] = []
    first = list(postgres.run(database, "SELECT expires FROM tenure"))
    deadline = time.monotonic() + 10
    while len(counted) < 3 and time.monotonic() < deadline:
        [(expires,)] = postgres.run(database, "SELECT expires FROM tenure")
        if (expires,) not in [*first, *counted]:
            counted.append((expires,))
        time.sleep(0.05)
    assert len(counted) == 3
    store.close()


def test_a_holder_whose_own_clock_says_that_the_lease_is_over_asks_before_it_writes(
    home: Home, postgres: Any
) -> None:
    assert home.store
    now, asked = [0.0], 0
    database = home.database("s")
    assert isinstance(database, PostgresStore)
    store = new_study(home, "s")
    tenure = Tenure(database.engine(), "s", duration=30, clock=lambda: now[0])
    tenure._holder = store._hold._holder  # type: ignore[attr-defined]
    store._hold._done.set()  # type: ignore[attr-defined]  # nobody else renews
    store._hold = tenure
    tenure.renew()

    def hook(point: str, count: int, phase: str) -> None:
        nonlocal asked
        asked += point == "lease.renew" and phase == "before"

    with faults.watched(hook):
        now[0] = 23.9
        measure(store, 1)
        assert asked == 0
        now[0] = 24.0  # 6 of 30 seconds before the end
        measure(store, 2)
        assert asked == 1
        postgres.run(home.store.rpartition("/")[2], "UPDATE tenure SET holder = 'another'")
        now[0] = 47.9
        measure(store, 3)  # the lease is not what makes writing safe: the epoch is
        now[0] = 48.1
        with pytest.raises(StudyBusy):
            measure(store, 4)
    assert steps(home) == [1, 2, 3]


def test_a_driver_elsewhere_is_believed_until_its_lease_ends(home: Home, postgres: Any) -> None:
    assert home.store
    with driver(home) as child:
        child.kill()
        child.wait()
        # As a process of another machine, or of another container, whose pids are not ours.
        renewed = f"process = 'elsewhere {child.pid} 1', expires = clock_timestamp() + interval '3 s'"
        postgres.run(home.store.rpartition("/")[2], f"UPDATE tenure SET {renewed}")
        assert home.is_owned("s")
        with pytest.raises(StudyBusy, match="whose lease ends in"):
            home.open("s")
        store = take_over(home)
        store.close()


def test_a_process_is_known_for_good_by_its_boot_its_namespace_and_its_start() -> None:
    child = subprocess.Popen(["sleep", "60"])
    try:
        known = owner.identity(child.pid)
        assert known
        assert not owner.is_gone(known)
        boot, pid, started = known.split()
        assert owner.is_gone(f"{boot} {pid} {int(started) + 1}"), "the pid came again"
        assert not owner.is_gone(f"other/1 {pid} {started}"), "of another machine nothing is known"
        assert not any(owner.is_gone(text) for text in ("", "a", "a b c", f"{boot} {pid}"))
        child.kill()
        deadline = time.monotonic() + 10
        while not owner.is_gone(known):  # also before anybody has waited for it
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        child.kill()
        child.wait()
    assert owner.is_gone(known)


@pytest.mark.fault("F13")
def test_of_drivers_that_take_over_at_once_exactly_one_does(
    home: Home, fired: Fired, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HPSEARCH_LEASE", "30")
    new_study(home, "s").close()
    for _ in range(6):
        barrier = threading.Barrier(4)
        taken: list[Store] = []
        busy: list[HpsearchError] = []

        def race(barrier: threading.Barrier = barrier, taken: Any = taken, busy: Any = busy) -> None:
            store = home.open("s")
            barrier.wait()
            try:
                store.take(9)
                taken.append(store)
            except HpsearchError as refusal:
                busy.append(refusal)
                store.close()

        racers = [threading.Thread(target=race) for _ in range(4)]
        for racer in racers:
            racer.start()
        for racer in racers:
            racer.join()
        assert [type(error) for error in busy] == [StudyBusy] * 3, busy
        [winner] = taken
        winner.commit([Entry(0, Attempt(winner._epoch + 1, 5))])
        winner.close()
        fired(busy)
    [trial] = home.history("s").trials
    assert len(trial.attempts) == 7


class History:
    """Two drivers that write, sleep past their lease and take over from each other, in an order by a seed.

    A driver's epoch is in every attempt that it writes, and `taken` says at which lsn each epoch began.
    """

    def __init__(self, home: Home, name: str, seed: int) -> None:
        assert home.store
        self.home, self.name = home, name
        self.random = random.Random(seed)
        address = home.store.replace("postgresql://", "postgresql+psycopg://")
        self.server = create_engine(address, poolclass=NullPool).connect()
        self.server = self.server.execution_options(isolation_level="AUTOCOMMIT")
        self.drivers = [new_study(home, name)]
        self.taken = {1: 0}
        self.expire()
        self.drivers.append(home.open(name))
        self.refused = self.overlaps = 0
        self._number = 1

    def expire(self) -> None:
        ended = "UPDATE tenure SET expires = clock_timestamp() - interval '1 s' WHERE study = :study"
        self.server.execute(text(ended), {"study": self.name})

    def take_over(self, rival: Store) -> None:
        self.expire()
        history = rival.take(9)
        self.taken[history.epoch] = rival.lsn

    def write(self, store: Store, at: str = "") -> None:
        """A commit of a driver, the present or the former one; at a point of it the other takes over."""
        self._number += 1
        [other] = [each for each in self.drivers if each is not store]
        rivals: list[threading.Thread] = []

        def hook(point: str, count: int, phase: str) -> None:
            here = threading.current_thread() is threading.main_thread()
            if at == f"{point}:{phase}" and here and not rivals:
                rivals.append(threading.Thread(target=self.take_over, args=(other,)))
                rivals[0].start()
                # Before its first statement nothing is locked, and the rival can be waited for.
                rivals[0].join(None if point == "store.begin" else 0.01)

        try:
            with faults.watched(hook):
                store.commit([Entry(0, Attempt(self._number, 5))])
        except StudyBusy:
            self.refused += 1
        for rival in rivals:
            rival.join()
            self.overlaps += 1

    def play(self, events: int) -> None:
        for _ in range(events):
            store = self.random.choice(self.drivers)
            match self.random.randrange(4):
                case 0:
                    self.take_over(store)
                case 1:
                    self.write(store, self.random.choice(["store.begin:after", "store.commit:before"]))
                case _:
                    self.write(store)

    def check(self) -> int:
        """How many rows there are; fails if one was written under a dead epoch."""
        asked = text("SELECT lsn, epoch FROM attempt WHERE study = :study ORDER BY lsn")
        found = [tuple(row) for row in self.server.execute(asked, {"study": self.name})]
        for lsn, epoch in found:
            alive = max(each for each, start in self.taken.items() if start < lsn)
            assert epoch == alive, f"lsn {lsn} was written under epoch {epoch}, and {alive} had begun"
        history = self.home.history(self.name)  # lsns without gaps, all rows proven
        assert history.epoch == max(self.taken)
        return len(found)

    def close(self) -> None:
        for store in self.drivers:
            with contextlib.suppress(StudyBusy):
                store.close()
        self.server.close()


@pytest.mark.fault("F13")
def test_no_history_of_two_drivers_has_a_row_of_a_dead_epoch(
    home: Home, fired: Fired, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HPSEARCH_LEASE", "3600")  # ends when the history says so
    written = refused = overlaps = takeovers = 0
    for seed in range(int(os.environ.get("HPSEARCH_HISTORIES", "8"))):
        history = History(home, f"s-{seed}", seed)
        history.play(20)
        written += history.check()
        refused, overlaps = refused + history.refused, overlaps + history.overlaps
        takeovers += len(history.taken) - 1
        history.close()
    assert written > 40
    fired(refused > 15 and overlaps > 15 and takeovers > 30)
