"""All checks of a run, in order: schemas, rules about objects, jobs, clusters, pods, and all together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from hpsearch.redaction import redact
from hpsearch.ship.lint import (
    bounds_rules,
    conflicts,
    cron_rules,
    kuberay_clusters,
    kuberay_deletion,
    kuberay_jobs,
    kuberay_options,
    kueue,
    kustomizations,
    launch_rules,
    launcher_rules,
    mlflow_rules,
    naming_rules,
    network_rules,
    object_rules,
    object_shape,
    pod_rules,
    pod_security,
    pod_shape,
    queue_rules,
    ray_objects,
    ray_pods,
    ray_rules,
    ray_start,
    recovery_rules,
    references,
    secret_rules,
    selectors,
    submission_rules,
    sweep_rules,
)
from hpsearch.ship.lint.core_schemas import DEFAULT_VERSION, OBJECT_META, POD_TEMPLATE, CoreSchemas, is_core
from hpsearch.ship.lint.crds import Crds
from hpsearch.ship.lint.finding import TOP, Fault, Finding, Level, Path
from hpsearch.ship.lint.manifest import RAY_GROUP, Manifest
from hpsearch.ship.lint.pods import COPIED, Pod, pods_of
from hpsearch.ship.lint.ray_objects import RayCluster, RayJob
from hpsearch.ship.lint.rulebook import Rule, Rulebook
from hpsearch.ship.lint.scene import Placed, Scene
from hpsearch.ship.lint.schema_errors import shown
from hpsearch.ship.lint.shape import dig
from hpsearch.ship.lint.sources import READINGS, Sources
from hpsearch.spec.node import printable

Subject = TypeVar("Subject")
SCHEMA = "schema"
OBJECT_BOOKS: tuple[Rulebook[Manifest, Fault], ...] = (
    naming_rules.NAMES,
    object_shape.SHAPES,
    object_rules.OBJECTS,
    object_rules.BUDGETS,
    object_rules.POLICIES,
    cron_rules.CRONS,
    launch_rules.LAUNCH,
    secret_rules.OBJECT_SECRETS,
    kustomizations.KUSTOMIZATIONS,
)
JOB_BOOKS: tuple[Rulebook[RayJob, Fault], ...] = (
    kuberay_jobs.JOBS,
    kuberay_deletion.DELETION,
    sweep_rules.SWEEPS,
    recovery_rules.RECOVERY,
    submission_rules.SUBMISSIONS,
    secret_rules.JOB_SECRETS,
)
CLUSTER_BOOKS: tuple[Rulebook[RayCluster, Fault], ...] = (
    kuberay_clusters.CLUSTERS,
    kuberay_options.OPTIONS,
    ray_rules.RAY,
    ray_pods.RAY_PODS,
    ray_start.STARTS,
)
POD_BOOKS: tuple[Rulebook[Pod, Fault], ...] = (
    pod_security.SECURITY,
    pod_shape.SHAPE,
    pod_rules.PODS,
    secret_rules.POD_SECRETS,
    mlflow_rules.MLFLOW,
)
SCENE_BOOKS: tuple[Rulebook[Scene, Placed], ...] = (
    references.REFERENCES,
    selectors.SELECTORS,
    network_rules.NETWORK,
    bounds_rules.BOUNDS,
    launcher_rules.LAUNCHERS,
    queue_rules.QUEUES,
    conflicts.CONFLICTS,
    kustomizations.TREES,
)


@dataclass(frozen=True, slots=True)
class Wishes:
    """How to check: versions of Kubernetes, feature gates that are on, rules to leave out, what is strict."""

    versions: tuple[str, ...] = (DEFAULT_VERSION,)
    gates: frozenset[str] = frozenset()
    ignored: frozenset[str] = frozenset()
    strict: bool = False
    strict_references: bool = False


@dataclass(slots=True)
class Verdict:
    """What was found, how many objects there were, and kinds whose schema nobody has looked at."""

    findings: list[Finding] = field(default_factory=list)
    objects: int = 0
    files: int = 0
    unchecked: list[str] = field(default_factory=list)

    def count(self, level: Level) -> int:
        """How many findings are of a level."""
        return sum(finding.level is level for finding in self.findings)

    @property
    def unchecked_ray(self) -> list[str]:
        """The kinds of KubeRay among those whose schema nobody has looked at."""
        return [kind for kind in self.unchecked if kind.startswith(f"{RAY_GROUP}/")]

    def as_json(self) -> dict[str, object]:
        """What `k8s validate --json` prints."""
        return {
            "valid": not self.count(Level.ERROR),
            "files": self.files,
            "objects": self.objects,
            "errors": self.count(Level.ERROR),
            "warnings": self.count(Level.WARNING),
            "notes": self.count(Level.NOTE),
            "schemas_unchecked": self.unchecked,
            "findings": [finding.as_json() for finding in self.findings],
        }


def every_rule() -> Iterator[Rule[Any, Any]]:
    """All rules, of all books."""
    books: tuple[Rulebook[Any, Any], ...] = (
        *OBJECT_BOOKS,
        *JOB_BOOKS,
        *CLUSTER_BOOKS,
        kueue.KUEUE,
        *POD_BOOKS,
        *SCENE_BOOKS,
    )
    for book in books:
        yield from book.rules.values()


def ids() -> Iterator[str]:
    """What --ignore may name: all rules, and what schemas and reading find."""
    yield SCHEMA
    yield from READINGS
    yield from (rule.id for rule in every_rule())


def check(sources: Sources, crds: Crds | None, wishes: Wishes) -> Verdict:
    """Everything that is wrong with what was read. Raises UsageError without the extra k8s."""
    schemas = [CoreSchemas(version) for version in wishes.versions]
    verdict = Verdict(list(sources.findings), len(sources.manifests), len(sources.files))
    scene = Scene(sources.manifests, strict_references=wishes.strict_references)
    for manifest in sources.manifests:
        found = list(_schema(manifest, schemas, crds, verdict))
        found += _rules(manifest, crds, scene, wishes)
        verdict.findings += _once(found)
    verdict.findings += _together(scene)
    verdict.findings = _settled(verdict.findings, wishes)
    return verdict


def _schema(
    manifest: Manifest, schemas: list[CoreSchemas], crds: Crds | None, verdict: Verdict
) -> Iterator[Finding]:
    """Findings by the schema of the kind: Kubernetes' own, or that of a custom resource definition."""
    if kustomizations.is_kustomization(manifest):
        return
    if is_core(manifest.group):
        for schema in schemas:
            faults = schema.check(manifest.value)
            said = f"Kubernetes {schema.version} has no {manifest.api} {manifest.kind}"
            hint = "look at apiVersion and kind: `kubectl api-resources`; see --kubernetes-version"
            missing = [Fault(("apiVersion",), said, remedy=hint)]
            source = f"Kubernetes {schema.version}"
            yield from _told(manifest, missing if faults is None else faults, SCHEMA, source)
        return
    if crds is not None and crds.knows(manifest.group, manifest.kind):
        yield from _told(manifest, crds.check(manifest.value), SCHEMA, "its CustomResourceDefinition")
    elif manifest.is_ray and crds is not None:
        fault = Fault(("kind",), f"the CRDs that were given define no {manifest.group} {manifest.kind}")
        yield from _told(manifest, [fault], SCHEMA, "CustomResourceDefinitions")
    elif (kind := f"{manifest.api} {manifest.kind}") not in verdict.unchecked:
        verdict.unchecked.append(kind)
    for path, part, definition in _parts(manifest):
        for schema in schemas:
            yield from _told(manifest, schema.check_part(definition, part, path), SCHEMA, "Kubernetes")


