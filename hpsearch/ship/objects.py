"""A sweep's objects on an API server: made once by name, found by whoever asks again, followed to the end."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from hpsearch.errors import UsageError
from hpsearch.ship import kuberay
from hpsearch.ship.api import AlreadyThere, Client, Missing
from hpsearch.ship.kuberay import Outcome

Json = dict[str, Any]
Say = Callable[[str], None]
_PLACES = {
    "Job": ("/apis/batch/v1", "jobs"),
    "RayJob": ("/apis/ray.io/v1", "rayjobs"),
    "ConfigMap": ("/api/v1", "configmaps"),
    "PodDisruptionBudget": ("/apis/policy/v1", "poddisruptionbudgets"),
}


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
    client: Client, rendered: Mapping[str, Json], owner: Json | None, say: Say, within: float, look: float
) -> Json:
    """Make a job's objects, by kind, or find them made; the RayJob, as it is then, owns the others.

    `owner`: of the RayJob, None: whoever has it. One of an earlier owner of the same name is about to go with
    that one: it is waited for `within` some seconds, with a look about every `look`. Raises UsageError if it
    stays somebody else's.
    """
    rayjob = _ensure(client, rendered["RayJob"], owner, say, within, look)
    meta = rayjob["metadata"]
    its = {"apiVersion": kuberay.API, "kind": kuberay.KIND, "name": meta["name"], "uid": meta["uid"]}
    for kind in ("ConfigMap", "PodDisruptionBudget"):
        _ensure(client, rendered[kind], its | {"controller": True}, say, within, look)
    return rayjob


def _ensure(client: Client, body: Json, owner: Json | None, say: Say, within: float, look: float) -> Json:
    kind, name, clock = body["kind"], body["metadata"]["name"], client.clock
    owned = body if owner is None else body | {"metadata": body["metadata"] | {"ownerReferences": [owner]}}
    until = clock.now() + within
    while True:
        try:
            made = client.create(path(client, kind), owned)
        except AlreadyThere:
            found = find(client, kind, name)
            if found is None:  # it went between the two questions
                clock.sleep(look / 10)
                continue
            if owner is None or belongs(found, owner["uid"]):
                say(f"{kind} {name} is there already")
                return found
            if clock.now() >= until:
                raise _taken(kind, name, found) from None
            clock.sleep(look * (0.5 + clock.chance() / 2))
        else:
            say(f"{kind} {name} created")
            return made


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
