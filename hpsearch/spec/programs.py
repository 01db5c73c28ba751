"""What a trial is started with: checks that all dialects share."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import ClassVar

from hpsearch.spec.form import Form
from hpsearch.spec.node import Findings, Kind, Node
from hpsearch.spec.scalars import Text, Verbatim

_PLACEHOLDER = re.compile(r"\$(?:[A-Za-z_][A-Za-z0-9_]*|\{[A-Za-z_][A-Za-z0-9_]*\})")
# More names than that say nothing more.
_NAMED = 8


class EnvForm(Form):
    """One variable of `env`."""

    rules: ClassVar = {"required": ["name"]}
    name: Text | None = None
    value: Verbatim | None = None


def environment(forms: Iterable[EnvForm], findings: Findings) -> tuple[tuple[str, str], ...]:
    """The variables by name; the last one of a name wins, as in a container."""
    found: dict[str, str] = {}
    for form in forms:
        name = form.name or ""
        if name and "=" not in name:
            found[name] = form.value or ""
        elif not form.refused("name"):
            place = form.at("name")
            findings.error(place, f"{place.name} is not the name of a variable", "write name: and value:")
    return tuple(found.items())


def is_remote(text: str) -> bool:
    """Whether a text is a URL such as gs://bucket/path, not a path of this machine."""
    return "://" in text


def has_placeholder(place: Node) -> bool:
    """Whether a text holds a shell variable that nobody has replaced by its value."""
    return place.kind is Kind.SCALAR and bool(_PLACEHOLDER.search(place.text))


def warn_of_packages(packages: Node, findings: Findings) -> None:
    """Warn of packages that are not fetched; `packages` is the list of their URIs, or one of them."""
    listed = [packages] if packages.kind is Kind.SCALAR else packages.elements
    first = next((item for item in listed if is_remote(item.text)), None)
    if first:
        message = f"package {first.shown} is not fetched: only local code is run"
        findings.warn(first, message, "start hpsearch where the module can be imported")


def warn_of_placeholders(places: Iterable[Node], findings: Findings) -> None:
    """Warn, once for all, of shell variables that nobody has replaced by their values."""
    holding = sorted(filter(has_placeholder, places), key=lambda place: (place.line, place.column))
    names = dict.fromkeys(name for place in holding for name in _PLACEHOLDER.findall(place.text))
    if names:
        shown = ", ".join(list(names)[:_NAMED]) + ", ..." * (len(names) > _NAMED)
        message = f"{shown} left in the file: nothing is filled in, texts are used as they are written"
        findings.warn(holding[0], message, "write the values, as `envsubst < FILE` does")
