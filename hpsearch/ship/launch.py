"""A launcher: starts one sweep on its own cluster, waits for its end, and may be started again at any time.

Everything goes by names that follow from the launcher's own Job, so that a second launcher of it goes on
where the first stopped, also between two creations.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from hpsearch.errors import StudyBusy, UsageError
from hpsearch.ship import kuberay, making
from hpsearch.ship.api import AlreadyThere, Client, Missing
from hpsearch.ship.choices import Overlap
from hpsearch.ship.job import Job, Schedule
from hpsearch.ship.kuberay import Outcome
from hpsearch.ship.making import Wishes
from hpsearch.ship.own_job import OwnJob, own_job, rayjob_name
from hpsearch.ship.pods import SCHEDULE_LABEL
from hpsearch.ship.render import render
from hpsearch.ship.tick import Tick, moment_text
from hpsearch.spec.model import Spec

Json = dict[str, Any]
# All in seconds. Between two looks at those that are waited for.
LOOK = 10.0
# For what its owner's deletion takes along: a replaced tick's cluster, an object of an earlier Job's.
CLEARED_WITHIN = 600.0
_PLACES = {
    "Job": ("/apis/batch/v1", "jobs"),
    "RayJob": ("/apis/ray.io/v1", "rayjobs"),
    "ConfigMap": ("/api/v1", "configmaps"),
    "PodDisruptionBudget": ("/apis/policy/v1", "poddisruptionbudgets"),
}


def job_of(spec: Spec, wishes: Wishes, own: OwnJob) -> Job:
    """What a Job launches, of its own image; a tick's study is named after its schedule and moment.

    Raises UsageError for what cannot be, or cannot run.
    """
    schedule, study = None, wishes.study
    if own.schedule:
        schedule = Schedule(name=own.schedule, scheduled_time=moment_text(own.tick))
        study = study or Tick(own.schedule, own.tick).study
    named = replace(wishes, image=own.image, namespace=own.namespace, name=rayjob_name(own.name), study=study)
    return making.job(spec, named, schedule)


@dataclass(frozen=True, slots=True)
class Wanted:
    """How to launch. `timeout`: seconds from the Job's creation until nobody waits any more; None: none."""

    wait: bool = True
    overlap: Overlap = Overlap.SKIP
    timeout: float | None = None


