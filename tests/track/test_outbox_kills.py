"""The outbox killed at each of its points, before, inside and after: one run per trial, every point once."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import outbox_life
import pytest
from outbox_story import Live, assert_everything_once

from hpsearch.study.trial import Measurement


@pytest.mark.fault("F04")
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("point", ["outbox.read", "outbox.create_run", "outbox.send", "outbox.offset"])
def test_an_outbox_killed_again_and_again_at_one_point_tells_everything_once(
    told_home: Path, lives: Live, fired: Callable[..., None], point: str, count: int
) -> None:
    killed = [lives(told_home, f"{point}:{count}:{phase}=KILL") for phase in ("before", "inside", "after")]
    fired(killed == [-signal.SIGKILL] * 3)
    assert lives(told_home, "") == 0
    assert_everything_once(told_home)


def test_the_facts_of_these_lives_are_one_row_each() -> None:
    facts = [entry.fact for entry in outbox_life.entries()]
    assert all(len(fact.metrics) == 1 for fact in facts if isinstance(fact, Measurement))
