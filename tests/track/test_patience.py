"""Waiting for a service: growing pauses, one warning per outage, and an end in time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from hpsearch.errors import HpsearchError, ServiceUnavailable
from hpsearch.track import patience as patience_module
from hpsearch.track.patience import LONGEST_PAUSE, Abandoned, Patience
from hpsearch.track.runs import Refused


def failing(times: int, error: HpsearchError) -> Callable[[], str]:
    calls: list[int] = []

    def request() -> str:
        calls.append(1)
        if len(calls) <= times:
            raise error
        return "answer"

    return request


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that would have been made."""
    made: list[float] = []
    monkeypatch.setattr(Patience, "_wait", lambda self, pause: made.append(pause))
    return made


def test_pauses_grow_to_half_a_minute_and_are_never_alike(pauses: list[float]) -> None:
    assert Patience("MLflow").ask(failing(20, ServiceUnavailable("away"))) == "answer"
    assert 0.25 <= pauses[0] <= 0.5
    assert 0.5 <= pauses[1] <= 1.0
    assert all(LONGEST_PAUSE / 2 <= pause <= LONGEST_PAUSE for pause in pauses[7:])
    assert len(set(pauses)) == 20


@pytest.mark.usefixtures("pauses")
def test_an_outage_is_said_once_and_its_end_too(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    patience = Patience("MLflow at http://host")
    seen: list[str | None] = []
    request = failing(3, ServiceUnavailable("away"))

    def watched() -> str:
        seen.append(patience.problem)
        return request()

    patience.ask(watched)
    assert seen == [None, *["MLflow at http://host: away"] * 3]
    assert patience.problem is None
    assert [(r.levelname, r.message) for r in caplog.records] == [
        ("WARNING", "MLflow at http://host: away; the facts wait in the store"),
        ("INFO", "MLflow at http://host is back"),
    ]


@pytest.mark.usefixtures("pauses")
def test_a_refusal_is_no_outage_unless_nothing_goes_on_without_the_answer() -> None:
    with pytest.raises(Refused):
        Patience("MLflow").ask(failing(1, Refused("no")))
    assert Patience("MLflow").insist(failing(1, Refused("no"))) == "answer"


def test_close_ends_a_long_pause_and_asks_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience_module, "FIRST_PAUSE", 60.0)
    patience = Patience("MLflow")
    threading.Timer(0.05, patience.close, [5.0]).start()
    started = time.monotonic()
    assert patience.ask(failing(1, ServiceUnavailable("away"))) == "answer"
    assert time.monotonic() - started < 3


def test_after_the_deadline_nothing_is_asked() -> None:
    patience = Patience("MLflow")
    patience.close(0.2)
    started = time.monotonic()
    with pytest.raises(Abandoned):
        patience.ask(failing(10**9, ServiceUnavailable("away")))
    assert 0.15 < time.monotonic() - started < 1.0
