"""The Ray door's eyes: what the nodes of a Ray have, whether more may come, and what a trial waits for.

Imported by `cluster` alone, which sets what Ray reads at its import.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Mapping
from typing import Any

import ray

from hpsearch.errors import UsageError
from hpsearch.run import sight
from hpsearch.run.lookout import answers
from hpsearch.spec.model import Resources

log = logging.getLogger(__name__)
NEARLY = 1e-9  # sums of fractions are not exact
# What a container of a cluster knows that an operator keeps: it replaces nodes, also where it adds none.
KEPT = ("KUBERNETES_SERVICE_HOST", "RAY_CLUSTER_NAME")
# Where Ray's own autoscaler tells what it does, and whether it is the newer one, which tells nothing there.
STATUS, NEWER = b"__autoscaling_status", (b"__autoscaler_v2_enabled", b"__autoscaler")


def alive() -> list[dict[str, Any]]:
    """The nodes that live, as Ray tells of them."""
    return [node for node in ray.nodes() if node["Alive"]]


def is_lost(node: str) -> bool:
    """Whether a node is gone: Ray may hear of a dead worker before it misses the worker's node."""
    there = next((each for each in alive() if each["NodeID"] == node), None)
    return there is None or not answers(there["NodeManagerAddress"], there["NodeManagerPort"])


def largest(name: str) -> float:
    """The most of a resource that one node has."""
    return max((node["Resources"].get(name, 0.0) for node in alive()), default=0.0)


def asked(resources: Resources) -> dict[str, float]:
    """What a trial, or each of its workers, asks Ray for."""
    wanted = {"CPU": resources.cpu, "GPU": resources.gpu, "memory": float(resources.memory or 0)}
    return {name: amount for name, amount in wanted.items() if amount}


def preflight(resources: Resources, parallel: int, *, joined: bool, patient: bool) -> int:
    """How many trials may run at once; Ray itself would wait for ever for what nobody has.

    A cluster that is `joined` bounds no number; what it lacks is waited for where nodes may come: it grows by
    itself, or somebody is `patient`. Raises UsageError where no node has room for a trial.
    """
    lack = _misfit(resources)
    if joined:
        if lack and not patient and not may_grow():
            raise UsageError(
                f"{lack}, and this cluster does not grow by itself",
                hint="lower hpsearch.resources, or say with --start-timeout how long to wait for a node",
            )
        # What others hold may be free in a moment: whoever watches over the study says it when it lasts.
        if lack := _missing(resources):
            log.warning("%s", lack)
        return parallel
    if lack:
        raise UsageError(
            lack, hint="lower hpsearch.resources, or join a cluster that has them with --address"
        )
    room = max(_room(node["Resources"], resources) for node in alive())
    fits = min(parallel, room // resources.workers)
    if fits < parallel:
        log.warning("maxParallelTrials is %d, this machine has room for %d trials at once", parallel, fits)
    return fits


def _misfit(resources: Resources) -> str:
    """Why a trial fits none of the nodes there are; nothing if one is large enough."""
    wanted = asked(resources)
    there = [node["Resources"] for node in alive()]
    for name, amount in wanted.items():
        if amount > largest(name):
            return f"a trial asks for {amount:g} {name}, the largest node has {largest(name):g}"
    room = [_room(node, resources) for node in there]
    together = ", ".join(f"{amount:g} {name}" for name, amount in wanted.items())
    if not any(room):
        return f"a trial asks for {together}, and no single node has all of that"
    if sum(room) < resources.workers:
        asks = f"a trial asks for {resources.workers} workers of {together} each"
        return f"{asks}, and all nodes together have room for {sum(room)}"
    return ""


def _room(node: Mapping[str, float], resources: Resources) -> int:
    """How many trials, or workers of trials, a node with these resources holds."""
    wanted = asked(resources)
    return min(math.floor(node.get(name, 0.0) / amount + NEARLY) for name, amount in wanted.items())


def may_grow(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether nodes may come to the Ray of this driver; True where that cannot be told."""
    if any(name in environment for name in KEPT):
        return True
    gcs = ray._private.worker.global_worker.gcs_client
    if gcs.internal_kv_get(*NEWER) == b"1":
        return True
    return sight.tells_of_growth(gcs.internal_kv_get(STATUS, None))


def awaited(resources: Resources) -> str | None:
    """What the first trial of this driver waits for, nothing if it can start; None once it has its place.

    It is a worker's start that takes long then, while the trial itself holds what it asks for.
    """
    job = ray.JobID.from_hex(ray.get_runtime_context().get_job_id())
    # Tune makes an actor where its place is reserved.
    return None if ray._private.state.actors(job_id=job) else lacking(resources)


def lacking(resources: Resources) -> str:
    """What a trial waits for that no node has, or that others hold; nothing if it can start."""
    if missing := _missing(resources):
        return missing
    free = ray.available_resources()
    for name, amount in asked(resources).items():
        if (together := amount * resources.workers) > free.get(name, 0.0):
            return f"no trial has started: one asks for {together:g} {name}, {free.get(name, 0):g} are free"
    return ""


def _missing(resources: Resources) -> str:
    """What a trial waits for that no node has."""
    for name, amount in asked(resources).items():
        there = largest(name)
        if amount > there:
            exist = f"{there:g} exist" + (" on the largest node" if there else "")
            return f"waiting for {amount:g} {name}, {exist}: no trial starts until a node has them"
    return ""
