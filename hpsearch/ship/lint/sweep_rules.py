"""What a RayJob must have so that a sweep ends, is paid for once, and goes on after a loss: the known traps."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from hpsearch.ship.lint.document import read
from hpsearch.ship.lint.finding import TOP, Fault, Level, Path
from hpsearch.ship.lint.kuberay_deletion import RULES
from hpsearch.ship.lint.kueue import QUEUE
from hpsearch.ship.lint.ray_objects import INTERACTIVE, K8S_JOB, SIDECAR, RayJob, variable
from hpsearch.ship.lint.rulebook import Rulebook
from hpsearch.ship.lint.schema_errors import shown
from hpsearch.ship.lint.shape import dig, mapping, maps, sequence, text, texts, whole

SWEEPS: Rulebook[RayJob] = Rulebook("sweep", "this project's rules for RayJobs")
# A cluster that has ended its job is paid for so long (seconds).
LONGEST_TTL = 1800
_SHELL = re.compile(r"[;&|<>`$\\\"'(){}*?!#~\n]")
_PACKAGES = ("pip", "conda", "uv", "image_uri", "container")
HEAD_CONTAINER: Path = ("rayClusterSpec", "headGroupSpec", "template", "spec", "containers", 0)
# Volumes whose contents outlive a pod.
LASTING = ("persistentVolumeClaim", "nfs", "csi", "cephfs", "glusterfs", "azureFile", "iscsi", "fc")


@SWEEPS.rule(
    "entrypoint-shell",
    "An entrypoint is pasted into `bash -c` of the submitter's pod: what a shell acts on acts there.",
    "write one plain command; put variables and pipes into a script of the image",
    source="KubeRay 1.7.0, common/job.go",
)
def entrypoint_shell(job: RayJob) -> Iterator[Fault]:
    if found := _SHELL.search(text(job.spec, "entrypoint")):
        yield Fault(("entrypoint",), f"the entrypoint holds {found[0]!r}, which a shell acts on")


@SWEEPS.rule("entrypoint", "A RayJob has an entrypoint.", "write the driver's command")
def entrypoint(job: RayJob) -> Iterator[Fault]:
    if job.mode != INTERACTIVE and not text(job.spec, "entrypoint").strip():
        yield Fault(("entrypoint",), "no entrypoint")


@SWEEPS.rule(
    "entrypoint-resources",
    "The driver asks Ray for nothing, or it moves to a worker that may go away, or waits for ever.",
    "remove entrypointNumCpus, entrypointNumGpus and entrypointResources",
)
def entrypoint_resources(job: RayJob) -> Iterator[Fault]:
    for name in ("entrypointNumCpus", "entrypointNumGpus"):
        given = job.spec.get(name)
        if isinstance(given, int | float) and given > 0:
            yield Fault((name,), f"the driver asks for {given:g}")
    if text(job.spec, "entrypointResources").strip() not in ("", "{}"):
        yield Fault(("entrypointResources",), "the driver asks for resources")


@SWEEPS.rule(
    "sidecar",
    "Never SidecarMode: its container has no security context, and a pod that starts again submits again.",
    "use K8sJobMode with a submitterPodTemplate",
)
def sidecar(job: RayJob) -> Iterator[Fault]:
    if job.mode == SIDECAR:
        yield Fault(("submissionMode",), "SidecarMode")


@SWEEPS.rule(
    "interactive",
    "Nobody submits to a sweep by hand.",
    "use K8sJobMode",
    level=Level.WARNING,
)
def interactive(job: RayJob) -> Iterator[Fault]:
    if job.mode == INTERACTIVE:
        yield Fault(("submissionMode",), "InteractiveMode waits for somebody to submit")


@SWEEPS.rule(
    "submitter",
    "The submitter asks for the job's status until its end. One that follows a log ends when the log drops, and "
    "30 s later the operator fails a healthy sweep.",
    "write submitterPodTemplate with `hpsearch submit --wait --as-submitter --address "
    "http://$(RAY_DASHBOARD_ADDRESS) --submission-id $(RAY_JOB_SUBMISSION_ID) -- ENTRYPOINT`, or use HTTPMode",
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


@SWEEPS.rule(
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


@SWEEPS.rule(
    "never-deleted",
    "A job that has ended gives its cluster back.",
    "set shutdownAfterJobFinishes: true with ttlSecondsAfterFinished: 300, or deletionRules",
    source="trap: deadline passes, GPUs go on burning",
)
def never_deleted(job: RayJob) -> Iterator[Fault]:
    strategy = mapping(job.spec, "deletionStrategy")
    if not job.selects and not job.shutdown and not job.rules and not strategy:
        yield Fault(("shutdownAfterJobFinishes",), "the cluster stays for ever after the job's end")


@SWEEPS.rule(
    "ttl-long",
    f"A cluster whose job has ended goes within {LONGEST_TTL} s: a deadline stops no Ray job, only this does.",
    "set ttlSecondsAfterFinished: 300",
    source="trap: deadline passes, GPUs go on burning",
)
def ttl_long(job: RayJob) -> Iterator[Fault]:
    ttl = whole(job.spec, "ttlSecondsAfterFinished") or 0
    if job.shutdown and ttl > LONGEST_TTL:
        yield Fault(("ttlSecondsAfterFinished",), f"the cluster burns {ttl} s more after its job's end")


@SWEEPS.rule(
    "retained",
    "Deletion rules cover success and failure, deadlines too: jobStatus SUCCEEDED and jobDeploymentStatus Failed.",
    "add {policy: DeleteCluster, condition: {jobDeploymentStatus: Failed, ttlSeconds: 1800}}",
    source="trap: deadline passes, GPUs go on burning",
)
def retained(job: RayJob) -> Iterator[Fault]:
    if not job.rules:
        return
    deleting = [rule for _, rule in job.rules if text(rule, "policy") in ("DeleteCluster", "DeleteSelf")]
    if not any(text(rule, "condition", "jobStatus") == "SUCCEEDED" for rule in deleting):
        yield Fault(RULES, "no rule deletes the cluster of a job that succeeded")
    if not any(text(rule, "condition", "jobDeploymentStatus") == "Failed" for rule in deleting):
        yield Fault(RULES, "no rule deletes the cluster of a job that failed or passed its deadline")


@SWEEPS.rule(
    "stopped",
    "No deletion rule matches a stopped job: it is Complete, and keeps its cluster.",
    "stop it by deleting the RayJob: hpsearch stop NAME",
    level=Level.NOTE,
    source="trap: stopped sweep keeps its cluster",
)
def stopped(job: RayJob) -> Iterator[Fault]:
    if job.rules and not job.shutdown:
        yield Fault(RULES, "a sweep that is stopped through Ray keeps its cluster")


@SWEEPS.rule(
    "deadline",
    "A job has a deadline, as a net under the sweep's own.",
    "set activeDeadlineSeconds: the sweep's studyTimeout and 300 s or more",
    level=Level.WARNING,
)
def deadline(job: RayJob) -> Iterator[Fault]:
    if whole(job.spec, "activeDeadlineSeconds") is None and QUEUE not in job.manifest.labels:
        yield Fault(("activeDeadlineSeconds",), "a job without deadline")


@SWEEPS.rule(
    "pre-running",
    "A job that gets no pods ends: preRunningDeadlineSeconds is set.",
    "set preRunningDeadlineSeconds: 1800",
    source="trap: pods wait for workers without end; kuberay#1991",
)
def pre_running(job: RayJob) -> Iterator[Fault]:
    if not job.selects and whole(job.spec, "preRunningDeadlineSeconds") is None:
        yield Fault(("preRunningDeadlineSeconds",), "a head that gets no node is waited for without end")


@SWEEPS.rule(
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
    if not re.search(r"--study[ =]\S", words):
        yield Fault(("entrypoint",), "hpsearch run without --study: each attempt would be another study")
    if "--local" in job.words:
        yield Fault(("entrypoint",), "--local runs all trials on the head, one at a time")


def _studies(job: RayJob) -> str:
    """Where the driver keeps its studies, by its words or its variables."""
    found = re.search(r"--home[ =](\S+)", " ".join(job.words))
    return found[1] if found else variable(dig(job.spec, *HEAD_CONTAINER), "HPSEARCH_HOME") or "studies"


def lasting(spec: dict[str, Any], place: str) -> bool:
    """Whether a path of a pod's first container lies on a volume that outlives the pod."""
    volumes = {text(volume, "name"): volume for _, volume in maps(spec, "volumes")}
    best, kept = "", False
    for _, mount in maps(spec, "containers", 0, "volumeMounts"):
        at = text(mount, "mountPath").rstrip("/")
        if (place == at or place.startswith(at + "/")) and len(at) >= len(best):
            best, kept = at, any(kind in volumes.get(text(mount, "name"), {}) for kind in LASTING)
    return kept


