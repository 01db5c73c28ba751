"""Scalars read from their source text: numbers, booleans, texts and choices.

Each reader is an annotation of a pydantic field; it takes a Node and raises PydanticCustomError with a hint.
"""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, NoReturn

from pydantic import (
    BeforeValidator,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ValidationInfo,
    WithJsonSchema,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from hpsearch.spec.node import Findings, Kind, Node

MAX_COUNT = 2**31 - 1
MAX_SUGGESTIONS = 100
_LARGEST = int(sys.float_info.max)

_NUMERIC = r"[-+]?([0-9][0-9_]*(\.[0-9_]*)?|\.[0-9][0-9_]*)([eE][-+]?[0-9]+)?"
_DECIMAL = re.compile(_NUMERIC)
_BASED = re.compile(r"[-+]?0(x[0-9a-fA-F_]+|o[0-7]+|b[01_]+)")
_OCTAL = re.compile(r"[-+]?0[0-7_]+")
_SEXAGESIMAL = re.compile(r"[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?")
_NOT_FINITE = re.compile(r"[-+]?(\.?(inf|nan)|infinity)", re.IGNORECASE)
_YAML_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_DATE = re.compile(r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}([Tt ].*)?")

_TRUE = frozenset({"true", "yes", "on", "y"})
_FALSE = frozenset({"false", "no", "off", "n"})


def refuse(message: str, hint: str = "") -> NoReturn:
    """Raise what pydantic reports as one error of a field."""
    raise PydanticCustomError("refused", "{message}", {"message": message, "hint": hint})


def scalar(node: Node) -> str:
    """The source text of a scalar."""
    if node.kind is not Kind.SCALAR:
        refuse(f"{node.name} is {node.shown} where a single value is due", "write one value")
    if node.is_null:
        refuse(f"{node.name} is empty", 'give a value, or remove the line; the text is written "null"')
    return node.text.strip()


def nearest(word: str, known: Mapping[str, Any] | list[str], findings: Findings) -> str:
    """The known word that is meant, by its start, its end or edit distance without case, or an empty text.

    It is looked for only so often in one file, and only among so many: long files would take long.
    """
    findings.suggestions += 1
    if findings.suggestions > MAX_SUGGESTIONS:
        return ""
    known = list(known)[:MAX_SUGGESTIONS]
    folded = {_folded(name): name for name in known}
    word = _folded(word)[:80]
    # `min` is short for `minValue`, far as it is from it by edit distance.
    short = [name for name in folded if len(word) > 2 and (name.startswith(word) or name.endswith(word))]
    close = difflib.get_close_matches(word, short or folded, n=1, cutoff=0.0 if short else 0.6)
    return folded[close[0]] if close else ""


def _folded(word: str) -> str:
    return word.lower().replace("_", "").replace("-", "")


def resembles(node: Node) -> str:
    """What an unquoted scalar is to YAML instead of a text: "a number", ..., or an empty text."""
    text = node.text
    if not node.plain:
        return ""
    if text.lower() in _TRUE | _FALSE:
        return "a boolean"
    if any(p.fullmatch(text) for p in (_DECIMAL, _BASED, _SEXAGESIMAL, _YAML_NOT_FINITE)):
        return "a number"
    return "a date" if _DATE.fullmatch(text) else ""


def number(node: Node, findings: Findings) -> int | float:
    """A finite number from its source text; whole numbers without point or exponent are int.

    Unquoted `010` is octal and `1:30` counts sixties, as for Google's tools, with a warning.
    """
    text = scalar(node)
    value: int | float
    if node.plain and _OCTAL.fullmatch(text):
        value = int(text.replace("_", ""), 8)
        if value != int(text.replace("_", "")):
            findings.warn(node, f"{node.name} {text} is read as octal: {value}", "write it without leading 0")
    elif _DECIMAL.fullmatch(text):
        digits = text.replace("_", "")
        value = int(digits) if digits.lstrip("+-").isdigit() else float(digits)
    elif _BASED.fullmatch(text):
        value = int(text.replace("_", ""), 0)
    elif node.plain and _SEXAGESIMAL.fullmatch(text) and "." not in text:
        value = _sixties(text.replace("_", ""))
        findings.warn(node, f"{node.name} {text} is read in sixties: {value}", "write it as a plain number")
    elif _NOT_FINITE.fullmatch(text):
        refuse(f"{node.name} is {node.shown}, not a finite number", "give a finite number")
    else:
        refuse(f"{node.name} is {node.shown}, not a number", _number_hint(text))
    if abs(value) > _LARGEST:
        refuse(f"{node.name} is {node.shown}, too large for a number", "give a smaller number")
    return value


def _sixties(text: str) -> int:
    value = 0
    for part in text.lstrip("+-").split(":"):
        value = value * 60 + int(part)
    return -value if text.startswith("-") else value


def _number_hint(text: str) -> str:
    if re.fullmatch(r"[-+]?[1-9][0-9]{0,2}(,[0-9]{3})+|" + _NUMERIC + ",", text):
        return f"did you mean {text.replace(',', '')}?"
    if re.fullmatch(r"[-+]?[0-9]+,[0-9]+", text):
        return f"did you mean {text.replace(',', '.')}?"
    if text.startswith(("$", "<")):
        return "fill it in: a number such as 10, 0.01 or 1e-4"
    return "write a number such as 10, 0.01 or 1e-4"


@dataclass(frozen=True)
class Numeric:
    """A field that holds a number within bounds; `whole` makes it an int."""

    low: float | None = None
    high: float | None = None
    whole: bool = False

    def read(self, node: Node, info: ValidationInfo[Findings]) -> int | float:
        """The number; refused if it is not whole or out of bounds."""
        value = number(node, info.context)
        if self.whole and value != int(value):
            refuse(f"{node.name} is {node.shown}, not a whole number", f"write {round(value)}")
        if self.low is not None and value < self.low:
            what = "negative" if self.low == 0 else f"below {self.low:g}"
            refuse(f"{node.name} is {node.shown}: {what}", f"give {self.low:g} or more")
        if self.high is not None and value > self.high:
            refuse(f"{node.name} is {node.shown}: above {self.high:.0f}", f"give {self.high:.0f} or less")
        return int(value) if self.whole else value

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_info_before_validator_function(self.read, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        found: JsonSchemaValue = {"type": "integer" if self.whole else "number"}
        found |= {"minimum": self.low} if self.low is not None else {}
        found |= {"maximum": self.high} if self.high is not None else {}
        return {"anyOf": [found, {"type": "string", "pattern": f"^\\s*{_NUMERIC}\\s*$"}]}


@dataclass(frozen=True)
class Choice:
    """A field that holds one of some words.

    `words` are the documented spellings; `lenient` are others that are taken with a warning, as other case
    and hyphens are; `meant` maps wrong words to the word to suggest.
    """

    words: Mapping[str, Any]
    lenient: Mapping[str, Any] = field(default_factory=dict)
    meant: Mapping[str, str] = field(default_factory=dict)

    def read(self, node: Node, info: ValidationInfo[Findings]) -> Any:
        """What the word stands for."""
        text = scalar(node)
        if text in self.words:
            return self.words[text]
        folded = re.sub(r"[-\s]+", "_", text).upper()
        known = {**self.lenient, **self.words}
        if folded not in known:
            refuse(f"{node.name} {node.shown} is unknown", self._hint(folded, info.context))
        spelling = next(word for word, value in self.words.items() if value == known[folded])
        spelling = folded if folded in self.words else spelling
        info.context.warn(node, f"{node.name} {node.shown} is read as {spelling}", f"write {spelling}")
        return known[folded]

    def _hint(self, folded: str, findings: Findings) -> str:
        meant = self.meant.get(folded) or nearest(folded, self.words, findings)
        if meant:
            return f"did you mean {meant}?"
        first = {
            value: word for word, value in reversed(list(self.words.items())) if "UNSPECIFIED" not in word
        }
        return "use " + ", ".join(word for word in self.words if word in first.values())

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_info_before_validator_function(self.read, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {"enum": [*self.words, None]}


def _boolean(node: Node, info: ValidationInfo[Findings]) -> bool:
    text = scalar(node)
    value = text.lower() in _TRUE
    if not value and text.lower() not in _FALSE:
        refuse(f"{node.name} is {node.shown}, neither true nor false", "write true or false")
    if not node.plain:
        meant = str(value).lower()
        info.context.warn(
            node, f'{node.name} is the text "{text}", read as {meant}', f"write {meant} unquoted"
        )
    return value


def _text(node: Node) -> str:
    text = scalar(node)
    if not text.isprintable():
        refuse(f"{node.name} holds a line break or a tab", "write it on one line")
    return text


def _module(node: Node) -> str:
    """A module's name as `python -m` takes it; a path of a file is a common mistake."""
    text = _text(node)
    if (
        not text
        or any(c.isspace() or c in "/\\=" for c in text)
        or text.startswith("-")
        or text.endswith(".py")
    ):
        name = text.removesuffix(".py").strip("./\\").replace("/", ".").replace("\\", ".")
        fits = all(part.isidentifier() for part in name.split("."))
        hint = f"did you mean {name}?" if fits else "write it like trainer.task"
        refuse(f"{node.name} is {node.shown}, not the name of a module", hint)
    return text


def _verbatim(node: Node, info: ValidationInfo[Findings]) -> str:
    """A text exactly as written; an unquoted number or boolean is taken as written, with a warning."""
    if node.kind is not Kind.SCALAR or node.is_null:
        scalar(node)
    if what := resembles(node):
        message = f"{node.shown} is {what} to YAML, read as the text as written"
        info.context.warn(node, message, f'write "{node.text}"')
    return node.text


# What a scalar may be to a loader that knows nothing of its field.
_ANY_SCALAR = {"type": ["string", "number", "boolean"]}
_WORDS = "|".join("".join(f"[{c}{c.upper()}]" for c in word) for word in sorted(_TRUE | _FALSE))

Boolean = Annotated[
    bool,
    BeforeValidator(_boolean),
    WithJsonSchema({"anyOf": [{"type": "boolean"}, {"type": "string", "pattern": f"^({_WORDS})$"}]}),
]
Text = Annotated[str, BeforeValidator(_text), WithJsonSchema(_ANY_SCALAR)]
Module = Annotated[str, BeforeValidator(_module), WithJsonSchema({"type": "string"})]
Verbatim = Annotated[str, BeforeValidator(_verbatim), WithJsonSchema(_ANY_SCALAR)]
Real = Annotated[int | float, Numeric()]
Count = Annotated[int, Numeric(low=0, high=MAX_COUNT, whole=True)]
Positive = Annotated[int, Numeric(low=1, high=MAX_COUNT, whole=True)]
