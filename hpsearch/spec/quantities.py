"""Quantities with a unit: durations as seconds, sizes as bytes."""

from __future__ import annotations

import math
import re
from typing import Annotated

from pydantic import BeforeValidator, WithJsonSchema
from pydantic.json_schema import JsonSchemaValue

from hpsearch.spec.node import Node
from hpsearch.spec.scalars import refuse, scalar

_DURATION = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*([smhd]?)")
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*(|[kKMGTP]|[KMGTP]i)")
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_POWERS = {letter: power for power, letter in enumerate(("", "k", "m", "g", "t", "p"))}


def seconds(text: str) -> float | None:
    """A duration such as 90s, 30m, 8h or 1d in seconds; None for a text that is none."""
    found = _DURATION.fullmatch(text)
    return float(found[1]) * _SECONDS[found[2]] if found else None


def _duration(node: Node) -> float:
    found = seconds(scalar(node))
    if found is None:
        refuse(f"{node.name} is {node.shown}, not a duration", "write it like 90s, 30m, 8h or 1d")
    if not 0 < found < math.inf:
        refuse(f"{node.name} is {node.shown}: no time at all", "give more than 0, or remove the line")
    return found


def _patience(node: Node) -> float:
    return 0.0 if scalar(node) in ("0", "0s") else _duration(node)


def _size(node: Node) -> int:
    text = scalar(node)
    found = _SIZE.fullmatch(text)
    if not found:
        refuse(
            f"{node.name} is {node.shown}, not a size", "write it like 2Gi, 512Mi, 1G or a number of bytes"
        )
    base = 1024 if found[2].endswith("i") else 1000
    size = float(found[1]) * base ** _POWERS[found[2][:1].lower()]
    if not 2**20 <= size < 2**63:
        hint = f"did you mean {text}Gi?" if not found[2] and size < 2**20 else "give between 1Mi and 1024Pi"
        unit = "byte" if size == 1 else "bytes"
        refuse(f"{node.name} is {node.shown}, which is {size:.0f} {unit}", hint)
    return int(size)


def _measured(pattern: re.Pattern[str]) -> JsonSchemaValue:
    """The JSON schema of a quantity: a plain number, or one with a unit."""
    return _unit(pattern, {"exclusiveMinimum": 0})


def _unit(pattern: re.Pattern[str], least: JsonSchemaValue) -> JsonSchemaValue:
    unit = {"type": "string", "pattern": f"^\\s*{pattern.pattern}\\s*$"}
    return {"anyOf": [{"type": "number"} | least, unit]}


Duration = Annotated[float, BeforeValidator(_duration), WithJsonSchema(_measured(_DURATION))]
# How long to wait; 0 is for ever.
Patience = Annotated[float, BeforeValidator(_patience), WithJsonSchema(_unit(_DURATION, {"minimum": 0}))]
Size = Annotated[int, BeforeValidator(_size), WithJsonSchema(_measured(_SIZE))]
