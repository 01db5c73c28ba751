"""A launcher: starts one sweep on its own cluster, waits for its end, and may be started again at any time.

Everything goes by names that follow from the launcher's own Job, so that a second launcher of it goes on
where the first stopped, also between two creations.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from hpsearch.errors import StudyBusy
from hpsearch.ship import kuberay, making, objects
from hpsearch.ship.api import Client
from hpsearch.ship.choices import Overlap
from hpsearch.ship.job import Job, Schedule
from hpsearch.ship.kuberay import Outcome
from hpsearch.ship.making import Wishes
from hpsearch.ship.own_job import OwnJob, own_job, rayjob_name
from hpsearch.ship.pods import SCHEDULE_LABEL
from hpsearch.ship.render import render
from hpsearch.ship.tick import Tick, moment_text
from hpsearch.spec.model import Spec

# All in seconds. Between two looks at those that are waited for.
LOOK = 10.0
# For what its owner's deletion takes along: a replaced tick's cluster, an object of an earlier Job's.
CLEARED_WITHIN = 600.0
# For a quota that other sweeps use up. After it the Job's next pod goes on waiting.
QUOTA_WITHIN = 3600.0


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

        Raises UsageError for what is refused, StudyBusy for an overlap outside of a schedule, StillOverQuota
        where others leave no room, and ServiceUnavailable when the server is silent.
        """
        self.own = own = own_job(self._client.get(objects.path(self._client, "Job", job_name)))
        if self._wanted.timeout is not None:
            age = max(0.0, self._wall() - own.created.timestamp())
            self._until = self._clock.now() + self._wanted.timeout - age
        self.job = job = self._prepare(own)
        return self._run(own, job)

    def _run(self, own: OwnJob, job: Job) -> Outcome:
        rendered = {each["kind"]: each for each in render(job)}
        found = objects.find(self._client, "RayJob", job.name)
        if not (found and objects.belongs(found, own.uid)) and (before := self._overlap(own, job)):
            return before
        quota = min(QUOTA_WITHIN, self._until - self._clock.now())
        patience = objects.Patience(CLEARED_WITHIN, quota, LOOK)
        try:
            rayjob = objects.ensure(self._client, rendered, own.owner, self._say, patience)
        except objects.StillOverQuota as full:
            if self._clock.now() < self._until:
                raise
            return _timeout(full.message)
        if not self._wanted.wait:
            return kuberay.outcome(rayjob) or Outcome("started", kuberay.DONE)
        end = objects.followed(self._client, rayjob, self._say, self._until)
        return _timeout(end) if isinstance(end, str) else end

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
        listed = self._client.get(
            objects.path(self._client, "RayJob"), labelSelector=f"{SCHEDULE_LABEL}={job.schedule.name}"
        )
        lives = [kuberay.life(each) for each in listed["items"]]
        return [life.name for life in lives if life.name != job.name and not life.is_final]


def _timeout(said: str) -> Outcome:
    return Outcome("timeout", kuberay.DEADLINE, "Timeout", f"--timeout has passed; last seen: {said}")
