"""What a launcher learns from its own Job: its image, its schedule and tick, and its RayJob's name."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from hpsearch.errors import UsageError
from hpsearch.ship.job import LONGEST_RAYJOB

Json = dict[str, Any]
TICK = "batch.kubernetes.io/cronjob-scheduled-timestamp"
# What kubectl notes on a Job that somebody made from a CronJob.
MADE_BY_HAND = "cronjob.kubernetes.io/instantiate"
# A CronJob names its Jobs after the tick's minute since 1970.
_MINUTE = re.compile(r"-(\d{8})$")
# The operator names the submitter's Job like the RayJob: that name must not be the launcher's.
SUFFIX = "-r"
HASH = 8  # characters


@dataclass(frozen=True, slots=True)
class OwnJob:
    """The Job whose pod this is. `schedule`: its CronJob, empty without; `tick`: the moment it stands for.

    `scheduled`: whether a CronJob made it by itself; one made by hand from a CronJob is not.
    """

    name: str
    namespace: str
    uid: str
    image: str
    created: datetime
    schedule: str
    tick: datetime
    scheduled: bool

    @property
    def owner(self) -> Json:
        """It as the owner of what it creates, whose deletion it does not make wait."""
        return {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "name": self.name,
            "uid": self.uid,
            "controller": True,
        }


def own_job(found: Json) -> OwnJob:
    """Read the object. Raises UsageError for one that cannot be a launcher's."""
    meta = found["metadata"]
    created = _moment(meta["creationTimestamp"])
    notes = meta.get("annotations") or {}
    schedule = next((o["name"] for o in meta.get("ownerReferences") or () if o.get("kind") == "CronJob"), "")
    scheduled = bool(schedule) and notes.get(MADE_BY_HAND) != "manual"
    return OwnJob(
        name=meta["name"],
        namespace=meta["namespace"],
        uid=meta["uid"],
        image=_image(found),
        created=created,
        schedule=schedule,
        tick=(scheduled and _tick(meta["name"], str(notes.get(TICK) or ""))) or created,
        scheduled=scheduled,
    )


def rayjob_name(job: str, longest: int = LONGEST_RAYJOB) -> str:
    """The name of a Job's RayJob: never the Job's own; a long one is cut, and a hash of it keeps it apart."""
    name = job + SUFFIX
    # A Job may be named like a DNS subdomain, a RayJob only like a label.
    if len(name) <= longest and "." not in job and job[:1].isalpha():
        return name
    digest = hashlib.sha256(job.encode()).hexdigest()[:HASH]
    plain = job.replace(".", "-")
    begun = plain if plain[:1].isalpha() else f"j{plain}"
    kept = begun[: longest - len(SUFFIX) - HASH - 1].rstrip("-")
    return f"{kept}-{digest}{SUFFIX}"


def _tick(name: str, said: str) -> datetime | None:
    """The moment that a Job stands for, as its CronJob has noted it, which older ones do in the name only."""
    if said:
        return _moment(said)
    minute = _MINUTE.search(name)
    return datetime.fromtimestamp(int(minute[1]) * 60, UTC) if minute else None


def _image(found: Json) -> str:
    """The image of the container that launches: named by its arguments, or the first."""
    containers = found["spec"]["template"]["spec"]["containers"]
    words = [[*(each.get("command") or ()), *(each.get("args") or ())] for each in containers]
    launching = (each for each, said in zip(containers, words, strict=True) if "launch" in said)
    chosen = next(launching, containers[0])
    image = str(chosen.get("image") or "")
    if not image:
        raise UsageError(
            f"the Job {found['metadata']['name']} names no image in its container {chosen.get('name')!r}",
            hint="write the image into the Job's pod template: the sweep's pods get the same",
        )
    return image


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)
