"""What is said while no trial has a place, and after which time that ends a study."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from hpsearch.run import nodes, vigil
from hpsearch.run.vigil import Vigil
from hpsearch.spec.model import Resources

HELD = "no trial has started: one asks for 1 CPU, 0 are free"


class Desk:
    """One that no worker has spoken to yet."""

    def __init__(self) -> None:
        self.stopped: float | None = None
        self.placed = False
        self.heard = 0.0
        self.expired: list[str] = []

    def look(self) -> None:
        pass

    def expire(self, reason: str) -> None:
        self.expired.append(reason)


def watched(
    awaited: Callable[[], str | None], start_timeout: float, until: Callable[[Desk, Vigil], object]
) -> Desk:
    """A desk after a vigil over it has seen that, within some seconds."""
    desk = Desk()
    made = Vigil(desk, SimpleNamespace(trouble=""), awaited, lambda: None, 1.0, start_timeout)  # type: ignore[arg-type]
    deadline = time.monotonic() + 30
    while not until(desk, made):
        assert time.monotonic() < deadline
        made.look()
        time.sleep(0.005)
    return desk


def test_what_a_first_trial_waits_for_is_said_and_ends_the_study_in_time(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        desk = watched(lambda: HELD, 0.2, lambda desk, _: desk.expired)
    assert desk.expired[0] == f"no trial started within 0.2 s: {HELD}"
    assert HELD in caplog.text


def test_a_worker_that_is_slow_to_start_in_its_place_is_no_trial_without_one(
    caplog: pytest.LogCaptureFixture,
) -> None:
    began = time.monotonic()
    with caplog.at_level(logging.WARNING):
        desk = watched(lambda: None, 0.2, lambda desk, _: time.monotonic() - began > 0.5)
    assert desk.expired == []
    assert caplog.text == ""


def test_what_is_no_longer_true_when_it_is_known_is_not_said(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vigil, "REMINDER", 0.01)
    asked: list[Desk] = []
    desk = Desk()

    def awaited() -> str:
        desk.placed = True  # a trial began while Ray was asked
        asked.append(desk)
        return HELD

    made = Vigil(desk, SimpleNamespace(trouble=""), awaited, lambda: None, 1.0, None)  # type: ignore[arg-type]
    deadline = time.monotonic() + 30
    with caplog.at_level(logging.WARNING):
        while not asked or made._asking.is_alive():  # type: ignore[union-attr]
            assert time.monotonic() < deadline
            made.look()
            time.sleep(0.005)
    assert caplog.text == ""


def test_resources_that_others_hold_at_the_start_are_not_spoken_of_before_it_lasts(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = SimpleNamespace(
        nodes=lambda: [{"Alive": True, "Resources": {"CPU": 1.0}}], available_resources=dict
    )
    monkeypatch.setattr(nodes, "ray", ray)
    with caplog.at_level(logging.WARNING):
        assert nodes.preflight(Resources(cpu=1), 1, joined=True, patient=False) == 1
    assert caplog.text == ""
    assert nodes.lacking(Resources(cpu=1)) == HELD