class Launcher:
    """One launch. `prepare` makes the job from the launcher's own Job; `say` gets lines for people.

    `own` and `job` are there as soon as they are known, also for whoever is interrupted.
    """

    def __init__(
        self,
        client: Client,
        prepare: Callable[[OwnJob], Job],
        wanted: Wanted,
        say: Callable[[str], None],
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._client, self._clock = client, client.clock
        self._prepare, self._wanted, self._say, self._wall = prepare, wanted, say, wall
        self._until = float("inf")
        self.own: OwnJob | None = None
        self.job: Job | None = None

    def launch(self, job_name: str) -> Outcome:
        """Start the sweep of a Job, or find it started, and wait for its end if that is wanted.

        Raises UsageError for what is refused, StudyBusy for an overlap outside of a schedule, and
        ServiceUnavailable when the server is silent.
        """
        self.own = own = own_job(self._client.get(self._path("Job", job_name)))
        if self._wanted.timeout is not None:
            age = max(0.0, self._wall() - own.created.timestamp())
            self._until = self._clock.now() + self._wanted.timeout - age
        self.job = job = self._prepare(own)
        return self._run(own, job)

    def _run(self, own: OwnJob, job: Job) -> Outcome:
        objects = {each["kind"]: each for each in render(job)}
        found = self._find("RayJob", job.name)
        if not (found and _belongs(found, own.uid)) and (before := self._overlap(own, job)):
            return before
        rayjob = self._ensure(objects["RayJob"], own.owner)
        for kind in ("ConfigMap", "PodDisruptionBudget"):
            self._ensure(objects[kind], _owner(rayjob))
        if not self._wanted.wait:
            return kuberay.outcome(rayjob) or Outcome("started", kuberay.DONE)
        return self._followed(rayjob)

    # -- others of the same schedule ----------------------------------------------------------------

    def _overlap(self, own: OwnJob, job: Job) -> Outcome | None:
        """Whether others are still at it, and what that means; None: go ahead."""
        overlap, said = self._wanted.overlap, False
        began = self._clock.now()
        while others := self._others(job):
            names = ", ".join(others)
            schedule = job.schedule.name if job.schedule else ""
            if overlap is Overlap.SKIP and own.scheduled:
                return Outcome("skipped", kuberay.DONE, "Overlap", f"{names} of {schedule} still runs")
            late = overlap is Overlap.REPLACE and self._clock.now() - began >= CLEARED_WITHIN
            if late or (overlap is not Overlap.QUEUE and not own.scheduled):
                raise StudyBusy(
                    f"{names} of the schedule {schedule} still runs",
                    hint=f"`kubectl delete rayjob {others[0]}` ends it; --overlap queue waits for its end",
                )
            if self._clock.now() >= self._until:
                return _timeout(f"{names} of {schedule} still runs")
            if not said:
                self._say(f"waiting for {names} of the schedule {schedule}")
                said = True
            self._clock.sleep(LOOK * (0.5 + self._clock.chance() / 2))
        return None

    def _others(self, job: Job) -> list[str]:
        """The RayJobs of the same schedule that are not at their end."""
        if job.schedule is None:
            return []
        listed = self._client.get(self._path("RayJob"), labelSelector=f"{SCHEDULE_LABEL}={job.schedule.name}")
        lives = [kuberay.life(each) for each in listed["items"]]
        return [life.name for life in lives if life.name != job.name and not life.is_final]

    # -- creating -----------------------------------------------------------------------------------

    def _ensure(self, body: Json, owner: Json) -> Json:
        """Make an object of an owner, or find it made. Raises UsageError if it stays somebody else's.

        One of an earlier owner of the same name is about to go with that one: it is waited for.
        """
        kind, name = body["kind"], body["metadata"]["name"]
        owned = body | {"metadata": body["metadata"] | {"ownerReferences": [owner]}}
        began = self._clock.now()
        while True:
            try:
                made = self._client.create(self._path(kind), owned)
            except AlreadyThere:
                found = self._find(kind, name)
                if found is None:
                    self._clock.sleep(LOOK / 10)
                    continue
                if _belongs(found, owner["uid"]):
                    self._say(f"{kind} {name} is there already")
                    return found
                if self._clock.now() - began >= CLEARED_WITHIN:
                    raise _taken(kind, name, found) from None
                self._clock.sleep(LOOK * (0.5 + self._clock.chance() / 2))
            else:
                self._say(f"{kind} {name} created")
                return made

    def _find(self, kind: str, name: str) -> Json | None:
        try:
            return self._client.get(self._path(kind, name))
        except Missing:
            return None

    def _path(self, kind: str, name: str = "") -> str:
        namespace = self._client.road.namespace
        root, plural = _PLACES[kind]
        return f"{root}/namespaces/{namespace}/{plural}" + (f"/{name}" if name else "")

    # -- following ----------------------------------------------------------------------------------

    def _followed(self, rayjob: Json) -> Outcome:
        """Wait for the end of a RayJob; that it is suspended, or deleted and not gone yet, is none."""
        meta = rayjob["metadata"]
        last, said = rayjob, ""
        for seen in self._client.follow(self._path("RayJob"), meta["name"], self._until):
            if seen.found is None or seen.found["metadata"]["uid"] != meta["uid"]:
                return kuberay.deleted(last)
            last = seen.found
            if seen.gone:
                return kuberay.deleted(last)
            if (end := kuberay.outcome(last)) is not None:
                return end
            if (now := _line(last)) != said:
                self._say(now)
                said = now
        return _timeout(said)


def _belongs(found: Json, uid: str) -> bool:
    """Whether an object is ours to go on with: the owner is the same, or nobody is."""
    owners = [owner["uid"] for owner in found["metadata"].get("ownerReferences") or ()]
    return not owners or uid in owners


def _taken(kind: str, name: str, found: Json) -> UsageError:
    owners = found["metadata"].get("ownerReferences") or ()
    names = ", ".join(f"{each['kind']} {each['name']} (uid {each['uid']})" for each in owners)
    return UsageError(
        f"{kind} {name} is there already and belongs to another owner: {names}",
        hint=f"delete it, or launch under another name: kubectl delete {kind.lower()} {name}",
    )


def _owner(rayjob: Json) -> Json:
    meta = rayjob["metadata"]
    return {
        "apiVersion": kuberay.API,
        "kind": kuberay.KIND,
        "name": meta["name"],
        "uid": meta["uid"],
        "controller": True,
    }


def _line(rayjob: Json) -> str:
    """How it goes, in one line that changes only when something has happened."""
    life = kuberay.life(rayjob)
    said = f"RayJob {life.name}: {life.phase or 'new'}"
    said += f", job {life.job_status}" if life.job_status else ""
    said += f", attempt {life.attempt} of {life.attempts}" if life.attempt > 1 else ""
    return said + (", being deleted" if life.deleting else "")


def _timeout(said: str) -> Outcome:
    return Outcome("timeout", kuberay.DEADLINE, "Timeout", f"--timeout has passed; last seen: {said}")