def _parts(manifest: Manifest) -> Iterator[tuple[Path, object, str]]:
    """Parts of a custom object that are Kubernetes' own: its metadata, and the templates of its pods."""
    yield ("metadata",), manifest.value.get("metadata"), OBJECT_META
    if not manifest.is_ray:
        return
    job = ray_objects.job_of(manifest, manifest.value, frozenset())
    cluster = ray_objects.cluster_of(manifest, manifest.value, frozenset())
    places: list[Path] = [(*job.base, "submitterPodTemplate")] if job else []
    if cluster:
        places += [(*cluster.base, "headGroupSpec", "template")]
        places += [(*cluster.base, "workerGroupSpecs", place, "template") for place, _ in cluster.groups]
    for path in places:
        if (template := dig(manifest.value, *path)) is not None:
            yield path, template, POD_TEMPLATE


def _rules(manifest: Manifest, crds: Crds | None, scene: Scene, wishes: Wishes) -> Iterator[Finding]:
    """Findings by rules about this one object, whose jobs, clusters and pods go into the scene."""
    whole = crds.filled(manifest.value) if crds is not None and manifest.is_ray else manifest.value
    job = ray_objects.job_of(manifest, whole, wishes.gates)
    cluster = ray_objects.cluster_of(manifest, whole, wishes.gates)
    pods = list(pods_of(manifest, job, cluster))
    yield from _by(OBJECT_BOOKS, manifest, manifest, ())
    if job is not None:
        scene.jobs.append(job)
        yield from _by(JOB_BOOKS, job, manifest, job.base)
    if cluster is not None:
        scene.clusters.append(cluster)
        yield from _by(CLUSTER_BOOKS, cluster, manifest, cluster.base)
    if (queued := kueue.queued(manifest, job, cluster)) is not None:
        yield from _by((kueue.KUEUE,), queued, manifest, ())
    for pod in pods:
        scene.pods.append(pod)
        yield from _by(POD_BOOKS, pod, manifest, ())


