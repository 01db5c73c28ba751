"""Names that must lead somewhere: ConfigMaps, Secrets, claims, accounts, roles, services, owners."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from hpsearch.ship.lint.finding import Level, Path
from hpsearch.ship.lint.manifest import Manifest
from hpsearch.ship.lint.pods import RAY_ROLES, Pod
from hpsearch.ship.lint.rulebook import Rulebook
from hpsearch.ship.lint.scene import Placed, Scene, near
from hpsearch.ship.lint.shape import dig, mapping, maps, text

REFERENCES: Rulebook[Scene, Placed] = Rulebook("reference", "this project's rules for references")
_SUFFIX = re.compile(r"-[a-z0-9]{10}$")
# What each namespace or cluster has by itself.
_THERE = {("ServiceAccount", "default"), ("ConfigMap", "kube-root-ca.crt")}
REMEDY = "add the object, or correct the name"
KUSTOMIZE = (
    "kustomize rewrites no names inside of a RayJob: list them in `configurations:` with nameReference "
    "fieldSpecs "
    "for head, workers and submitter"
)


@dataclass(frozen=True, slots=True)
class Reference:
    """A name in a pod: of what kind, where it stands, whether it may be missing, which key is meant."""

    kind: str
    name: str
    path: Path
    optional: bool = False
    key: str = ""


def of_pod(pod: Pod) -> Iterator[Reference]:
    """Every object that a pod names."""
    account = text(pod.spec, "serviceAccountName") or text(pod.spec, "serviceAccount")
    if account:
        yield Reference("ServiceAccount", account, (*pod.path, "serviceAccountName"))
    for place, volume in maps(pod.spec, "volumes"):
        yield from _of_volume(volume, (*pod.path, "volumes", place))
    for place, secret in maps(pod.spec, "imagePullSecrets"):
        if name := text(secret, "name"):
            yield Reference("Secret", name, (*pod.path, "imagePullSecrets", place, "name"))
    for container in pod.containers:
        yield from of_container(container.value, container.path)


def of_container(container: dict[str, Any], base: Path) -> Iterator[Reference]:
    """Every object that a container's variables name."""
    for place, entry in maps(container, "env"):
        for field_name, kind in (("configMapKeyRef", "ConfigMap"), ("secretKeyRef", "Secret")):
            found = mapping(entry, "valueFrom", field_name)
            if name := text(found, "name"):
                path = (*base, "env", place, "valueFrom", field_name, "name")
                yield Reference(kind, name, path, found.get("optional") is True, text(found, "key"))
    for place, entry in maps(container, "envFrom"):
        for field_name, kind in (("configMapRef", "ConfigMap"), ("secretRef", "Secret")):
            found = mapping(entry, field_name)
            if name := text(found, "name"):
                path = (*base, "envFrom", place, field_name, "name")
                yield Reference(kind, name, path, found.get("optional") is True)


def _of_volume(volume: dict[str, Any], base: Path) -> Iterator[Reference]:
    kinds = (
        ("configMap", "name", "ConfigMap"),
        ("secret", "secretName", "Secret"),
        ("persistentVolumeClaim", "claimName", "PersistentVolumeClaim"),
    )
    for field_name, key, kind in kinds:
        found = mapping(volume, field_name)
        if name := text(found, key):
            yield Reference(kind, name, (*base, field_name, key), found.get("optional") is True)
    for place, source in maps(volume, "projected", "sources"):
        for field_name, kind in (("configMap", "ConfigMap"), ("secret", "Secret")):
            found = mapping(source, field_name)
            if name := text(found, "name"):
                path = (*base, "projected", "sources", place, field_name, "name")
                yield Reference(kind, name, path, found.get("optional") is True)


@REFERENCES.rule("pod", "What a pod names is in the files, or made outside of them.", REMEDY)
def pod(scene: Scene) -> Iterator[Placed]:
    generated = set(_generated(scene))
    for each in scene.pods:
        made = _made_by_operator(each)
        for reference in of_pod(each):
            if reference.optional or (reference.kind, reference.name) in _THERE or reference.name in made:
                continue
            found = scene.find(reference.kind, reference.name, each.manifest.namespace)
            if found is None and (reference.kind, reference.name) in generated:
                continue
            if found is None:
                yield _missing(scene, each, reference)
            elif reference.key and reference.kind == "ConfigMap" and not _has(found, reference.key):
                said = f"the ConfigMap {reference.name} has no key {reference.key!r}"
                yield Placed(each.manifest, reference.path, said, remedy="correct the key")


