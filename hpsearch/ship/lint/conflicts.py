"""Objects that do not go together: names taken twice, two images of one thing, trials that fit no worker."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from pathlib import Path as FilePath
from typing import Any

from hpsearch.errors import HpsearchError
from hpsearch.ship import fit
from hpsearch.ship.job import DEADLINE_SLACK, Group, Platform
from hpsearch.ship.lint.cron_rules import launches, option
from hpsearch.ship.lint.cron_rules import words as cron_words
from hpsearch.ship.lint.finding import Level, Path
from hpsearch.ship.lint.manifest import Manifest
from hpsearch.ship.lint.names import quantity
from hpsearch.ship.lint.pods import Pod
from hpsearch.ship.lint.ray_objects import RayJob
from hpsearch.ship.lint.references import of_pod
from hpsearch.ship.lint.rulebook import Rulebook
from hpsearch.ship.lint.scene import Placed, Scene, near
from hpsearch.ship.lint.shape import dig, mapping, maps, text, walked, whole
from hpsearch.ship.lint.sweep_rules import seconds_of
from hpsearch.ship.making import DEADLINE, Wishes
from hpsearch.spec.model import Reading, Spec

CONFLICTS: Rulebook[Scene, Placed] = Rulebook("conflict", "this project's rules for objects together")
# Of a launched job that says nothing else: new clusters after a failure, and seconds until its head is there.
RETRIES = Wishes(image="").retries
PRE_RUNNING = int(Platform.model_fields["pre_running"].default)
_IMAGE = re.compile(r"([\w.-]+(?::\d+)?(?:/[\w.-]+)*)(?::([\w.-]+))?@(sha256:[0-9a-f]{64})")
_DIGEST = re.compile(r"@sha256:[0-9a-f]{64}")
# Before a digest (characters): a search for names in a long text would try each of its characters.
LONGEST_IMAGE = 512


@CONFLICTS.rule(
    "twice",
    "No two objects of a kind have one name in one namespace.",
    "rename one, or remove it",
    source="Kubernetes, names",
)
def twice(scene: Scene) -> Iterator[Placed]:
    seen: dict[tuple[str, str, str, str], Manifest] = {}
    for each in scene.manifests:
        if not text(each.value, "metadata", "name"):
            continue
        key = (each.group, each.kind, each.namespace, each.name)
        if key in seen:
            first = seen[key]
            said = f"{each.kind} {each.name} is there already: {first.file}:{first.line(('kind',))}"
            # Files of several overlays may stand beside each other, and are applied one at a time.
            level = Level.ERROR if first.file == each.file else Level.WARNING
            yield Placed(each, ("metadata", "name"), said, level)
        seen.setdefault(key, each)


@CONFLICTS.rule(
    "job-name",
    "A RayJob is not called like a Job: its submitter's Job takes exactly the RayJob's name, the "
    "operator finds the "
    "other one, never submits, and both wait for ever.",
    "append -r to the RayJob's name",
    source="trap: RayJob named like the launcher's Job",
)
def job_name(scene: Scene) -> Iterator[Placed]:
    for job in scene.of("RayJob", "ray.io"):
        if scene.find("Job", job.name, job.namespace, "batch"):
            yield Placed(job, ("metadata", "name"), f"a Job is called {job.name} too")
        for cron in scene.of("CronJob", "batch"):
            ticks = re.compile(re.escape(cron.name) + r"-\d{8,}")
            if near(cron.namespace, job.namespace) and ticks.fullmatch(job.name):
                yield Placed(job, ("metadata", "name"), f"called like a tick of the CronJob {cron.name}")


@CONFLICTS.rule(
    "stale-image",
    "What a text says of an image is the image that runs: nothing rewrites digests inside of texts.",
    "let the launcher read the image from its own Job, and remove it from the text",
    source="trap: a stale digest beside a new one",
)
def stale_image(scene: Scene) -> Iterator[Placed]:
    running: dict[str, set[str]] = {}
    for pod in scene.pods:
        for container in pod.containers:
            if found := _IMAGE.fullmatch(text(container.value, "image")):
                running.setdefault(found[1], set()).add(found[3])
    for manifest, path, given in _texts(scene):
        for found in _images(given):
            known = running.get(found[1], set())
            if known and found[3] not in known:
                said = f"{found[1]}@{found[3][:19]}... in a text, and pods of these files run {_short(known)}"
                yield Placed(manifest, path, said)


def _images(given: str) -> Iterator[re.Match[str]]:
    """The images with a digest that a text names."""
    for digest in _DIGEST.finditer(given):
        start = max(0, digest.start() - LONGEST_IMAGE)
        yield from list(_IMAGE.finditer(given[start : digest.end()]))[-1:]


def _short(digests: set[str]) -> str:
    return ", ".join(f"{digest[:19]}..." for digest in sorted(digests))


def _texts(scene: Scene) -> Iterator[tuple[Manifest, Path, str]]:
    """Texts that may name an image without anybody knowing: ConfigMaps, variables, words, annotations."""
    for manifest in scene.of("ConfigMap"):
        for path, value in walked(mapping(manifest.value, "data"), ("data",)):
            if isinstance(value, str):
                yield manifest, path, value
    for pod in scene.pods:
        for container in pod.containers:
            for place, entry in maps(container.value, "env"):
                yield pod.manifest, (*container.path, "env", place, "value"), text(entry, "value")
            for name in ("command", "args"):
                for path, value in walked(container.value.get(name), (*container.path, name)):
                    if isinstance(value, str):
                        yield pod.manifest, path, value


@CONFLICTS.rule(
    "two-digests",
    "One image has one digest in all files.",
    "set it in one place: `images:` of the overlay",
    source="trap: a stale digest beside a new one",
)
def two_digests(scene: Scene) -> Iterator[Placed]:
    first: dict[str, tuple[str, Pod]] = {}
    for pod in scene.pods:
        for container in pod.containers:
            found = _IMAGE.fullmatch(text(container.value, "image"))
            if not found or container.added:
                continue
            digest, before = first.setdefault(found[1], (found[3], pod))
            # Within one object the rules about its own pods say it.
            if digest != found[3] and before.manifest is not pod.manifest:
                said = (
                    f"{found[1]} is {found[3][:19]}... here and {digest[:19]}... in {before.manifest.subject}"
                )
                yield Placed(pod.manifest, (*container.path, "image"), said)


@CONFLICTS.rule(
    "account-token",
    "A pod with a token of the API server has an account with rights; all others have none.",
    "set automountServiceAccountToken: false, or bind a Role to the account",
    level=Level.WARNING,
)
def account_token(scene: Scene) -> Iterator[Placed]:
    rbac = "rbac.authorization.k8s.io"
    bindings = [*scene.of("RoleBinding", rbac), *scene.of("ClusterRoleBinding", rbac)]
    bound = [
        (text(s, "name"), text(s, "namespace")) for each in bindings for _, s in maps(each.value, "subjects")
    ]
    for pod in scene.pods:
        account = text(pod.spec, "serviceAccountName")
        if (
            pod.spec.get("automountServiceAccountToken") is True
            and account
            and bindings
            and not any(name == account and near(at, pod.manifest.namespace) for name, at in bound)
        ):
            path = (*pod.path, "automountServiceAccountToken")
            yield Placed(
                pod.manifest, path, f"a token for the account {account}, which has no rights in these files"
            )


@CONFLICTS.rule(
    "fit",
    "A trial of the sweep fits some worker, and all that may run at once fit all workers.",
    "lower resources or maxParallelTrials of the sweep, or enlarge a worker group",
    source="trap: pods wait for workers without end",
)
def fits(scene: Scene) -> Iterator[Placed]:
    for job, spec in _sweeps(scene):
        groups = list(_groups(job))
        if not groups or len(groups) != len(job.cluster.groups if job.cluster else ()):
            continue  # what is wrong with them is said elsewhere
        try:
            fit.check(spec, groups)
        except HpsearchError as error:
            path = (*job.base, "rayClusterSpec", "workerGroupSpecs")
            yield Placed(job.manifest, path, error.message, remedy=error.hint)


@CONFLICTS.rule(
    "sweep-deadline",
    f"The job's deadline comes {DEADLINE_SLACK} s or more after the sweep's own, which ends it in order.",
    "raise activeDeadlineSeconds, or lower the sweep's studyTimeout",
    source="trap: deadline passes, GPUs go on burning",
)
def sweep_deadline(scene: Scene) -> Iterator[Placed]:
    for job, spec in _sweeps(scene):
        given, own = whole(job.spec, "activeDeadlineSeconds"), spec.limits.study_timeout
        ends_itself = seconds_of(job, "--deadline") is not None
        if given is not None and own is not None and not ends_itself and given < own + DEADLINE_SLACK:
            path = (*job.base, "activeDeadlineSeconds")
            yield Placed(job.manifest, path, f"{given} s, and the sweep's studyTimeout is {own:.0f} s")


@CONFLICTS.rule(
    "launch-deadline",
    "The launcher's Job outlives all attempts of the sweep that it launches.",
    "raise activeDeadlineSeconds of the Job: (retries + 1) x (studyTimeout + 2100 s), and slack",
    source="this project's rules for schedules",
)
def launch_deadline(scene: Scene) -> Iterator[Placed]:
    for pod in (each for each in scene.pods if launches(each.manifest)):
        at: Path = ("spec", "jobTemplate", "spec", "activeDeadlineSeconds")
        given, words = whole(pod.manifest.value, *at), cron_words(pod.manifest)
        told = mounted(scene, pod, FilePath(words[1])) if len(words) > 1 else None
        spec = _spec(told) if told else None
        if given is None or spec is None or option(pod.manifest, "--deadline"):
            continue
        deadline = spec.limits.study_timeout or DEADLINE
        retries = option(pod.manifest, "--retries")
        attempts = (int(retries) if retries.isdigit() else RETRIES) + 1
        needed = attempts * (deadline + PRE_RUNNING + DEADLINE_SLACK)
        if given < needed:
            said = (
                f"the Job ends after {given} s, and {attempts} attempts of its sweep may take {needed:.0f} s"
            )
            yield Placed(pod.manifest, at, said)


def _sweeps(scene: Scene) -> Iterator[tuple[RayJob, Spec]]:
    """The sweeps of jobs whose file is here: a ConfigMap that the head mounts where the entrypoint reads."""
    for job in scene.jobs:
        if not job.runs_sweep or len(job.words) < 3:
            continue
        head = next((p for p in scene.pods if p.manifest is job.manifest and p.role == "head"), None)
        if head is not None and (given := mounted(scene, head, FilePath(job.words[2]))) is not None:
            spec = _spec(given)
            if spec is not None:
                yield job, spec


def mounted(scene: Scene, pod: Pod, file: FilePath) -> str | None:
    """A file's text, where a ConfigMap of these files is mounted at its place in a pod; else None."""
    volumes = {text(v, "name"): v for _, v in maps(pod.spec, "volumes")}
    for _, mount in maps(pod.main, "volumeMounts"):
        if text(mount, "mountPath").rstrip("/") == str(file.parent):
            name = text(volumes.get(text(mount, "name")), "configMap", "name")
            found = scene.find("ConfigMap", name, pod.manifest.namespace) if name else None
            given = dig(found.value, "data", file.name) if found else None
            return given if isinstance(given, str) else None
    return None


