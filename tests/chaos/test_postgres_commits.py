"""Commits on PostgreSQL whose outcome nobody was told: read back by their key, and never done twice."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from postgres_driver import measure, new_study
from postgres_proxy import REPLY, REQUEST, Proxy

from hpsearch.errors import HpsearchError, Interrupted, StudyBusy
from hpsearch.study.home import Home

Fired = Callable[..., None]
Setting = tuple[Home, Home, Proxy]


@pytest.fixture
def setting(postgres: Any, tmp_path: Path) -> Iterator[Setting]:
    """A home whose store is behind a proxy, and the same home seen directly."""
    direct = postgres.make_database()
    with Proxy(postgres.port) as proxy:
        behind = direct.replace(f":{postgres.port}/", f":{proxy.port}/")
        yield Home(tmp_path, behind), Home(tmp_path, direct), proxy


def steps(home: Home) -> list[int]:
    [trial] = home.history("s").trials  # which verifies that no lsn is missing, and none there twice
    return [measurement.step for measurement in trial.measurements]


@pytest.mark.fault("F44")
@pytest.mark.parametrize("loss", [REPLY, REQUEST])
def test_a_commit_whose_outcome_was_lost_is_read_back_and_the_driver_goes_on(
    setting: Setting, fired: Fired, loss: str
) -> None:
    behind, direct, proxy = setting
    store = new_study(behind, "s")
    proxy.lose = loss
    measure(store, 1)
    fired(proxy.lost == [loss])
    measure(store, 2)
    assert store.lsn == 4
    assert steps(direct) == [1, 2]
    store.close()
    assert not direct.is_owned("s")


@pytest.mark.fault("F44")
@pytest.mark.parametrize("loss", [REPLY, REQUEST])
def test_a_server_that_stays_away_ends_the_driver_as_resumable_without_a_second_truth(
    setting: Setting, fired: Fired, loss: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    behind, direct, proxy = setting
    monkeypatch.setenv("HPSEARCH_LEASE", "2")
    store = new_study(behind, "s")
    proxy.lose, proxy.then_away = loss, True
    with pytest.raises(Interrupted, match="could not be reached for 2 s"):
        measure(store, 1)
    fired(proxy.lost == [loss] and proxy.refused > 0)
    proxy.back()
    with pytest.raises(Interrupted, match="nothing is written after it"):
        measure(store, 2)
    store.close()
    found = steps(direct)
    assert found == ([1] if loss == REPLY else [])
    again = direct.open("s")
    assert [m.step for m in again.take(9).trials[0].measurements] == found
    again.close()


@pytest.mark.fault("F44", "F13")
def test_a_commit_that_was_lost_while_another_driver_took_over_is_not_repeated(
    setting: Setting, postgres: Any, fired: Fired
) -> None:
    behind, direct, proxy = setting
    store = new_study(behind, "s")
    proxy.lose, proxy.then_away = REQUEST, True
    errors: list[HpsearchError] = []

    def write() -> None:
        try:
            measure(store, 1)
        except HpsearchError as error:
            errors.append(error)

    writing = threading.Thread(target=write)
    writing.start()
    while not proxy.refused:
        writing.join(0.01)
    end_lease(postgres, direct)
    rival = direct.open("s")
    rival.take(9)
    measure(rival, 5)
    proxy.back()
    writing.join(30)
    fired(proxy.lost == [REQUEST], "F44")
    fired(rival.lsn == 3, "F13")
    [error] = errors
    assert isinstance(error, StudyBusy), error
    assert steps(direct) == [5]
    rival.close()
    store.close()
    assert steps(direct) == [5]


def end_lease(postgres: Any, home: Home) -> None:
    """The server's clock passes the end of the lease."""
    assert home.store
    database = home.store.rpartition("/")[2]
    postgres.run(database, "UPDATE tenure SET expires = clock_timestamp() - interval '1 ms'")


@pytest.mark.fault("F44")
def test_a_server_that_crashes_and_comes_back_costs_a_driver_nothing(
    setting: Setting, postgres: Any, fired: Fired, caplog: pytest.LogCaptureFixture
) -> None:
    _, direct, _ = setting
    store = new_study(direct, "s")
    measure(store, 1)
    before = postgres.pid
    postgres.stop("immediate")
    starting = threading.Timer(0.3, postgres.start)
    starting.start()
    with caplog.at_level(logging.WARNING):
        measure(store, 2)
    starting.join()
    fired(postgres.pid != before)
    measure(store, 3)
    assert steps(direct) == [1, 2, 3]
    store.close()
    assert postgres.password not in caplog.text


def test_an_orderly_restart_between_two_writes_is_not_even_noticed(setting: Setting, postgres: Any) -> None:
    _, direct, _ = setting
    store = new_study(direct, "s")
    postgres.stop("fast")
    postgres.start()
    measure(store, 1)
    assert steps(direct) == [1]
    store.close()
