"""The outbox against a real MLflow server that comes late, dies in the middle, and comes back."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow_facts import Facts, Tracking, expected_points, make_facts, wait_for
from tracking_server import Server, Stable

from hpsearch.study.trial import State


@pytest.fixture
def server(tracking: Tracking, stable: Stable) -> Iterator[Server]:
    server = Server(tracking.path, stable)
    yield server
    server.kill()


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hpsearch.track.patience.LONGEST_PAUSE", 0.5)


@pytest.mark.timeout(300)
@pytest.mark.slow
def test_a_server_that_comes_late_and_dies_in_the_middle_gets_everything_once(
    server: Server, tracking: Tracking, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    facts: Facts = make_facts(tmp_path, server.uri)
    for number in range(3):
        facts.trial(number, loss=number + 1.0, steps=5)
    outbox = facts.outbox(artifact_root=None)
    outbox.start()
    wait_for(lambda: outbox.problem, 70)
    assert "refused" in str(outbox.problem).lower()
    assert outbox.offset == 0

    server.start()
    wait_for(lambda: outbox.offset == len(facts.changes), 70)
    assert outbox.problem is None

    # Many pages of one trial each, so that the kill falls into the middle of them.
    monkey = pytest.MonkeyPatch()
    monkey.setattr("hpsearch.track.outbox.PAGE", 8)
    following = make_facts(tmp_path, server.uri)
    following.changes = list(facts.changes)
    for number in range(3, 40):
        following.trial(number, loss=number + 1.0, steps=5)
    facts.changes = following.changes
    wait_for(lambda: outbox.offset > 40, 70)
    server.kill()
    wait_for(lambda: outbox.problem, 70)
    stopped_at = outbox.offset
    assert stopped_at < len(facts.changes), "everything was delivered before the server died"
    facts.suggest(40)
    facts.measure(40, 10, loss=float("nan"), accuracy=float("inf"))
    facts.end(40, State.PRUNED, "NaN at step 10")
    facts.finish()
    server.start()
    assert outbox.close(40), outbox.problem
    monkey.undo()

    assert outbox.offset == len(facts.changes) > stopped_at
    assert [r.levelname for r in caplog.records if r.name.endswith("patience")] == ["WARNING", "WARNING"]
    assert_delivered_once(facts, tracking, 41)
    assert len(list((tmp_path / "artifacts").rglob("auto_mpg.yaml"))) == 1

    before = tracking.everything()
    facts.deliver(0, outbox.parent_run_id)
    assert tracking.everything() == before


def assert_delivered_once(facts: Facts, tracking: Tracking, trials: int) -> None:
    runs = tracking.run_ids()
    (parent,) = tracking.parents()
    assert len(runs) == trials
    assert tracking.run(parent)[0] == "FINISHED"
    for number in range(trials - 1):
        assert tracking.points(runs[f"trial-{number}"]) == expected_points(facts, number)
        assert tracking.run(runs[f"trial-{number}"])[0] == "FINISHED"
    pruned = runs[f"trial-{trials - 1}"]
    when = facts.study.created + (trials - 1) * 1_000 + 10
    assert tracking.points(pruned) == [
        ("accuracy", 10, sys.float_info.max, when),
        ("loss", 10, None, when),
    ]
    assert tracking.run(pruned)[0] == "KILLED"
    assert tracking.tags(pruned)["reason"] == "NaN at step 10"
