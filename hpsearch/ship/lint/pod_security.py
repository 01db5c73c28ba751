"""The pod security standard `restricted`, container by container, also those that an operator adds.

Source: Kubernetes, Pod Security Standards; the read-only root is this project's own demand.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hpsearch.ship.lint.finding import Fault, Level
from hpsearch.ship.lint.pods import Container, Pod
from hpsearch.ship.lint.rulebook import Rulebook
from hpsearch.ship.lint.schema_errors import shown
from hpsearch.ship.lint.shape import mapping, maps, text, texts, whole

SECURITY: Rulebook[Pod, Fault] = Rulebook("restricted", "Kubernetes, Pod Security Standards: restricted")
ALLOWED_VOLUMES = frozenset(
    {
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "image",
        "persistentVolumeClaim",
        "projected",
        "secret",
    }
)
SAFE_SYSCTLS = frozenset(
    {
        "kernel.shm_rmid_forced",
        "net.ipv4.ip_local_port_range",
        "net.ipv4.ip_local_reserved_ports",
        "net.ipv4.ip_unprivileged_port_start",
        "net.ipv4.ping_group_range",
        "net.ipv4.tcp_fin_timeout",
        "net.ipv4.tcp_keepalive_intvl",
        "net.ipv4.tcp_keepalive_probes",
        "net.ipv4.tcp_keepalive_time",
        "net.ipv4.tcp_rmem",
        "net.ipv4.tcp_syncookies",
        "net.ipv4.tcp_wmem",
    }
)
SELINUX_TYPES = ("", "container_t", "container_init_t", "container_kvm_t", "container_engine_t")


def _own(container: Container) -> dict[str, Any]:
    return mapping(container.value, "securityContext")


def _meant(pod: Pod, container: Container, name: str) -> Any:
    """A field of the container's security context, or the pod's where the container has none."""
    given = _own(container).get(name)
    return pod.security.get(name) if given is None else given


def _at(container: Container, *path: str | int) -> tuple[str | int, ...]:
    return (*container.path, "securityContext", *path)


@SECURITY.rule("non-root", "No container runs as root.", "set runAsNonRoot: true and runAsUser: 10001")
def non_root(pod: Pod) -> Iterator[Fault]:
    for container in pod.containers:
        if _meant(pod, container, "runAsNonRoot") is not True:
            yield Fault(_at(container, "runAsNonRoot"), f"{container.named} may run as root")
    for path, context in ((pod.path, pod.security), *((c.path, _own(c)) for c in pod.containers)):
        if whole(context, "runAsUser") == 0:
            yield Fault((*path, "securityContext", "runAsUser"), "runAsUser 0 is root")


@SECURITY.rule(
    "numeric-user",
    "The user is a number, so that a kubelet can tell that it is not root.",
    "set runAsUser: 10001",
    level=Level.WARNING,
)
def numeric_user(pod: Pod) -> Iterator[Fault]:
    for container in pod.containers:
        if _meant(pod, container, "runAsUser") is None:
            yield Fault(_at(container, "runAsUser"), f"{container.named} runs as whoever its image says")


@SECURITY.rule(
    "seccomp", "System calls are filtered.", "set seccompProfile: {type: RuntimeDefault} for the pod"
)
def seccomp(pod: Pod) -> Iterator[Fault]:
    for container in pod.containers:
        kind = text(_meant(pod, container, "seccompProfile"), "type")
        if kind not in ("RuntimeDefault", "Localhost"):
            said = f"seccompProfile {kind}" if kind else "no seccompProfile"
            yield Fault(_at(container, "seccompProfile"), f"{container.named} has {said}")


@SECURITY.rule("privilege-escalation", "No process gains privileges.", "set allowPrivilegeEscalation: false")
def privilege_escalation(pod: Pod) -> Iterator[Fault]:
    for container in pod.containers:
        if _own(container).get("allowPrivilegeEscalation") is not False:
            yield Fault(_at(container, "allowPrivilegeEscalation"), f"{container.named} may gain privileges")


@SECURITY.rule("capabilities", "All capabilities are dropped.", 'set capabilities: {drop: ["ALL"]}')
def capabilities(pod: Pod) -> Iterator[Fault]:
    for container in pod.containers:
        given = mapping(_own(container), "capabilities")
        if "ALL" not in texts(given, "drop"):
            yield Fault(_at(container, "capabilities", "drop"), f"{container.named} keeps capabilities")
        if more := [each for each in texts(given, "add") if each != "NET_BIND_SERVICE"]:
            yield Fault(_at(container, "capabilities", "add"), f"{container.named} adds {', '.join(more)}")


@SECURITY.rule(
    "read-only-root",
    "The root file system is read-only.",
    "set readOnlyRootFilesystem: true; mount an emptyDir on /tmp and $HOME",
    source="this project's security rules",
)
def read_only_root(pod: Pod) -> Iterator[Fault]:
    for container in pod.containers:
        if _own(container).get("readOnlyRootFilesystem") is not True:
            yield Fault(
                _at(container, "readOnlyRootFilesystem"), f"{container.named} can write to its image's files"
            )


@SECURITY.rule("privileged", "No container is privileged.", "remove privileged")
def privileged(pod: Pod) -> Iterator[Fault]:
    for container in pod.containers:
        if _own(container).get("privileged") is True:
            yield Fault(_at(container, "privileged"), f"{container.named} is privileged")
        if _own(container).get("procMount") not in (None, "Default"):
            said = f"{container.named} unmasks /proc"
            yield Fault(_at(container, "procMount"), said, remedy="remove procMount")


@SECURITY.rule("host-namespaces", "A pod shares no namespace with its host.", "remove it")
def host_namespaces(pod: Pod) -> Iterator[Fault]:
    for name in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.spec.get(name) is True:
            yield Fault((*pod.path, name), f"{name} is on")


@SECURITY.rule("host-ports", "No container takes a port of its host.", "remove hostPort; use a Service")
def host_ports(pod: Pod) -> Iterator[Fault]:
    for container in pod.containers:
        for place, port in maps(container.value, "ports"):
            if whole(port, "hostPort"):
                yield Fault((*container.path, "ports", place, "hostPort"), f"hostPort {port['hostPort']}")


@SECURITY.rule(
    "volumes", "No volume is a path of the host, or of a kind that the standard does not know.", "use a claim"
)
def volumes(pod: Pod) -> Iterator[Fault]:
    for place, volume in maps(pod.spec, "volumes"):
        for kind in volume:
            if kind != "name" and kind not in ALLOWED_VOLUMES:
                yield Fault((*pod.path, "volumes", place, kind), f"a volume of kind {kind}")


@SECURITY.rule("sysctls", "Only safe kernel settings are changed.", "remove them")
def sysctls(pod: Pod) -> Iterator[Fault]:
    for place, setting in maps(pod.security, "sysctls"):
        if text(setting, "name") not in SAFE_SYSCTLS:
            path = (*pod.path, "securityContext", "sysctls", place, "name")
            yield Fault(path, f"{shown(setting.get('name'))} is not safe")


@SECURITY.rule("confinement", "SELinux and AppArmor stay as they are.", "remove it")
def confinement(pod: Pod) -> Iterator[Fault]:
    for path, context in ((pod.path, pod.security), *((c.path, _own(c)) for c in pod.containers)):
        options = mapping(context, "seLinuxOptions")
        if text(options, "type") not in SELINUX_TYPES or options.get("user") or options.get("role"):
            yield Fault((*path, "securityContext", "seLinuxOptions"), "SELinux options of its own")
        if text(context, "appArmorProfile", "type") == "Unconfined":
            yield Fault((*path, "securityContext", "appArmorProfile"), "AppArmor is off")
        if mapping(context, "windowsOptions").get("hostProcess") is True:
            yield Fault((*path, "securityContext", "windowsOptions"), "a process of the host")