@SWEEPS.rule(
    "storage",
    "Studies lie on a volume that outlives the cluster and that all its pods share: a retry is a new cluster.",
    "mount a PersistentVolumeClaim, and set HPSEARCH_HOME to a place on it, for head and workers",
    source="trap: everything is rerun after a retry; kuberay#1047",
)
def storage(job: RayJob) -> Iterator[Fault]:
    home = _studies(job)
    if not job.runs_sweep or job.cluster is None or "://" in home:
        return
    pods: list[tuple[Path, str, dict[str, Any]]] = [
        (("rayClusterSpec", "headGroupSpec", "template", "spec"), "head", job.cluster.head)
    ]
    pods += [
        (("rayClusterSpec", "workerGroupSpecs", i, "template", "spec"), text(g, "groupName"), g)
        for i, g in job.cluster.groups
    ]
    for path, name, group in pods:
        if not home.startswith("/") or not lasting(mapping(group, "template", "spec"), home):
            said = f"studies are in {home}, which on pods of group {name} is lost with the pod"
            yield Fault((*path, "volumes"), said)


@SWEEPS.rule(
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


@SWEEPS.rule(
    "driver-signal",
    "A sweep's head tells the driver to end: Ray's own way is SIGKILL after 3 s, and a pod's end tells it nothing.",
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


@SWEEPS.rule(
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


@SWEEPS.rule(
    "suspend-by-hand",
    "Only Kueue suspends and resumes a job.",
    "remove suspend",
    level=Level.WARNING,
)
def suspend_by_hand(job: RayJob) -> Iterator[Fault]:
    if job.suspended and QUEUE not in job.manifest.labels:
        yield Fault(("suspend",), "a suspended job that nobody will start")


@SWEEPS.rule(
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


@SWEEPS.rule(
    "job-id",
    "Each attempt has an id of its own.",
    "remove jobId",
    level=Level.WARNING,
)
def job_id(job: RayJob) -> Iterator[Fault]:
    if text(job.spec, "jobId") and job.mode != INTERACTIVE:
        yield Fault(("jobId",), "a fixed jobId")


@SWEEPS.rule(
    "owner-name",
    "A RayJob is not called like the Job that made it: the submitter's Job takes exactly the RayJob's name, the "
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


@SWEEPS.rule(
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


@SWEEPS.rule(
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
