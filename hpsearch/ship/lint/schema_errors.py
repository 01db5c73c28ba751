"""Errors of JSON schemas as faults: every one, each at the field that is wrong, in words about manifests."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from hpsearch.ship.lint.finding import Fault, Path
from hpsearch.ship.lint.shape import mapping

if TYPE_CHECKING:
    from jsonschema.exceptions import ValidationError

LONGEST_SHOWN = 60  # characters
_ARTICLES = {
    "string": "a text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "array": "a list",
    "object": "a map",
    "null": "null",
}


def faults(errors: Iterable[ValidationError], base: Path = ()) -> Iterator[Fault]:
    """A fault for each error. Of alternatives that all fail the one that fits the value's type is told."""
    for error in errors:
        path = (*base, *error.absolute_path)
        if error.validator == "additionalProperties":
            yield from _unknown(error, path)
        elif error.validator == "required":
            yield from _missing(error, path)
        else:
            message, remedy = _said(error)
            yield Fault(path, message, remedy=remedy)


def _unknown(error: ValidationError, path: Path) -> Iterator[Fault]:
    known = list(mapping(error.schema, "properties"))
    for key in error.instance:
        if key in known:
            continue
        near = difflib.get_close_matches(str(key), known, 1, cutoff=0.6)
        if near:
            remedy = f"did you mean {near[0]}?"
        elif known:
            remedy = f"remove it; there are: {', '.join(sorted(known)[:12])}{', ...' * (len(known) > 12)}"
        else:
            remedy = "remove it; nothing can be set here"
        yield Fault((*path, str(key)), f"unknown field {str(key)[:LONGEST_SHOWN]!r}", remedy=remedy)


def _missing(error: ValidationError, path: Path) -> Iterator[Fault]:
    # The library makes one error for each key that is missing, and names it in the message alone.
    for key in error.validator_value:
        if key not in error.instance and error.message.startswith(f"'{key}'"):
            yield Fault((*path, key), f"the field {key!r} is missing", remedy="write it")


def _said(error: ValidationError) -> tuple[str, str]:
    value, wanted = shown(error.instance), error.validator_value
    match error.validator:
        case "type":
            kinds = [wanted] if isinstance(wanted, str) else list(wanted)
            return _type(value, error.instance, kinds)
        case "enum" | "const":
            allowed = [
                str(each) for each in (wanted if isinstance(wanted, list) else [wanted]) if each is not None
            ]
            near = difflib.get_close_matches(str(error.instance), allowed, 1, cutoff=0.6)
            hint = f"did you mean {near[0]}?" if near else f"write one of {', '.join(allowed)}"
            return f"{value} is none of {', '.join(allowed)}", hint
        case "minimum" | "exclusiveMinimum":
            return f"{value} is too small", f"the smallest is {wanted}"
        case "maximum" | "exclusiveMaximum":
            return f"{value} is too large", f"the largest is {wanted}"
        case "minItems" | "minProperties" | "minLength":
            return f"{value} is too short", f"at least {wanted} needed"
        case "maxItems" | "maxProperties" | "maxLength":
            return f"{value} is too long", f"at most {wanted} allowed"
        case "pattern":
            return f"{value} is not of the form {wanted}", "look at how such values are written"
        case "oneOf" | "anyOf":
            kinds = [_kind(each) for each in wanted]
            if all(kinds):
                return _type(value, error.instance, [kind for kind in kinds if kind])
    return error.message[:300], "see `kubectl explain`"


def _kind(alternative: Any) -> str:
    kinds = alternative.get("type", "") if isinstance(alternative, dict) else ""
    return next((kind for kind in kinds if kind != "null"), "") if isinstance(kinds, list) else str(kinds)


def _type(value: str, instance: Any, kinds: list[str]) -> tuple[str, str]:
    names = [_ARTICLES.get(kind, kind) for kind in kinds if kind != "null"]
    hint = "look at its type"
    if "string" in kinds and isinstance(instance, int | float):
        hint = (
            "put it in quotes"
            if not isinstance(instance, bool)
            else "put it in quotes: yes, no, on and off are truth values"
        )
    elif isinstance(instance, str) and {"integer", "number", "boolean"} & set(kinds):
        hint = "write it without quotes or unit"
    return f"{value} is not {' or '.join(names)}", hint


def shown(value: Any) -> str:
    """A value as a message shows it: short, and maps and lists only by name."""
    if isinstance(value, dict):
        return "a map"
    if isinstance(value, list):
        return "a list"
    if value is None:
        return "an empty value"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return repr(value if len(value) <= LONGEST_SHOWN else value[: LONGEST_SHOWN - 3] + "...")
    return str(value)[:LONGEST_SHOWN]
