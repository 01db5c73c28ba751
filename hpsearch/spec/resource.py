"""A node of the file as JSON: the resource that TF_CONFIG shows to a trainer."""

from __future__ import annotations

import json
from typing import Any

from pydantic_core import PydanticCustomError

from hpsearch.spec.node import Findings, Kind, Node
from hpsearch.spec.scalars import number, resembles

# The other words of YAML 1.1, such as `n`, are more often names.
_BOOLEANS = {"true": True, "false": False}


def resource(node: Node) -> str:
    """The JSON text of a node and all below it; unquoted numbers, booleans and nulls are such there, too."""
    return json.dumps(_plain(node), ensure_ascii=False, separators=(",", ":"))


def _plain(node: Node) -> Any:
    if node.kind is Kind.MAP:
        return {key: _plain(entry) for key, entry in node.entries.items()}
    if node.kind is Kind.LIST:
        return [_plain(item) for item in node.items]
    if node.is_null:
        return None
    if node.plain and node.text.lower() in _BOOLEANS:
        return _BOOLEANS[node.text.lower()]
    return _number(node) if resembles(node) == "a number" else node.text


def _number(node: Node) -> int | float | str:
    """A finite number; what JSON cannot hold stays a text."""
    try:
        return number(node, Findings())
    except PydanticCustomError:
        return node.text
