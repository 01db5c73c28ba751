"""A custom resource's structural schema: defaults filled in as the API server does, and as a JSON schema.

Source: Kubernetes, "Extend the Kubernetes API with CustomResourceDefinitions": defaulting and nullable,
field pruning, validation; the server fills defaults before it validates.
"""

from __future__ import annotations

import copy
from typing import Any

from hpsearch.ship.lint.shape import mapping

PRESERVE = "x-kubernetes-preserve-unknown-fields"
INT_OR_STRING = "x-kubernetes-int-or-string"
EMBEDDED = "x-kubernetes-embedded-resource"
_KEPT = (
    "enum",
    "exclusiveMaximum",
    "exclusiveMinimum",
    "maxItems",
    "maxLength",
    "maxProperties",
    "maximum",
    "minItems",
    "minLength",
    "minProperties",
    "minimum",
    "multipleOf",
    "pattern",
    "uniqueItems",
)
_COMBINED = ("allOf", "anyOf", "oneOf")


def filled(schema: dict[str, Any], value: Any) -> Any:
    """A copy of a value with the defaults of its schema, without the nulls that the server drops."""
    if isinstance(value, list):
        items = mapping(schema, "items")
        return [filled(items, each) for each in value]
    if not isinstance(value, dict):
        return value
    properties, more = mapping(schema, "properties"), mapping(schema, "additionalProperties")
    result: dict[str, Any] = {}
    for key, each in value.items():
        below = properties.get(key, more)
        below = below if isinstance(below, dict) else {}
        if each is None and below and not below.get("nullable"):
            continue
        result[key] = filled(below, each)
    for key, below in properties.items():
        if key not in result and isinstance(below, dict) and "default" in below:
            result[key] = filled(below, copy.deepcopy(below["default"]))
    return result


def converted(schema: dict[str, Any], *, root: bool = False) -> dict[str, Any]:
    """The JSON schema (2020-12) of a structural one: unknown fields are forbidden, defaults not required.

    At the root apiVersion, kind and metadata are always known; ObjectMeta has a schema of its own.
    """
    result: dict[str, Any] = {key: schema[key] for key in _KEPT if key in schema}
    if schema.get(INT_OR_STRING):
        result["type"] = ["integer", "string"]
    elif "type" in schema:
        result["type"] = schema["type"]
    if schema.get("nullable") and "type" in result:
        kinds = result["type"]
        result["type"] = [*(kinds if isinstance(kinds, list) else [kinds]), "null"]
        if "enum" in result:
            result["enum"] = [*result["enum"], None]
    for word in _COMBINED:
        # Alternatives hold conditions on values alone; those of int-or-string say again what it is.
        if word in schema and not schema.get(INT_OR_STRING):
            result[word] = [_condition(each) for each in schema[word]]
    if "not" in schema:
        result["not"] = _condition(schema["not"])
    if "items" in schema:
        result["items"] = converted(mapping(schema, "items"))
    if schema.get("type") == "object" or "properties" in schema:
        _object(schema, result, root or bool(schema.get(EMBEDDED)))
    return result


def _object(schema: dict[str, Any], result: dict[str, Any], whole: bool) -> None:
    properties = mapping(schema, "properties")
    result["properties"] = {
        key: converted(each) for key, each in properties.items() if isinstance(each, dict)
    }
    if whole:
        for key in ("apiVersion", "kind"):
            result["properties"].setdefault(key, {"type": "string"})
        result["properties"]["metadata"] = {"type": "object"}
    more = schema.get("additionalProperties")
    if isinstance(more, dict):
        result["additionalProperties"] = converted(more)
    elif more is not True and not schema.get(PRESERVE):
        result["additionalProperties"] = False
    defaulted = {key for key, each in properties.items() if isinstance(each, dict) and "default" in each}
    if required := [key for key in schema.get("required", []) if key not in defaulted]:
        result["required"] = required


def _condition(schema: Any) -> Any:
    """A condition inside of anyOf, oneOf, allOf, not: no fields are declared or forbidden there."""
    if not isinstance(schema, dict):
        return schema
    result = {key: schema[key] for key in (*_KEPT, "type", "required") if key in schema}
    for word in _COMBINED:
        if word in schema:
            result[word] = [_condition(each) for each in schema[word]]
    if "not" in schema:
        result["not"] = _condition(schema["not"])
    if isinstance(schema.get("properties"), dict):
        result["properties"] = {key: _condition(each) for key, each in schema["properties"].items()}
    if "items" in schema:
        result["items"] = _condition(schema["items"])
    return result
