"""Secrets that stand where everybody reads them: variables, commands, ConfigMaps, annotations, files.

What is found is never shown.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from typing import Any

from hpsearch.redaction import known, redact
from hpsearch.ship.lint.finding import Fault, Level, Path
from hpsearch.ship.lint.manifest import Manifest
from hpsearch.ship.lint.pod_rules import commands
from hpsearch.ship.lint.pods import Pod
from hpsearch.ship.lint.ray_objects import RayJob
from hpsearch.ship.lint.rulebook import Rulebook
from hpsearch.ship.lint.shape import dig, mapping, maps, text, walked

REMEDY = (
    "put it into a Secret made outside of these files, and name it: valueFrom: {secretKeyRef: {name, key}}"
)
POD_SECRETS: Rulebook[Pod, Fault] = Rulebook("secret", "this project's security rules")
JOB_SECRETS: Rulebook[RayJob, Fault] = Rulebook("secret", "this project's security rules")
OBJECT_SECRETS: Rulebook[Manifest, Fault] = Rulebook("secret", "this project's security rules")

# $(NAME), ${NAME}, $NAME, <...>, {{ ... }}: what stands for a value is none. Their length is bounded, or a
# long text of brackets that never close would be read to its end from each of them.
_REFERENCE = re.compile(r"\$\([^)]{0,300}\)|\$\{[^}]{0,300}\}|\$[A-Za-z_]\w*|<[^<>]*>|\{\{[^{}]*\}\}|\*{3,}")
_USER_PASSWORD = re.compile(r"://[^/\s:@]*:(?!\*{3}@)[^/\s@]+@")
_KEY_MATERIAL = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----|\bAKIA[0-9A-Z]{16}\b"
    r"|\bgh[pousr]_[A-Za-z0-9]{36}|\bxox[abprs]-[\w-]{10,}"
)
# Options of ours that name a Secret, and hold none.
_NAMES_SECRET = re.compile(r"--(store|mlflow)-secret[ =][a-z0-9.-]+(:[-._a-zA-Z0-9]+)?(?=\s|$)")
_PLACEHOLDERS = frozenset(
    {"", "changeme", "change-me", "replace-me", "placeholder", "todo", "xxx", "example"}
)


def holds_secret(given: str) -> bool:
    """Whether a text shows a password, token or key, by what stands before it or by how it looks."""
    plain = _REFERENCE.sub("***", given)
    if _USER_PASSWORD.search(plain) or _KEY_MATERIAL.search(plain):
        return True
    # Addresses with a user alone are no secret, and the mask takes them out as well.
    plain = re.sub(r"://[^/\s'\"]*@", "://", plain)
    return redact(plain, {}) != plain


def _literal(entry: dict[str, Any]) -> bool:
    """Whether a variable's value is a secret, and stands there."""
    name, value = text(entry, "name"), text(entry, "value")
    plain = _REFERENCE.sub("", value).strip()
    if plain.lower() in _PLACEHOLDERS:
        return False
    return bool(known({name: plain if len(plain) > 5 else plain.ljust(6, "*")})) or holds_secret(value)


@POD_SECRETS.rule("env", "No variable holds a secret; it names one.", REMEDY)
def env(pod: Pod) -> Iterator[Fault]:
    for container in pod.containers:
        for place, entry in maps(container.value, "env"):
            if _literal(entry):
                path = (*container.path, "env", place, "value")
                yield Fault(path, f"the value of {text(entry, 'name')} is a secret in clear text")


@POD_SECRETS.rule("command", "No command holds a secret: it is shown by every list of processes.", REMEDY)
def command(pod: Pod) -> Iterator[Fault]:
    for container in pod.containers:
        for path, words in commands(container):
            if holds_secret(_NAMES_SECRET.sub("", words)):
                yield Fault(path, f"{container.named} has a secret in its command")


@JOB_SECRETS.rule(
    "job",
    "entrypoint, metadata and runtimeEnvYAML are shown by the dashboard, and hold no secret.",
    REMEDY,
)
def job(job: RayJob) -> Iterator[Fault]:
    for name in ("entrypoint", "runtimeEnvYAML"):
        if holds_secret(text(job.spec, name)) or (
            name == "runtimeEnvYAML" and _in_lines(text(job.spec, name))
        ):
            yield Fault((name,), f"a secret in {name}")
    for key, value in mapping(job.spec, "metadata").items():
        if isinstance(value, str) and (_literal({"name": key, "value": value}) or holds_secret(value)):
            yield Fault(("metadata", key), f"a secret in metadata.{key}")


def _in_lines(source: str) -> bool:
    """Whether a line of a text of settings is NAME: VALUE with a secret's name."""
    for line in source.splitlines():
        name, colon, value = line.partition(":")
        if colon and _literal({"name": name.strip(" -\"'"), "value": value.strip(" \"'")}):
            return True
    return False


@OBJECT_SECRETS.rule("object", "ConfigMaps, annotations and labels hold no secrets.", REMEDY)
def visible(manifest: Manifest) -> Iterator[Fault]:
    for where in ("annotations", "labels"):
        for key, value in mapping(manifest.value, "metadata", where).items():
            if isinstance(value, str) and holds_secret(value):
                yield Fault(("metadata", where, key), f"a secret in {where}")
    if manifest.kind == "ConfigMap":
        for path, value in walked(mapping(manifest.value, "data"), ("data",)):
            if isinstance(value, str) and (
                holds_secret(value) or _literal({"name": str(path[-1]), "value": value})
            ):
                yield Fault(path, "a secret in a ConfigMap")


@OBJECT_SECRETS.rule(
    "in-file",
    "No Secret with values stands in a file.",
    "make it by `kubectl create secret`, or by an ExternalSecret",
)
def in_file(manifest: Manifest) -> Iterator[Fault]:
    if manifest.kind != "Secret" or manifest.group:
        return
    for where in ("data", "stringData"):
        for key, value in mapping(manifest.value, where).items():
            if isinstance(value, str) and _decoded(value, where).lower() not in _PLACEHOLDERS:
                yield Fault((where, key), "a Secret's value stands in a file")


def _decoded(value: str, where: str) -> str:
    plain = _REFERENCE.sub("", value).strip()
    if where == "data":
        try:
            return base64.b64decode(plain, validate=True).decode("utf-8", "replace").strip()
        except (binascii.Error, ValueError):
            return plain
    return plain


@OBJECT_SECRETS.rule(
    "last-applied",
    "What kubectl remembers of an object is no part of a manifest, and may show secrets.",
    "remove the annotation",
    level=Level.WARNING,
)
def last_applied(manifest: Manifest) -> Iterator[Fault]:
    path: Path = ("metadata", "annotations", "kubectl.kubernetes.io/last-applied-configuration")
    if dig(manifest.value, *path) is not None:
        yield Fault(path, "an annotation that kubectl writes")
