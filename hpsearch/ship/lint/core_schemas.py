"""The kubernetes-validate door: the schemas of Kubernetes' own kinds, offline, every error of an object.

Its own command and function stop at the first error and pass over kinds that they do not know.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from hpsearch.errors import UsageError
from hpsearch.ship.lint.finding import Fault, Path
from hpsearch.ship.lint.schema_errors import faults

if TYPE_CHECKING:
    from jsonschema.protocols import Validator

DEFAULT_VERSION = "1.28"
EXTRA = "hpsearch k8s validate needs the extra k8s, which is not installed"
INSTALL = 'pip install "hpsearch[k8s]"'
POD_TEMPLATE = "io.k8s.api.core.v1.PodTemplateSpec"
OBJECT_META = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"

# rbac.authorization.k8s.io/v1 is in a file ...-rbac-v1.json
_DOMAIN, _FAMILY = re.compile(r"^([^./]*)(?:\.[^/]*)?/"), r"\1-"
_OWN = frozenset(
    f"{name}.k8s.io"
    for name in [
        "admissionregistration",
        "apiextensions",
        "apiregistration",
        "authentication",
        "authorization",
        "certificates",
        "coordination",
        "discovery",
        "events",
        "flowcontrol.apiserver",
        "internal.apiserver",
        "networking",
        "node",
        "rbac.authorization",
        "resource",
        "scheduling",
        "storage",
        "storagemigration",
    ]
) | {"", "apps", "autoscaling", "batch", "extensions", "policy"}


def is_core(group: str) -> bool:
    """Whether a group's kinds are Kubernetes' own, not custom ones."""
    return group in _OWN


class CoreSchemas:
    """The strict schemas of one version of Kubernetes. Raises UsageError if there are none."""

    def __init__(self, version: str = DEFAULT_VERSION) -> None:
        self.version, self._folder = _folder(version)

    def check(self, value: dict[str, Any]) -> Iterator[Fault] | None:
        """All faults of an object of Kubernetes' own kinds; None for a kind that this version lacks."""
        validator = _of_kind(self._folder, str(value.get("kind", "")), str(value.get("apiVersion", "")))
        return None if validator is None else faults(validator.iter_errors(value))

    def check_part(self, definition: str, value: Any, base: Path) -> Iterator[Fault]:
        """All faults of a part of an object by the schema of a definition."""
        return faults(_of_definition(self._folder, definition).iter_errors(value), base)


def _schemas() -> Any:
    from importlib import resources

    try:
        return resources.files("kubernetes_validate") / "kubernetes-json-schema"
    except ModuleNotFoundError:
        raise UsageError(EXTRA, hint=INSTALL) from None


@functools.cache
def _folder(version: str) -> tuple[str, str]:
    """The newest version there is that is not above the wanted one, and its folder's name."""
    wanted = _parts(version)
    names = [each.name for each in _schemas().iterdir() if each.name.endswith("-local-strict")]
    there = sorted((found, name) for name in names if (found := _parts(name)))
    if not wanted or wanted < there[0][0] or wanted > there[-1][0]:
        known = ", ".join(f"{major}.{minor}" for (major, minor), _ in there)
        raise UsageError(f"no schemas of Kubernetes {version!r}", hint=f"there are: {known}")
    best, name = max(each for each in there if each[0] <= wanted)
    return f"{best[0]}.{best[1]}", name


def _parts(version: str) -> tuple[int, int] | None:
    found = re.fullmatch(r"v?(\d{1,3})\.(\d{1,3})(\.\d+)?(-.*)?", version)
    return (int(found[1]), int(found[2])) if found else None


@functools.cache
def _contents(folder: str, name: str) -> Any:
    file = _schemas() / folder / name
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None


@functools.cache
def _of_kind(folder: str, kind: str, api: str) -> Validator | None:
    if not re.fullmatch(r"[A-Za-z]+", kind) or not re.fullmatch(r"[a-z0-9./-]+", api):
        return None
    schema = _contents(folder, f"{kind.lower()}-{_DOMAIN.sub(_FAMILY, api)}.json")
    if schema is None or "apiVersion" not in schema.get("properties", {}):
        return None  # a part of objects, such as podtemplatespec, is no kind
    return _validator(folder, schema)


@functools.cache
def _of_definition(folder: str, definition: str) -> Validator:
    definitions = _contents(folder, "_definitions.json")
    return _validator(folder, {**definitions["$defs"][definition], "$id": "https://kubernetes.io/api/part"})


def _validator(folder: str, schema: dict[str, Any]) -> Validator:
    from jsonschema import Draft202012Validator
    from referencing import Registry, Resource

    definitions = _contents(folder, "_definitions.json")
    # A definition refers to others within the file of all of them.
    root = definitions["$id"]
    rooted = json.loads(json.dumps(schema).replace('"#/$defs/', f'"{root}#/$defs/'))
    registry = Resource.from_contents(definitions) @ Registry()
    return Draft202012Validator(rooted, registry=registry)
