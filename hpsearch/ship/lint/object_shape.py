"""What an API server refuses in other objects, or takes and never does: claims, policies, bindings, sizes."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from typing import Any

from hpsearch.ship.lint.cron_rules import JOB as CRON_JOB
from hpsearch.ship.lint.finding import Fault, Path
from hpsearch.ship.lint.manifest import Manifest
from hpsearch.ship.lint.naming_rules import RBAC
from hpsearch.ship.lint.rulebook import Rulebook
from hpsearch.ship.lint.schema_errors import shown
from hpsearch.ship.lint.shape import dig, mapping, maps, sequence, text, texts, whole

SHAPES: Rulebook[Manifest, Fault] = Rulebook("object", "Kubernetes, validation of objects")
ACCESS = ("ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod")
LONGEST_CONFIG = 1024 * 1024  # bytes, all of a ConfigMap or Secret together
ACTIONS = ("FailJob", "Ignore", "Count", "FailIndex")
_NUMBER = re.compile(r"\d+")


@SHAPES.rule(
    "claim",
    "A claim says how it is mounted, and how large it is.",
    "write accessModes: [ReadWriteMany] and resources: {requests: {storage: 100Gi}}",
)
def claim(manifest: Manifest) -> Iterator[Fault]:
    if manifest.kind != "PersistentVolumeClaim":
        return
    modes = texts(manifest.value, "spec", "accessModes")
    if not modes:
        yield Fault(("spec", "accessModes"), "no accessModes")
    for place, mode in enumerate(modes):
        if mode not in ACCESS:
            yield Fault(("spec", "accessModes", place), f"{shown(mode)} is none of {', '.join(ACCESS)}")
    if dig(manifest.value, "spec", "resources", "requests", "storage") is None:
        yield Fault(("spec", "resources", "requests", "storage"), "no size")


@SHAPES.rule(
    "config-size",
    "A ConfigMap or Secret has at most 1 MiB.",
    "put large files into the image, or on a volume",
)
def config_size(manifest: Manifest) -> Iterator[Fault]:
    if manifest.kind not in ("ConfigMap", "Secret") or manifest.group:
        return
    parts = [mapping(manifest.value, name) for name in ("data", "binaryData", "stringData")]
    size = sum(len(v.encode()) for part in parts for v in part.values() if isinstance(v, str))
    if size > LONGEST_CONFIG:
        yield Fault(("data",), f"{size:,} bytes, and at most {LONGEST_CONFIG:,} are taken")


@SHAPES.rule(
    "binding-shape",
    "A binding names a Role or ClusterRole, and subjects with their API group or namespace.",
    f"write roleRef: {{apiGroup: {RBAC}, kind: Role, name}}, and subjects: [{{kind: ServiceAccount, name, "
    "namespace}]",
)
def binding_shape(manifest: Manifest) -> Iterator[Fault]:
    if manifest.group != RBAC or manifest.kind not in ("RoleBinding", "ClusterRoleBinding"):
        return
    kind, group = text(manifest.value, "roleRef", "kind"), text(manifest.value, "roleRef", "apiGroup")
    known = ("ClusterRole",) if manifest.kind == "ClusterRoleBinding" else ("Role", "ClusterRole")
    if kind not in known:
        yield Fault(("roleRef", "kind"), f"{shown(kind)} is none of {', '.join(known)}")
    if group != RBAC:
        yield Fault(("roleRef", "apiGroup"), f"{shown(group)} is not {RBAC}")
    for place, subject in maps(manifest.value, "subjects"):
        kind, at = text(subject, "kind"), ("subjects", place)
        if kind not in ("ServiceAccount", "User", "Group"):
            yield Fault((*at, "kind"), f"{shown(kind)} is none of ServiceAccount, User, Group")
        if kind == "ServiceAccount" and not text(subject, "namespace"):
            yield Fault((*at, "namespace"), f"the account {shown(subject.get('name'))} has no namespace")
        if kind == "ServiceAccount" and text(subject, "apiGroup"):
            yield Fault((*at, "apiGroup"), "an account has no API group", remedy="remove it")


@SHAPES.rule(
    "rights-spelled",
    "Rights are spelled as the API server knows them: verbs and plurals in small letters.",
    "see `kubectl api-resources -o wide`",
)
def rights_spelled(manifest: Manifest) -> Iterator[Fault]:
    if manifest.group != RBAC or manifest.kind not in ("Role", "ClusterRole"):
        return
    for place, rule in maps(manifest.value, "rules"):
        for name in ("verbs", "resources"):
            for word in texts(rule, name):
                if word != word.lower():
                    yield Fault(("rules", place, name), f"{shown(word)} is not in small letters")
        for verb in texts(rule, "verbs"):
            # Verbs of their own exist (use, bind, sign, approve, attest), and those of others are not known.
            if verb and verb not in _VERBS and any(_close(verb, each) for each in _VERBS):
                yield Fault(("rules", place, "verbs"), f"no server asks for the verb {shown(verb)}")
        if "create" in texts(rule, "verbs") and sequence(rule, "resourceNames"):
            said = "create with resourceNames: what is not there yet has no name to allow"
            yield Fault(("rules", place, "resourceNames"), said, remedy="write create in a rule of its own")


_VERBS = ("create", "get", "list", "watch", "update", "patch", "delete", "deletecollection", "*")


def _close(word: str, known: str) -> bool:
    """Whether a word is another with one letter too many, too few, or wrong."""
    if abs(len(word) - len(known)) > 1 or len(known) < 3:
        return False
    return any(
        word[:i] + word[i + 1 :] == known or (word[:i] == known[:i] and word[i:] == known[i + 1 :])
        for i in range(max(len(word), len(known)))
    ) or (len(word) == len(known) and sum(a != b for a, b in zip(word, known, strict=True)) == 1)


@SHAPES.rule(
    "policy-shape",
    "A network policy's rules are of the directions it is for; networks are CIDRs, ports numbers or names.",
    "let policyTypes name Egress where there is egress; write ports without quotes",
)
def policy_shape(manifest: Manifest) -> Iterator[Fault]:
    if manifest.kind != "NetworkPolicy" or manifest.group != "networking.k8s.io":
        return
    spec = mapping(manifest.value, "spec")
    types = texts(spec, "policyTypes")
    for place, kind in enumerate(types):
        if kind not in ("Ingress", "Egress"):
            yield Fault(("spec", "policyTypes", place), f"{shown(kind)} is none of Ingress, Egress")
    for way, peers in (("ingress", "from"), ("egress", "to")):
        if sequence(spec, way) and types and way.capitalize() not in types:
            yield Fault(
                ("spec", way), f"rules of {way}, and policyTypes is {', '.join(types)}: never applied"
            )
        for place, rule in maps(spec, way):
            yield from _rule_faults(rule, peers, ("spec", way, place))


def _rule_faults(rule: dict[str, Any], peers: str, at: Path) -> Iterator[Fault]:
    for place, peer in maps(rule, peers):
        block = peer.get("ipBlock")
        if not isinstance(block, dict):
            continue
        if set(peer) - {"ipBlock"}:
            yield Fault((*at, peers, place), "an ipBlock beside a selector: write two peers")
        for cidr in (block.get("cidr"), *texts(block, "except")):
            if not _network(cidr):
                yield Fault((*at, peers, place, "ipBlock"), f"{shown(cidr)} is no network")
    for place, port in maps(rule, "ports"):
        given = port.get("port")
        if isinstance(given, str) and _NUMBER.fullmatch(given):
            yield Fault((*at, "ports", place, "port"), f"{shown(given)} is a name of digits alone")
        if (number := whole(port, "port")) is not None and not 1 <= number <= 65535:
            yield Fault((*at, "ports", place, "port"), f"{number} is no port")


def _network(given: object) -> bool:
    try:
        ipaddress.ip_network(str(given), strict=False)
    except ValueError:
        return False
    return isinstance(given, str) and "/" in given


@SHAPES.rule(
    "job-shape",
    "A Job's pod ends, and its selector is the server's to make.",
    "remove selector; set restartPolicy: Never",
)
def job_shape(manifest: Manifest) -> Iterator[Fault]:
    at = _job_at(manifest)
    if not at:
        return
    spec = mapping(manifest.value, *at)
    if spec.get("selector") is not None and spec.get("manualSelector") is not True:
        yield Fault((*at, "selector"), "a selector without manualSelector: true")
    # Of a CronJob's pod its own rules speak.
    given, where = text(spec, "template", "spec", "restartPolicy"), (*at, "template", "spec", "restartPolicy")
    if manifest.kind == "Job" and given not in ("Never", "OnFailure"):
        yield Fault(where, f"restartPolicy {given or 'Always (the default)'} of a Job's pod")
    if manifest.kind == "Job" and given == "OnFailure" and spec.get("podFailurePolicy") is not None:
        yield Fault(where, "podFailurePolicy needs restartPolicy: Never")


@SHAPES.rule(
    "failure-policy",
    "A policy of failures has known actions, containers that there are, and exit codes in rising order.",
    "write {action: FailJob, onExitCodes: {operator: In, values: [2, 3]}}",
)
def failure_policy(manifest: Manifest) -> Iterator[Fault]:
    at = _job_at(manifest)
    spec = mapping(manifest.value, *at) if at else {}
    pod = mapping(spec, "template", "spec")
    names = {text(c, "name") for kind in ("initContainers", "containers") for _, c in maps(pod, kind)}
    for place, rule in maps(spec, "podFailurePolicy", "rules"):
        where: Path = (*at, "podFailurePolicy", "rules", place)
        named = text(rule, "onExitCodes", "containerName")
        if rule.get("action") not in ACTIONS:
            yield Fault((*where, "action"), f"{shown(rule.get('action'))} is none of {', '.join(ACTIONS)}")
        if named and named not in names:
            yield Fault((*where, "onExitCodes", "containerName"), f"no container is called {named!r}")
        codes = [code for code in sequence(rule, "onExitCodes", "values") if isinstance(code, int)]
        if 0 in codes and text(rule, "onExitCodes", "operator") == "In":
            yield Fault((*where, "onExitCodes", "values"), "0 is no failure", remedy="remove 0")
        if codes != sorted(set(codes)):
            said = "exit codes that do not rise, or stand there twice"
            yield Fault((*where, "onExitCodes", "values"), said, remedy="sort them")


def _job_at(manifest: Manifest) -> Path:
    """Where the spec of a Job stands; nowhere in other objects."""
    if manifest.group != "batch":
        return ()
    return {"CronJob": CRON_JOB, "Job": ("spec",)}.get(manifest.kind, ())
