"""Label and field selectors of the fake API server."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]
_IN = re.compile(r"([^\s!=(),]+)\s+(in|notin)\s+\(([^)]*)\)")
_EQUAL = re.compile(r"([^\s!=(),]+)\s*(==|=|!=)\s*([^\s,()]*)")
_EXISTS = re.compile(r"(!?)\s*([^\s!=(),]+)")
_PART = re.compile(r"[^,(]*(?:\([^)]*\))?[^,(]*")
FIELDS = ("metadata.name", "metadata.namespace", "status.phase")


@dataclass(frozen=True)
class Choice:
    """Which objects of a list are wanted, in the words of a query."""

    labels: str = ""
    fields: str = ""

    @property
    def name(self) -> str:
        """The only name that fits, which is what a rule with resourceNames goes by."""
        found = re.fullmatch(r"metadata\.name==?([^,]+)", self.fields)
        return found[1] if found else ""


def chosen(choice: Choice, found: Json) -> bool:
    """Whether an object is wanted. Raises ValueError for words that Kubernetes would refuse."""
    labels = found["metadata"].get("labels") or {}
    return all(_fits(part, labels) for part in _parts(choice.labels)) and all(
        _field(part, found) for part in _parts(choice.fields)
    )


def _parts(text: str) -> list[str]:
    return [part.strip() for part in _PART.findall(text) if part.strip()]


def _fits(part: str, labels: dict[str, str]) -> bool:
    if found := _IN.fullmatch(part):
        among = labels.get(found[1]) in [value.strip() for value in found[3].split(",")]
        return among == (found[2] == "in")
    if found := _EQUAL.fullmatch(part):
        return (labels.get(found[1]) == found[3]) == (found[2] != "!=")
    if found := _EXISTS.fullmatch(part):
        return (found[2] in labels) == (not found[1])
    raise ValueError(f"unable to parse requirement: {part!r}")


def _field(part: str, found: Json) -> bool:
    match = _EQUAL.fullmatch(part)
    if match is None or match[1] not in FIELDS:
        raise ValueError(f"field label not supported: {part!r}")
    value: Any = found
    for name in match[1].split("."):
        value = value.get(name, "") if isinstance(value, dict) else ""
    return (value == match[3]) == (match[2] != "!=")
