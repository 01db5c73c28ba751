"""KubeRay's objects as its operator sees them: defaults filled in, and each cluster wherever it stands."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from hpsearch.ship.lint.finding import Path
from hpsearch.ship.lint.manifest import Manifest
from hpsearch.ship.lint.shape import dig, mapping, maps, sequence, text

K8S_JOB, HTTP, SIDECAR, INTERACTIVE = "K8sJobMode", "HTTPMode", "SidecarMode", "InteractiveMode"
MODES = (K8S_JOB, HTTP, SIDECAR, INTERACTIVE)
V2_VARIABLE = "RAY_enable_autoscaler_v2"
# What a group has at most whose author forgot to say: all that an int32 can count.
FORGOTTEN = 2_147_483_647

# Schema defaults of KubeRay 1.7 that rules rely on, for when no CRDs are given.
_JOB_DEFAULTS = {"submissionMode": K8S_JOB, "backoffLimit": 0, "ttlSecondsAfterFinished": 0}
_GROUP_DEFAULTS = {"minReplicas": 0, "maxReplicas": FORGOTTEN, "replicas": 0, "numOfHosts": 1, "priority": 0}
_CLUSTER_AT: dict[str, Path] = {
    "RayCluster": ("spec",),
    "RayService": ("spec", "rayClusterConfig"),
    "RayJob": ("spec", "rayClusterSpec"),
    "RayCronJob": ("spec", "jobTemplate", "rayClusterSpec"),
}
_JOB_AT: dict[str, Path] = {"RayJob": ("spec",), "RayCronJob": ("spec", "jobTemplate")}


@dataclass(frozen=True, slots=True)
class RayCluster:
    """The spec of a cluster at `base` of a manifest; `raw` is what was written, `spec` has the defaults."""

    manifest: Manifest
    base: Path
    spec: dict[str, Any] = field(repr=False)
    raw: dict[str, Any] = field(repr=False)
    gates: frozenset[str] = frozenset()

    @property
    def of_job(self) -> bool:
        """Whether it is a job's, not one of its own."""
        return self.manifest.kind in _JOB_AT

    @property
    def head(self) -> dict[str, Any]:
        """Its head group."""
        return mapping(self.spec, "headGroupSpec")

    @property
    def groups(self) -> list[tuple[int, dict[str, Any]]]:
        """Its worker groups, each with its place."""
        return list(maps(self.spec, "workerGroupSpecs"))

    @property
    def autoscaling(self) -> bool:
        """Whether the autoscaler runs beside the head."""
        return self.spec.get("enableInTreeAutoscaling") is True

    @property
    def autoscaler_v2(self) -> bool:
        """Whether it is asked for as version 2, by the field or by the old variable."""
        by_field = self.autoscaling and text(self.spec, "autoscalerOptions", "version") == "v2"
        return by_field or self.head_variable(V2_VARIABLE) in ("1", "true")

    @property
    def version(self) -> tuple[int, int, int] | None:
        """Its Ray version; None where there is none that can be read."""
        found = re.match(r"v?(\d+)\.(\d+)(?:\.(\d+))?", text(self.spec, "rayVersion"))
        return (int(found[1]), int(found[2]), int(found[3] or 0)) if found else None

    def head_variable(self, name: str) -> str | None:
        """The value of a variable of the head's container, empty for a reference; None without it."""
        return variable(dig(self.head, "template", "spec", "containers", 0), name)

    def containers(self) -> Iterator[tuple[Path, str, dict[str, Any]]]:
        """The Ray container of each group, with its path and the group's name."""
        head: Path = ("headGroupSpec",)
        for place, group in ((head, self.head), *(((("workerGroupSpecs", i)), g) for i, g in self.groups)):
            container = mapping(group, "template", "spec", "containers", 0)
            name = "head" if place == head else text(group, "groupName")
            yield (*place, "template", "spec", "containers", 0), name, container


@dataclass(frozen=True, slots=True)
class RayJob:
    """The spec of a job at `base` of a manifest, and its cluster, if it brings one."""

    manifest: Manifest
    base: Path
    spec: dict[str, Any] = field(repr=False)
    raw: dict[str, Any] = field(repr=False)
    cluster: RayCluster | None = None

    @property
    def mode(self) -> str:
        """Who submits."""
        return text(self.spec, "submissionMode")

    @property
    def shutdown(self) -> bool:
        """Whether the cluster goes once the job has ended."""
        return self.spec.get("shutdownAfterJobFinishes") is True

    @property
    def suspended(self) -> bool:
        """Whether it waits to be let in."""
        return self.spec.get("suspend") is True

    @property
    def selects(self) -> bool:
        """Whether it runs on a cluster that is there already."""
        return bool(mapping(self.spec, "clusterSelector"))

    @property
    def rules(self) -> list[tuple[int, dict[str, Any]]]:
        """Its deletion rules, each with its place."""
        return list(maps(self.spec, "deletionStrategy", "deletionRules"))

    @property
    def words(self) -> list[str]:
        """The words of its entrypoint."""
        return text(self.spec, "entrypoint").split()

    @property
    def runs_sweep(self) -> bool:
        """Whether its entrypoint is hpsearch's own driver."""
        return self.words[:2] == ["hpsearch", "run"]


def job_of(manifest: Manifest, whole: dict[str, Any], gates: frozenset[str]) -> RayJob | None:
    """The job that a manifest holds; `whole` is its object with the defaults of its CRD, or as it is."""
    base = _JOB_AT.get(manifest.kind)
    if base is None or not manifest.is_ray:
        return None
    spec = _with(_JOB_DEFAULTS, mapping(whole, *base))
    return RayJob(manifest, base, spec, mapping(manifest.value, *base), cluster_of(manifest, whole, gates))


def cluster_of(manifest: Manifest, whole: dict[str, Any], gates: frozenset[str]) -> RayCluster | None:
    """The cluster that a manifest holds."""
    base = _CLUSTER_AT.get(manifest.kind)
    if base is None or not manifest.is_ray or not isinstance(dig(whole, *base), dict):
        return None
    spec = dict(mapping(whole, *base))
    groups = sequence(spec, "workerGroupSpecs")
    if groups:
        spec["workerGroupSpecs"] = [_with(_GROUP_DEFAULTS, g) if isinstance(g, dict) else g for g in groups]
    return RayCluster(manifest, base, spec, mapping(manifest.value, *base), gates)


def _with(defaults: dict[str, Any], spec: dict[str, Any]) -> dict[str, Any]:
    return {**defaults, **{key: value for key, value in spec.items() if value is not None}}


def variable(container: Any, name: str) -> str | None:
    """The value of a container's variable, empty for a reference; None where it has none of that name."""
    for _, entry in maps(container, "env"):
        if entry.get("name") == name:
            value = entry.get("value")
            return value if isinstance(value, str) else ""
    return None
