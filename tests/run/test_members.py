"""A trial's other workers as its first process knows them, without Ray."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from hpsearch.run import members
from hpsearch.run.members import Worker
from hpsearch.run.team import MemberLost
from hpsearch.study.trial import Cause

GROUP = SimpleNamespace(bundle_specs=[{"CPU": 1}, {"CPU": 1}])


@pytest.fixture
def state(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The state of a placement group on a Ray in which no worker ever starts."""
    seat = SimpleNamespace(where=SimpleNamespace(remote=lambda: "answer"))
    made = SimpleNamespace(options=lambda **_: SimpleNamespace(remote=lambda: seat))
    ray = SimpleNamespace(remote=lambda _: made, wait=lambda refs, timeout: ([], refs))
    told = {"state": "CREATED"}
    monkeypatch.setattr(members, "ray", ray)
    monkeypatch.setattr(members, "placement_group_table", lambda _: told)
    monkeypatch.setattr(members, "PlacementGroupSchedulingStrategy", lambda *_, **__: None)
    return told


def test_a_worker_whose_node_was_lost_before_it_started_is_not_waited_for(state: dict[str, str]) -> None:
    state["state"] = "RESCHEDULING"
    with pytest.raises(MemberLost, match="its node was lost") as lost:
        Worker(GROUP, 1).where()
    assert lost.value.cause is Cause.PREEMPTED, "that is no failure of the trial"


def test_a_worker_that_does_not_start_on_a_node_that_is_there_is_waited_for_until_its_time_is_up(
    state: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(members, "COMING", 0.01)
    with pytest.raises(MemberLost, match=r"did not start within 0\.01 s") as lost:
        Worker(GROUP, 1).where()
    assert lost.value.cause is Cause.CRASHED
