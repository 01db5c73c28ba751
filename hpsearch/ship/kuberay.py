"""The life of a RayJob as its object tells it, and what its end means for whoever waits: pure.

Source of the rules: KubeRay 1.7, `rayjob_controller.go`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from hpsearch.redaction import redact

Json = dict[str, Any]
API, KIND = "ray.io/v1", "RayJob"
# The annotation that names its study.
STUDY = "hpsearch/study"
# What the deployment status says; everything else is on its way.
COMPLETE, FAILED, INVALID = "Complete", "Failed", "ValidationFailed"
FINAL = (COMPLETE, FAILED, INVALID)
SUCCEEDED, STOPPED = "SUCCEEDED", "STOPPED"
DONE, USAGE, NO_SUCCESS, DEADLINE, UNREACHABLE, BUSY, INTERRUPTED = 0, 2, 3, 4, 69, 73, 75
DEADLINES = ("DeadlineExceeded", "PreRunningDeadlineExceeded")
# Ray ends a failed driver's message with the tail of its log; the code stands before.
_EXIT_CODE = re.compile(r"^Job entrypoint command failed with exit code (\d+)\b")
# What the driver's own exit code says more exactly than AppFailed does.
EXIT_CODES = (USAGE, NO_SUCCESS, DEADLINE, UNREACHABLE, BUSY, 74, INTERRUPTED)
LONGEST_MESSAGE = 1000  # characters; a termination message takes 4096 bytes


@dataclass(frozen=True, slots=True)
class Life:
    """What a RayJob's object says of it. `attempt` counts from 1; times as Kubernetes writes them, or empty.

    `head_since`: since when the head of its cluster is ready. `deleting`: somebody has deleted it, and its
    end is awaited.
    """

    name: str
    namespace: str
    uid: str
    phase: str
    job_status: str
    reason: str
    message: str
    attempt: int
    attempts: int
    cluster: str
    job_id: str
    created: str
    started: str
    ended: str
    head_since: str
    deleting: bool
    study: str
    labels: Mapping[str, str]

    @property
    def is_final(self) -> bool:
        """Whether nothing will happen to it any more."""
        return self.phase in FINAL


@dataclass(frozen=True, slots=True)
class Outcome:
    """How it ended, in one word, with the exit code that means it, and why."""

    word: str
    code: int
    reason: str = ""
    message: str = ""


def life(rayjob: Json) -> Life:
    """Read an object; what it does not say is empty."""
    meta, spec = rayjob.get("metadata") or {}, rayjob.get("spec") or {}
    status = rayjob.get("status") or {}
    phase = str(status.get("jobDeploymentStatus") or "")
    failed = int(status.get("failed") or 0)
    return Life(
        name=str(meta.get("name", "")),
        namespace=str(meta.get("namespace", "")),
        uid=str(meta.get("uid", "")),
        phase=phase,
        job_status=str(status.get("jobStatus") or ""),
        reason=str(status.get("reason") or ""),
        message=_short(str(status.get("message") or "")),
        # The one that failed last is counted as failed already.
        attempt=max(1, failed + (phase not in (FAILED, "Retrying"))),
        attempts=1 + int(spec.get("backoffLimit") or 0),
        cluster=str(status.get("rayClusterName") or ""),
        job_id=str(status.get("jobId") or ""),
        created=str(meta.get("creationTimestamp") or ""),
        started=str(status.get("startTime") or ""),
        ended=str(status.get("endTime") or ""),
        head_since=_head_since(status.get("rayClusterStatus") or {}),
        deleting=bool(meta.get("deletionTimestamp")),
        study=str((meta.get("annotations") or {}).get(STUDY) or ""),
        labels=dict(meta.get("labels") or {}),
    )


def outcome(rayjob: Json) -> Outcome | None:
    """What the end of a RayJob means; None while it goes on, which a suspended one does too."""
    return ending(life(rayjob))


def ending(found: Life) -> Outcome | None:
    """The same of a life that was read."""
    if found.phase == INVALID:
        return Outcome("invalid", USAGE, found.reason or INVALID, found.message)
    if found.phase == COMPLETE:
        if found.job_status == SUCCEEDED:
            return Outcome("succeeded", DONE, found.reason, found.message)
        word = "stopped" if found.job_status == STOPPED else "failed"
        return Outcome(word, NO_SUCCESS, found.reason or found.job_status, found.message)
    if found.phase == FAILED:
        if found.reason in DEADLINES:
            return Outcome("deadline", DEADLINE, found.reason, found.message)
        return Outcome("failed", _code(found), found.reason or FAILED, found.message)
    return None


def deleted(rayjob: Json) -> Outcome:
    """What it means that a RayJob is gone, given its last state: an end that it had reached still counts."""
    return outcome(rayjob) or Outcome("deleted", NO_SUCCESS, "Deleted", "it was deleted before its end")


def age(since: str, now: datetime) -> float | None:
    """Seconds from one of Kubernetes' times until now; None for an empty one."""
    if not since:
        return None
    return max(0.0, (now - datetime.fromisoformat(since).astimezone(UTC)).total_seconds())


def _code(found: Life) -> int:
    """The exit code of a failed one: its driver's, where Ray tells it and it means something."""
    said = _EXIT_CODE.match(found.message)
    code = int(said[1]) if said and found.reason == "AppFailed" else NO_SUCCESS
    return code if code in EXIT_CODES else NO_SUCCESS


def _head_since(cluster: Json) -> str:
    for condition in cluster.get("conditions") or ():
        if condition.get("type") == "HeadPodReady" and condition.get("status") == "True":
            return str(condition.get("lastTransitionTime") or "")
    return ""


def _short(message: str) -> str:
    """A message that fits everywhere, without secrets: Ray's holds the end of the driver's log."""
    text = redact(message)
    if len(text) <= LONGEST_MESSAGE:
        return text
    half = LONGEST_MESSAGE // 2
    return f"{text[:half]} ... {text[-half:]}"
