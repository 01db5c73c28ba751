"""Custom resource definitions, from files or the running cluster, and objects checked by them."""

from __future__ import annotations

import functools
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any

from hpsearch.errors import ServiceUnavailable, UsageError
from hpsearch.ship.lint import cel_rules
from hpsearch.ship.lint.document import read
from hpsearch.ship.lint.finding import Fault, Path
from hpsearch.ship.lint.schema_errors import faults, shown
from hpsearch.ship.lint.shape import dig, mapping, maps, sequence, text, texts
from hpsearch.ship.lint.structural import converted, filled

if TYPE_CHECKING:
    from jsonschema.protocols import Validator

CLUSTER = "cluster"
KUBECTL = ("kubectl", "get", "customresourcedefinitions", "--output=json")
PATIENCE = 60.0  # seconds
_SUFFIXES = (".yaml", ".yml", ".json")


class Crds:
    """The definitions of custom kinds. A file is parsed when a kind is asked for that its text names."""

    def __init__(self, texts_: list[str]) -> None:
        self._texts = texts_
        self._kinds: dict[tuple[str, str], dict[str, Any] | None] = {}
        self._validators: dict[tuple[str, str], Validator] = {}

    def knows(self, group: str, kind: str) -> bool:
        """Whether a kind is defined, in whatever version."""
        return self._definition(group, kind) is not None

    def check(self, value: dict[str, Any]) -> Iterator[Fault]:
        """All faults of an object of a known kind: schema, list keys, rules. Defaults are filled in first."""
        schema = self._schema(value)
        if isinstance(schema, Fault):
            yield schema
            return
        whole = filled(schema, value)
        found = list(faults(self._validator(value, schema).iter_errors(whole)))
        yield from found
        yield from _twice(schema, whole)
        # Where the schema refuses a value already, a rule that cannot be evaluated says nothing new.
        refused = {fault.path[:length] for fault in found for length in range(len(fault.path) + 1)}
        yield from cel_rules.broken(schema, whole, refused)

    def filled(self, value: dict[str, Any]) -> dict[str, Any]:
        """A copy of an object with its kind's defaults; as it is, if nobody knows them."""
        schema = self._schema(value)
        result: dict[str, Any] = value if isinstance(schema, Fault) else filled(schema, value)
        return result

    def _validator(self, value: dict[str, Any], schema: dict[str, Any]) -> Validator:
        from jsonschema import Draft202012Validator

        key = text(value, "apiVersion"), text(value, "kind")
        if key not in self._validators:
            self._validators[key] = Draft202012Validator(converted(schema, root=True))
        return self._validators[key]

    def _schema(self, value: dict[str, Any]) -> dict[str, Any] | Fault:
        group, _, version = text(value, "apiVersion").rpartition("/")
        definition = self._definition(group, text(value, "kind"))
        served = [each for _, each in maps(definition, "spec", "versions") if each.get("served", True)]
        for each in served:
            if each.get("name") == version:
                return mapping(each, "schema", "openAPIV3Schema")
        names = ", ".join(f"{group}/{each.get('name')}" for each in served)
        return Fault(
            ("apiVersion",), f"{group}/{version} is not served", remedy=f"write {names or 'another kind'}"
        )

    def _definition(self, group: str, kind: str) -> dict[str, Any] | None:
        if (group, kind) not in self._kinds:
            found = (each for source in self._texts for each in _definitions(source, kind))
            named = (each for each in found if dig(each, "spec", "group") == group)
            self._kinds[group, kind] = next(
                (each for each in named if dig(each, "spec", "names", "kind") == kind), None
            )
        return self._kinds[group, kind]


def load(place: str) -> Crds:
    """The definitions in a file or folder, or those of the running cluster (`cluster`).

    Raises UsageError if there are none, ServiceUnavailable if the cluster does not answer.
    """
    if place == CLUSTER and not FilePath(place).exists():
        return Crds([_of_cluster()])
    path = FilePath(place)
    if not path.exists():
        raise UsageError(f"no CRDs at {place}", hint="name a file or folder of them, or `cluster`")
    files = sorted(each for each in path.rglob("*") if each.suffix in _SUFFIXES) if path.is_dir() else [path]
    try:
        sources = [each.read_text(encoding="utf-8") for each in files if each.is_file()]
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the CRDs at {place} cannot be read: {error}", hint="look at the files") from None
    sources = [each for each in sources if "CustomResourceDefinition" in each]
    if not sources:
        raise UsageError(
            f"no CustomResourceDefinition in {place}",
            hint="KubeRay's are in helm-chart/kuberay-operator/crds",
        )
    return Crds(sources)


def _of_cluster() -> str:
    try:
        done = subprocess.run(KUBECTL, capture_output=True, text=True, timeout=PATIENCE, check=False)
    except FileNotFoundError:
        raise UsageError("no kubectl here", hint="install it, or name a folder: --crds PATH") from None
    except subprocess.TimeoutExpired:
        raise ServiceUnavailable(
            f"kubectl has not answered in {PATIENCE:.0f} s", hint="see `kubectl version`"
        ) from None
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise ServiceUnavailable(
            f"kubectl cannot get the CRDs: {said[:300]}",
            hint="see `kubectl get crd`, or name a folder: --crds PATH",
        )
    return done.stdout


@functools.lru_cache(maxsize=64)
def _read(source: str) -> list[dict[str, Any]]:
    documents, problems = read(source)
    if problems:
        first = problems[0]
        raise UsageError(f"the CRDs cannot be read: line {first.line}: {first.message}", hint=first.hint)
    found: list[dict[str, Any]] = []
    for document in documents:
        listed = sequence(document.value, "items") or [document.value]
        found += [each for each in listed if dig(each, "kind") in ("CustomResourceDefinition", None)]
    return [each for each in found if isinstance(each, dict)]


def _definitions(source: str, kind: str) -> list[dict[str, Any]]:
    """The definitions of a text, if it names a kind at all: parsing megabytes takes a second."""
    named = re.search(rf"kind\"?:\s*[\"']?{re.escape(kind)}\b", source)
    return _read(source) if named else []


def _twice(schema: dict[str, Any], value: Any, path: Path = ()) -> Iterator[Fault]:
    """Items of a list by key that have the same keys."""
    if isinstance(value, dict):
        properties, more = mapping(schema, "properties"), mapping(schema, "additionalProperties")
        for key, each in value.items():
            below = properties.get(key, more)
            yield from _twice(below if isinstance(below, dict) else {}, each, (*path, key))
    elif isinstance(value, list):
        keys, seen = texts(schema, "x-kubernetes-list-map-keys"), set()
        for place, each in enumerate(value):
            named = tuple(str(dig(each, key)) for key in keys)
            if keys and isinstance(each, dict) and named in seen:
                said = f"two items have {', '.join(f'{key} {shown(dig(each, key))}' for key in keys)}"
                yield Fault((*path, place), said, remedy="give each its own")
            seen.add(named)
            yield from _twice(mapping(schema, "items"), each, (*path, place))
