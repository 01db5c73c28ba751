"""Kueue's own objects together: queues, flavors and quotas that there are, and that a sweep fits."""

from __future__ import annotations

from collections.abc import Iterator

from hpsearch.ship.lint.finding import Level
from hpsearch.ship.lint.kueue import PRIORITY, QUEUE
from hpsearch.ship.lint.manifest import Manifest
from hpsearch.ship.lint.names import quantity
from hpsearch.ship.lint.rulebook import Rulebook
from hpsearch.ship.lint.scene import Placed, Scene, near
from hpsearch.ship.lint.shape import maps, text, texts
from hpsearch.ship.lint.sums import needs

QUEUES: Rulebook[Scene, Placed] = Rulebook("kueue", "Kueue 0.19, LocalQueue and ClusterQueue")
GROUP = "kueue.x-k8s.io"


@QUEUES.rule(
    "queue-reference",
    "A queue's name leads to a queue, and a flavor's to a flavor.",
    "add the object, or correct the name",
)
def queue_reference(scene: Scene) -> Iterator[Placed]:
    local, cluster = list(scene.of("LocalQueue", GROUP)), list(scene.of("ClusterQueue", GROUP))
    flavors = {each.name for each in scene.of("ResourceFlavor", GROUP)}
    for each in scene.manifests:
        name, at = each.labels.get(QUEUE), ("metadata", "labels", QUEUE)
        mine = [queue for queue in local if near(queue.namespace, each.namespace)]
        # Where these files bring no queue of the namespace it is made elsewhere.
        if isinstance(name, str) and mine and name not in {queue.name for queue in mine}:
            yield Placed(each, at, f"no LocalQueue {name} in these files, which have {mine[0].name}")
    for each in local:
        name = text(each.value, "spec", "clusterQueue")
        if cluster and name not in {queue.name for queue in cluster}:
            yield Placed(each, ("spec", "clusterQueue"), f"no ClusterQueue {name} in these files")
    for each in cluster:
        for place, group in maps(each.value, "spec", "resourceGroups"):
            for number, flavor in maps(group, "flavors"):
                if flavors and text(flavor, "name") not in flavors:
                    path = ("spec", "resourceGroups", place, "flavors", number, "name")
                    yield Placed(each, path, f"no ResourceFlavor {text(flavor, 'name')} in these files")


@QUEUES.rule(
    "covered",
    "Each flavor of a group has a quota of each resource that the group covers, in the same order.",
    "let flavors[].resources name what coveredResources names",
)
def covered(scene: Scene) -> Iterator[Placed]:
    for each in scene.of("ClusterQueue", GROUP):
        for place, group in maps(each.value, "spec", "resourceGroups"):
            wanted = texts(group, "coveredResources")
            for number, flavor in maps(group, "flavors"):
                given = [text(entry, "name") for _, entry in maps(flavor, "resources")]
                if given != wanted:
                    path = ("spec", "resourceGroups", place, "flavors", number, "resources")
                    said = f"quotas of {', '.join(given)}, and the group covers {', '.join(wanted)}"
                    yield Placed(each, path, said)


@QUEUES.rule(
    "unqueued",
    "A job is queued by a label of its own; a priority without a queue, or a queue elsewhere, does nothing.",
    f"write the label {QUEUE}: NAME on the RayJob itself",
    level=Level.WARNING,
)
def unqueued(scene: Scene) -> Iterator[Placed]:
    for job in scene.jobs:
        manifest = job.manifest
        if QUEUE in manifest.labels:
            continue
        if PRIORITY in manifest.labels:
            said = "a priority of Kueue's without a queue"
            yield Placed(manifest, ("metadata", "labels", PRIORITY), said)
        if QUEUE in manifest.annotations:
            said = "a queue as an annotation: Kueue looks at labels"
            yield Placed(manifest, ("metadata", "annotations", QUEUE), said)
    for pod in scene.pods:
        if pod.job is not None and QUEUE in pod.labels:
            path = (*pod.path[:-1], "metadata", "labels", QUEUE)
            said = "a queue's label on a pod's template: the pod would be queued by itself, beside its job"
            yield Placed(pod.manifest, path, said, Level.ERROR, f"write it on the {pod.manifest.kind} alone")


@QUEUES.rule(
    "quota",
    "A queued sweep fits the whole quota of its queue, or it is never let in.",
    "raise nominalQuota, or lower the sweep's workers",
)
def quota(scene: Scene) -> Iterator[Placed]:
    for job in scene.jobs:
        queue = scene.find("LocalQueue", str(job.manifest.labels.get(QUEUE)), job.manifest.namespace, GROUP)
        if queue is None:
            continue
        found = scene.find("ClusterQueue", text(queue.value, "spec", "clusterQueue"), "", GROUP)
        # What a cohort lends is not known.
        if found is None or text(found.value, "spec", "cohort") or text(found.value, "spec", "cohortName"):
            continue
        largest = _largest(found)
        for name, needed in needs(job, largest=True).items():
            if name in largest and needed > largest[name]:
                said = f"the job needs {needed:g} of {name}, and its queue {found.name} has {largest[name]:g}"
                yield Placed(job.manifest, ("metadata", "labels", QUEUE), said)


def _largest(queue: Manifest) -> dict[str, float]:
    """The most of each resource that one flavor of a queue has."""
    found: dict[str, float] = {}
    for _, group in maps(queue.value, "spec", "resourceGroups"):
        for _, flavor in maps(group, "flavors"):
            for _, entry in maps(flavor, "resources"):
                name, amount = text(entry, "name"), quantity(entry.get("nominalQuota")) or 0.0
                found[name] = max(found.get(name, 0.0), amount)
    return found
