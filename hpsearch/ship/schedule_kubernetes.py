"""A schedule on Kubernetes: a CronJob whose pods launch each tick, or a RayCronJob, which can do less."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from hpsearch.errors import UsageError
from hpsearch.ship import making, pods, render
from hpsearch.ship.cronjob import Timetable, cronjob, options, patience
from hpsearch.ship.job import LONGEST_CRONJOB, LONGEST_RAYCRONJOB, Job
from hpsearch.ship.pods import Object
from hpsearch.ship.schedule import Schedule
from hpsearch.spec.model import Spec

WARNING = (
    "a RayCronJob is alpha: KubeRay ignores it unless its gate RayCronJob is on; it knows no overlap, no "
    "starting deadline and no history limits, so ticks run beside each other and pile up; its jobs have no "
    "labels, so Kueue does not see them; ticks that were missed are made up one by one. --as cronjob has "
    "none of this"
)
HASH = 10  # characters


def name_of(schedule: str, longest: int) -> str:
    """The name of a schedule as Kubernetes takes it. Raises UsageError for one that must be cut."""
    name = making.name_of(schedule)
    if len(name) > longest:
        raise UsageError(
            f"{name!r} has {len(name)} characters, and the names of its jobs leave room for {longest}",
            hint="give a shorter one: --name NAME",
        )
    return name


def cron_job(schedule: Schedule, spec: Spec, wishes: making.Wishes, period: timedelta) -> list[Object]:
    """The sweep's file and the CronJob that launches it."""
    name = name_of(schedule.name, LONGEST_CRONJOB)
    # What a launcher will make at each tick is made once here: what cannot be is refused now.
    job = making.job(spec, wishes)
    config_map = _config_map(name, spec)
    timetable = Timetable(
        name=name,
        cron=str(schedule.cron),
        time_zone=schedule.zone.key,
        image=wishes.image,
        config_map=config_map,
        namespace=wishes.namespace,
        overlap=schedule.overlap,
        # Every launcher finds its file under the same name.
        options=options(replace(wishes, sweep=wishes.sweep or Path(spec.source).stem)),
        period=int(period.total_seconds()),
        patience=patience(job.platform, job.deadline),
    )
    return [_sweep(config_map, job), cronjob(timetable)]


def ray_cron_job(schedule: Schedule, spec: Spec, wishes: making.Wishes) -> list[Object]:
    """The sweep's file and the RayCronJob; a driver finds its tick's time itself, the newest that was due.

    Raises UsageError for a queue, which would never see it.
    """
    if wishes.queue or wishes.queue_priority:
        raise UsageError(
            f"--kueue {wishes.queue or ''}: a RayCronJob's jobs have no labels, and Kueue never sees them",
            hint="use --as cronjob, whose launcher queues each tick, or leave --kueue out",
        )
    name = name_of(schedule.name, LONGEST_RAYCRONJOB)
    job = making.job(spec, replace(wishes, name=name))
    config_map = _config_map(name, spec)
    template = render.ray_job(job)["spec"]
    template["metadata"] = {
        key: text for key, text in template["metadata"].items() if key not in ("study", "rayjob")
    }
    words = job.entrypoint.split()
    place = words.index("--study")
    entrypoint = " ".join(words[:place] + words[place + 2 :])
    template["entrypoint"] = entrypoint
    _submits(template, job.entrypoint.split(), entrypoint.split())
    head = template["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    tick = {"HPSEARCH_SCHEDULE": name, "HPSEARCH_SCHEDULED_TIME": schedule.due}
    head["containers"][0]["env"] += pods.plain_env(**tick)
    for volume in head["volumes"]:
        if "configMap" in volume:
            volume["configMap"]["name"] = config_map
    return [
        _sweep(config_map, job),
        {
            "apiVersion": "ray.io/v1",
            "kind": "RayCronJob",
            "metadata": {
                "name": name,
                "namespace": wishes.namespace,
                "labels": {"app.kubernetes.io/name": "hpsearch"},
            },
            "spec": {"schedule": str(schedule.cron), "timeZone": schedule.zone.key, "jobTemplate": template},
        },
    ]


def _config_map(name: str, spec: Spec) -> str:
    """A changed file is another object: jobs that are on their way keep theirs."""
    return f"{name}-sweep-{hashlib.sha256(spec.text.encode()).hexdigest()[:HASH]}"


def _submits(template: Object, old: list[str], new: list[str]) -> None:
    """Give the submitter's pod the same entrypoint."""
    if "submitterPodTemplate" not in template:
        return
    container = template["submitterPodTemplate"]["spec"]["containers"][0]
    command = container["command"]
    if command[-len(old) :] != old:
        raise AssertionError(f"the submitter does not end with the entrypoint: {command}")
    container["command"] = command[: -len(old)] + new


def _sweep(name: str, job: Job) -> Object:
    made = render.config_map(job)
    return made | {
        "metadata": {
            "name": name,
            "namespace": job.platform.namespace,
            "labels": {"app.kubernetes.io/name": "hpsearch"},
            "annotations": made["metadata"]["annotations"],
        }
    }
