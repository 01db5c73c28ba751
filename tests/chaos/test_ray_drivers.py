"""Drivers with a Ray of their own: what they open to others, and what is left when part of it is killed."""

from __future__ import annotations

import os
import re
import signal
import stat
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from drivers import Driver, House, house, wait_for
from watching import is_pending

from hpsearch.run import access
from hpsearch.study.history import StoreReader
from hpsearch.study.trial import State

Fired = Callable[..., None]
STEPS = list(range(10, 2001, 10))
START = 200.0  # seconds until trials run, on a machine that does other things, too


def trains(home: House, driver: Driver, attempt: int) -> None:
    """Wait until a trial trains in a life of the study."""
    wait_for(
        lambda: sum(each[0] == attempt for each in home.ledger(0)) >= 2,
        START,
        lambda: driver.text,
    )


def listeners(driver: Driver) -> dict[str, str]:
    """Where a driver and all that it started listen: address and port in hexadecimal, and who does."""
    owners = {}
    for pid in (driver.process.pid, *driver.family()):
        for descriptor in Path(f"/proc/{pid}/fd").glob("*"):
            try:
                target = str(descriptor.readlink())
            except OSError:
                continue
            if target.startswith("socket:["):
                owners[target[8:-1]] = Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    found = {}
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A" and words[9] in owners:
                found[words[1]] = owners[words[9]]
    return found


def is_loopback(address: str) -> bool:
    return address.partition(":")[0] in ("0100007F", "0000000000000000FFFF00000100007F")


def is_empty(home: House) -> bool:
    """Whether no Ray left anything where temporary files are."""
    return not list(home.scratch.glob("hps-*"))


@pytest.mark.fault("F01", "F07", "F47", "F60")
@pytest.mark.timeout(700)
def test_drivers_killed_hurried_and_bereft_of_their_ray_leave_nothing_behind_and_the_study_ends(
    tmp_path: Path, mlflow_database: Path, fired: Fired
) -> None:
    """Five lives of one study, each with a Ray of its own; the last has little shared memory."""
    user = tmp_path / "user"
    user.mkdir()
    with house(tmp_path, mlflow_database, trials=2, parallel=1) as home:  # each worker takes seconds to start
        # The most careless umask there is.
        killed = home.run(before=["sh", "-c", 'umask 000; exec "$@"', "sh"], HOME=str(user))
        trains(home, killed, 1)
        _is_closed_to_others(killed, user)
        assert len(killed.family()) >= 8, "this is not the family of a Ray"
        killed.kill()
        fired(killed.ended(5) == -signal.SIGKILL, "F01")
        _leaves_nothing(killed, home)

        hasty = home.run(HOME=str(user))
        trains(home, hasty, 2)
        hasty.kill(signal.SIGINT)
        wait_for(
            lambda: not is_pending(hasty.process.pid, signal.SIGINT), 5
        )  # two that wait together are one
        hasty.kill(signal.SIGINT)
        fired(hasty.ended(5) == 130, "F07")
        _leaves_nothing(hasty, home)

        for life, name in ((3, "gcs_server"), (4, "raylet/raylet")):
            bereft = home.run(HOME=str(user))
            trains(home, bereft, life)
            member = bereft.member(name)
            os.kill(member, signal.SIGKILL)
            assert bereft.ended(60) == 75, bereft.text
            fired(f"{name.split('/')[0]} (pid {member}) died" in bereft.text, "F60")
            _leaves_nothing(bereft, home)

        home.hold.unlink()
        little = ["unshare", "-m", "sh", "-c"]
        little += ['mount -t tmpfs -o size=64m none /dev/shm && df -m /dev/shm >&2 && exec "$@"', "sh"]
        last = home.run(before=little, HOME=str(user))
        assert last.ended(START) == 0, last.text
        fired(any(line.split()[1:2] == ["64"] for line in last.text.splitlines()), "F47")
        _leaves_nothing(last, home)
        _has_lost_nothing(home)


def _leaves_nothing(driver: Driver, home: House) -> None:
    """No process of its Ray outlives a driver by much, and none of its files does."""
    assert driver.left(10) == {}
    wait_for(lambda: is_empty(home), 10)


def _is_closed_to_others(driver: Driver, user: Path) -> None:
    """It listens on loopback alone, and there to nobody without the token that only its user can read."""
    found = listeners(driver)
    assert len(found) >= 4, "these are not the listeners of a Ray"
    assert {a: who for a, who in found.items() if not is_loopback(a)} == {}
    assert not any(address.endswith(f":{8265:04X}") for address in found)
    (head,) = [address for address, who in found.items() if "gcs_server" in who]
    place = f"127.0.0.1:{int(head.rpartition(':')[2], 16)}"
    assert access._probe(place, os.environ) == access.CLOSED
    token = user / ".ray" / "auth_token"
    assert stat.S_IMODE(token.stat().st_mode) == 0o600


def _has_lost_nothing(home: House) -> None:
    trials = StoreReader(home.study).history().trials
    assert len(trials) == 2
    for trial in trials:
        assert trial.state is State.COMPLETED
        assert [m.step for m in trial.measurements] == STEPS
    for number, attempts in ((0, 5), (1, 1)):
        assert len(trials[number].attempts) == attempts
        done = Counter(step for _, step, *_ in home.ledger(number))
        assert sorted(done) == STEPS


@pytest.mark.fault("F47")
@pytest.mark.timeout(300)
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small file system; its twin runs anyway")
def test_a_full_place_for_rays_files_is_told_before_ray_starts(
    tmp_path: Path, mlflow_database: Path, fired: Fired
) -> None:
    with house(tmp_path, mlflow_database) as home:
        full = ["unshare", "-m", "sh", "-c"]
        full += [
            f'mount -t tmpfs -o size=16m none {home.scratch} && df -m {home.scratch} >&2 && exec "$@"',
            "sh",
        ]
        driver = home.run(before=full)
        assert driver.ended(START) == 69, driver.text
        fired(any(line.split()[1:2] == ["16"] for line in driver.text.splitlines()))
        assert re.search(f"Ray needs 64 MiB for its files, {home.scratch} has 1[56] MiB left", driver.text)
        assert "TMPDIR" in driver.text
        assert driver.left(5) == {}