def _generated(scene: Scene) -> Iterator[tuple[str, str]]:
    """What kustomizations among the files will make."""
    for manifest in (each for each in scene.manifests if each.group == "kustomize.config.k8s.io"):
        for field_name, kind in (("configMapGenerator", "ConfigMap"), ("secretGenerator", "Secret")):
            yield from ((kind, text(each, "name")) for _, each in maps(manifest.value, field_name))


def _made_by_operator(pod: Pod) -> set[str]:
    """The Secret with Ray's token is made by the operator, called like the cluster."""
    if (
        pod.cluster is None
        or pod.role not in RAY_ROLES
        or text(pod.cluster.spec, "authOptions", "secretName")
    ):
        return set()
    return {pod.manifest.name}


def _has(manifest: Manifest, key: str) -> bool:
    return key in mapping(manifest.value, "data") or key in mapping(manifest.value, "binaryData")


def _missing(scene: Scene, pod: Pod, reference: Reference) -> Placed:
    """A reference that leads nowhere: an error, unless the object may be made outside of the files.

    Secrets are made outside of files, and a sweep's files need not have its namespace's.
    """
    said = f"no {reference.kind} {reference.name} in these files"
    names = {each.name for each in scene.of(reference.kind) if near(each.namespace, pod.manifest.namespace)}
    renamed = [name for name in names if _renamed(reference.name, name)]
    if renamed:
        remedy = KUSTOMIZE if pod.role in RAY_ROLES else REMEDY
        return Placed(pod.manifest, reference.path, f"{said}, but {renamed[0]}", Level.ERROR, remedy)
    if scene.strict_references:
        return Placed(pod.manifest, reference.path, said, Level.ERROR)
    if reference.kind == "Secret" or not _whole(scene, reference.kind, pod.manifest):
        return Placed(pod.manifest, reference.path, f"{said}: it must be there already", Level.NOTE)
    return Placed(pod.manifest, reference.path, said, Level.ERROR)


def _renamed(name: str, other: str) -> bool:
    """Whether another name is this one with what kustomize adds: a hash, a prefix, a suffix."""
    bare = _SUFFIX.sub("", other)
    return bare == name or (len(name) > 3 and (bare.endswith(f"-{name}") or bare.startswith(f"{name}-")))


def _whole(scene: Scene, kind: str, manifest: Manifest) -> bool:
    """Whether the files are meant to be complete in a kind of objects.

    A ConfigMap belongs to its job; accounts and claims belong to the namespace, and come with it.
    """
    if kind == "ConfigMap":
        return True
    return any(True for _ in scene.of("Namespace")) or any(
        near(e.namespace, manifest.namespace) for e in scene.of(kind)
    )


@REFERENCES.rule(
    "binding", "A binding names a role and accounts that there are.", REMEDY, source="Kubernetes, RBAC"
)
def binding(scene: Scene) -> Iterator[Placed]:
    rbac = "rbac.authorization.k8s.io"
    for kind in ("RoleBinding", "ClusterRoleBinding"):
        for each in scene.of(kind, rbac):
            role, name = text(each.value, "roleRef", "kind"), text(each.value, "roleRef", "name")
            # ClusterRoles are often those that the cluster has.
            if role == "Role" and scene.find("Role", name, each.namespace, rbac) is None:
                yield Placed(each, ("roleRef", "name"), f"no Role {name} in these files")
            for place, subject in maps(each.value, "subjects"):
                account = text(subject, "name")
                namespace = text(subject, "namespace") or each.namespace
                if text(subject, "kind") != "ServiceAccount" or account == "default":
                    continue
                if scene.find("ServiceAccount", account, namespace) is None:
                    level = (
                        Level.ERROR if namespace == each.namespace or scene.strict_references else Level.NOTE
                    )
                    said = f"no ServiceAccount {account} in these files"
                    yield Placed(each, ("subjects", place, "name"), said, level)


@REFERENCES.rule(
    "claim", "A claim that several pods share can be mounted by all their nodes.", "use ReadWriteMany"
)
def claim(scene: Scene) -> Iterator[Placed]:
    for each in scene.pods:
        if each.role != "worker":
            continue
        for reference in of_pod(each):
            found = scene.find(reference.kind, reference.name, each.manifest.namespace)
            if reference.kind != "PersistentVolumeClaim" or found is None:
                continue
            modes = dig(found.value, "spec", "accessModes")
            if isinstance(modes, list) and modes and "ReadWriteMany" not in modes:
                said = f"the claim {reference.name} is {modes[0]}: workers start on the head's node alone"
                yield Placed(each.manifest, reference.path, said, Level.NOTE)
                break
