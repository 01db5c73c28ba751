"""Names and labels as an API server takes them: schemas say that they are texts, and no more."""

from __future__ import annotations

import re
from collections.abc import Iterator

from hpsearch.ship.lint.finding import Fault, Path
from hpsearch.ship.lint.kustomizations import is_kustomization
from hpsearch.ship.lint.manifest import Manifest
from hpsearch.ship.lint.names import DNS_1035, DNS_1123, is_label_key, is_label_value, is_subdomain
from hpsearch.ship.lint.pods import TEMPLATE_AT
from hpsearch.ship.lint.rulebook import Rulebook
from hpsearch.ship.lint.schema_errors import shown
from hpsearch.ship.lint.shape import dig, mapping, text

NAMES: Rulebook[Manifest, Fault] = Rulebook("name", "Kubernetes, object names; labels")
RBAC = "rbac.authorization.k8s.io"
# Kinds whose names are labels of DNS, not names of several; the rest may have dots.
_LABELS = {("", "Namespace"), ("", "Service")}
_LONGEST_ANNOTATIONS = 256 * 1024  # bytes, all of an object together
_FIELD = re.compile(r"[^/%]+")


@NAMES.rule(
    "object",
    "Each object has a name that its kind may have.",
    "write metadata.name with a-z, 0-9, '-' and '.', letters or digits at both ends",
)
def object_name(manifest: Manifest) -> Iterator[Fault]:
    # Names of KubeRay's kinds are shorter, and judged with what its operator appends.
    if is_kustomization(manifest):
        return
    at: Path = ("metadata", "name")
    name, start = dig(manifest.value, *at), text(manifest.value, "metadata", "generateName")
    if name in (None, "") and not start:
        yield Fault(at, "no name")
    elif isinstance(name, str) and name and not manifest.is_ray and not _may_be_called(manifest, name):
        yield Fault(at, f"{shown(name)} is no name for a {manifest.kind}")
    namespace = dig(manifest.value, "metadata", "namespace")
    if isinstance(namespace, str) and namespace and not DNS_1123.fullmatch(namespace):
        yield Fault(("metadata", "namespace"), f"{shown(namespace)} is no name of a namespace")


def _may_be_called(manifest: Manifest, name: str) -> bool:
    if manifest.group == RBAC:
        return name not in (".", "..") and _FIELD.fullmatch(name) is not None
    if (manifest.group, manifest.kind) == ("", "Service"):
        return DNS_1035.fullmatch(name) is not None
    if (manifest.group, manifest.kind) in _LABELS:
        return DNS_1123.fullmatch(name) is not None
    return is_subdomain(name)


@NAMES.rule(
    "label",
    "Labels are written as Kubernetes' are: [DOMAIN/]KEY, and a value of at most 63 characters.",
    "use letters, digits, '-', '_' and '.', letters or digits at both ends; longer texts are annotations",
)
def label(manifest: Manifest) -> Iterator[Fault]:
    for path in _labelled(manifest):
        for key, value in mapping(manifest.value, *path).items():
            if not is_label_key(key):
                yield Fault((*path, key), f"{shown(key)} is no label's key")
            elif isinstance(value, str) and not is_label_value(value):
                yield Fault((*path, key), f"{shown(value)} is no label's value")


def _labelled(manifest: Manifest) -> Iterator[Path]:
    yield ("metadata", "labels")
    yield ("spec", "selector", "matchLabels")
    if at := TEMPLATE_AT.get((manifest.group, manifest.kind)):
        yield (*at, "metadata", "labels")


@NAMES.rule(
    "annotation",
    "Annotations have keys like labels, and are no more than 256 KiB together.",
    "write [DOMAIN/]KEY; put long texts into a ConfigMap",
)
def annotation(manifest: Manifest) -> Iterator[Fault]:
    given = manifest.annotations
    for key in given:
        # Unlike a label's, its case does not matter.
        if not is_label_key(key.lower()):
            yield Fault(("metadata", "annotations", key), f"{shown(key)} is no annotation's key")
    size = sum(len(key) + len(value.encode()) for key, value in given.items() if isinstance(value, str))
    if size > _LONGEST_ANNOTATIONS:
        yield Fault(("metadata", "annotations"), f"{size:,} bytes of annotations")
