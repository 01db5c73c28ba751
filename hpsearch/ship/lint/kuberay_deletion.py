"""What KubeRay's operator refuses in a RayJob's deletion strategy."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from hpsearch.ship.lint.finding import Fault, Level
from hpsearch.ship.lint.ray_objects import RayJob
from hpsearch.ship.lint.rulebook import Rulebook
from hpsearch.ship.lint.shape import dig, mapping, text, whole

# What goes first must not go last.
ORDER = ("DeleteWorkers", "DeleteCluster", "DeleteSelf")
STRATEGY = ("deletionStrategy",)
RULES = ("deletionStrategy", "deletionRules")
LEGACY = ("onSuccess", "onFailure")
DELETION: Rulebook[RayJob, Fault] = Rulebook("kuberay", "KubeRay 1.7.0, validateDeletionConfiguration")


@DELETION.rule(
    "rules-exclude-shutdown",
    "deletionRules and shutdownAfterJobFinishes exclude each other.",
    "use one profile: shutdown with a TTL, or deletionRules",
)
def rules_exclude_shutdown(job: RayJob) -> Iterator[Fault]:
    if job.rules and job.shutdown:
        yield Fault(RULES, "deletionRules together with shutdownAfterJobFinishes: true")


@DELETION.rule(
    "rules-exclude-legacy", "deletionRules exclude onSuccess and onFailure.", "keep deletionRules alone"
)
def rules_exclude_legacy(job: RayJob) -> Iterator[Fault]:
    strategy = mapping(job.spec, *STRATEGY)
    if job.rules and any(name in strategy for name in LEGACY):
        yield Fault(STRATEGY, "deletionRules together with onSuccess or onFailure")


@DELETION.rule(
    "strategy-empty", "A deletionStrategy says something.", "write deletionRules, or remove deletionStrategy"
)
def strategy_empty(job: RayJob) -> Iterator[Fault]:
    strategy = dig(job.spec, *STRATEGY)
    if isinstance(strategy, dict) and not job.rules and not any(name in strategy for name in LEGACY):
        yield Fault(STRATEGY, "a deletionStrategy without any rule")


@DELETION.rule(
    "legacy-deprecated",
    "onSuccess and onFailure are deprecated.",
    "write deletionRules",
    level=Level.WARNING,
)
def legacy_deprecated(job: RayJob) -> Iterator[Fault]:
    for name in LEGACY:
        if name in mapping(job.spec, *STRATEGY):
            yield Fault((*STRATEGY, name), f"{name} is deprecated")


@DELETION.rule(
    "legacy-both", "onSuccess and onFailure are both set, each with a policy.", "better: write deletionRules"
)
def legacy_both(job: RayJob) -> Iterator[Fault]:
    strategy = mapping(job.spec, *STRATEGY)
    if any(name in strategy for name in LEGACY) and not job.rules:
        for name in LEGACY:
            if not text(strategy, name, "policy"):
                yield Fault((*STRATEGY, name, "policy"), f"no policy for {name}")


@DELETION.rule(
    "legacy-none-shutdown",
    "DeleteNone and shutdownAfterJobFinishes contradict each other.",
    "decide for one",
)
def legacy_none_shutdown(job: RayJob) -> Iterator[Fault]:
    for name in LEGACY:
        if job.shutdown and text(job.spec, *STRATEGY, name, "policy") == "DeleteNone":
            yield Fault(
                (*STRATEGY, name, "policy"), "DeleteNone together with shutdownAfterJobFinishes: true"
            )


@DELETION.rule(
    "rule-condition",
    "A deletion rule has exactly one of jobStatus and jobDeploymentStatus.",
    "write condition: {jobStatus: SUCCEEDED} or {jobDeploymentStatus: Failed}",
)
def rule_condition(job: RayJob) -> Iterator[Fault]:
    for place, rule in job.rules:
        given = [
            name for name in ("jobStatus", "jobDeploymentStatus") if dig(rule, "condition", name) is not None
        ]
        if len(given) != 1:
            yield Fault((*RULES, place, "condition"), f"{' and '.join(given) or 'nothing'} as condition")


@DELETION.rule(
    "rule-status",
    "Only SUCCEEDED and FAILED jobs and Failed deployments can be a condition; none matches a stopped job.",
    "delete a stopped job itself: hpsearch stop NAME",
    source="KubeRay 1.7.0, CRD: jobStatus, jobDeploymentStatus",
)
def rule_status(job: RayJob) -> Iterator[Fault]:
    known = {"jobStatus": ("SUCCEEDED", "FAILED"), "jobDeploymentStatus": ("Failed",)}
    for place, rule in job.rules:
        for name, values in known.items():
            given = text(rule, "condition", name)
            if given and given not in values:
                yield Fault((*RULES, place, "condition", name), f"{given!r} is none of {', '.join(values)}")


@DELETION.rule("rule-ttl", "ttlSeconds of a deletion rule is not negative.", "write 0 or more")
def rule_ttl(job: RayJob) -> Iterator[Fault]:
    for place, rule in job.rules:
        ttl = whole(rule, "condition", "ttlSeconds") or 0
        if ttl < 0:
            yield Fault((*RULES, place, "condition", "ttlSeconds"), f"{ttl} is negative")


def _policies(job: RayJob) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Every deletion policy with its path, of rules and of the deprecated fields."""
    for place, rule in job.rules:
        yield (*RULES, place, "policy"), text(rule, "policy")
    for name in LEGACY:
        yield (*STRATEGY, name, "policy"), text(job.spec, *STRATEGY, name, "policy")


