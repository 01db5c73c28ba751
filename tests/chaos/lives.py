"""What simulated studies come to if nobody kills them, and whether they come to the same after a kill."""

from __future__ import annotations

import functools

from checker import Reference, reference_of, violations
from scenes import Scene
from simulation import Snapshot, world_of


@functools.lru_cache(maxsize=200)
def reference(scene: Scene) -> Reference:
    """What the study comes to if nobody kills it."""
    with world_of(scene) as world:
        return reference_of(world, world.live())


def survives(scene: Scene, left: Snapshot) -> list[str]:
    """Go on with what a kill left, to the end; what is wrong then."""
    with world_of(scene, left) as world:
        # One commit for each step, and one visit to the server: it is killed no more.
        world.flush, world.together = 10**9, True
        return violations(world, world.live(), reference(scene))
