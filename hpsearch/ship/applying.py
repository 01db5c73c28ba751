"""A sweep's RayJob made and followed from outside of its cluster: made once by name, whoever asks again."""

from __future__ import annotations

from hpsearch.ship import kuberay, objects, rayjobs
from hpsearch.ship.api import Client
from hpsearch.ship.job import Job
from hpsearch.ship.kuberay import Outcome
from hpsearch.ship.objects import Json, Say
from hpsearch.ship.render import render

# For what a RayJob's deletion takes along, which may be a quota's room, too; and between two looks (seconds).
CLEARED_WITHIN, LOOK = 120.0, 1.0
PATIENCE = objects.Patience(CLEARED_WITHIN, CLEARED_WITHIN, LOOK)


def apply(client: Client, job: Job, say: Say) -> Json:
    """Make a job's objects, or find them made: the RayJob, as it is then.

    One that ended without its study being done is deleted first. Raises UsageError, ServiceUnavailable.
    """
    rendered = {each["kind"]: each for each in render(job)}
    found = objects.find(client, "RayJob", job.name)
    ended = kuberay.outcome(found) if found else None
    if ended and not _is_done(ended):
        say(f"RayJob {job.name} ended before its study was done ({ended.reason}): it runs again")
        rayjobs.stop(client, job.name)
    return objects.ensure(client, rendered, None, say, PATIENCE)


def followed(client: Client, rayjob: Json, say: Say) -> Outcome:
    """Wait for the end of a RayJob, also while it is suspended."""
    end = objects.followed(client, rayjob, say)
    assert isinstance(end, Outcome), "a watch without an end has ended"
    return end


def _is_done(ended: Outcome) -> bool:
    """Whether running it again would change nothing: its study has had its end."""
    verdict = ended.code == kuberay.NO_SUCCESS and ended.reason == "AppFailed"
    return ended.code == kuberay.DONE or verdict