@DELETION.rule(
    "delete-selected",
    "A job on a cluster of others cannot delete it.",
    "remove the rule, or clusterSelector",
)
def delete_selected(job: RayJob) -> Iterator[Fault]:
    for path, policy in _policies(job):
        if job.selects and policy in ORDER[:2]:
            yield Fault(path, f"{policy} together with clusterSelector")


@DELETION.rule(
    "delete-workers-autoscaling",
    "DeleteWorkers does not go with autoscaling, which would make new ones.",
    "use DeleteCluster",
)
def delete_workers_autoscaling(job: RayJob) -> Iterator[Fault]:
    for path, policy in _policies(job):
        if job.cluster and job.cluster.autoscaling and policy == ORDER[0]:
            yield Fault(path, "DeleteWorkers together with enableInTreeAutoscaling")


def _condition(rule: dict[str, Any]) -> str:
    condition = mapping(rule, "condition")
    return next(
        (f"{name} {condition[name]}" for name in ("jobStatus", "jobDeploymentStatus") if name in condition),
        "",
    )


@DELETION.rule(
    "rule-twice", "No two deletion rules have the same policy and condition.", "remove one of them"
)
def rule_twice(job: RayJob) -> Iterator[Fault]:
    seen: dict[tuple[str, str], int] = {}
    for place, rule in job.rules:
        key = (text(rule, "policy"), _condition(rule))
        if all(key) and key in seen:
            yield Fault((*RULES, place), f"the same as deletionRules[{seen[key]}]: {key[0]} for {key[1]}")
        seen.setdefault(key, place)


@DELETION.rule(
    "rule-order",
    "Under one condition workers go no later than the cluster, and the cluster no later than the job.",
    "let the TTLs rise: DeleteWorkers, DeleteCluster, DeleteSelf",
)
def rule_order(job: RayJob) -> Iterator[Fault]:
    ttls: dict[str, dict[str, tuple[int, int]]] = {}
    for place, rule in job.rules:
        ttl = whole(rule, "condition", "ttlSeconds") or 0
        ttls.setdefault(_condition(rule), {}).setdefault(text(rule, "policy"), (ttl, place))
    for condition, by_policy in ttls.items():
        there = [(policy, *by_policy[policy]) for policy in ORDER if policy in by_policy]
        for (first, early, _), (then, late, place) in pairwise(there):
            if late < early:
                said = f"{then} after {late} s comes before {first} after {early} s, both for {condition}"
                yield Fault((*RULES, place, "condition", "ttlSeconds"), said)
