"""What a RayJob needs so that a sweep goes on after a loss: a polling submitter, lasting storage, signals."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from hpsearch.ship.lint.document import read
from hpsearch.ship.lint.finding import TOP, Fault, Level, Path
from hpsearch.ship.lint.ray_objects import INTERACTIVE, K8S_JOB, RayJob, variable
from hpsearch.ship.lint.rulebook import Rulebook
from hpsearch.ship.lint.schema_errors import shown
from hpsearch.ship.lint.shape import dig, mapping, maps, sequence, text, texts, whole

RECOVERY: Rulebook[RayJob, Fault] = Rulebook("sweep", "this project's rules for RayJobs")
_PACKAGES = ("pip", "conda", "uv", "image_uri", "container")
HEAD_CONTAINER: Path = ("rayClusterSpec", "headGroupSpec", "template", "spec", "containers", 0)
# Volumes whose contents outlive a pod.
LASTING = ("persistentVolumeClaim", "nfs", "csi", "cephfs", "glusterfs", "azureFile", "iscsi", "fc")


@RECOVERY.rule(
    "submitter",
    "The submitter asks for the job's status until its end. One that follows a log ends when the log "
    "drops, and "
    "30 s later the operator fails a healthy sweep.",
    "write submitterPodTemplate with `hpsearch submit --wait --as-submitter --address "
    "http://$(RAY_DASHBOARD_ADDRESS) --submission-id $(RAY_JOB_SUBMISSION_ID) -- ENTRYPOINT`, or use "
    "HTTPMode",
    source="trap: log stream ends; kuberay#4921",
)
def submitter(job: RayJob) -> Iterator[Fault]:
    if job.mode != K8S_JOB:
        return
    at: Path = ("submitterPodTemplate", "spec", "containers", 0)
    container = mapping(job.spec, *at)
    words = [*texts(container, "command"), *texts(container, "args")]
    command = " ".join(words)
    if not words:
        yield Fault(("submitterPodTemplate",), "the operator's own submitter follows the log")
    elif re.search(r"\bray\s+job\s+(submit|logs)\b", command):
        yield Fault((*at, "command"), "the submitter follows the log by `ray job`")
    elif "submit" in words[:2] and not {"--wait", "--as-submitter"} <= set(words):
        yield Fault((*at, "command"), "hpsearch submit without --wait --as-submitter")


@RECOVERY.rule(
    "submitter-entrypoint",
    "The submitter hands over the entrypoint that the object shows.",
    "let what follows `--` be the entrypoint",
)
def submitter_entrypoint(job: RayJob) -> Iterator[Fault]:
    at: Path = ("submitterPodTemplate", "spec", "containers", 0)
    words = [*texts(job.spec, *at, "command"), *texts(job.spec, *at, "args")]
    if words[:2] == ["hpsearch", "submit"] and "--" in words:
        handed = words[words.index("--") + 1 :]
        if handed != job.words:
            yield Fault((*at, "command"), f"the submitter runs {shown(' '.join(handed))}")


@RECOVERY.rule(
    "resume",
    "A sweep that is started again goes on: fixed study name, --resume auto.",
    "write hpsearch run FILE --study NAME --resume auto",
    source="trap: everything is rerun after a retry",
)
def resume(job: RayJob) -> Iterator[Fault]:
    if not job.runs_sweep:
        return
    words = " ".join(job.words)
    if not re.search(r"--resume[ =](auto|must)\b", words):
        yield Fault(
            ("entrypoint",), "hpsearch run without --resume auto starts anew, or fails, after a retry"
        )
    named = re.search(r"--study[ =]\S", words) is not None
    if job.manifest.kind == "RayJob" and not named:
        yield Fault(("entrypoint",), "hpsearch run without --study: each attempt would be another study")
    if job.manifest.kind == "RayCronJob" and named:
        yield Fault(
            ("entrypoint",), "a fixed --study: each tick would find the study of the first one, ended"
        )
    if "--local" in job.words:
        yield Fault(("entrypoint",), "--local runs all trials on the head, one at a time")


def _studies(job: RayJob) -> str:
    """Where the driver keeps its studies, by its words or its variables."""
    found = re.search(r"--home[ =](\S+)", " ".join(job.words))
    return found[1] if found else variable(dig(job.spec, *HEAD_CONTAINER), "HPSEARCH_HOME") or "studies"


def _files(job: RayJob) -> str:
    """Where trials keep their files, by the same; empty: with their study."""
    found = re.search(r"--storage[ =](\S+)", " ".join(job.words))
    return found[1] if found else variable(dig(job.spec, *HEAD_CONTAINER), "HPSEARCH_STORAGE") or ""


def lasting(spec: dict[str, Any], place: str) -> bool:
    """Whether a path of a pod's first container lies on a volume that outlives the pod."""
    volumes = {text(volume, "name"): volume for _, volume in maps(spec, "volumes")}
    best, kept = "", False
    for _, mount in maps(spec, "containers", 0, "volumeMounts"):
        at = text(mount, "mountPath").rstrip("/")
        if (place == at or place.startswith(at + "/")) and len(at) >= len(best):
            best, kept = at, any(kind in volumes.get(text(mount, "name"), {}) for kind in LASTING)
    return kept


