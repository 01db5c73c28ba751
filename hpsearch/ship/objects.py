"""A sweep's objects on an API server: made once by name, found by whoever asks again, followed to the end."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from hpsearch.errors import Interrupted, UsageError
from hpsearch.ship import kuberay
from hpsearch.ship.api import AlreadyThere, Client, Missing, OverQuota
from hpsearch.ship.kuberay import Outcome
from hpsearch.ship.render import SHA256

Json = dict[str, Any]
Say = Callable[[str], None]
_PLACES = {
    "Job": ("/apis/batch/v1", "jobs"),
    "RayJob": ("/apis/ray.io/v1", "rayjobs"),
    "ConfigMap": ("/api/v1", "configmaps"),
    "PodDisruptionBudget": ("/apis/policy/v1", "poddisruptionbudgets"),
}


class StillOverQuota(Interrupted):
    """Nothing has ended that would have made room; another time there may be some."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long is waited for what an owner's deletion takes along, and for a quota; and between two looks.

    All in seconds.
    """

    cleared: float
    quota: float
    look: float


def path(client: Client, kind: str, name: str = "") -> str:
    """Where a kind's objects of the client's namespace are, or one of them."""
    root, plural = _PLACES[kind]
    return f"{root}/namespaces/{client.road.namespace}/{plural}" + (f"/{name}" if name else "")


def find(client: Client, kind: str, name: str) -> Json | None:
    """An object, None if it is not there."""
    try:
        return client.get(path(client, kind, name))
    except Missing:
        return None


def belongs(found: Json, uid: str) -> bool:
    """Whether an object is ours to go on with: the owner is the same, or nobody is."""
    owners = [owner["uid"] for owner in found["metadata"].get("ownerReferences") or ()]
    return not owners or uid in owners


def ensure(
    client: Client, rendered: Mapping[str, Json], owner: Json | None, say: Say, patience: Patience
) -> Json:
    """Make a job's objects, by kind, or find them made; the RayJob, as it is then, owns the others.

    `owner`: of the RayJob, None: whoever has it. One of an earlier owner of the same name is about to go with
    that one: it is waited for, and so is a quota that others use up. Raises UsageError if it stays somebody
    else's, StillOverQuota if they do not end.
    """
    rayjob = _ensure(client, rendered["RayJob"], owner, say, patience)
    meta = rayjob["metadata"]
    its = {"apiVersion": kuberay.API, "kind": kuberay.KIND, "name": meta["name"], "uid": meta["uid"]}
    for kind in ("ConfigMap", "PodDisruptionBudget"):
        _ensure(client, rendered[kind], its | {"controller": True}, say, patience)
    return rayjob


def _ensure(client: Client, body: Json, owner: Json | None, say: Say, patience: Patience) -> Json:
    kind, name, clock = body["kind"], body["metadata"]["name"], client.clock
    owned = body if owner is None else body | {"metadata": body["metadata"] | {"ownerReferences": [owner]}}
    began, told = clock.now(), ""
    while True:
        full: OverQuota | None = None
        try:
            made = client.create(path(client, kind), owned)
        except AlreadyThere:
            pass
        except OverQuota as over:
            full = over  # also for what is there already: quotas are looked at first
        else:
            say(f"{kind} {name} created")
            return made
        found, waited = find(client, kind, name), clock.now() - began
        if found is not None and (owner is None or belongs(found, owner["uid"])):
            _same_sweep(body, found, owner)
            say(f"{kind} {name} is there already")
            return found
        _patient(body, found, full, waited, patience)
        if full is not None and not told:
            told = f"waiting for room for {kind} {name}: {full.message}"
            say(told)
        # Without either it went between the two questions.
        pause = patience.look if found or full else patience.look / 10
        clock.sleep(pause * (0.5 + clock.chance() / 2))


def _patient(
    body: Json, found: Json | None, full: OverQuota | None, waited: float, patience: Patience
) -> None:
    """Raises what has been waited for long enough."""
    kind, name = body["kind"], body["metadata"]["name"]
    if found is None and full is not None:
        if waited >= patience.quota:
            raise _still(kind, name, full, waited) from full
    elif waited >= patience.cleared:
        if found is not None:
            raise _taken(kind, name, found)
        what = f"{kind} {name} is said to be there, and cannot be found"
        raise Interrupted(what, hint="somebody makes and deletes it all the time: run it again")


def _same_sweep(body: Json, found: Json, owner: Json | None) -> None:
    """A launcher goes on with what nobody owns only if it is its own sweep. Raises UsageError."""
    wanted, given = (each["metadata"].get("annotations", {}).get(SHA256) for each in (body, found))
    if owner is None or not given or given == wanted or found["metadata"].get("ownerReferences"):
        return
    kind, name = body["kind"], body["metadata"]["name"]
    raise UsageError(
        f"{kind} {name} is there already, belongs to nobody, and is of another file: {given[:12]}...",
        hint=f"delete it, or launch under another name: kubectl delete {kind.lower()} {name}",
    )


def _still(kind: str, name: str, full: OverQuota, waited: float) -> StillOverQuota:
    return StillOverQuota(f"no room for {kind} {name} within {waited:.0f} s: {full.message}", hint=full.hint)


def _taken(kind: str, name: str, found: Json) -> UsageError:
    owners = found["metadata"].get("ownerReferences") or ()
    names = ", ".join(f"{each['kind']} {each['name']} (uid {each['uid']})" for each in owners)
    return UsageError(
        f"{kind} {name} is there already and belongs to another owner: {names}",
        hint=f"delete it, or launch under another name: kubectl delete {kind.lower()} {name}",
    )


def followed(client: Client, rayjob: Json, say: Say, until: float = math.inf) -> Outcome | str:
    """The end of a RayJob; what was last seen of it, in words, if a time of the clock comes first.

    That it is suspended, or deleted and not gone yet, is no end.
    """
    meta, last, said = rayjob["metadata"], rayjob, ""
    for seen in client.follow(path(client, "RayJob"), meta["name"], until):
        if seen.found is None or seen.found["metadata"]["uid"] != meta["uid"]:
            return kuberay.deleted(last)
        last = seen.found
        if seen.gone:
            return kuberay.deleted(last)
        if (end := kuberay.outcome(last)) is not None:
            return end
        if (now := _line(last)) != said:
            say(now)
            said = now
    return said


def _line(rayjob: Json) -> str:
    """How it goes, in one line that changes only when something has happened."""
    life = kuberay.life(rayjob)
    said = f"RayJob {life.name}: {life.phase or 'new'}"
    said += f", job {life.job_status}" if life.job_status else ""
    said += f", attempt {life.attempt} of {life.attempts}" if life.attempt > 1 else ""
    return said + (", being deleted" if life.deleting else "")
