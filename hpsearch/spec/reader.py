"""The ruamel.yaml door: text becomes a tree of positioned nodes, within limits and without code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from ruamel.yaml import YAML, events
from ruamel.yaml.error import MarkedYAMLError, StringMark, YAMLError
from ruamel.yaml.reader import ReaderError
from ruamel.yaml.scanner import Scanner, ScannerError

from hpsearch.spec.node import Findings, Kind, Node, printable

MAX_BYTES = 1_000_000
MAX_DEPTH = 32
MAX_NODES = 10_000
MAX_SCALAR = 1_000
MAX_ARGUMENT = 10_000
MAX_TEXT = 300_000
# The scanner is slow on text that never becomes a node; no node within this many characters is refused.
MAX_STRETCH = 100_000

_ARGUMENTS = re.compile(r"\b((args|containerArgs|containerCommand|command)\[\d+]|env\[\d+]\.value)$")
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufffe\uffff]")
# What web pages and word processors put where a line is indented.
_WIDE_BLANK = re.compile("^ *[\u00a0\u3000]", re.MULTILINE)
_CORE_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "map", "seq")}
_TEXT_TAG = "tag:yaml.org,2002:str"

_CAUSES = (
    ("'\\t' that cannot start", "a tab is used where YAML wants spaces", "use spaces"),
    (
        "mapping values are not allowed here",
        "a `:` stands where no key can be",
        "look at the indentation of this line and the one before; quote a text that holds `: `",
    ),
    ("expected <block end>", _MISFIT := "this line does not fit the lines above", "look at its indentation"),
    ("expected '<document start>'", _MISFIT, "look at its indentation and at what the lines above hold"),
    ("entries are not allowed here", "a `- ` stands where no item can be", "give it a line below its key"),
    ("mapping keys are not allowed here", "a `? ` stands where no key can be", "quote it"),
    ("'`' that cannot start", "a text cannot start with a backquote", "quote it; remove a Markdown fence"),
    ("that cannot start any token", "a text cannot start with this character", "put it in quotes"),
    ("found unexpected end of stream", _OPEN := "a quote is not closed", "close it where the text ends"),
    ("expected the node content", "a value is missing here", "look for a stray comma or bracket"),
    ("while parsing a flow", "a bracket or brace is not closed, or a comma is missing", "close it"),
    ("incompatible YAML document", "this version of YAML is not read", "remove the %YAML line"),
    (_DEEP := f"nested more than {MAX_DEPTH} deep", _DEEP, "a search space needs far less"),
    (
        "could not find expected ':'",
        _NO_COLON := "a `:` is missing after a key",
        "write `key: value`, with a blank after the `:`",
    ),
    (
        "but found '%'",
        "a directive is not read",
        "remove the line; %%writefile is a notebook's, not the file's",
    ),
    ("undefined tag handle", "a tag is not allowed", "remove it"),
    ("unknown escape character", "a backslash in double quotes starts an escape", "use single quotes"),
)


class _StoppedError(Exception):
    """The text cannot be read on; the finding is recorded."""


class _ShallowScanner(Scanner):
    """A scanner that refuses deep nesting itself: looking ahead costs it the square of the depth."""

    def fetch_flow_collection_start(self, TokenClass: Any, to_push: Any) -> None:  # noqa: N803
        if len(self.flow_context) >= MAX_DEPTH:
            raise ScannerError(None, None, _DEEP, self.reader.get_mark())
        super().fetch_flow_collection_start(TokenClass, to_push)


class _Meter:
    """The text as a stream that ends when the scanner has read too far without finding a node."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.given = 0
        self.seen = 0

    def read(self, size: int = 4096) -> str:
        """The next piece of the text; LookupError when the stretch without a node is too long."""
        if self.given - self.seen > MAX_STRETCH:
            raise LookupError(f"more than {MAX_STRETCH:,} characters without a value that ends")
        piece = self.text[self.given : self.given + size]
        self.given += len(piece)
        return piece


