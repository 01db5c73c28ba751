"""What a pod must be beyond the standard: images, limits, tokens, and commands that must never run."""

from __future__ import annotations

import re
from collections.abc import Iterator

from hpsearch.ship.lint.finding import Fault, Level
from hpsearch.ship.lint.names import quantity
from hpsearch.ship.lint.pods import HEAD, OTHER, RAY_LOGS, SHARED_MEMORY, Container, Pod
from hpsearch.ship.lint.ray_objects import variable
from hpsearch.ship.lint.rulebook import Rulebook
from hpsearch.ship.lint.schema_errors import shown
from hpsearch.ship.lint.shape import dig, mapping, maps, text, texts, walked, whole

PODS: Rulebook[Pod, Fault] = Rulebook("pod", "this project's rules for pods")
_DIGEST = re.compile(r"@sha256:[0-9a-f]{64}$")
_RAY_STOP = re.compile(r"\bray\s+stop\b")
_INSECURE = re.compile(r"(^|\s)--insecure\b")


def commands(container: Container) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Every command that a container runs, as one text with its path: its own, hooks, probes."""
    for name in ("command", "args"):
        if words := texts(container.value, name):
            yield (*container.path, name), " ".join(words)
    for where in ("lifecycle", "livenessProbe", "readinessProbe", "startupProbe"):
        for path, value in walked(container.value.get(where), (*container.path, where)):
            if path[-1] == "command" and isinstance(value, list):
                yield path, " ".join(str(word) for word in value)


@PODS.rule(
    "image-missing",
    "Each container names its image.",
    "write image: (a strategic merge patch on a custom resource replaces whole lists: use a JSON 6902 patch)",
    source="trap: patches of custom resources",
)
def image_missing(pod: Pod) -> Iterator[Fault]:
    for container in pod.containers:
        if not container.added and not text(container.value, "image"):
            yield Fault((*container.path, "image"), f"{container.named} has no image")


@PODS.rule(
    "image-digest",
    "Images are named by digest: a tag may mean another image for each pod and each retry.",
    "write NAME@sha256:DIGEST, in an overlay by `images: [{name: ..., digest: ...}]`",
)
def image_digest(pod: Pod) -> Iterator[Fault]:
    for container in pod.containers:
        image = text(container.value, "image")
        if image and not container.added and not _DIGEST.search(image):
            yield Fault((*container.path, "image"), f"image {shown(image)} names no digest")


@PODS.rule(
    "image-pull",
    "An image by digest is pulled once for each node.",
    "set imagePullPolicy: IfNotPresent",
    level=Level.WARNING,
)
def image_pull(pod: Pod) -> Iterator[Fault]:
    for container in pod.containers:
        if text(container.value, "imagePullPolicy") == "Always":
            yield Fault(
                (*container.path, "imagePullPolicy"), f"{container.named} pulls its image at each start"
            )


@PODS.rule(
    "limits",
    "Each container has limits of CPU and memory; what is not there cannot be counted against a quota.",
    "set resources.limits.cpu and resources.limits.memory",
)
def limits(pod: Pod) -> Iterator[Fault]:
    for container in pod.containers:
        given = mapping(container.value, "resources", "limits")
        if missing := [name for name in ("cpu", "memory") if quantity(given.get(name)) is None]:
            path = (*container.path, "resources", "limits")
            yield Fault(path, f"{container.named} has no limit of {' and '.join(missing)}")


@PODS.rule(
    "requests-within-limits", "Nothing requests more than its limit.", "lower the request, or raise the limit"
)
def requests_within_limits(pod: Pod) -> Iterator[Fault]:
    for container in pod.containers:
        given = mapping(container.value, "resources", "limits")
        for name, wanted in mapping(container.value, "resources", "requests").items():
            asked, allowed = quantity(wanted), quantity(given.get(name))
            if asked is None:
                path = (*container.path, "resources", "requests", name)
                yield Fault(path, f"{shown(wanted)} is no quantity")
            elif allowed is not None and asked > allowed:
                path = (*container.path, "resources", "requests", name)
                yield Fault(
                    path, f"{container.named} requests {wanted} of {name}, and its limit is {given[name]}"
                )


@PODS.rule(
    "scratch-size",
    "Scratch space has a size, so that one pod cannot fill its node's disk.",
    "set emptyDir: {sizeLimit: ...}",
    level=Level.WARNING,
)
def scratch_size(pod: Pod) -> Iterator[Fault]:
    for place, volume in maps(pod.spec, "volumes"):
        scratch = volume.get("emptyDir")
        added = volume.get("name") in (SHARED_MEMORY, RAY_LOGS)
        if scratch is not None and not added and quantity(dig(scratch, "sizeLimit")) is None:
            path = (*pod.path, "volumes", place, "emptyDir")
            yield Fault(path, f"the emptyDir {shown(volume.get('name'))} has no sizeLimit")


@PODS.rule(
    "scratch-missing",
    "With a read-only root there is an emptyDir on /tmp.",
    "mount an emptyDir with sizeLimit on /tmp, and one on $HOME",
    level=Level.WARNING,
)
def scratch_missing(pod: Pod) -> Iterator[Fault]:
    for container in pod.containers:
        read_only = mapping(container.value, "securityContext").get("readOnlyRootFilesystem") is True
        mounted = {text(mount, "mountPath").rstrip("/") for _, mount in maps(container.value, "volumeMounts")}
        if read_only and not container.added and "/tmp" not in mounted:
            path = (*container.path, "volumeMounts")
            yield Fault(path, f"{container.named} has a read-only root and nothing on /tmp")


@PODS.rule(
    "mounts",
    "What is mounted is a volume of the pod.",
    "add the volume, or correct the name",
    source="Kubernetes, validation of pods",
)
def mounts(pod: Pod) -> Iterator[Fault]:
    there = {text(volume, "name") for _, volume in maps(pod.spec, "volumes")}
    claimed = {
        text(each, "metadata", "name") for _, each in maps(pod.manifest.value, "spec", "volumeClaimTemplates")
    }
    for container in pod.containers:
        seen: set[str] = set()
        for place, mount in maps(container.value, "volumeMounts"):
            name, at = text(mount, "name"), text(mount, "mountPath")
            path = (*container.path, "volumeMounts", place)
            if name and name not in there | claimed:
                yield Fault(
                    (*path, "name"), f"{container.named} mounts {name!r}, and the pod has no such volume"
                )
            if at and at in seen:
                yield Fault((*path, "mountPath"), f"{container.named} mounts two volumes on {at}")
            seen.add(at)


@PODS.rule(
    "ray-stop",
    "Nothing runs `ray stop`: it kills every Ray process that it can see, also those of others.",
    "let the pod end by its signal; on the head the hook is `hpsearch stop --here`",
    source="trap: ray stop",
)
def ray_stop(pod: Pod) -> Iterator[Fault]:
    for container in pod.containers:
        for path, command in commands(container):
            if _RAY_STOP.search(command):
                yield Fault(path, f"{container.named} runs `ray stop`")


@PODS.rule(
    "insecure",
    "No command is told to go without a token.",
    "remove --insecure; the operator hands out the token",
)
def insecure(pod: Pod) -> Iterator[Fault]:
    for container in pod.containers:
        for path, command in commands(container):
            if _INSECURE.search(command):
                yield Fault(path, f"{container.named} is told --insecure")
        if variable(container.value, "RAY_AUTH_MODE") not in (None, "", "token"):
            yield Fault((*container.path, "env"), f"{container.named} turns Ray's authentication off")


@PODS.rule(
    "token-file",
    "A file with a token is readable by its owner alone; Secrets are mounted 0644 by default.",
    "set defaultMode: 0400 (and fsGroup), or hand the token over by secretKeyRef",
    source="trap: token file readable by all",
)
def token_file(pod: Pod) -> Iterator[Fault]:
    for place, volume in maps(pod.spec, "volumes"):
        secret = volume.get("secret")
        if not isinstance(secret, dict):
            continue
        path = (*pod.path, "volumes", place, "secret")
        mode = whole(secret, "defaultMode")
        name = f"the Secret {shown(secret.get('secretName'))}"
        # The bits of others, and to write or execute for the group; fsGroup lets the group read.
        if (0o644 if mode is None else mode) & 0o037:
            said = "0644 (the default)" if mode is None else f"{mode:04o}"
            yield Fault(
                (*path, "defaultMode"), f"{name} is mounted with mode {said}: everybody in the pod reads it"
            )
        for item, entry in maps(secret, "items"):
            if (whole(entry, "mode") or 0) & 0o037:
                yield Fault((*path, "items", item, "mode"), f"{name}: mode {entry['mode']:04o} of a file")
    for container in pod.containers:
        for path, command in commands(container):
            if re.search(r"get-auth-token\b.*--generate", command) and "umask 077" not in command:
                yield Fault(
                    path, f"{container.named} makes a token that everybody may read: Ray writes it with 0644"
                )


@PODS.rule(
    "api-token",
    "A pod that does not speak to the API server has no token for it.",
    "set automountServiceAccountToken: false",
)
def api_token(pod: Pod) -> Iterator[Fault]:
    autoscaling_head = pod.role == HEAD and pod.cluster is not None and pod.cluster.autoscaling
    launches = any(
        re.search(r"\bhpsearch (launch|status|stop|logs)\b|^(launch|status|stop)\b", command)
        for container in pod.containers
        for _, command in commands(container)
    )
    mounted = pod.spec.get("automountServiceAccountToken")
    # A pod that names its own rights is judged together with its account, elsewhere.
    if (
        mounted is False
        or autoscaling_head
        or launches
        or (mounted is True and text(pod.spec, "serviceAccountName") and pod.role == OTHER)
    ):
        return
    who = f"the {pod.role} pod" if pod.role != "pod" else "the pod"
    yield Fault((*pod.path, "automountServiceAccountToken"), f"{who} gets a token of the API server")
