"""Every event of a sweep of 24 trials, killed before, inside and after: as if nothing had happened."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
import scenes
from lives import survives
from simulation import Place, Snapshot, places, trace, world_of

from hpsearch.faults import POINTS

SHARDS = 2
# What only other processes than the driver's reach, or a driver of another database.
ELSEWHERE = {"lease.renew"}
# The bytes of a pipe and of a fork have their own tests with real processes.
Fired = Callable[..., None]


@pytest.fixture(autouse=True)
def _few_collections() -> Iterator[None]:
    """Thousands of lives leave little that is a cycle; looking for it would take a third of the time."""
    gc.collect()
    gc.freeze()
    gc.disable()
    yield
    gc.enable()
    gc.unfreeze()


def killed_everywhere(scene: scenes.Scene, shard: int, shards: int) -> tuple[Counter[str], int]:
    """Kill a sweep at each of its places, and go on from every state that is not like the last ones.

    What follows depends on what is durable alone, so that places which leave the same need one resume.
    Returns the places by point and phase, and how many states they left.
    """
    met: Counter[str] = Counter()
    states: set[object] = set()

    def visit(place: Place, snapshot: Callable[[], Snapshot]) -> None:
        met[f"{place.point} {place.phase}"] += 1
        left = snapshot()
        left.witness.kills += 1
        key = left.key()
        if key in states:
            return
        states.add(key)
        if len(states) % shards == shard and (wrong := survives(scene, left)):
            raise AssertionError(f"killed at {place} (seed {scene.seed}):\n" + "\n".join(wrong))
        if len(states) % 100 == 0:
            gc.collect()

    with world_of(scene) as world:
        code = world.live(places(world, visit))
        assert code == 0, world.error
    return met, len(states)


@pytest.mark.timeout(400)  # 30 s of work on a core of its own, which it seldom has
@pytest.mark.fault("F01", "F02", "F03")
@pytest.mark.parametrize("shard", range(SHARDS))
def test_a_sweep_killed_at_any_event_before_inside_or_after_ends_as_if_nothing_had_happened(
    shard: int, fired: Fired
) -> None:
    met, states = killed_everywhere(scenes.REFERENCE, shard, SHARDS)
    print(f"seed {scenes.REFERENCE.seed}: {met.total()} kill points, {states} different states")
    assert {name.split()[0] for name in met} == POINTS - ELSEWHERE, "a point that nobody reaches"
    fired(met.total() >= 1_500 and states > 500, "F01")
    fired(met["store.commit inside"] >= 100, "F02")
    fired(met["ckpt.rename after"] >= 24 and met["ckpt.row before"] >= 24, "F03")


def test_the_trace_of_a_sweep_names_each_point_phase_and_count() -> None:
    seen = trace(scenes.REFERENCE)
    assert {place.point for place in seen} == POINTS - ELSEWHERE
    for place in seen:
        assert place.count >= 1
    assert seen == trace(scenes.REFERENCE), "order-pinned: the same again"
