"""What a RayJob must have so that a sweep ends, and is paid for no longer: the known traps."""

from __future__ import annotations

import re
from collections.abc import Iterator

from hpsearch.ship.job import DEADLINE_SLACK
from hpsearch.ship.lint.finding import Fault, Level
from hpsearch.ship.lint.kuberay_deletion import RULES
from hpsearch.ship.lint.kueue import QUEUE
from hpsearch.ship.lint.ray_objects import INTERACTIVE, SIDECAR, RayJob
from hpsearch.ship.lint.rulebook import Rulebook
from hpsearch.ship.lint.shape import mapping, text, whole

SWEEPS: Rulebook[RayJob, Fault] = Rulebook("sweep", "this project's rules for RayJobs")
# A cluster that has ended its job is paid for so long (seconds).
LONGEST_TTL = 1800
_SHELL = re.compile(r"[;&|<>`$\\\"'(){}*?!#~\n]")


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
    f"A cluster whose job has ended goes within {LONGEST_TTL} s: a deadline stops no Ray job, only this "
    f"does.",
    "set ttlSecondsAfterFinished: 300",
    source="trap: deadline passes, GPUs go on burning",
)
def ttl_long(job: RayJob) -> Iterator[Fault]:
    ttl = whole(job.spec, "ttlSecondsAfterFinished") or 0
    if job.shutdown and ttl > LONGEST_TTL:
        yield Fault(("ttlSecondsAfterFinished",), f"the cluster burns {ttl} s more after its job's end")


@SWEEPS.rule(
    "retained",
    "Deletion rules cover success and failure, deadlines too: jobStatus SUCCEEDED and "
    "jobDeploymentStatus Failed.",
    "add {policy: DeleteCluster, condition: {jobDeploymentStatus: Failed, ttlSeconds: 1800}}",
    source="trap: deadline passes, GPUs go on burning",
)
def retained(job: RayJob) -> Iterator[Fault]:
    if not job.rules:
        return
    deleting = [rule for _, rule in job.rules if text(rule, "policy") in ("DeleteCluster", "DeleteSelf")]
    if not any(text(rule, "condition", "jobStatus") == "SUCCEEDED" for rule in deleting):
        remedy = "add {policy: DeleteCluster, condition: {jobStatus: SUCCEEDED, ttlSeconds: 0}}"
        yield Fault(RULES, "no rule deletes the cluster of a job that succeeded", remedy=remedy)
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
    "suspend-by-hand",
    "Only Kueue suspends and resumes a job.",
    "remove suspend",
    level=Level.WARNING,
)
def suspend_by_hand(job: RayJob) -> Iterator[Fault]:
    if job.suspended and QUEUE not in job.manifest.labels:
        yield Fault(("suspend",), "a suspended job that nobody will start")


@SWEEPS.rule(
    "own-deadline",
    "The driver ends by itself before the job's deadline, which deletes pods and stops no Ray job.",
    "write hpsearch run ... --deadline SECONDSs, and activeDeadlineSeconds 300 s or more above it",
    source="trap: deadline passes, GPUs go on burning",
)
def own_deadline(job: RayJob) -> Iterator[Fault]:
    given, own = whole(job.spec, "activeDeadlineSeconds"), seconds_of(job, "--deadline")
    if not job.runs_sweep or given is None:
        return
    if own is None:
        yield Fault(("entrypoint",), "the driver has no --deadline of its own")
    elif given < own + DEADLINE_SLACK:
        said = f"{given} s, and the driver's own deadline is {own:.0f} s after its start"
        yield Fault(("activeDeadlineSeconds",), said)


@SWEEPS.rule(
    "start-timeout",
    "A driver whose trials find no place ends, and says what is missing; Ray waits for ever.",
    "write hpsearch run ... --start-timeout 1800s",
    source="trap: pods wait for workers without end",
)
def start_timeout(job: RayJob) -> Iterator[Fault]:
    if job.runs_sweep and seconds_of(job, "--start-timeout") is None:
        yield Fault(("entrypoint",), "hpsearch run without --start-timeout waits for workers without end")


def seconds_of(job: RayJob, option: str) -> float | None:
    """The seconds of an option of the entrypoint: 90, 90s, 30m, 8h, 1d; None without it."""
    found = re.search(rf"{option}[ =](\d+(?:\.\d+)?)([smhd]?)(?=\s|$)", " ".join(job.words))
    return float(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}[found[2]] if found else None