def compose(text: str, findings: Findings) -> Node | None:
    """The tree of the text, or None with an error found: limits, syntax, an empty file.

    Anchors, aliases, tags and duplicate keys are errors too, but the tree goes on without them.
    """
    size = len(text.encode("utf-8", "surrogatepass"))
    if size > MAX_BYTES:
        findings.error(_top(), f"the file has {size:,} bytes; at most {MAX_BYTES:,} are read", "shorten it")
        return None
    if control := _CONTROL.search(text):
        line = text.count("\n", 0, control.start()) + 1
        column = control.start() - text.rfind("\n", 0, control.start())
        name = printable(control.group())
        findings.error(Node(Kind.SCALAR, line, column), f"control character {name} in the text", "remove it")
        return None
    try:
        return _Tree(findings).build(text)
    except _StoppedError:
        return None


class _Tree:
    """Builds nodes from parse events, without recursion, so that depth costs nothing."""

    def __init__(self, findings: Findings) -> None:
        self.findings = findings
        self.open: list[Node] = []
        self.keys: list[tuple[str, tuple[int, int]] | None] = []
        self.root: Node | None = None
        self.nodes = 0
        self.characters = 0

    def build(self, text: str) -> Node:
        for event in self._events(text):
            if isinstance(event, events.DocumentStartEvent) and self.root:
                self._stop(event, "a second document starts here; one file is one study", "split the file")
            elif isinstance(event, events.NodeEvent):
                self._add(event)
            elif isinstance(event, events.CollectionEndEvent):
                self.open.pop()
                self.keys.pop()
        if self.root is None or self.root.is_null:
            self.findings.error(_top(), "the file is empty", "write trainingInput: with hyperparameters:")
            raise _StoppedError
        return self.root

    def _events(self, text: str) -> Iterator[events.Event]:
        # JSON may be indented by tabs, YAML may not; a tab inside a JSON string is written \t.
        meter = _Meter(text.replace("\t", " ") if text.lstrip("\ufeff \t\r\n").startswith("{") else text)
        try:
            yaml = YAML(typ="safe", pure=True)
            yaml.Scanner = _ShallowScanner
            for event in yaml.parse(meter):
                meter.seen = meter.given
                yield event
        except MarkedYAMLError as error:
            self._refuse(error, text)
        except LookupError as error:
            last = self._last()
            self.findings.error(last, str(error), "shorten the text or the comment")
            raise _StoppedError from None
        except (YAMLError, ReaderError, ValueError, OverflowError) as error:
            self.findings.error(self._last(), f"the text does not parse: {error}", "look at this line")
            raise _StoppedError from None

    def _last(self) -> Node:
        return self.open[-1] if self.open else _top()

    def _refuse(self, error: MarkedYAMLError, text: str) -> None:
        """Record a syntax error with its likely cause."""
        if blank := _WIDE_BLANK.search(text):
            place = Node(Kind.SCALAR, text.count("\n", 0, blank.start()) + 1, blank.end() - blank.start())
            message = "the text does not parse: a no-break or wide blank is used where YAML wants spaces"
            self._stop_at(place, message, "use spaces")
        mark = error.problem_mark or error.context_mark
        said = f"{error.context or ''} {error.problem or ''}"
        cause, hint = next(((c, h) for sign, c, h in _CAUSES if sign in said), (error.problem or "", ""))
        if cause in (_OPEN, _NO_COLON) and error.context_mark:
            mark = error.context_mark
        elif cause.startswith("a bracket") and error.context_mark:
            hint = (
                f"it was opened in line {error.context_mark.line + 1}, column {error.context_mark.column + 1}"
            )
        elif error.context_mark and not hint:
            hint = f"{error.context} that starts in line {error.context_mark.line + 1}"
        line, column = _place(mark) if mark else (1, 1)
        message = cause if cause == _DEEP else f"the text does not parse: {cause}"
        self.findings.error(Node(Kind.SCALAR, line, column), message, hint)
        raise _StoppedError from error

    def _add(self, event: events.NodeEvent) -> None:
        self.nodes += 1
        if self.nodes > MAX_NODES:
            self._stop(event, f"more than {MAX_NODES:,} values", "a search space needs far fewer")
        if len(self.open) >= MAX_DEPTH and not isinstance(event, events.ScalarEvent):
            self._stop(event, _DEEP, "a search space needs far less")
        parent, key = (self.open[-1], self.keys[-1]) if self.open else (None, None)
        if parent is None:
            node = self.root = self._node(event, "")
        elif parent.kind is Kind.LIST:
            node = self._node(event, f"{parent.path}[{len(parent.items)}]")
            parent.items.append(node)
        elif key is None:
            node = self._node(event, parent.path)
            if node.kind is not Kind.SCALAR:
                self._stop_at(
                    node,
                    "a key must be a text",
                    "look for a stray `?`, `[` or `{`; fill in a template's `{{ }}`",
                )
            self.keys[-1] = (node.text, (node.line, node.column))
        else:
            node = self._node(event, parent.below(key[0]))
            self.keys[-1] = None
            self._enter(parent, node, *key)
        if node.kind is not Kind.SCALAR:
            self.open.append(node)
            self.keys.append(None)

    def _node(self, event: events.NodeEvent, path: str) -> Node:
        place = _place(event.start_mark)
        node = Node(Kind.SCALAR, *place, path=path, named=place)
        tag = str(getattr(event, "tag", None) or "")
        if isinstance(event, events.AliasEvent):
            node.text = f"*{event.anchor}"
            self.findings.error(node, f"alias *{event.anchor} is not allowed", "write the value out")
            node.unknown = True
            return node
        if isinstance(event, events.ScalarEvent):
            node.text, node.plain = event.value, event.style is None and tag != _TEXT_TAG
            self._check_text(node)
        else:
            node.kind = Kind.MAP if isinstance(event, events.MappingStartEvent) else Kind.LIST
        if event.anchor:
            self.findings.error(node, f"anchor &{event.anchor} is not allowed", "write the value out")
        if tag and tag not in _CORE_TAGS:
            self.findings.error(node, f"tag {tag} is not allowed", "remove it; a file cannot name code")
        return node

    def _enter(self, parent: Node, node: Node, key: str, named: tuple[int, int]) -> None:
        """Put a value into its map; the first of two under one key stays."""
        node.named = named
        if key == "<<":
            # What the merge would bring is not known, so that nothing can be called missing in this map.
            parent.unknown = True
            self.findings.error(node, "merge key << is not allowed", "write the keys out")
            return
        if key not in parent.entries:
            parent.entries[key] = node
            return
        first = parent.entries[key].named[0]
        twice = Node(Kind.SCALAR, *named, path=node.path, text=key)
        message = f"key {key} stands twice in one map: in line {first} and in line {named[0]}"
        self.findings.error(twice, message, "keep one of them")

    def _check_text(self, node: Node) -> None:
        """The limits of a scalar, and what escapes in double quotes can smuggle in."""
        # Of a long path only the end is looked at.
        limit = MAX_ARGUMENT if _ARGUMENTS.search(node.path[-40:]) else MAX_SCALAR
        length = len(node.text)
        self.characters += length
        if length > limit:
            node.text = node.text[:60] + "..."
            self._stop_at(node, f"a text of {length:,} characters; at most {limit:,} are read", "shorten it")
        if self.characters > MAX_TEXT:
            self._stop_at(node, f"more than {MAX_TEXT:,} characters of values", "shorten the file")
        if node.text.isprintable():
            return
        # JSON writes a character beyond U+FFFF as two escapes; half of one stays, and is refused.
        with suppress(UnicodeDecodeError):
            node.text = node.text.encode("utf-16", "surrogatepass").decode("utf-16")
        if control := _CONTROL.search(node.text):
            name = printable(control.group())
            self.findings.error(node, f"control character {name} in a text", "remove it")
            node.text = _CONTROL.sub("?", node.text)

    def _stop(self, event: events.Event, message: str, hint: str) -> None:
        self._stop_at(Node(Kind.SCALAR, *_place(event.start_mark)), message, hint)

    def _stop_at(self, node: Node, message: str, hint: str) -> None:
        self.findings.error(node, message, hint)
        raise _StoppedError


def _top() -> Node:
    return Node(Kind.SCALAR, 1, 1)


def _place(mark: StringMark) -> tuple[int, int]:
    return mark.line + 1, mark.column + 1
