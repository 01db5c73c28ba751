"""Ray's Jobs API (REST, Ray 2.52 and later): submit, look, read, stop; the dashboard's answers as plain data.

Everything goes by the submission id: what is there already is gone on with, never submitted twice.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from hpsearch.errors import UsageError
from hpsearch.redaction import redact
from hpsearch.ship import kuberay
from hpsearch.ship.api import AlreadyThere, Gone, Missing, NoAnswer, Refused
from hpsearch.ship.dashboard import JSON, Dashboard

Json = dict[str, Any]
SUCCEEDED, FAILED, STOPPED = "SUCCEEDED", "FAILED", "STOPPED"
FINAL = (SUCCEEDED, FAILED, STOPPED)
# What a failed job says of itself where Ray, not the driver, has failed.
RAYS_OWN = "JOB_SUPERVISOR_ACTOR_"
# How long Ray lets a driver that it has asked to end do so, before it kills it (seconds): by itself it would
# wait for 3. The process that starts the driver reads it from the job's own environment.
STOP_WAIT, PATIENCE = "RAY_JOB_STOP_WAIT_TIME_S", 45
# A stream that says nothing for so long is opened again (seconds): a connection may die unseen.
SILENCE = 300.0
_BAD_REQUEST = re.compile(r"status code 400\b")


@dataclass(frozen=True, slots=True)
class Submission:
    """A job as it is handed to Ray: under which id, what it runs, with what files (a package's name), what is
    written beside it for people (names and hashes only), and how many seconds it has to end when it is asked
    to (None: as many as its head gives)."""

    id: str
    entrypoint: str
    package: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    patience: int | None = None


@dataclass(frozen=True, slots=True)
class RayJob:
    """What the dashboard says of a job. Times are milliseconds since the epoch, None before they come."""

    id: str
    status: str
    message: str
    error_type: str
    exit_code: int | None
    entrypoint: str
    started: int | None
    ended: int | None
    metadata: Mapping[str, str]

    @property
    def is_final(self) -> bool:
        """Whether nothing will happen to it any more."""
        return self.status in FINAL

    @property
    def code(self) -> int | None:
        """The exit code that its end means, None while it goes on: the driver's own where that says why.

        A driver that was killed, or lost with its node, has nothing final to say: it may be run again.
        """
        if not self.is_final:
            return None
        if self.status == SUCCEEDED:
            return kuberay.DONE
        if self.status == STOPPED:
            return kuberay.NO_SUCCESS
        if self.exit_code is None:
            return kuberay.INTERRUPTED if self.error_type.startswith(RAYS_OWN) else kuberay.NO_SUCCESS
        if self.exit_code < 0 or self.exit_code > 128:
            return kuberay.INTERRUPTED
        return self.exit_code if self.exit_code in kuberay.EXIT_CODES else kuberay.NO_SUCCESS

    @property
    def is_done(self) -> bool:
        """Whether running it again would change nothing: its study has had its end."""
        verdict = self.status == FAILED and self.exit_code == kuberay.NO_SUCCESS
        return self.status == SUCCEEDED or verdict


class Jobs:
    """The jobs of one cluster."""

    def __init__(self, dashboard: Dashboard) -> None:
        self.dashboard = dashboard
        self.clock = dashboard.clock

    def wait_for_ray(self) -> None:
        """Return when its head answers. Raises ServiceUnavailable if it is silent for too long."""
        self.dashboard.tried(lambda: self.dashboard.once("GET", "/api/gcs_healthz"))

    def find(self, name: str) -> RayJob | None:
        """A job by its id; None for one that this Ray does not know. Raises Refused, ServiceUnavailable."""
        try:
            return _job(self.dashboard.json("GET", _path(name)))
        except Missing:
            return None

    def get(self, name: str) -> RayJob:
        """The same. Raises UsageError for one that is not there."""
        if (found := self.find(name)) is not None:
            return found
        names = ", ".join(each.id for each in self.list()[:20]) or "none"
        raise Gone(f"the Ray at {self.dashboard.where} knows no job {name!r}", hint=f"there: {names}")

    def list(self) -> list[RayJob]:
        """All that were submitted, by their ids; drivers that were started otherwise are none."""
        try:
            found = self.dashboard.json("GET", "/api/jobs/")
        except Missing as error:
            raise UsageError(error.message, hint=error.hint) from None
        return sorted((_job(each) for each in found if each.get("submission_id")), key=lambda job: job.id)

    def submit(self, wanted: Submission) -> None:
        """Hand a job to Ray. Raises AlreadyThere if it has one of that id, Refused, ServiceUnavailable."""
        body: Json = {
            "submission_id": wanted.id,
            "entrypoint": wanted.entrypoint,
            "metadata": dict(wanted.metadata),
        }
        if wanted.package:
            body["runtime_env"] = {"working_dir": f"gcs://{wanted.package}"}
        if wanted.patience is not None:
            given = {"env_vars": {STOP_WAIT: str(wanted.patience)}}
            body["runtime_env"] = body.get("runtime_env", {}) | given
        data = json.dumps(body).encode()

        def ask() -> None:
            status, raw = self.dashboard.ask("POST", "/api/jobs/", data, JSON)
            if status < 300:
                return
            text = raw.decode(errors="replace")
            refusal = self.dashboard.refusal("POST /api/jobs/", status, raw)
            # Ray 2.60 answers 500 to what is the client's mistake, and says so only in the text.
            if "already exists" in text:
                raise AlreadyThere(f"the Ray at {self.dashboard.where} has a job {wanted.id}")
            if isinstance(refusal, NoAnswer) and _BAD_REQUEST.search(text):
                raise Refused(400, str(refusal), hint="the message says why")
            raise refusal

        self.dashboard.tried(ask)

    def upload(self, package: str, data: bytes) -> None:
        """Have Ray keep a package of files, if it does not yet."""
        path = f"/api/packages/gcs/{quote(package)}"
        try:
            self.dashboard.tried(lambda: self.dashboard.once("GET", path))
        except Missing:
            kind = "application/octet-stream"
            self.dashboard.tried(lambda: self.dashboard.once("PUT", path, data, kind))

    def stop(self, name: str) -> bool:
        """Ask a job to end: SIGTERM to its driver, then, after the head's patience, SIGKILL."""
        return bool(self.dashboard.json("POST", f"{_path(name)}/stop").get("stopped"))

    def forget(self, name: str) -> None:
        """Delete the record of a job that has ended, so that its id is free.

        Raises AlreadyThere for one that goes on: somebody else has run it again.
        """

        def ask() -> None:
            status, raw = self.dashboard.ask("DELETE", _path(name), None, JSON)
            if status < 300 or status == 404:
                return
            if b"non-terminal state" in raw:
                raise AlreadyThere(f"job {name} goes on")
            raise self.dashboard.refusal(f"DELETE {_path(name)}", status, raw)

        self.dashboard.tried(ask)

    def logs(self, name: str) -> str:
        """All that a job's driver has printed until now."""
        return str(self.dashboard.json("GET", f"{_path(name)}/logs").get("logs") or "")

    def tail(self, name: str) -> Iterator[str]:
        """What it has printed from the start and prints from now on, as it comes, until it has ended.

        Raises NoAnswer when the stream is cut, Missing, Refused.
        """
        return self.dashboard.texts(f"{_path(name)}/logs/tail", SILENCE)


def shown(job: RayJob, now: float) -> Json:
    """The object of `status --json`; times are seconds, None where it has not come to that."""
    began = None if job.started is None else job.started / 1000
    until = now if job.ended is None else job.ended / 1000
    return {
        "name": job.id,
        "target": "jobs",
        "job_status": job.status,
        "reason": job.error_type,
        "message": job.message,
        "driver_exit_code": job.exit_code,
        "age": None if began is None else max(0.0, round(now - began, 3)),
        "seconds": None if began is None else max(0.0, round(until - began, 3)),
        "metadata": dict(job.metadata),
        "study": job.metadata.get("study"),
        "final": job.is_final,
        "outcome": word(job),
        "exit_code": job.code,
    }


def word(job: RayJob) -> str | None:
    """How a job has ended, in one word; None while it goes on."""
    if not job.is_final:
        return None
    if job.status == STOPPED:
        return "stopped"
    words = {kuberay.DONE: "succeeded", kuberay.DEADLINE: "deadline", kuberay.INTERRUPTED: "interrupted"}
    return words.get(job.code or 0, "failed")


def _job(found: Json) -> RayJob:
    message = redact(str(found.get("message") or ""))
    return RayJob(
        id=str(found.get("submission_id") or found.get("job_id") or ""),
        status=str(found.get("status") or ""),
        message=message[: kuberay.LONGEST_MESSAGE],
        error_type=str(found.get("error_type") or ""),
        exit_code=found.get("driver_exit_code"),
        entrypoint=str(found.get("entrypoint") or ""),
        started=found.get("start_time") or None,
        ended=found.get("end_time") or None,
        metadata=found.get("metadata") or {},
    )


def _path(name: str) -> str:
    return f"/api/jobs/{quote(name, safe='')}"
