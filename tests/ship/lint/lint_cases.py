"""Edits that spoil a RayJob, and the rules that an edited one breaks."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import lint_world as world
import pytest
from lint_world import GONE, Object

from hpsearch.ship.lint import kueue
from hpsearch.ship.lint.rulebook import Rulebook

Edits = dict[str, Any]
Case = tuple[str, Callable[[], list[Object]], Edits, Edits]

SPEC = "spec rayClusterSpec"
HEAD = f"{SPEC} headGroupSpec"
HEAD_POD = f"{HEAD} template spec"
BOX = f"{HEAD_POD} containers 0"
GROUP = f"{SPEC} workerGroupSpecs 0"
OPTIONS = f"{SPEC} autoscalerOptions"
RULE = "spec deletionStrategy deletionRules"
SUBMITTER = "spec submitterPodTemplate spec containers 0"
QUEUE = f"metadata labels {kueue.QUEUE}"
NO_SUBMITTER = {"spec submitterPodTemplate": GONE, "spec submitterConfig": GONE}
SIDECAR = {"spec submissionMode": "SidecarMode"}
SELECTED = {"spec clusterSelector": {"ray.io/cluster": "mine"}, "spec backoffLimit": 0}
FIXED = {f"{SPEC} enableInTreeAutoscaling": False, OPTIONS: GONE}
PLAIN_GROUPS = {
    f"{SPEC} workerGroupSpecs {i} {k}": GONE for i in (0, 1) for k in ("priority", "idleTimeoutSeconds")
}
LEGACY = {
    "spec deletionStrategy": {"onSuccess": {"policy": "DeleteSelf"}, "onFailure": {"policy": "DeleteCluster"}}
}
KEPT = {"spec shutdownAfterJobFinishes": False, "spec ttlSecondsAfterFinished": 0}


def env(name: str, value: str) -> Edits:
    """One more variable of the head."""
    return {f"{BOX} env 0": {"name": name, "value": value}}


def rule(policy: str, ttl: int = 1800, **condition: str) -> Object:
    """A deletion rule."""
    return {"policy": policy, "condition": {**condition, "ttlSeconds": ttl}}


def service() -> list[Object]:
    return world.cluster("RayService")


def service_at(path: str) -> str:
    return path.replace(SPEC, "spec rayClusterConfig")


def about(made: list[Object]) -> Object:
    """The object that a case edits: that of KubeRay, or the first."""
    return next((each for each in made if each["apiVersion"].startswith("ray.io/")), made[0])


def spoiled(base: Callable[[], list[Object]], edits: Edits) -> set[str]:
    """The rules that an edited manifest breaks. A path may begin with KIND/NAME of another object."""
    return _spoiled(base, edits) if edits else _unspoiled(base)


@functools.cache
def _unspoiled(base: Callable[[], list[Object]]) -> set[str]:
    return _spoiled(base, {})


def _spoiled(base: Callable[[], list[Object]], edits: Edits) -> set[str]:
    made = base()
    named = {f"{each['kind']}/{each['metadata']['name']}": each for each in made}
    for path, new in edits.items():
        first, _, rest = path.partition(" ")
        if path in named:
            made = [each for each in made if each is not named[path]]
        elif first in named:
            world.edited(named[first], rest, new)
        elif path == "+":
            made.append(new)
        else:
            world.edited(about(made), path, new)
    return {finding.rule for finding in world.ruled(*made)}


def rule_tests(
    cases: Sequence[Case], books: Sequence[Rulebook[Any, Any]]
) -> tuple[Callable[..., None], Callable[[], None]]:
    """Tests that each case breaks its rule, or keeps it, and that each rule of the books has one."""

    @pytest.mark.parametrize(("rule_id", "base", "bad", "good"), cases, ids=[case[0] for case in cases])
    def broken_or_kept(rule_id: str, base: Callable[[], list[Object]], bad: Edits, good: Edits) -> None:
        assert rule_id in spoiled(base, bad)
        assert rule_id not in spoiled(base, good)

    def complete() -> None:
        assert {each for book in books for each in book.rules} == {case[0] for case in cases}

    return broken_or_kept, complete