@RECOVERY.rule(
    "storage",
    "Studies lie on a volume that outlives the cluster, and trials' files on one that all its pods share, or "
    "in an object store: a retry is a new cluster.",
    "mount a PersistentVolumeClaim, and set HPSEARCH_HOME to a place on it, for head and workers; or, for "
    "the head alone, with --storage s3://bucket/folder",
    source="trap: everything is rerun after a retry; kuberay#1047",
)
def storage(job: RayJob) -> Iterator[Fault]:
    home, files = _studies(job), _files(job)
    if not job.runs_sweep or job.cluster is None:
        return
    if "://" in home:
        yield Fault(("entrypoint",), f"studies are in {home}, and an object store keeps trials' files alone")
        return
    head = (("rayClusterSpec", "headGroupSpec", "template", "spec"), "head", job.cluster.head)
    workers: list[tuple[Path, str, dict[str, Any]]] = [
        (("rayClusterSpec", "workerGroupSpecs", i, "template", "spec"), text(g, "groupName"), g)
        for i, g in job.cluster.groups
    ]
    wanted = [(home, "studies", [head] if files else [head, *workers])]
    if files and "://" not in files:
        wanted.append((files, "files of trials", [head, *workers]))
    for place, what, pods in wanted:
        for path, name, group in pods:
            if not place.startswith("/") or not lasting(mapping(group, "template", "spec"), place):
                said = f"{what} are in {place}, which on pods of group {name} is lost with the pod"
                yield Fault((*path, "volumes"), said)


@RECOVERY.rule(
    "retry-storage",
    "A job that is retried keeps what it has done somewhere outside of its cluster.",
    "mount a PersistentVolumeClaim, or set backoffLimit: 0",
    level=Level.WARNING,
    source="trap: everything is rerun after a retry",
)
def retry_storage(job: RayJob) -> Iterator[Fault]:
    if job.runs_sweep or job.cluster is None or not whole(job.spec, "backoffLimit"):
        return
    volumes = [v for _, v in maps(job.cluster.head, "template", "spec", "volumes")]
    if not any(kind in volume for volume in volumes for kind in LASTING):
        yield Fault(("backoffLimit",), "each retry is a new cluster, and nothing of the last one lasts")


@RECOVERY.rule(
    "driver-signal",
    "A sweep's head tells the driver to end: Ray's own way is SIGKILL after 3 s, and a pod's end tells "
    "it nothing.",
    "set preStop: {exec: {command: [hpsearch, stop, --here]}} and RAY_JOB_STOP_WAIT_TIME_S=45 on the head",
    source="trap: the driver gets no SIGTERM",
)
def driver_signal(job: RayJob) -> Iterator[Fault]:
    if not job.runs_sweep or job.cluster is None:
        return
    container = mapping(job.spec, *HEAD_CONTAINER)
    hook = " ".join(texts(container, "lifecycle", "preStop", "exec", "command"))
    if "hpsearch stop --here" not in hook:
        said = "the head's preStop is not `hpsearch stop --here`"
        yield Fault((*HEAD_CONTAINER, "lifecycle", "preStop"), said)
    wait = variable(container, "RAY_JOB_STOP_WAIT_TIME_S") or "3"
    if not wait.isdigit() or int(wait) < 30:
        yield Fault(
            (*HEAD_CONTAINER, "env"), f"a stopped driver is killed after RAY_JOB_STOP_WAIT_TIME_S={wait} s"
        )


