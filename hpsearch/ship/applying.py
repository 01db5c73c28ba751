"""A sweep's RayJob made and followed from outside of its cluster: made once by name, whoever asks again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hpsearch.errors import UsageError
from hpsearch.ship import kuberay, rayjobs
from hpsearch.ship.api import AlreadyThere, Client, Missing
from hpsearch.ship.job import Job
from hpsearch.ship.kuberay import Outcome
from hpsearch.ship.render import render

Json = dict[str, Any]
Say = Callable[[str], None]
_PLURALS = {
    "RayJob": ("/apis/ray.io/v1", "rayjobs"),
    "ConfigMap": ("/api/v1", "configmaps"),
    "PodDisruptionBudget": ("/apis/policy/v1", "poddisruptionbudgets"),
}
# For what a RayJob's deletion takes along, and between two looks at it (seconds).
CLEARED_WITHIN, LOOK = 120.0, 1.0


def apply(client: Client, job: Job, say: Say) -> Json:
    """Make a job's objects, or find them made: the RayJob, as it is then.

    One that ended without its study being done is deleted first. Raises UsageError, ServiceUnavailable.
    """
    objects = {each["kind"]: each for each in render(job)}
    found = _find(client, "RayJob", job.name)
    ended = kuberay.outcome(found) if found else None
    if ended and not _is_done(ended):
        say(f"RayJob {job.name} ended before its study was done ({ended.reason}): it runs again")
        rayjobs.stop(client, job.name)
    rayjob = _ensure(client, objects["RayJob"], None, say)
    meta = rayjob["metadata"]
    owner = {
        "apiVersion": kuberay.API,
        "kind": kuberay.KIND,
        "name": meta["name"],
        "uid": meta["uid"],
        "controller": True,
    }
    for kind in ("ConfigMap", "PodDisruptionBudget"):
        _ensure(client, objects[kind], owner, say)
    return rayjob


def followed(client: Client, rayjob: Json, say: Say) -> Outcome:
    """Wait for the end of a RayJob, also while it is suspended."""
    meta, last, said = rayjob["metadata"], rayjob, ""
    for seen in client.follow(_path(client, "RayJob"), meta["name"]):
        if seen.found is None or seen.found["metadata"]["uid"] != meta["uid"]:
            return kuberay.deleted(last)
        last = seen.found
        if seen.gone:
            return kuberay.deleted(last)
        if (end := kuberay.outcome(last)) is not None:
            return end
        life = kuberay.life(last)
        now = f"RayJob {life.name}: {life.phase or 'new'}, job {life.job_status or 'not there yet'}"
        if now != said:
            say(now)
            said = now
    raise AssertionError("a watch without an end has ended")


def _is_done(ended: Outcome) -> bool:
    """Whether running it again would change nothing: its study has had its end."""
    verdict = ended.code == kuberay.NO_SUCCESS and ended.reason == "AppFailed"
    return ended.code == kuberay.DONE or verdict


def _ensure(client: Client, body: Json, owner: Json | None, say: Say) -> Json:
    """Make an object, or find it made. What belongs to a RayJob that is gone is about to go, too."""
    kind, name = body["kind"], body["metadata"]["name"]
    owned = body if owner is None else body | {"metadata": body["metadata"] | {"ownerReferences": [owner]}}
    until = client.clock.now() + CLEARED_WITHIN
    while True:
        try:
            made = client.create(_path(client, kind), owned)
        except AlreadyThere:
            found = _find(client, kind, name)
            owners = [each["uid"] for each in (found or {}).get("metadata", {}).get("ownerReferences") or ()]
            if found and (owner is None or not owners or owner["uid"] in owners):
                say(f"{kind} {name} is there already")
                return found
            if client.clock.now() >= until:
                raise UsageError(
                    f"{kind} {name} is there already and belongs to something else",
                    hint=f"delete it: kubectl delete {kind.lower()} {name}",
                ) from None
            client.clock.sleep(LOOK)
        else:
            say(f"{kind} {name} created")
            return made


def _find(client: Client, kind: str, name: str) -> Json | None:
    try:
        return client.get(_path(client, kind, name))
    except Missing:
        return None


def _path(client: Client, kind: str, name: str = "") -> str:
    root, plural = _PLURALS[kind]
    return f"{root}/namespaces/{client.road.namespace}/{plural}" + (f"/{name}" if name else "")
