"""What KubeRay's operator refuses in a RayJob, in its status, after the API server took the object."""

from __future__ import annotations

from collections.abc import Iterator

from hpsearch.ship.job import LONGEST_RAYCRONJOB, LONGEST_RAYJOB
from hpsearch.ship.lint.document import read
from hpsearch.ship.lint.finding import TOP, Fault, Level
from hpsearch.ship.lint.names import DNS_1035
from hpsearch.ship.lint.ray_objects import INTERACTIVE, MODES, SIDECAR, RayJob
from hpsearch.ship.lint.rulebook import Rulebook
from hpsearch.ship.lint.schema_errors import shown
from hpsearch.ship.lint.shape import mapping, text, whole

SELECTOR = "ray.io/cluster"
JOBS: Rulebook[RayJob, Fault] = Rulebook("kuberay", "KubeRay 1.7.0, ValidateRayJobSpec")


@JOBS.rule(
    "job-name",
    "A RayJob's name is a DNS-1035 label of at most 47 characters, a RayCronJob's of at most 36.",
    "use a-z, 0-9 and '-', a letter first; the operator appends to it for clusters, jobs and services",
    source="KubeRay 1.7.0, ValidateRayJobMetadata",
)
def job_name(job: RayJob) -> Iterator[Fault]:
    name, kind = text(job.manifest.value, "metadata", "name"), job.manifest.kind
    longest = LONGEST_RAYJOB if kind == "RayJob" else LONGEST_RAYCRONJOB
    if not name:
        return
    if len(name) > longest:
        yield Fault(
            (TOP, "metadata", "name"),
            f"the name has {len(name)} characters, and a {kind}'s at most {longest}",
        )
    if not DNS_1035.fullmatch(name):
        yield Fault((TOP, "metadata", "name"), f"{name!r} is no DNS-1035 label")


@JOBS.rule(
    "suspend-needs-shutdown",
    "A job that may be suspended shuts its cluster down.",
    "set shutdownAfterJobFinishes: true, or leave suspend to Kueue",
)
def suspend_needs_shutdown(job: RayJob) -> Iterator[Fault]:
    if job.suspended and not job.shutdown:
        yield Fault(("suspend",), "suspend without shutdownAfterJobFinishes: true")


@JOBS.rule("suspend-selector", "A job on a cluster of others cannot be suspended.", "remove one of the two")
def suspend_selector(job: RayJob) -> Iterator[Fault]:
    if job.suspended and job.selects:
        yield Fault(("suspend",), "suspend together with clusterSelector")


@JOBS.rule("ttl-negative", "ttlSecondsAfterFinished is not negative.", "write 300, or leave it out")
def ttl_negative(job: RayJob) -> Iterator[Fault]:
    ttl = whole(job.spec, "ttlSecondsAfterFinished")
    if ttl is not None and ttl < 0:
        yield Fault(("ttlSecondsAfterFinished",), f"{ttl} is negative")


@JOBS.rule(
    "ttl-needs-shutdown",
    "ttlSecondsAfterFinished counts only where the cluster is shut down.",
    "set shutdownAfterJobFinishes: true",
)
def ttl_needs_shutdown(job: RayJob) -> Iterator[Fault]:
    ttl = whole(job.spec, "ttlSecondsAfterFinished") or 0
    if ttl > 0 and not job.shutdown:
        yield Fault(("ttlSecondsAfterFinished",), f"{ttl} s without shutdownAfterJobFinishes: true")


@JOBS.rule(
    "cluster-or-selector",
    "A RayJob brings a cluster or selects one.",
    "write rayClusterSpec",
)
def cluster_or_selector(job: RayJob) -> Iterator[Fault]:
    if job.cluster is None and not job.selects:
        yield Fault(("rayClusterSpec",), "neither rayClusterSpec nor clusterSelector")


@JOBS.rule(
    "selector-name",
    "A clusterSelector names the cluster under the key ray.io/cluster.",
    "write clusterSelector: {ray.io/cluster: NAME}",
)
def selector_name(job: RayJob) -> Iterator[Fault]:
    if job.selects and not text(job.spec, "clusterSelector", SELECTOR):
        yield Fault(("clusterSelector",), f"no {SELECTOR} in clusterSelector")


@JOBS.rule("selector-sidecar", "SidecarMode needs a cluster of the job's own.", "use K8sJobMode")
def selector_sidecar(job: RayJob) -> Iterator[Fault]:
    if job.selects and job.mode == SIDECAR:
        yield Fault(("submissionMode",), "SidecarMode together with clusterSelector")


@JOBS.rule(
    "backoff-selector",
    "Retries make a new cluster, which a job on a cluster of others has not.",
    "remove backoffLimit or clusterSelector",
)
def backoff_selector(job: RayJob) -> Iterator[Fault]:
    if job.selects and (whole(job.spec, "backoffLimit") or 0) > 0:
        yield Fault(("backoffLimit",), "backoffLimit together with clusterSelector")