@RECOVERY.rule(
    "worker-signal",
    "A worker that must go tells its trials, which then save a checkpoint.",
    "set preStop: {exec: {command: [touch, FILE]}} and HPSEARCH_PREEMPTED=FILE on the workers",
)
def worker_signal(job: RayJob) -> Iterator[Fault]:
    for place, group in job.cluster.groups if job.cluster and job.runs_sweep else ():
        at: Path = ("rayClusterSpec", "workerGroupSpecs", place, "template", "spec", "containers", 0)
        container = mapping(job.spec, *at)
        if dig(container, "lifecycle", "preStop") is None:
            yield Fault((*at, "lifecycle", "preStop"), f"group {text(group, 'groupName')} has no preStop")


@RECOVERY.rule(
    "packages",
    "Nothing is installed when a job starts: each worker would do it again, and each differently.",
    "bake it into the image, and remove it from runtimeEnvYAML",
    source="kuberay#2594",
)
def packages(job: RayJob) -> Iterator[Fault]:
    documents, _ = read(text(job.spec, "runtimeEnvYAML"))
    for document in documents:
        for name in _PACKAGES:
            if dig(document.value, name):
                yield Fault(("runtimeEnvYAML",), f"{name} in runtimeEnvYAML")


@RECOVERY.rule(
    "job-id",
    "Each attempt has an id of its own.",
    "remove jobId",
    level=Level.WARNING,
)
def job_id(job: RayJob) -> Iterator[Fault]:
    if text(job.spec, "jobId") and job.mode != INTERACTIVE:
        yield Fault(("jobId",), "a fixed jobId")


@RECOVERY.rule(
    "owner-name",
    "A RayJob is not called like the Job that made it: the submitter's Job takes exactly the RayJob's "
    "name, the "
    "operator finds the launcher's, and both wait for ever.",
    "append -r to the RayJob's name",
    source="trap: RayJob named like the launcher's Job",
)
def owner_name(job: RayJob) -> Iterator[Fault]:
    for place, owner in maps(job.manifest.value, "metadata", "ownerReferences"):
        at = (TOP, "metadata", "ownerReferences", place)
        if owner.get("kind") == "Job" and owner.get("name") == job.manifest.name:
            yield Fault((*at, "name"), f"the Job {job.manifest.name} owns a RayJob of the same name")
        if owner.get("blockOwnerDeletion") is True:
            yield Fault(
                (*at, "blockOwnerDeletion"), "its owner cannot go before it", Level.WARNING, "remove it"
            )


@RECOVERY.rule(
    "submitter-image",
    "The submitter runs the head's image, and knows the same Ray.",
    "use one digest for all",
    source="trap: a stale digest beside a new one",
)
def submitter_image(job: RayJob) -> Iterator[Fault]:
    at: Path = ("submitterPodTemplate", "spec", "containers", 0, "image")
    image, other = text(job.spec, *HEAD_CONTAINER, "image"), text(job.spec, *at)
    if image and other and image != other:
        yield Fault(at, f"{shown(other)} is not the head's {shown(image)}")


@RECOVERY.rule(
    "submitter-restart",
    "The submitter's pod ends, and its Job starts another.",
    "set restartPolicy: Never",
    source="Kubernetes, validation of Jobs",
)
def submitter_restart(job: RayJob) -> Iterator[Fault]:
    at: Path = ("submitterPodTemplate", "spec", "restartPolicy")
    given = text(job.spec, *at)
    if sequence(job.spec, "submitterPodTemplate", "spec", "containers") and given not in (
        "Never",
        "OnFailure",
    ):
        yield Fault(at, f"restartPolicy {given or 'Always (the default)'} of a Job's pod")
