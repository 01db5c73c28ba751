"""A node of the file as JSON: the resource that TF_CONFIG shows to a trainer."""

from __future__ import annotations

import json
from typing import Any

from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

from hpsearch.spec.node import Findings, Kind, Node
from hpsearch.spec.scalars import number

# The other words of YAML 1.1, such as `n`, are more often names.
_BOOLEANS = {"true": True, "false": False}
# What the REST resources hold as double or int32; an int64, such as a count of workers, is a text in JSON.
_NUMBERS = frozenset(
    {"maxTrials", "maxParallelTrials", "maxFailedTrials", "minValue", "maxValue", "discreteValues"}
    | {"acceleratorCount", "bootDiskSizeGb", "priority"}
)


def resource(node: Node) -> str:
    """The JSON text of a node and all below it: numbers where the schema has one, unquoted booleans, nulls.

    Every other scalar is its source text, so that version `3.10` stays that version.
    """
    return json.dumps(_plain(node, ""), ensure_ascii=False, separators=(",", ":"))


def _plain(node: Node, key: str) -> Any:
    """A node as JSON types; `key` names it, or the list that it is in."""
    if node.kind is Kind.MAP:
        return {name: _plain(entry, name) for name, entry in node.entries.items()}
    if node.kind is Kind.LIST:
        return [_plain(item, key) for item in node.items]
    if node.is_null:
        return None
    if to_camel(key) in _NUMBERS:
        return _number(node)
    return _BOOLEANS.get(node.text.lower(), node.text) if node.plain else node.text


def _number(node: Node) -> int | float | str:
    """A finite number; what is none, or too large for JSON, stays a text."""
    try:
        return number(node, Findings())
    except PydanticCustomError:
        return node.text
