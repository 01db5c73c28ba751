"""The Ray door's other workers: those of a trial of several processes, each on a bundle of its place.

Imported by `tuning` alone, after `cluster` has set what Ray reads at its import.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from typing import Any

import ray
from ray.util.placement_group import placement_group_table
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from hpsearch.run import nodes
from hpsearch.run.place import Place
from hpsearch.run.ranks import Whereabouts
from hpsearch.run.team import MemberLost, Team
from hpsearch.study.trial import Cause, Launch

# A worker starts in seconds, on a busy machine in many; between two looks whether its node is still there.
COMING, LOOK = 120.0, 5.0  # seconds
# How long a worker may take to end a process, beyond the grace that the process has (seconds).
ENDING = 15.0
NODE_LOST = "its node was lost"
STEP = 0.25  # seconds, after which a worker hears that its process is to end


def slot() -> Team | None:
    """What the trials of this actor run on, None where its place is for one process only."""
    group = ray.util.get_current_placement_group()
    bundles = group.bundle_specs if group else []
    if len(bundles) < 2:
        return None
    return Team(len(bundles), whereabouts(), lambda rank: Worker(group, rank))


def whereabouts() -> Whereabouts:
    """Where this process runs."""
    node = ray.get_runtime_context().get_node_id()
    return Whereabouts(node, ray.util.get_node_ip_address(), os.environ.get("CUDA_VISIBLE_DEVICES"))


class Seat:
    """The actor on another bundle: one place that runs a process of one trial after another."""

    def __init__(self) -> None:
        self._place = Place(every=STEP, leads=False)
        self._place.hear_notice()

    def where(self) -> Whereabouts:
        """Where it runs."""
        return whereabouts()

    def relaunch(self, config: dict[str, Any]) -> None:
        """Start a process."""
        self._place.relaunch(config)

    def step(self) -> dict[str, Any]:
        """What the process said since the last step."""
        return self._place.step()

    def part(self) -> None:
        """Let the process end with its trial."""
        self._place.part()

    def abandon(self) -> None:
        """Kill what still runs of the process."""
        self._place.abandon()


class Worker:
    """One seat as a trial's first process knows it; it ends with the actor that made it."""

    def __init__(self, group: Any, rank: int) -> None:
        self._group = group
        bundle = group.bundle_specs[rank]
        there = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=rank)
        self._seat = ray.remote(Seat).options(
            num_cpus=bundle.get("CPU", 0),
            num_gpus=bundle.get("GPU", 0),
            memory=bundle.get("memory"),
            scheduling_strategy=there,
        ).remote()  # fmt: skip
        self._node: str | None = None
        self._step: Any = None
        self._end: Any = None
        self._started = False

    def where(self) -> Whereabouts:
        """Where it runs, once it does."""
        coming, until = self._seat.where.remote(), time.monotonic() + COMING
        while not ray.wait([coming], timeout=LOOK)[0]:
            # Ray looks for another node then, for as long as that takes, and the others would hold theirs.
            if placement_group_table(self._group).get("state") != "CREATED":
                raise MemberLost(NODE_LOST, Cause.PREEMPTED)
            if time.monotonic() > until:
                raise MemberLost(f"its worker did not start within {COMING:g} s")
        found: Whereabouts = self._got(coming, 0)
        self._node = found.node
        return found

    def start(self, launch: Launch) -> None:
        """Start a process there."""
        self._step, self._end, self._started = None, None, True
        self._seat.relaunch.remote({"launch": json.dumps(launch.to_json())})

    def hear(self) -> Mapping[str, Any] | None:
        """What it said since the last time, None for nothing."""
        if self._step is None:
            self._step = self._seat.step.remote()
        if not ray.wait([self._step], timeout=0)[0]:
            return None
        step, self._step = self._step, None
        found: Mapping[str, Any] = self._got(step, 0)
        return found

    def is_cut_off(self) -> bool:
        """Whether its node is lost, of which Ray itself may not know yet."""
        return self._node is not None and nodes.is_lost(self._node)

    def part(self) -> None:
        """Ask the process to end, within its grace."""
        self._seat.part.remote()
        self._step = self._seat.step.remote()

    def end(self) -> None:
        """End the process."""
        if self._started:
            self._started = False
            self._end = self._seat.abandon.remote()

    def gone(self, seconds: float) -> bool:
        """Wait until nothing of the process is left; False for a worker that does not say so."""
        if self._end is None:
            return True
        try:
            self._got(self._end, seconds + ENDING)
        except MemberLost:
            ray.kill(self._seat)
            return False
        self._end = None
        return True

    def _got(self, ref: Any, seconds: float) -> Any:
        try:
            return ray.get(ref, timeout=seconds)
        except ray.exceptions.GetTimeoutError as error:
            raise MemberLost(f"its worker did not answer within {seconds:g} s") from error
        except ray.exceptions.RayActorError as error:
            if self.is_cut_off():
                raise MemberLost(NODE_LOST, Cause.PREEMPTED) from error
            raise MemberLost("its worker was lost") from error
