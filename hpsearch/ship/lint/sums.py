"""What a RayJob asks for in all, as quotas count it: requests, or limits where there are none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from hpsearch.ship.lint.names import quantity
from hpsearch.ship.lint.ray_objects import K8S_JOB, RayJob
from hpsearch.ship.lint.shape import mapping, maps, whole


def needs(job: RayJob, *, largest: bool) -> Counter[str]:
    """Amounts by resource: of the head, the submitter, and the workers at their most or their least."""
    found: Counter[str] = Counter()
    if job.cluster is None:
        return found
    _add(found, mapping(job.cluster.head, "template", "spec"), 1)
    for _, group in job.cluster.groups:
        count = whole(group, "maxReplicas" if largest else "minReplicas") or 0
        _add(found, mapping(group, "template", "spec"), count * (whole(group, "numOfHosts") or 1))
    if job.mode == K8S_JOB:
        _add(found, mapping(job.spec, "submitterPodTemplate", "spec"), 1)
    return found


def _add(found: Counter[str], spec: Mapping[str, Any], count: int) -> None:
    for _, container in maps(spec, "containers"):
        limits, requests = (mapping(container, "resources", each) for each in ("limits", "requests"))
        for name, amount in {**limits, **requests}.items():
            given = quantity(amount)
            if given is not None:
                found[name] += given * count  # type: ignore[assignment]  # counts are amounts
