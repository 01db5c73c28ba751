"""What the fake API server keeps: objects with versions, their history, owners and finalizers."""

from __future__ import annotations

import itertools
import pickle
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from kube_kinds import KINDS, NAMESPACE, Kind
from kube_selectors import Choice, chosen

Json = dict[str, Any]
Key = tuple[Kind, str, str]
# What fills in defaults and says what is wrong with an object: the body as stored, and the causes.
Check = Callable[[Kind, Json, bool], tuple[Json, list[str]]]
FOREGROUND = "foregroundDeletion"
KEPT = ("uid", "creationTimestamp", "resourceVersion", "deletionTimestamp", "generation")


class Rejected(Exception):
    """An answer that is an error, as Kubernetes tells it."""

    def __init__(self, code: int, reason: str, message: str, causes: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.code, self.reason, self.message, self.causes = code, reason, message, causes

    @property
    def status(self) -> Json:
        causes = [{"message": each} for each in self.causes]
        return {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": self.code,
            **({"details": {"causes": causes}} if causes else {}),
        }


@dataclass(frozen=True)
class Change:
    """One step of the history: an object before and after it."""

    version: int
    key: Key
    before: Json | None
    after: Json | None


def copied(value: Any) -> Any:
    """A copy of plain data, much faster than deepcopy."""
    return pickle.loads(pickle.dumps(value, -1))


def as_it_is(kind: Kind, body: Json, strict: bool) -> tuple[Json, list[str]]:
    return body, []


class Store:
    """Objects by kind, namespace and name. All methods may be called from any thread."""

    def __init__(self, check: Check = as_it_is, now: Callable[[], datetime] | None = None) -> None:
        self.changed = threading.Condition(threading.RLock())
        self.check = check
        self.now = now or (lambda: datetime.now(UTC))
        self.objects: dict[Key, Json] = {}
        self.history: list[Change] = []
        self.version = 100
        self.oldest = 100
        # Off: who has lost its owner stays for a while, as with a garbage collector that is late.
        self.collecting = True
        self.epoch = 0  # a new one ends all watches
        self._suffixes = (f"{number:05x}" for number in itertools.count(0xA0B0C))

    # -- reading ------------------------------------------------------------------------------------

    def get(self, kind: Kind, namespace: str, name: str) -> Json:
        with self.changed:
            found = self.objects.get((kind, namespace, name))
            if found is None:
                raise Rejected(404, "NotFound", f'{kind.what} "{name}" not found')
            return copied(found)

    def find(self, kind: Kind, namespace: str, name: str) -> Json | None:
        try:
            return self.get(kind, namespace, name)
        except Rejected:
            return None

    def list(self, kind: Kind, namespace: str = "", choice: Choice | None = None) -> list[Json]:
        """The objects of a namespace, or of all, by name."""
        with self.changed:
            found = [
                each for key, each in self.objects.items() if self._fits(key, each, kind, namespace, choice)
            ]
            return copied(sorted(found, key=lambda each: each["metadata"]["name"]))

    def watch(
        self, kind: Kind, namespace: str, choice: Choice | None, since: int, epoch: int, patience: float
    ) -> Iterator[tuple[str, Json] | None]:
        """What happens after a version; None when nothing did for `patience` seconds. Ends with the epoch."""
        position = since
        while True:
            with self.changed:
                if self.epoch != epoch:
                    return
                if position < self.oldest:
                    raise Rejected(410, "Expired", f"too old resource version: {position} ({self.oldest})")
                fresh = [change for change in self.history if change.version > position]
                if not fresh:
                    self.changed.wait(patience)
                    if self.epoch != epoch:
                        return
                    fresh = [change for change in self.history if change.version > position]
                position = fresh[-1].version if fresh else position
                told = [e for change in fresh if (e := self._event(change, kind, namespace, choice))]
            yield from told or [None]

    def _event(
        self, change: Change, kind: Kind, namespace: str, choice: Choice | None
    ) -> tuple[str, Json] | None:
        was = change.before is not None and self._fits(change.key, change.before, kind, namespace, choice)
        is_ = change.after is not None and self._fits(change.key, change.after, kind, namespace, choice)
        if is_ and change.after is not None:
            return "MODIFIED" if was else "ADDED", copied(change.after)
        if was and change.before is not None:
            gone = copied(change.after or change.before)
            gone["metadata"]["resourceVersion"] = str(change.version)
            return "DELETED", gone
        return None

    @staticmethod
    def _fits(key: Key, found: Json, kind: Kind, namespace: str, choice: Choice | None) -> bool:
        same = key[0] == kind and namespace in ("", key[1])
        return same and (choice is None or chosen(choice, found))

    def forget(self) -> None:
        """Drop the history: whoever watches from an older version must list again."""
        with self.changed:
            self.oldest = self.version
            self.history.clear()
            self.changed.notify_all()

    def cut(self) -> None:
        """End all watches."""
        with self.changed:
            self.epoch += 1
            self.changed.notify_all()

    # -- writing ------------------------------------------------------------------------------------

    def create(
        self, kind: Kind, namespace: str, body: Json, *, strict: bool = True, dry: bool = False
    ) -> Json:
        with self.changed:
            made = copied(body)
            meta = made.setdefault("metadata", {})
            made.update({"apiVersion": kind.api_version, "kind": kind.name})
            if not meta.get("name") and meta.get("generateName"):
                meta["name"] = meta["generateName"] + next(self._suffixes)
            if not meta.get("name"):
                raise Rejected(422, "Invalid", f"{kind.name} has no name: name or generateName is required")
            if kind.status:
                made.pop("status", None)
            key = (kind, namespace if kind.namespaced else "", meta["name"])
            if key in self.objects:
                raise Rejected(409, "AlreadyExists", f'{kind.what} "{meta["name"]}" already exists')
            if kind.namespaced and (NAMESPACE, "", namespace) not in self.objects:
                raise Rejected(404, "NotFound", f'namespaces "{namespace}" not found')
            made = self._checked(kind, made, strict)
            meta = made["metadata"]
            meta.update({"uid": str(uuid.uuid4()), "creationTimestamp": self.stamp(), "generation": 1})
            if kind.namespaced:
                meta["namespace"] = namespace
            if dry:
                return made
            self._put(key, made)
            return copied(made)

    def replace(
        self, kind: Kind, namespace: str, name: str, body: Json, part: str = "", *, dry: bool = False
    ) -> Json:
        """Write an object, or only its status; what it says of its version must be true."""
        with self.changed:
            old = self.get(kind, namespace, name)
            said = (body.get("metadata") or {}).get("resourceVersion")
            if said and said != old["metadata"]["resourceVersion"]:
                raise Rejected(409, "Conflict", f'{kind.what} "{name}": the object has been modified')
            if part == "status":
                new = old | {"status": copied(body.get("status", {}))}
            else:
                new = copied(body)
                new["metadata"] |= {k: v for k, v in old["metadata"].items() if k in KEPT}
                if kind.status:
                    new = {k: v for k, v in new.items() if k != "status"}
                    new |= {"status": old["status"]} if "status" in old else {}
                if kind.name == "ConfigMap" and old.get("immutable") and new.get("data") != old.get("data"):
                    raise Rejected(422, "Invalid", f'ConfigMap "{name}" is invalid: data: field is immutable')
            new = self._checked(kind, new, True)
            if new.get("spec") != old.get("spec"):
                new["metadata"]["generation"] = old["metadata"].get("generation", 1) + 1
            if dry or new == old:
                return new
            key = (kind, namespace if kind.namespaced else "", name)
            if new["metadata"].get("deletionTimestamp") and not new["metadata"].get("finalizers"):
                self._remove(key)
            else:
                self._put(key, new)
            return copied(new)

    def patch(
        self, kind: Kind, namespace: str, name: str, patch: Json, part: str = "", *, dry: bool = False
    ) -> Json:
        """A merge patch (RFC 7386)."""
        with self.changed:
            old = self.get(kind, namespace, name)
            merged = merge(old, {"status": patch.get("status", {})} if part == "status" else patch)
            return self.replace(kind, namespace, name, merged, part, dry=dry)

    def delete(
        self, kind: Kind, namespace: str, name: str, policy: str = "Background", uid: str = ""
    ) -> Json:
        """Delete, or say that it shall be: with finalizers it stays until they are gone."""
        with self.changed:
            old = self.get(kind, namespace, name)
            meta = old["metadata"]
            if uid and uid != meta["uid"]:
                raise Rejected(409, "Conflict", f"the uid in the precondition ({uid}) is not {meta['uid']}")
            key = (kind, namespace if kind.namespaced else "", name)
            if policy == "Orphan":
                self._orphan(meta["uid"])
            if policy == "Foreground":
                meta["finalizers"] = [*meta.get("finalizers", []), FOREGROUND]
            if meta.get("finalizers"):
                meta.setdefault("deletionTimestamp", self.stamp())
                self._put(key, old)
            else:
                self._remove(key)
            return old

    def stamp(self) -> str:
        return self.now().strftime("%Y-%m-%dT%H:%M:%SZ")

    def _checked(self, kind: Kind, body: Json, strict: bool) -> Json:
        whole, causes = self.check(kind, body, strict)
        if causes:
            name = body["metadata"].get("name")
            message = f'{kind.name}.{kind.group} "{name}" is invalid: {"; ".join(causes)}'
            raise Rejected(422, "Invalid", message, tuple(causes))
        return whole

    def _put(self, key: Key, made: Json) -> None:
        self.version += 1
        made["metadata"]["resourceVersion"] = str(self.version)
        stored = copied(made)
        self.history.append(Change(self.version, key, self.objects.get(key), stored))
        self.objects[key] = stored
        self.collect()
        self.changed.notify_all()

    def _remove(self, key: Key) -> None:
        self.version += 1
        self.history.append(Change(self.version, key, self.objects.pop(key), None))
        self.collect()
        self.changed.notify_all()

    # -- garbage ------------------------------------------------------------------------------------

    def collect(self) -> None:
        """Delete what has lost all its owners, and what is deleted in the foreground once that is alone."""
        if not self.collecting:
            return None
        with self.changed:
            alive = {each["metadata"]["uid"]: each for each in self.objects.values()}
            for key, found in list(self.objects.items()):
                meta = found["metadata"]
                owners = [owner["uid"] for owner in meta.get("ownerReferences", ())]
                doomed = [uid for uid in owners if uid not in alive or _in_foreground(alive[uid])]
                if owners and len(doomed) == len(owners) and not meta.get("deletionTimestamp"):
                    self.delete(*key)
                    return self.collect()
                if _in_foreground(found) and not self._dependents(meta["uid"]):
                    rest = [each for each in meta["finalizers"] if each != FOREGROUND]
                    self.patch(*key, {"metadata": {"finalizers": rest}})
                    return self.collect()
        return None

    def _dependents(self, uid: str) -> list[Json]:
        return [each for each in self.objects.values() if _owned(each, uid)]

    def _orphan(self, uid: str) -> None:
        for key, found in list(self.objects.items()):
            if _owned(found, uid):
                rest = [o for o in found["metadata"]["ownerReferences"] if o["uid"] != uid]
                self.patch(*key, {"metadata": {"ownerReferences": rest}})


def _owned(found: Json, uid: str) -> bool:
    return any(owner["uid"] == uid for owner in found["metadata"].get("ownerReferences", ()))


def _in_foreground(found: Json) -> bool:
    return FOREGROUND in found["metadata"].get("finalizers", ())


def merge(old: Any, patch: Any) -> Any:
    """What a merge patch makes of a value."""
    if not isinstance(patch, dict):
        return copied(patch)
    merged = dict(old) if isinstance(old, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge(merged.get(name), value)
    return merged


assert len(set(KINDS)) == len(KINDS)
