"""Who may do what on the fake API server: computed from the Role and RoleBinding objects that it holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kube_kinds import KINDS
from kube_store import Store

Json = dict[str, Any]
ROLE, BINDING = (next(kind for kind in KINDS if kind.name == name) for name in ("Role", "RoleBinding"))


@dataclass(frozen=True)
class User:
    """Who asks: a service account, or an administrator who may do everything."""

    namespace: str = ""
    name: str = ""

    def __str__(self) -> str:
        return f"system:serviceaccount:{self.namespace}:{self.name}" if self.name else "admin"


@dataclass(frozen=True)
class Wish:
    """What somebody wants to do; `resource` with its part, as in pods/log."""

    verb: str
    group: str
    resource: str
    namespace: str
    name: str = ""


def allowed(store: Store, user: User, wish: Wish) -> bool:
    """Whether some role that is bound to the user permits it."""
    if not user.name:
        return True
    if not wish.namespace:
        return False  # roles reach into their own namespace only
    for binding in store.list(BINDING, wish.namespace):
        bound = any(_is(user, subject, wish.namespace) for subject in binding.get("subjects", ()))
        role = binding["roleRef"]
        found = store.find(ROLE, wish.namespace, role["name"]) if role["kind"] == "Role" else None
        if bound and any(_permits(rule, wish) for rule in (found or {}).get("rules") or ()):
            return True
    return False


def _is(user: User, subject: Json, namespace: str) -> bool:
    where = subject.get("namespace", namespace)
    return subject.get("kind") == "ServiceAccount" and (subject["name"], where) == (user.name, user.namespace)


def _permits(rule: Json, wish: Wish) -> bool:
    names = rule.get("resourceNames")
    return (
        _among(wish.group, rule.get("apiGroups", ()))
        and _among(wish.resource, rule.get("resources", ()))
        and _among(wish.verb, rule.get("verbs", ()))
        # A name that is not known before, such as that of something new, fits no list of names.
        and (not names or wish.name in names)
    )


def _among(word: str, words: Any) -> bool:
    return "*" in words or word in words
