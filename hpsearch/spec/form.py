"""A map of the file as a pydantic model that reports every problem and keeps what is good."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Self, TypeVar, cast

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    GetJsonSchemaHandler,
    ModelWrapValidatorHandler,
    PrivateAttr,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from pydantic.alias_generators import to_camel, to_snake
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from hpsearch.spec.node import Findings, Kind, Node
from hpsearch.spec.scalars import nearest, refuse

T = TypeVar("T")
# Lists that are often written as one text, as for a shell.
_COMMAND_LINES = frozenset({"args", "command", "containerArgs", "containerCommand"})


def _items(node: Node) -> list[Node]:
    if node.kind is Kind.SCALAR:
        words = ", ".join(node.text.split()) if node.name in _COMMAND_LINES else node.text
        refuse(f"{node.name} is {node.shown}, not a list", f"write [{words}]")
    return node.elements


class _OneOrMore:
    """The JSON schema of a list: of maps, a single one may stand for it."""

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        found = handler(schema)
        item = found["items"]
        return {"anyOf": [found, item]} if "$ref" in item else found


Listed = Annotated[list[T], BeforeValidator(_items), _OneOrMore()]


class Form(BaseModel):
    """Base of all forms: a field is None where the file has no value, or one that was refused.

    `unread` names keys that are known and not read. `called`: what the map is, and the key of its name.
    Every field is optional here, because a missing value is told with its rule, and all problems of a file
    are told together; `rules` tell a JSON schema what is required.
    """

    model_config = ConfigDict(alias_generator=to_camel, extra="forbid", frozen=True)
    unread: ClassVar[frozenset[str]] = frozenset()
    called: ClassVar[tuple[str, str]] = ("", "")
    rules: ClassVar[dict[str, Any]] = {}
    _node: Node = PrivateAttr(default_factory=lambda: Node(Kind.MAP, 1, 1))
    _given: dict[str, Node] = PrivateAttr(default_factory=dict)
    _refused: frozenset[str] = PrivateAttr(default=frozenset())

    @classmethod
    def take(cls, node: Node, findings: Findings) -> Self:
        """The form that a node fills; an empty one, with an error told, where the node is no map."""
        try:
            return cls.model_validate(node, context=findings)
        except ValidationError as error:
            found = error.errors(include_url=False)[0]
            findings.error(node, found["msg"], str(found.get("ctx", {}).get("hint", "")))
            return cls.empty()

    @classmethod
    def empty(cls) -> Self:
        """The form of a map without entries."""
        return cls.model_validate(Node(Kind.MAP, 1, 1), context=Findings())

    @classmethod
    def subject(cls, node: Node) -> str:
        """What the messages about this map start with, such as `parameter lr`; empty where it has no name."""
        what, key = cls.called
        name = node.entries.get(key) or node.entries.get(to_snake(key))
        return f"{what} {name.shown}" if name and name.kind is Kind.SCALAR and name.text else ""

    @property
    def node(self) -> Node:
        """The map that was read."""
        return self._node

    def at(self, key: str) -> Node:
        """The node of a value that was given, or else the map."""
        return self._given.get(key, self._node)

    def lacks(self, key: str) -> bool:
        """True if the file has no value for the key; false for one that was given and refused."""
        return key not in self._given

    def refused(self, key: str) -> bool:
        """True if the value of the key, or an item of its list, was refused."""
        return key in self._refused

    @classmethod
    def keys(cls) -> frozenset[str]:
        """The keys that are read, as the file spells them."""
        return frozenset(field.alias or name for name, field in cls.model_fields.items())

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        found = handler.resolve_ref_schema(handler(schema))
        found["properties"] = found.get("properties", {}) | {key: {} for key in sorted(cls.unread)}
        return found | cls.rules

    @model_validator(mode="wrap")
    @classmethod
    def _fill(cls, value: Any, handler: ModelWrapValidatorHandler[Self], info: ValidationInfo) -> Self:
        if isinstance(value, dict):
            # A form that holds itself is asked a second time, now for the entries that it has handed down.
            return handler(value)
        node: Node = value
        findings = info.context
        assert isinstance(findings, Findings)
        if node.kind is not Kind.MAP:
            refuse(f"{node.name} is {node.shown} where a map is due", "write `key: value` lines below it")
        if done := findings.forms.get((cls, id(node))):
            return cast(Self, done)
        with findings.about(cls.subject(node)):
            given = cls._known(node, findings)
            try:
                form = handler(given)
                form._given = given
            except ValidationError as error:
                good = _good(given, error, findings)
                form = handler(good)
                form._given = given | good
                form._refused = frozenset(str(found["loc"][0]) for found in error.errors(include_url=False))
        form._node = node
        findings.forms[cls, id(node)] = form
        return form

    @classmethod
    def _known(cls, node: Node, findings: Findings) -> dict[str, Node]:
        """The entries by their documented key; unknown keys and other spellings are told."""
        known = cls.keys()
        found: dict[str, Node] = {}
        for key, entry in node.entries.items():
            camel = key if key in known or "_" not in key else to_camel(key)
            place = Node(Kind.SCALAR, *entry.named, path=entry.path, text=key)
            if camel not in known:
                if camel not in cls.unread:
                    _unknown(place, [*known, *cls.unread], findings)
            elif camel in found:
                first = found[camel].named[0]
                message = f"{camel} stands twice in one map: in line {first} and in line {place.line}"
                findings.error(place, message, "keep one of them")
            else:
                found[camel] = entry
            if camel != key and camel in known | cls.unread:
                findings.warn(place, f"key {key} is read as {camel}", f"write {camel}")
        return {key: entry for key, entry in found.items() if not entry.is_null}


def _unknown(place: Node, known: list[str], findings: Findings) -> None:
    meant = nearest(place.text, known, findings)
    hint = f"did you mean {meant}?" if meant else "remove it, or use one of " + ", ".join(sorted(known))
    findings.warn(place, f"unknown key {place.text}: ignored", hint)


def _good(given: dict[str, Node], error: ValidationError, findings: Findings) -> dict[str, Node]:
    """What is left of the entries without the refused ones, each of which is told."""
    bad: dict[str, set[int]] = {}
    whole: set[str] = set()
    for found in error.errors(include_url=False):
        key, *index = found["loc"]
        where = given[str(key)]
        if index:
            where = where.elements[int(index[0])]
            bad.setdefault(str(key), set()).add(int(index[0]))
        else:
            whole.add(str(key))
        findings.error(where, found["msg"], str(found.get("ctx", {}).get("hint", "")))
    return {key: _without(entry, bad.get(key)) for key, entry in given.items() if key not in whole}


def _without(node: Node, indices: set[int] | None) -> Node:
    if not indices:
        return node
    items = [item for index, item in enumerate(node.elements) if index not in indices]
    return Node(Kind.LIST, node.line, node.column, node.path, node.named, items=items)
