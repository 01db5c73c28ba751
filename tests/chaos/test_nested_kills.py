"""Kills of the resume itself, and of the resume of that, five deep: recovery is ordinary work, each time."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import scenes
from lives import survives
from simulation import Snapshot, killed_at, places, world_of

DEPTH = 5
SCENE = scenes.Scene(seed=3, trials=8, steps=4)
Fired = Callable[..., None]


def recovery(scene: scenes.Scene, left: Snapshot) -> int:
    """How many places a resume passes until all that was running runs again."""
    passed = 0
    relaunched = 0

    def visit(place: object, _: object) -> None:
        nonlocal passed, relaunched
        relaunched += str(place).startswith("trial.start") and str(place).endswith("after")
        passed += relaunched < scene.parallel

    with world_of(scene, left) as world:
        world.live(places(world, visit))
    return passed + 1


@pytest.mark.fault("F05")
def test_each_event_of_a_resume_can_be_killed_and_of_its_resume_five_deep(fired: Fired) -> None:
    with world_of(SCENE) as world:
        left = killed_at(world, 200)
    assert left is not None
    killed = 0
    for depth in range(1, DEPTH + 1):
        events = recovery(SCENE, left)
        assert events > 20, "a recovery that does something"
        deeper: Snapshot | None = None
        states = set()
        for event in range(1, events + 1):
            with world_of(SCENE, left) as world:
                after = killed_at(world, event)
            assert after is not None
            killed += 1
            if after.key() not in states:
                states.add(after.key())
                wrong = survives(SCENE, after)
                assert not wrong, f"killed {depth} deep at event {event} of the resume:\n" + "\n".join(wrong)
            if event == events * (depth + 1) // (DEPTH + 2):
                deeper = after
        assert deeper is not None
        assert deeper.witness.kills == depth + 1
        left = deeper
    print(f"seed {SCENE.seed}: {killed} kills of a resume, {DEPTH} deep")
    fired(killed > 100)
