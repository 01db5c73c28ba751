"""How a RayJob is handed over and told to end: the submitter's own words, signals that reach somebody."""

from __future__ import annotations

from collections.abc import Iterator

from hpsearch.ship.lint.finding import Fault, Level, Path
from hpsearch.ship.lint.ray_objects import HTTP, K8S_JOB, RayJob, variable
from hpsearch.ship.lint.rulebook import Rulebook
from hpsearch.ship.lint.schema_errors import shown
from hpsearch.ship.lint.shape import mapping, text, texts, whole

SUBMISSIONS: Rulebook[RayJob, Fault] = Rulebook("sweep", "this project's rules for RayJobs")
_SUBMITTER: Path = ("submitterPodTemplate", "spec", "containers", 0)
PREEMPTED = "HPSEARCH_PREEMPTED"


def _value(words: list[str], name: str) -> str | None:
    """The value of an option before `--`, None without it."""
    own = words[: words.index("--")] if "--" in words else words
    for place, word in enumerate(own):
        if word == name and place + 1 < len(own):
            return own[place + 1]
        if word.startswith(f"{name}="):
            return word.partition("=")[2]
    return None


@SUBMISSIONS.rule(
    "submitter-words",
    "The submitter asks the cluster that the operator made, under the id that the operator looks for.",
    "write --address http://$(RAY_DASHBOARD_ADDRESS) --submission-id $(RAY_JOB_SUBMISSION_ID)",
    source="KubeRay 1.7.0, common/job.go",
)
def submitter_words(job: RayJob) -> Iterator[Fault]:
    words = [*texts(job.spec, *_SUBMITTER, "command"), *texts(job.spec, *_SUBMITTER, "args")]
    if job.mode != K8S_JOB or "submit" not in words[:2]:
        return
    address, number = _value(words, "--address"), _value(words, "--submission-id")
    if address is not None and not address.startswith(("http://", "https://")):
        said = f"--address {shown(address)} has no scheme: the variable is HOST:PORT"
        yield Fault((*_SUBMITTER, "command"), said)
    if number != "$(RAY_JOB_SUBMISSION_ID)":
        said = f"--submission-id {shown(number)}: the operator waits for its own id, and never finds it"
        yield Fault((*_SUBMITTER, "command"), said)


@SUBMISSIONS.rule(
    "submitter-retries",
    "A submitter that is lost is started again: 30 s after its end the operator fails the sweep.",
    "set submitterConfig: {backoffLimit: 3}",
    level=Level.WARNING,
    source="trap: log stream ends; kuberay#4921",
)
def submitter_retries(job: RayJob) -> Iterator[Fault]:
    if job.mode == K8S_JOB and whole(job.spec, "submitterConfig", "backoffLimit") == 0:
        yield Fault(("submitterConfig", "backoffLimit"), "one lost submitter ends the sweep")


@SUBMISSIONS.rule(
    "unused-submitter",
    "In HTTPMode the operator submits, and no submitter is made.",
    "remove submitterPodTemplate and submitterConfig, or use K8sJobMode",
    level=Level.WARNING,
    source="KubeRay 1.7.0, rayjob_types.go",
)
def unused_submitter(job: RayJob) -> Iterator[Fault]:
    for name in ("submitterPodTemplate", "submitterConfig"):
        if job.mode == HTTP and job.spec.get(name) is not None:
            yield Fault((name,), f"{name} in HTTPMode is never read")


@SUBMISSIONS.rule(
    "unused-cluster",
    "A job on a cluster of others makes none of its own.",
    "remove rayClusterSpec or clusterSelector",
    level=Level.WARNING,
    source="KubeRay 1.7.0, rayjob_controller.go",
)
def unused_cluster(job: RayJob) -> Iterator[Fault]:
    if job.selects and job.cluster is not None:
        yield Fault(("rayClusterSpec",), "rayClusterSpec beside clusterSelector is never read")


@SUBMISSIONS.rule(
    "preemption-marker",
    "A worker's hook makes the very file that its trials look for.",
    f"write preStop: {{exec: {{command: [touch, FILE]}}}} and {PREEMPTED}=FILE, the same FILE",
)
def preemption_marker(job: RayJob) -> Iterator[Fault]:
    for place, group in job.cluster.groups if job.cluster and job.runs_sweep else ():
        at: Path = ("rayClusterSpec", "workerGroupSpecs", place, "template", "spec", "containers", 0)
        container = mapping(job.spec, *at)
        words = texts(container, "lifecycle", "preStop", "exec", "command")
        file = variable(container, PREEMPTED)
        if words and not file:
            said = f"group {text(group, 'groupName')} has a hook, and no {PREEMPTED}"
            yield Fault((*at, "env"), said)
        elif words and file and file not in " ".join(words):
            said = f"the hook runs {shown(' '.join(words))}, and trials look for {file}"
            yield Fault((*at, "lifecycle", "preStop"), said)
