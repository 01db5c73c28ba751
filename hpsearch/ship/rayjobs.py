"""What people ask of RayJobs from afar: how they are, what they print, that they end; without Ray's help."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from hpsearch.errors import Interrupted, UsageError
from hpsearch.ship import kuberay
from hpsearch.ship.api import Client, Gone, Missing, NoAnswer
from hpsearch.ship.kuberay import Life

Json = dict[str, Any]
# What all our RayJobs have.
OURS = "app.kubernetes.io/name=hpsearch"
# Between two looks at whether there is a pod to read from (seconds).
LOOK = 2.0


@dataclass(frozen=True, slots=True)
class Stopped:
    """A RayJob that is gone; `cluster` is empty where it had none. `seconds`: how long that took."""

    name: str
    cluster: str
    seconds: float


def status(client: Client, name: str | None = None) -> list[Life]:
    """One RayJob, or all of ours in the namespace, by name. Raises UsageError for one that is not there."""
    if name is not None:
        return [kuberay.life(_rayjob(client, name))]
    listed = client.get(_path(client, "rayjobs"), labelSelector=OURS)
    return sorted((kuberay.life(each) for each in listed["items"]), key=lambda life: life.name)


def shown(life: Life, now: datetime) -> Json:
    """The object of `status --json`; times are seconds, None where it has not come to that."""
    ended = kuberay.ending(life)
    return {
        "name": life.name,
        "namespace": life.namespace,
        "phase": life.phase,
        "job_status": life.job_status,
        "reason": life.reason,
        "message": life.message,
        "attempt": life.attempt,
        "attempts": life.attempts,
        "cluster": life.cluster,
        "job_id": life.job_id,
        "age": kuberay.age(life.created, now),
        "head_age": kuberay.age(life.head_since, now),
        "deleting": life.deleting,
        "study": life.study or None,
        "final": life.is_final,
        "outcome": ended.word if ended else None,
        "exit_code": ended.code if ended else None,
    }


def logs(client: Client, name: str, *, follow: bool = False) -> Iterator[str]:
    """The lines that a RayJob's submitter has printed, which are its driver's.

    With `follow` also those to come, of each attempt, until the RayJob is at its end; a dropped stream is
    opened again where it was. Raises UsageError if there is no RayJob, or no pod of a submitter any more.
    """
    found: Json | None = _rayjob(client, name)
    read = _Read()
    while found is not None:
        life, pod = kuberay.life(found), _submitter(client, name)
        if pod is not None:
            yield from _lines(client, pod, follow, read)
        elif not follow or life.is_final:
            raise _without_log(life)
        # What was at its end before it was read has nothing more to say.
        if not follow or (life.is_final and pod is not None and _has_ended(pod)):
            return
        client.clock.sleep(LOOK)
        found = _find(client, _path(client, "rayjobs", name))


def _without_log(life: Life) -> UsageError:
    """What is there instead of a driver's log, which is in its submitter's pod and nowhere else."""
    ended = kuberay.ending(life)
    if ended is None:
        return UsageError(
            f"RayJob {life.name} has printed nothing yet: it is {life.phase or 'new'}",
            hint=f"wait for it with --follow; `kubectl get pods -n {life.namespace}` says what it waits for",
        )
    said = f", and said: {life.message}" if life.message else ""
    study = f"the study {life.study}" if life.study else "its study"
    return UsageError(
        f"the log of RayJob {life.name} went with its submitter's pod; it has {ended.word} "
        f"(exit code {ended.code}){said}",
        hint=f"MLflow and the store have {study}, each trial with its reason",
    )


def stop(client: Client, name: str, within: float = 300.0) -> Stopped:
    """Delete a RayJob and wait until it and its cluster are gone.

    Deletion it must be: no deletion rule fits a stopped job, which would keep its cluster. Raises UsageError
    for one that is not there, Interrupted if it is not gone in time.
    """
    began = client.clock.now()
    cluster = kuberay.life(_rayjob(client, name)).cluster
    client.delete(_path(client, "rayjobs", name))
    awaited = [("rayjobs", name), *([("rayclusters", cluster)] if cluster else [])]
    for plural, each in awaited:
        if not _gone(client, plural, each, began + within):
            raise Interrupted(
                f"{plural[:-1]} {each} is deleted and still there after {within:g} s",
                hint=f"`kubectl describe {plural[:-1]} {each}` says what keeps it",
            )
    return Stopped(name, cluster, client.clock.now() - began)


def _gone(client: Client, plural: str, name: str, until: float) -> bool:
    uid = ""
    for seen in client.follow(_path(client, plural), name, until):
        if seen.found is None or seen.gone:
            return True
        # One of the same name that was made since is another.
        uid = uid or seen.found["metadata"]["uid"]
        if seen.found["metadata"]["uid"] != uid:
            return True
    return False


@dataclass(slots=True)
class _Read:
    """How far a pod's log was read: the time of the last line, and how many lines of that time there were."""

    uid: str = ""
    last: str = ""
    count: int = 0

    def add(self, moment: str) -> None:
        """Take note of a line."""
        self.count = self.count + 1 if moment == self.last else 1
        self.last = moment


def _lines(client: Client, pod: Json, follow: bool, read: _Read) -> Iterator[str]:
    """What a pod prints after what was read of it: each line comes with its time, which tells it apart."""
    meta = pod["metadata"]
    if read.uid != meta["uid"]:
        read.uid, read.last, read.count = meta["uid"], "", 0
    query = {"timestamps": "true"} | ({"follow": "true"} if follow else {})
    if read.last:
        query["sinceTime"] = read.last
    last, known = read.last, read.count
    try:
        for raw in client.lines(_path(client, "pods", f"{meta['name']}/log", root="/api/v1"), **query):
            moment, _, line = raw.decode(errors="replace").rstrip("\n").partition(" ")
            # The server goes by whole seconds: what comes first was read already, up to the line that is
            # the last of its time that was.
            if last and (moment < last or (moment == last and known)):
                known -= moment == last
                continue
            last = ""
            read.add(moment)
            yield line
    except (NoAnswer, Missing):
        if not follow:
            raise


def _submitter(client: Client, name: str) -> Json | None:
    """The newest pod of a submitter: its Job is named like the RayJob."""
    selector = f"batch.kubernetes.io/job-name={name}"
    found = client.get(_path(client, "pods", root="/api/v1"), labelSelector=selector)["items"]
    begun = [pod for pod in found if (pod.get("status") or {}).get("phase", "Pending") != "Pending"]
    newest: Json | None = max(begun, key=lambda pod: str(pod["metadata"]["creationTimestamp"]), default=None)
    return newest


def _has_ended(pod: Json) -> bool:
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")


def _rayjob(client: Client, name: str) -> Json:
    found = _find(client, _path(client, "rayjobs", name))
    if found is not None:
        return found
    there = [each["metadata"]["name"] for each in client.get(_path(client, "rayjobs"))["items"]]
    names = ", ".join(sorted(there)[:20]) or "none"
    raise Gone(
        f"there is no RayJob {name!r} in namespace {client.road.namespace} of {client.road.place}",
        hint=f"there: {names}",
    )


def _find(client: Client, path: str) -> Json | None:
    try:
        return client.get(path)
    except Missing:
        return None


def _path(client: Client, plural: str, name: str = "", root: str = "/apis/ray.io/v1") -> str:
    return f"{root}/namespaces/{client.road.namespace}/{plural}" + (f"/{name}" if name else "")
