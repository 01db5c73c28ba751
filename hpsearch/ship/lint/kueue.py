"""What Kueue's webhook refuses in a RayJob or RayCluster that is queued, with schema defaults filled in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from hpsearch.ship.job import MOST_GROUPS
from hpsearch.ship.lint.finding import TOP, Fault, Level
from hpsearch.ship.lint.manifest import Manifest
from hpsearch.ship.lint.names import DNS_1123, is_label_value
from hpsearch.ship.lint.ray_objects import RayCluster, RayJob
from hpsearch.ship.lint.rulebook import Rulebook
from hpsearch.ship.lint.shape import text

QUEUE = "kueue.x-k8s.io/queue-name"
PRIORITY = "kueue.x-k8s.io/priority-class"
ELASTIC = "kueue.x-k8s.io/elastic-job"
OURS, MULTIKUEUE = "ray.io/kuberay-operator", "kueue.x-k8s.io/multikueue"


@dataclass(frozen=True, slots=True)
class Queued:
    """A job or cluster that Kueue lets in: what has the label of a queue."""

    manifest: Manifest
    job: RayJob | None
    cluster: RayCluster | None

    @property
    def elastic(self) -> bool:
        """Whether its size may change while it is let in."""
        return self.manifest.annotations.get(ELASTIC) == "true"


def queued(manifest: Manifest, job: RayJob | None, cluster: RayCluster | None) -> Queued | None:
    """A job or cluster as Kueue sees it; None without the label of a queue."""
    if QUEUE not in manifest.labels or not (job or cluster):
        return None
    return Queued(manifest, job, cluster)


KUEUE: Rulebook[Queued, Fault] = Rulebook("kueue", "Kueue 0.19, webhooks of RayJob and RayCluster")


@KUEUE.rule("queue-name", "The label names a queue.", f"write {QUEUE}: NAME of a LocalQueue")
def queue_name(queued: Queued) -> Iterator[Fault]:
    name = queued.manifest.labels.get(QUEUE)
    if not isinstance(name, str) or not DNS_1123.fullmatch(name):
        yield Fault((TOP, "metadata", "labels", QUEUE), f"{name!r} names no queue")
    priority = queued.manifest.labels.get(PRIORITY)
    if priority is not None and not (isinstance(priority, str) and priority and is_label_value(priority)):
        yield Fault((TOP, "metadata", "labels", PRIORITY), f"{priority!r} names no priority class")


@KUEUE.rule(
    "shutdown",
    "A queued job shuts its cluster down, or it would hold the quota.",
    "set shutdownAfterJobFinishes: true, without deletionRules",
)
def shutdown(queued: Queued) -> Iterator[Fault]:
    if queued.job and queued.cluster and not queued.job.shutdown:
        yield Fault((*queued.job.base, "shutdownAfterJobFinishes"), "a queued job that keeps its cluster")


@KUEUE.rule("selector", "A queued job brings its own cluster.", "remove clusterSelector, or the label")
def selector(queued: Queued) -> Iterator[Fault]:
    if queued.job and queued.job.selects:
        yield Fault((*queued.job.base, "clusterSelector"), "a queued job on a cluster of others")


@KUEUE.rule(
    "autoscaling",
    f'A queued cluster scales only with the annotation {ELASTIC}: "true".',
    "fix the number of workers: enableInTreeAutoscaling: false, replicas = minReplicas = maxReplicas",
)
def autoscaling(queued: Queued) -> Iterator[Fault]:
    if queued.cluster and queued.cluster.autoscaling and not queued.elastic:
        yield Fault((*queued.cluster.base, "enableInTreeAutoscaling"), "autoscaling of a queued job")


@KUEUE.rule(
    "groups",
    "Kueue counts at most 18 pod sets, the head's and the submitter's among them.",
    f"use at most {MOST_GROUPS} worker groups",
)
def groups(queued: Queued) -> Iterator[Fault]:
    if queued.cluster and len(queued.cluster.groups) > MOST_GROUPS:
        count = len(queued.cluster.groups)
        yield Fault(
            (*queued.cluster.base, "workerGroupSpecs"), f"{count} worker groups, and at most {MOST_GROUPS}"
        )


@KUEUE.rule("group-head", "The name head is the head's.", "rename the worker group")
def group_head(queued: Queued) -> Iterator[Fault]:
    for place, group in queued.cluster.groups if queued.cluster else ():
        if text(group, "groupName") == "head" and queued.cluster:
            yield Fault(
                (*queued.cluster.base, "workerGroupSpecs", place, "groupName"), "a worker group called head"
            )


@KUEUE.rule(
    "cron-child",
    "A RayCronJob's jobs get no labels, so that Kueue never sees them.",
    "use a CronJob that runs hpsearch launch --kueue QUEUE",
    source="KubeRay 1.7.0, RayCronJob",
)
def cron_child(queued: Queued) -> Iterator[Fault]:
    if queued.manifest.kind == "RayCronJob":
        yield Fault((TOP, "metadata", "labels", QUEUE), "a queue's label on a RayCronJob does nothing")


@KUEUE.rule(
    "managed-by",
    "managedBy stays unset: Kueue sets it where it manages several clusters.",
    "remove managedBy",
    level=Level.WARNING,
)
def managed_by(queued: Queued) -> Iterator[Fault]:
    job = queued.job
    if job and text(job.spec, "managedBy") not in ("", OURS):
        yield Fault((*job.base, "managedBy"), f"managedBy {text(job.spec, 'managedBy')} on a queued job")