@JOBS.rule(
    "backoff-interactive", "InteractiveMode knows no retries.", "remove backoffLimit, or use K8sJobMode"
)
def backoff_interactive(job: RayJob) -> Iterator[Fault]:
    if job.mode == INTERACTIVE and (whole(job.spec, "backoffLimit") or 0) > 0:
        yield Fault(("backoffLimit",), "backoffLimit in InteractiveMode")


@JOBS.rule("backoff-negative", "backoffLimit is not negative.", "write 2")
def backoff_negative(job: RayJob) -> Iterator[Fault]:
    limit = whole(job.spec, "backoffLimit")
    if limit is not None and limit < 0:
        yield Fault(("backoffLimit",), f"{limit} is negative")


@JOBS.rule("deadline-positive", "Deadlines are positive.", "write seconds above 0, or leave it out")
def deadline_positive(job: RayJob) -> Iterator[Fault]:
    for name in ("activeDeadlineSeconds", "preRunningDeadlineSeconds"):
        seconds = whole(job.spec, name)
        if seconds is not None and seconds <= 0:
            yield Fault((name,), f"{seconds} is no deadline")


@JOBS.rule(
    "submission-mode",
    "submissionMode is one of the four that the operator knows.",
    "use K8sJobMode",
    source="KubeRay 1.7.0, rayjob_types.go",
)
def submission_mode(job: RayJob) -> Iterator[Fault]:
    if job.mode not in MODES:
        yield Fault(
            ("submissionMode",), f"{shown(job.spec.get('submissionMode'))} is none of {', '.join(MODES)}"
        )


@JOBS.rule(
    "sidecar-submitter",
    "SidecarMode takes neither submitterPodTemplate nor submitterConfig.",
    "use K8sJobMode",
)
def sidecar_submitter(job: RayJob) -> Iterator[Fault]:
    for name in ("submitterPodTemplate", "submitterConfig"):
        if job.mode == SIDECAR and job.spec.get(name) is not None:
            yield Fault((name,), f"{name} in SidecarMode")


@JOBS.rule("sidecar-restart", "In SidecarMode the head is never restarted.", "set restartPolicy: Never")
def sidecar_restart(job: RayJob) -> Iterator[Fault]:
    at = ("rayClusterSpec", "headGroupSpec", "template", "spec", "restartPolicy")
    if job.mode == SIDECAR and text(job.spec, *at) not in ("", "Never"):
        yield Fault(at, f"restartPolicy {text(job.spec, *at)} in SidecarMode")


@JOBS.rule(
    "k8s-token-auth",
    "A RayJob cannot use authOptions.enableK8sTokenAuth.",
    "remove it; mode: token is what a RayJob needs",
)
def k8s_token_auth(job: RayJob) -> Iterator[Fault]:
    at = ("rayClusterSpec", "authOptions", "enableK8sTokenAuth")
    if mapping(job.spec, *at[:2]).get(at[2]) is True:
        yield Fault(at, "enableK8sTokenAuth in a RayJob")


@JOBS.rule(
    "upgrade-strategy",
    "The cluster of a job has no upgradeStrategy.",
    "remove it",
    source="KubeRay 1.7.0, ValidateRayClusterUpgradeOptions",
)
def upgrade_strategy(job: RayJob) -> Iterator[Fault]:
    at = ("rayClusterSpec", "upgradeStrategy")
    if text(job.spec, *at, "type"):
        yield Fault(at, "upgradeStrategy in the cluster of a RayJob")


@JOBS.rule("runtime-env", "runtimeEnvYAML is a YAML map.", "look at its indentation; write it with |")
def runtime_env(job: RayJob) -> Iterator[Fault]:
    given = text(job.spec, "runtimeEnvYAML")
    documents, problems = read(given)
    if problems:
        yield Fault(("runtimeEnvYAML",), f"line {problems[0].line} of the text: {problems[0].message}")
    elif any(not isinstance(document.value, dict) for document in documents):
        yield Fault(("runtimeEnvYAML",), "the text is no map")


@JOBS.rule(
    "deprecated-version",
    "ray.io/v1alpha1 is deprecated and lacks fields.",
    "write ray.io/v1",
    level=Level.WARNING,
    source="KubeRay 1.7.0, CRDs",
)
def deprecated_version(job: RayJob) -> Iterator[Fault]:
    # RayCronJob has no such version, and a cluster's is told by its own rule.
    if job.manifest.kind == "RayJob" and job.manifest.api == "ray.io/v1alpha1":
        yield Fault((TOP, "apiVersion"), "ray.io/v1alpha1 is deprecated")
