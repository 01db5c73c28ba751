"""A worker whose container is about to end learns it from a file, and its trial keeps what it has done."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray_studies import ledger, life, steady

from hpsearch.run.place import MARKER, Place
from hpsearch.run.wire import decode


@pytest.fixture
def marker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "preempted"
    monkeypatch.setenv(MARKER, str(path))
    return path


@pytest.fixture
def place(marker: Path) -> Iterator[Place]:
    made = Place()
    yield made
    made.abandon()


def test_a_marker_lets_a_trial_keep_its_state_and_counts_as_preempted_not_as_failed(
    tmp_path: Path, marker: Path, place: Place
) -> None:
    (tmp_path / "hold").touch()
    # One measurement is all that this trial makes in a minute: the marker is seen between two of them.
    search, journal = life(tmp_path / "study", steady(1, steps=10**9, measureEvery=10**6))
    launch = search.suggest(1)
    assert launch is not None
    place.relaunch({"launch": json.dumps(launch.to_json()), "by": [0, 1, 1]})
    assert not place.leaving
    assert "parted" not in place.step()

    marker.touch()
    result = place.step()
    assert result["parted"], result
    assert not result["lost"]
    kept = [checkpoint for line in result["lines"] if (checkpoint := decode(line).checkpoint)]
    assert kept and kept[-1].step % 10**6, "it waited for a measurement, or kept nothing"
    assert place.leaving, "more would start on a worker that goes away"
    assert ledger(search, 0) == []
    journal.store.close()


def test_a_worker_without_a_marker_never_looks_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(MARKER, raising=False)
    place = Place()
    assert not place.leaving