@functools.lru_cache(maxsize=16)
def _read(given: str) -> Reading:
    from hpsearch.spec.reading import parse

    return parse(given)


def _spec(given: str) -> Spec | None:
    return _read(given).spec


def problems(given: str) -> list[str]:
    """What is wrong with a sweep's file, a line each."""
    return [
        f"line {each.line}: {f'{each.path}: ' if each.path else ''}{each.message}"
        for each in _read(given).errors
    ]


def _groups(job: RayJob) -> Iterator[Group]:
    """The worker groups as the model that renders knows them; those that it cannot hold are left out."""
    for _, group in job.cluster.groups if job.cluster else ():
        limits = mapping(group, "template", "spec", "containers", 0, "resources", "limits")
        cpus, memory = quantity(limits.get("cpu")), quantity(limits.get("memory"))
        gpus = next((quantity(value) for key, value in limits.items() if key.endswith("/gpu")), 0)
        most = whole(group, "maxReplicas") or 0
        given: dict[str, Any] = {"name": text(group, "groupName"), "cpus": cpus, "memory": int(memory or 0)}
        try:
            yield Group(gpus=int(gpus or 0), max_replicas=most, **given)
        except ValueError:
            continue


@CONFLICTS.rule(
    "launcher-account",
    "The launcher has an account with rights on RayJobs.",
    "set serviceAccountName: hpsearch-launch",
)
def launcher_account(scene: Scene) -> Iterator[Placed]:
    for pod in scene.pods:
        if launches(pod.manifest) and not text(pod.spec, "serviceAccountName"):
            yield Placed(
                pod.manifest, (*pod.path, "serviceAccountName"), "a launcher without an account of its own"
            )


@CONFLICTS.rule(
    "unread-config",
    "A sweep's file is mounted where its job reads it.",
    "mount the ConfigMap where the entrypoint's FILE is",
)
def unread_config(scene: Scene) -> Iterator[Placed]:
    for job in scene.jobs:
        if not job.runs_sweep or len(job.words) < 3 or not job.words[2].startswith("/"):
            continue
        for pod in (p for p in scene.pods if p.manifest is job.manifest and p.role == "head"):
            file = FilePath(job.words[2])
            names = {r.name for r in of_pod(pod) if r.kind == "ConfigMap"}
            given = mounted(scene, pod, file)
            there = any(scene.find("ConfigMap", name, job.manifest.namespace) for name in names)
            if given is None and there:
                yield Placed(
                    job.manifest, (*job.base, "entrypoint"), f"no ConfigMap of these files is at {file}"
                )
