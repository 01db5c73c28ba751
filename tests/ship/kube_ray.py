"""What stands behind the simulated operator: Ray with its jobs, and what becomes of pods.

Both are replaceable, so that the same operator can start real Ray nodes: `Ray` asks a dashboard, `Pods`
starts processes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

Json = dict[str, Any]
TERMINAL = ("SUCCEEDED", "FAILED", "STOPPED")


class Clock:
    """A time that only a test moves."""

    def __init__(self) -> None:
        self._now = datetime(2026, 11, 25, 2, 17, tzinfo=UTC)

    def now(self) -> datetime:
        return self._now

    def advance(self, seconds: float) -> None:
        self._now += timedelta(seconds=seconds)


class Down(Exception):
    """The dashboard of a cluster does not answer."""


class Ray(Protocol):
    """The jobs of clusters; each method is given the RayCluster object."""

    def job(self, cluster: Json, job_id: str) -> tuple[str, str] | None:
        """Status and message; None for an id that is not known. Raises Down."""

    def submit(self, cluster: Json, job_id: str, entrypoint: str) -> None:
        """Start a job. Raises Down."""

    def stop(self, cluster: Json, job_id: str) -> None:
        """Stop a job. Raises Down."""


class Pods(Protocol):
    """What runs pods."""

    def started(self, pod: Json) -> None:
        """A pod was created."""

    def phase(self, pod: Json) -> str:
        """Pending, Running, Succeeded or Failed."""

    def stopped(self, pod: Json) -> None:
        """A pod is gone from the server: end what runs of it."""


@dataclass
class PlayedRay:
    """Jobs that end when a test says so; `down`: clusters whose head does not answer.

    `verdict`: the status and message with which each job ends as soon as it is submitted.
    """

    jobs: dict[tuple[str, str], tuple[str, str]] = field(default_factory=dict)
    submitted: list[str] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)
    down: set[str] = field(default_factory=set)
    verdict: tuple[str, str] = ("RUNNING", "")

    def job(self, cluster: Json, job_id: str) -> tuple[str, str] | None:
        return self.jobs.get((self._up(cluster), job_id))

    def submit(self, cluster: Json, job_id: str, entrypoint: str) -> None:
        self.jobs[(self._up(cluster), job_id)] = self.verdict
        self.submitted.append(job_id)

    def stop(self, cluster: Json, job_id: str) -> None:
        uid = self._up(cluster)
        self.stopped.append(job_id)
        if (uid, job_id) in self.jobs:
            self.jobs[(uid, job_id)] = ("STOPPED", "")

    def end(self, status: str, message: str = "") -> None:
        """Let all running jobs end."""
        for key, (now, _) in self.jobs.items():
            if now not in TERMINAL:
                self.jobs[key] = (status, message)

    def forget(self, cluster: Json) -> None:
        """A head was made anew: it knows of nothing."""
        uid = cluster["metadata"]["uid"]
        self.jobs = {key: value for key, value in self.jobs.items() if key[0] != uid}

    def _up(self, cluster: Json) -> str:
        if cluster["metadata"]["name"] in self.down:
            raise Down(cluster["metadata"]["name"])
        return str(cluster["metadata"]["uid"])


@dataclass
class PlayedPods:
    """Pods that run until they are deleted; one of a submitter submits, and ends with its job.

    `pending`: parts of the names of pods that find no node. `ends`: how pods end, by parts of their names.
    `failing`: so many submitters fail before one submits. `log`: who was started and stopped.
    """

    ray: PlayedRay
    clusters: Any = None  # the operator's way from a submitter's pod to its cluster
    pending: set[str] = field(default_factory=set)
    ends: dict[str, str] = field(default_factory=dict)
    failing: int = 0
    log: list[str] = field(default_factory=list)

    def started(self, pod: Json) -> None:
        self.log.append(f"started {pod['metadata']['name']}")

    def stopped(self, pod: Json) -> None:
        self.log.append(f"stopped {pod['metadata']['name']}")

    def phase(self, pod: Json) -> str:
        name = pod["metadata"]["name"]
        if any(part in name for part in self.pending):
            return "Pending"
        for part, end in self.ends.items():
            if part in name:
                return end
        variables = pod["spec"]["containers"][0].get("env") or ()
        job_id = {each["name"]: each.get("value") for each in variables}.get("RAY_JOB_SUBMISSION_ID")
        return self._submitter(pod, job_id) if job_id else "Running"

    def _submitter(self, pod: Json, job_id: str) -> str:
        """It polls, attaches or submits, and ends only with the job."""
        if self.failing:
            self.failing -= 1
            return "Failed"
        cluster = self.clusters(pod)
        if cluster is None:
            return "Running"
        try:
            found = self.ray.job(cluster, job_id)
            if found is None:
                self.ray.submit(cluster, job_id, "")
                return "Running"
        except Down:
            return "Running"
        return "Succeeded" if found[0] in TERMINAL else "Running"
