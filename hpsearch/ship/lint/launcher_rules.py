"""A launcher and what it is given: words that it knows, a sweep's file, a token and its rights."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from pathlib import Path as FilePath

from hpsearch.ship.choices import Overlap
from hpsearch.ship.lint.conflicts import mounted, problems
from hpsearch.ship.lint.cron_rules import JOB, launches, option, words
from hpsearch.ship.lint.finding import Level, Path
from hpsearch.ship.lint.manifest import Manifest
from hpsearch.ship.lint.naming_rules import RBAC
from hpsearch.ship.lint.pods import HEAD, Pod
from hpsearch.ship.lint.references import of_pod
from hpsearch.ship.lint.rulebook import Rulebook
from hpsearch.ship.lint.scene import Placed, Scene, near
from hpsearch.ship.lint.schema_errors import shown
from hpsearch.ship.lint.shape import maps, sequence, text, texts, whole

LAUNCHERS: Rulebook[Scene, Placed] = Rulebook("launch", "this project's rules for schedules")
# The options of `hpsearch launch`; those that are alone take no value.
ALONE = frozenset({"--wait"})
OPTIONS = ALONE | frozenset(
    [
        "--job-name",
        "--overlap",
        "--timeout",
        "--sweep",
        "--study",
        "--profile",
        "--submitter",
        "--kueue",
        "--kueue-priority",
        "--group",
        "--head-cpus",
        "--head-memory",
        "--claim",
        "--store-secret",
        "--mlflow-secret",
        "--retries",
        "--webhook-secret",
        "--tracking-uri",
        "--storage",
        "--storage-secret",
        "--deadline",
        "--service-account",
        "--termination-log",
    ]
)
# What a launcher asks the API server for.
NEEDED: dict[tuple[str, str], tuple[str, ...]] = {
    ("ray.io", "rayjobs"): ("create", "get", "list", "watch"),
    ("", "configmaps"): ("create", "get"),
    ("policy", "poddisruptionbudgets"): ("create", "get"),
    ("batch", "jobs"): ("get",),
}


def _launchers(scene: Scene) -> Iterator[Pod]:
    return (pod for pod in scene.pods if launches(pod.manifest))


@LAUNCHERS.rule(
    "words",
    "The launcher is told what it knows: an unknown option, or an overlap of another name, ends each tick "
    "with exit code 2.",
    "see `hpsearch launch --help`",
)
def launcher_words(scene: Scene) -> Iterator[Placed]:
    for pod in _launchers(scene):
        at: Path = (*pod.path, "containers", 0)
        for word in _options(words(pod.manifest)[1:]):
            if word not in OPTIONS:
                near_by = difflib.get_close_matches(word, OPTIONS, 1, cutoff=0.6)
                remedy = f"did you mean {near_by[0]}?" if near_by else ""
                yield Placed(pod.manifest, at, f"hpsearch launch knows no {shown(word)}", None, remedy)
        overlap = option(pod.manifest, "--overlap")
        if overlap and overlap not in list(Overlap):
            said = f"--overlap {shown(overlap)} is none of {', '.join(Overlap)}"
            yield Placed(pod.manifest, at, said, None, "write skip, queue or replace")


def _options(given: list[str]) -> Iterator[str]:
    """The options among words, values left out."""
    value = False
    for word in given:
        if word == "--":
            return
        if word.startswith("-") and not value:
            name, equals, _ = word.partition("=")
            yield name
            value = not equals and name in OPTIONS - ALONE
        else:
            value = False


@LAUNCHERS.rule(
    "file",
    "The sweep's file is there, and is a search space.",
    "mount its ConfigMap where the command reads it; see `hpsearch check FILE`",
)
def sweep_file(scene: Scene) -> Iterator[Placed]:
    for pod in scene.pods:
        found = _file_of(pod)
        if found is None:
            continue
        file, at = found
        given = mounted(scene, pod, file)
        names = {r.name for r in of_pod(pod) if r.kind == "ConfigMap"}
        there = any(scene.find("ConfigMap", name, pod.manifest.namespace) for name in names)
        if given is None and there and launches(pod.manifest):
            yield Placed(pod.manifest, at, f"no ConfigMap of these files is at {file}")
        for problem in problems(given)[:3] if given is not None else ():
            yield Placed(pod.manifest, at, f"{file}: {problem}")


def _file_of(pod: Pod) -> tuple[FilePath, Path] | None:
    """The file that a launcher, or the driver on a head, reads; and where it is named."""
    if launches(pod.manifest):
        given = words(pod.manifest)
        return (FilePath(given[1]), (*pod.path, "containers", 0)) if len(given) > 1 else None
    job = pod.job
    if pod.role == HEAD and job is not None and job.runs_sweep and len(job.words) > 2:
        return FilePath(job.words[2]), (*job.base, "entrypoint")
    return None


@LAUNCHERS.rule(
    "token",
    "The launcher has the token of its account.",
    "set automountServiceAccountToken: true",
)
def token(scene: Scene) -> Iterator[Placed]:
    for pod in _launchers(scene):
        if pod.spec.get("automountServiceAccountToken") is False:
            said = "the launcher gets no token, and cannot ask the API server"
            yield Placed(pod.manifest, (*pod.path, "automountServiceAccountToken"), said)


@LAUNCHERS.rule(
    "rights",
    "The launcher may do what it does: create and read RayJobs, ConfigMaps and budgets, and read its Job.",
    "see the Role hpsearch-launch in k8s/base/roles.yaml",
)
def rights(scene: Scene) -> Iterator[Placed]:
    for pod in _launchers(scene):
        roles = list(_roles(scene, text(pod.spec, "serviceAccountName"), pod.manifest.namespace))
        if not roles:
            continue  # bound elsewhere, or said elsewhere
        for (group, resource), verbs in NEEDED.items():
            missing = [v for v in verbs if not any(_allows(role, group, resource, v) for role in roles)]
            if missing:
                said = f"a launcher with this role may not {', '.join(missing)} {resource}.{group}".rstrip(
                    "."
                )
                yield Placed(roles[0], ("rules",), said)


def _roles(scene: Scene, account: str, namespace: str) -> Iterator[Manifest]:
    """The roles of these files that an account has."""
    for binding in [*scene.of("RoleBinding", RBAC), *scene.of("ClusterRoleBinding", RBAC)]:
        named = any(
            text(s, "name") == account and near(text(s, "namespace"), namespace)
            for _, s in maps(binding.value, "subjects")
        )
        kind, name = text(binding.value, "roleRef", "kind"), text(binding.value, "roleRef", "name")
        found = scene.find(kind, name, binding.namespace if kind == "Role" else "", RBAC)
        if named and near(binding.namespace, namespace) and found:
            yield found


def _allows(role: Manifest, group: str, resource: str, verb: str) -> bool:
    wanted = {"apiGroups": group, "resources": resource, "verbs": verb}
    return any(
        all({each, "*"} & set(texts(rule, name)) for name, each in wanted.items())
        and not sequence(rule, "resourceNames")
        for _, rule in maps(role.value, "rules")
    )


@LAUNCHERS.rule(
    "one-pod",
    "A tick is one pod, which stays until it is told of: several would launch and watch the same.",
    "remove completions and parallelism; leave ttlSecondsAfterFinished out, history limits collect Jobs",
    level=Level.WARNING,
)
def one_pod(scene: Scene) -> Iterator[Placed]:
    for pod in _launchers(scene):
        for name in ("completions", "parallelism"):
            if (given := whole(pod.manifest.value, *JOB, name)) not in (None, 1):
                yield Placed(pod.manifest, (*JOB, name), f"{name} {given} of a launcher", Level.ERROR)
        ttl = whole(pod.manifest.value, *JOB, "ttlSecondsAfterFinished")
        if ttl is not None and ttl < 3600:
            said = f"the Job goes {ttl} s after its end, and its RayJob with it, before anybody has looked"
            yield Placed(pod.manifest, (*JOB, "ttlSecondsAfterFinished"), said)
