"""What an API server refuses in a pod though its schema takes it: names, ports, sources, amounts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from hpsearch.ship.lint.finding import Fault, Level, Path
from hpsearch.ship.lint.names import DNS_1123, quantity
from hpsearch.ship.lint.pods import LISTS, Pod
from hpsearch.ship.lint.rulebook import Rulebook
from hpsearch.ship.lint.schema_errors import shown
from hpsearch.ship.lint.shape import dig, mapping, maps, sequence, text, whole

SHAPE: Rulebook[Pod, Fault] = Rulebook("pod", "Kubernetes, validation of pods")
_PULL = ("Always", "IfNotPresent", "Never")
_RESTART = ("Always", "OnFailure", "Never")
_POLICIES: dict[str, tuple[str, ...]] = {
    "restartPolicy": _RESTART,
    "dnsPolicy": ("ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"),
    "preemptionPolicy": ("PreemptLowerPriority", "Never"),
}
_EFFECTS = ("", "NoSchedule", "PreferNoSchedule", "NoExecute")
_BYTES = ("memory", "ephemeral-storage")
_PORT_NAME = re.compile(r"(?=.*[a-z])[a-z0-9]([a-z0-9-]{0,13}[a-z0-9])?")


def _own(pod: Pod) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The containers that the manifest itself writes, each with its path."""
    for name in LISTS:
        for place, container in maps(pod.spec, name):
            yield (*pod.path, name, place), container


@SHAPE.rule(
    "container-name",
    "A container's name is a DNS label, and its own.",
    "use a-z, 0-9 and '-'",
)
def container_name(pod: Pod) -> Iterator[Fault]:
    seen: set[str] = set()
    for path, container in _own(pod):
        name = container.get("name")
        if not isinstance(name, str) or not DNS_1123.fullmatch(name):
            yield Fault((*path, "name"), f"{shown(name)} is no name of a container")
        elif name in seen:
            yield Fault((*path, "name"), f"two containers are called {name}")
        seen.add(name if isinstance(name, str) else "")


@SHAPE.rule(
    "ports",
    "A port is a number from 1 to 65535; its name has at most 15 characters, a letter among them.",
    "correct the number, or the name",
)
def ports(pod: Pod) -> Iterator[Fault]:
    for path, container in _own(pod):
        for place, port in maps(container, "ports"):
            number, name = whole(port, "containerPort"), port.get("name")
            at = (*path, "ports", place)
            if number is not None and not 1 <= number <= 65535:
                yield Fault((*at, "containerPort"), f"{number} is no port")
            if isinstance(name, str) and not _PORT_NAME.fullmatch(name):
                yield Fault((*at, "name"), f"{shown(name)} is no name of a port")


@SHAPE.rule(
    "variable",
    "A variable has a value, or one source.",
    "write value, or valueFrom with one of secretKeyRef, configMapKeyRef, fieldRef and resourceFieldRef",
)
def one_source(pod: Pod) -> Iterator[Fault]:
    for path, container in _own(pod):
        for place, entry in maps(container, "env"):
            at, name = (*path, "env", place), shown(entry.get("name"))
            if entry.get("name") in (None, ""):
                yield Fault((*at, "name"), "a variable without a name")
            if "valueFrom" not in entry:
                continue
            if text(entry, "value"):
                yield Fault((*at, "valueFrom"), f"{name} has a value and a source")
            if isinstance(entry["valueFrom"], dict) and len(entry["valueFrom"]) != 1:
                yield Fault((*at, "valueFrom"), f"{name} has {len(entry['valueFrom']) or 'no'} sources")


@SHAPE.rule(
    "policy",
    "Policies are spelled as Kubernetes knows them.",
    "write one of those",
)
def policy(pod: Pod) -> Iterator[Fault]:
    places = [(*pod.path, name) for name in _POLICIES]
    checks = [(path, pod.spec.get(str(path[-1])), _POLICIES[str(path[-1])]) for path in places]
    checks += [((*at, "imagePullPolicy"), c.get("imagePullPolicy"), _PULL) for at, c in _own(pod)]
    for path, given, known in checks:
        if isinstance(given, str) and given not in known:
            yield Fault(path, f"{shown(given)} is none of {', '.join(known)}")


@SHAPE.rule(
    "toleration",
    "A toleration is Exists without a value, or Equal; its effect is one of three, or all.",
    "write {key, operator: Exists}, or {key, operator: Equal, value}, with effect: NoSchedule",
)
def toleration(pod: Pod) -> Iterator[Fault]:
    for place, entry in maps(pod.spec, "tolerations"):
        at = (*pod.path, "tolerations", place)
        operator, effect = entry.get("operator"), entry.get("effect") or ""
        # Lt and Gt are for numbers, behind a gate.
        if operator not in (None, "", "Equal", "Exists", "Lt", "Gt"):
            yield Fault((*at, "operator"), f"{shown(operator)} is none of Equal, Exists")
        if operator == "Exists" and entry.get("value"):
            yield Fault((*at, "value"), f"operator Exists with the value {shown(entry['value'])}")
        if not entry.get("key") and operator != "Exists":
            yield Fault((*at, "operator"), "a toleration without a key is for Exists alone")
        if isinstance(effect, str) and effect not in _EFFECTS:
            yield Fault((*at, "effect"), f"{shown(effect)} is none of {', '.join(_EFFECTS[1:])}")


@SHAPE.rule(
    "whole-amounts",
    "Devices and bytes are counted in whole numbers.",
    "write a whole number: 1 GPU, 512Mi of memory",
)
def whole_amounts(pod: Pod) -> Iterator[Fault]:
    for path, container in _own(pod):
        for kind in ("limits", "requests"):
            for name, amount in mapping(container, "resources", kind).items():
                given, at = quantity(amount), (*path, "resources", kind, name)
                if given is None:
                    yield Fault(at, f"{shown(amount)} is no quantity", remedy="such as 500m, 2, 512Mi, 8Gi")
                elif name != "cpu" and given != int(given):
                    # Of bytes the server only warns, and rounds; a pod with 6m of memory never starts.
                    level = Level.WARNING if name in _BYTES else Level.ERROR
                    yield Fault(at, f"{shown(amount)} of {name} is no whole number", level)


@SHAPE.rule(
    "volume-source",
    "A volume has a name of its own and one source.",
    "write one source, such as emptyDir, configMap, secret or persistentVolumeClaim",
)
def volume_source(pod: Pod) -> Iterator[Fault]:
    seen: set[str] = set()
    for place, volume in maps(pod.spec, "volumes"):
        at, name = (*pod.path, "volumes", place), text(volume, "name")
        sources = [key for key in volume if key != "name"]
        if len(sources) > 1:
            yield Fault(at, f"the volume {name!r} has {len(sources)} sources: {', '.join(sorted(sources))}")
        if name in seen:
            yield Fault((*at, "name"), f"two volumes are called {name!r}")
        seen.add(name)
        if sequence(volume, "configMap", "items") and dig(volume, "configMap", "name") is None:
            yield Fault((*at, "configMap", "name"), f"the volume {name!r} names no ConfigMap")