def _by(
    books: Iterable[Rulebook[Subject, Fault]], subject: Subject, manifest: Manifest, base: Path
) -> Iterator[Finding]:
    for book in books:
        for rule in book.rules.values():
            for fault in rule.check(subject):
                path = fault.path[1:] if fault.path[:1] == (TOP,) else (*base, *fault.path)
                yield _finding(
                    manifest, replace(fault, path=path), rule.id, rule.source, rule.remedy, rule.level
                )


def _together(scene: Scene) -> Iterator[Finding]:
    for book in SCENE_BOOKS:
        for rule in book.rules.values():
            for placed in rule.check(scene):
                fault = Fault(placed.path, placed.message, placed.level, placed.remedy)
                yield _finding(placed.manifest, fault, rule.id, rule.source, rule.remedy, rule.level)


def _told(manifest: Manifest, faults: Iterable[Fault], rule: str, source: str) -> Iterator[Finding]:
    for fault in faults:
        yield _finding(manifest, fault, rule, source, "", Level.ERROR)


def _finding(manifest: Manifest, fault: Fault, rule: str, source: str, remedy: str, level: Level) -> Finding:
    """A fault at its line. Values come from others' files: control characters and secrets do not go out."""
    return Finding(
        file=printable(manifest.file),
        line=manifest.line(fault.path),
        subject=printable(manifest.subject),
        path=tuple(printable(step) if isinstance(step, str) else step for step in fault.path),
        message=printable(redact(_discreet(manifest, fault))),
        rule=rule,
        hint=printable(fault.remedy or remedy),
        level=fault.level or level,
        source=source,
    )


def _discreet(manifest: Manifest, fault: Fault) -> str:
    """A message without the value where the value is a secret's."""
    hides = manifest.kind == "Secret" and fault.path[:1] in (("data",), ("stringData",))
    hides = hides or (fault.path[-1:] == ("value",) and "env" in fault.path)
    if hides and (value := dig(manifest.value, *fault.path)) is not None:
        # A value within quotes, as messages show values: a short one is part of many words.
        shorter = shown(value)
        return fault.message.replace(repr(value), "the value").replace(shorter, "the value")
    return fault.message


def _once(findings: list[Finding]) -> Iterator[Finding]:
    """Each finding of an object once: what its schema refuses, rules and other schemas say again."""
    refused: set[Path] = set()
    seen: set[tuple[Path, str, str]] = set()
    broken: set[tuple[Path, str]] = set()
    for finding in findings:
        if finding.path in refused:
            continue
        if finding.rule == SCHEMA:
            refused.add(finding.path)
        # What the operator copies from a container is as wrong as that one, and at the same place.
        copied = COPIED in finding.message and (finding.path, finding.rule) in broken
        key = (finding.path, finding.rule, finding.message)
        if key not in seen and not copied:
            seen.add(key)
            broken.add(key[:2])
            yield finding


def _settled(findings: list[Finding], wishes: Wishes) -> list[Finding]:
    """In order of the files, without rules that are ignored; strict, a warning is an error."""
    kept = [finding for finding in findings if finding.rule not in wishes.ignored]
    if wishes.strict:
        kept = [replace(f, level=Level.ERROR) if f.level is Level.WARNING else f for f in kept]
    order = {file: place for place, file in enumerate(dict.fromkeys(finding.file for finding in findings))}
    return sorted(kept, key=lambda finding: (order[finding.file], finding.line))
