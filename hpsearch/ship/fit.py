"""Whether a sweep's trials fit the workers that it would get; asked before anything is sent to a cluster.

Ray waits for ever for what no worker can hold, and so would the cluster's bill.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from hpsearch.errors import UsageError
from hpsearch.ship.job import Gi, Group
from hpsearch.spec.model import Resources, Spec

# Sums of fractions are not exact.
NEARLY = 1e-9
# Of a worker that is made to measure: CPUs that its trials share, and what one gets that names no memory.
MADE_CPUS, MADE_MEMORY = 4, 2 * Gi


def places(group: Group, resources: Resources) -> int:
    """How many processes of trials one worker of a group runs at once; most trials are one."""
    fits = [math.floor(group.ray_cpus / resources.cpu + NEARLY)] if resources.cpu else []
    if resources.gpu:
        # A trial of less than one GPU never spans two of them.
        whole = resources.gpu >= 1
        share = group.gpus / resources.gpu if whole else group.gpus * math.floor(1 / resources.gpu + NEARLY)
        fits.append(math.floor(share + NEARLY))
    if resources.memory:
        fits.append(group.ray_memory // resources.memory)
    return min(fits, default=1)


def check(spec: Spec, groups: Sequence[Group]) -> None:
    """Raise UsageError unless a trial fits a worker, and all that may run at once fit all workers."""
    resources = spec.resources
    most = sum(places(group, resources) * group.max_replicas for group in groups)
    if not any(places(group, resources) for group in groups):
        raise UsageError(
            f"no worker can hold a trial, which asks for {_asked(resources)}: "
            + "; ".join(map(_has, groups)),
            hint="lower hpsearch.resources in the file, or give larger workers with --group",
        )
    if most < spec.max_parallel_trials * resources.workers:
        counted = ", ".join(f"{each.name} {each.max_replicas} x {places(each, resources)}" for each in groups)
        each_of = f" of {resources.workers} processes each" if resources.workers > 1 else ""
        holds = f"{most // resources.workers} trials{each_of} ({counted})"
        raise UsageError(
            f"maxParallelTrials is {spec.max_parallel_trials}, all workers hold {holds}",
            hint="lower maxParallelTrials, or raise max= of a --group",
        )


def made_to_measure(spec: Spec, *, elastic: bool) -> tuple[Group, ...]:
    """Workers that hold the sweep's trials: spot ones first and others beside them, or a fixed number.

    A trial's share decides the size of a worker, `maxParallelTrials` their number.
    """
    resources, parallel = spec.resources, spec.max_parallel_trials * spec.resources.workers
    together = max(1, min(parallel, math.floor(MADE_CPUS / resources.cpu) if resources.cpu else MADE_CPUS))
    gpus = math.ceil(resources.gpu)
    if gpus:
        together = max(1, min(together, math.floor(gpus / resources.gpu + NEARLY)))
    asked = (resources.memory or MADE_MEMORY) * together
    # A quarter is not the trials' own at most: see Group.ray_memory.
    memory = max(4, math.ceil(asked / 0.75 / Gi)) * Gi
    cpus = float(max(1, math.ceil(resources.cpu * together)))
    size = Group(
        name="workers", cpus=cpus, memory=memory, gpus=gpus, max_replicas=math.ceil(parallel / together)
    )
    if not elastic:
        return (size.model_copy(update={"min_replicas": size.max_replicas}),)
    return (
        size.model_copy(update={"name": "spot", "spot": True, "priority": 10}),
        size.model_copy(update={"name": "on-demand"}),
    )


def _asked(resources: Resources) -> str:
    memory = f", {resources.memory / Gi:.3g}Gi of memory" if resources.memory else ""
    each = f" for each of {resources.workers} processes" if resources.workers > 1 else ""
    return f"{resources.cpu:g} CPUs, {resources.gpu:g} GPUs{memory}{each}"


def _has(group: Group) -> str:
    return (
        f"one of {group.name} has {group.ray_cpus} CPUs, {group.gpus} GPUs and, of its "
        f"{group.memory / Gi:.3g}Gi, {group.ray_memory / Gi:.3g}Gi of memory for trials"
    )
