"""The PyYAML door: a stream of YAML or JSON becomes documents with the line of every value, within limits.

Unlike a search space, a manifest may be of others: anchors, aliases and merge keys are read, as kubectl does.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hpsearch.ship.lint.finding import Path
from hpsearch.ship.lint.scalars import scalar

if TYPE_CHECKING:
    from yaml.events import Event

MAX_BYTES = 10_000_000
MAX_DEPTH = 100
MAX_VALUES = 500_000
MAX_DOCUMENTS = 5_000

_CORE = "tag:yaml.org,2002:"
_TAGS = {"!"} | {_CORE + name for name in ("str", "int", "float", "bool", "null", "map", "seq", "timestamp")}


@dataclass(frozen=True, slots=True)
class Problem:
    """What keeps a text, or a part of it, from being read."""

    line: int
    path: Path
    message: str
    hint: str


@dataclass(slots=True)
class Document:
    """One document of a stream: its value as JSON would hold it, and the line of each path."""

    value: Any = None
    line: int = 1
    lines: dict[Path, int] = field(default_factory=dict)

    def at(self, path: Path) -> int:
        """The line of a path, or of the nearest thing around it that stands in the text."""
        while path:
            if path in self.lines:
                return self.lines[path]
            path = path[:-1]
        return self.line


class _Refused(Exception):
    """The stream cannot be read on; holds the problem."""

    def __init__(self, line: int, message: str, hint: str) -> None:
        super().__init__(message)
        self.problem = Problem(line, (), message, hint)


@dataclass(slots=True)
class _Tree:
    """A value as it stands: where, and how many values it is when all its aliases are written out."""

    line: int
    value: Any = None
    size: int = 1
    # Of a map or list: its parts, the key's line first.
    parts: dict[str | int, tuple[int, _Tree]] = field(default_factory=dict)
    merged: list[_Tree] = field(default_factory=list)


def read(text: str) -> tuple[list[Document], list[Problem]]:
    """The documents of a text that are not empty, and what is wrong with it. Never raises for bad text."""
    problems: list[Problem] = []
    if len(text) > MAX_BYTES:
        return [], [Problem(1, (), f"{len(text):,} characters; at most {MAX_BYTES:,} are read", "split it")]
    documents = []
    try:
        for tree in _Reader(text, problems).trees():
            if tree.value is not None:
                document = Document(tree.value, tree.line)
                _place(tree, (), document.lines)
                documents.append(document)
    except _Refused as refused:
        problems.append(refused.problem)
    return documents, problems


def _place(tree: _Tree, path: Path, lines: dict[Path, int]) -> None:
    """Note the line of every path. The depth is bounded, and so is the count, with aliases written out."""
    for key, (line, part) in tree.parts.items():
        below = (*path, key)
        lines[below] = line
        _place(part, below, lines)


class _Reader:
    """Builds trees from the parser's events, which come in C where libyaml is there."""

    def __init__(self, text: str, problems: list[Problem]) -> None:
        self._text = text
        self._problems = problems
        self._anchors: dict[str, _Tree | None] = {}
        self._values = 0

    def trees(self) -> Iterator[_Tree]:
        """The tree of each document. Raises _Refused where reading ends."""
        from yaml import events

        stream = self._events()
        count = 0
        for event in stream:
            if isinstance(event, events.DocumentStartEvent):
                count += 1
                self._anchors, self._values = {}, 0
                if count > MAX_DOCUMENTS:
                    raise _Refused(_line(event), f"more than {MAX_DOCUMENTS:,} documents", "split the file")
                yield self._tree(next(stream), stream, 0, ())

    def _events(self) -> Iterator[Event]:
        import yaml

        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        try:
            yield from yaml.parse(self._text, Loader=loader)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line = mark.line + 1 if mark else 1
            why = " ".join(part for part in (error.context, error.problem) if part)
            hint = "look at the indentation and quotes of this line and the one before"
            raise _Refused(line, f"not YAML: {why}", hint) from None
        except yaml.reader.ReaderError as error:
            line = self._text.count("\n", 0, max(error.position, 0)) + 1
            raise _Refused(line, f"not YAML: {error.reason}", "a manifest is UTF-8 text") from None
        except (yaml.YAMLError, UnicodeError, ValueError) as error:
            raise _Refused(1, f"not YAML: {error}", "a manifest is UTF-8 text") from None

    def _tree(self, event: Event, stream: Iterator[Event], depth: int, path: Path) -> _Tree:
        from yaml import events

        if depth > MAX_DEPTH:
            raise _Refused(_line(event), f"nested more than {MAX_DEPTH} deep", "no manifest is so deep")
        if isinstance(event, events.AliasEvent):
            tree = self._alias(event)
        else:
            anchor, tag = getattr(event, "anchor", None), getattr(event, "tag", None)
            if tag and tag not in _TAGS:
                raise _Refused(_line(event), f"the tag {tag} is not read", "remove it")
            if anchor:
                self._anchors[anchor] = None
            if isinstance(event, events.MappingStartEvent):
                tree = self._map(event, stream, depth, path)
            elif isinstance(event, events.SequenceStartEvent):
                tree = self._list(event, stream, depth, path)
            else:
                tree = _Tree(_line(event), self._scalar(event))
            if anchor:
                self._anchors[anchor] = tree
        self._values += tree.size if isinstance(event, events.AliasEvent) else 1
        if self._values > MAX_VALUES:
            message = f"more than {MAX_VALUES:,} values when the aliases are written out"
            raise _Refused(_line(event), message, "a text that grows so is not read")
        return tree

    def _alias(self, event: Any) -> _Tree:
        tree = self._anchors.get(event.anchor)
        if tree is None:
            known = event.anchor in self._anchors
            message = (
                f"alias *{event.anchor} {'stands inside of what it names' if known else 'names nothing'}"
            )
            raise _Refused(_line(event), message, "write the value out")
        return tree

    def _scalar(self, event: Any) -> Any:
        plain = event.implicit[0] or (event.tag or "").rpartition(":")[2] in ("int", "float", "bool", "null")
        return scalar(event.value) if plain else event.value

    def _list(self, event: Event, stream: Iterator[Event], depth: int, path: Path) -> _Tree:
        from yaml import events

        tree = _Tree(_line(event), [])
        while not isinstance(item := next(stream), events.SequenceEndEvent):
            place = len(tree.value)
            part = self._tree(item, stream, depth + 1, (*path, place))
            tree.value.append(part.value)
            tree.parts[place] = (_line(item), part)
            tree.size += part.size
        return tree

    def _map(self, event: Event, stream: Iterator[Event], depth: int, path: Path) -> _Tree:
        from yaml import events

        tree = _Tree(_line(event), {})
        while not isinstance(name := next(stream), events.MappingEndEvent):
            key = self._key(name)
            part = self._tree(next(stream), stream, depth + 1, (*path, key))
            tree.size += part.size
            if key == "<<":
                tree.merged.append(part)
            elif key in tree.value:
                first = tree.parts[key][0]
                message = f"the key {key!r} stands twice in one map: lines {first} and {_line(name)}"
                self._problems.append(Problem(_line(name), (*path, key), message, "keep one of them"))
            else:
                tree.value[key] = part.value
                tree.parts[key] = (_line(name), part)
        for part in tree.merged:
            self._merge(tree, part)
        return tree

    def _key(self, event: Any) -> str:
        from yaml import events

        if isinstance(event, events.AliasEvent):
            named = self._alias(event).value
            if isinstance(named, str):
                return named
        if not isinstance(event, events.ScalarEvent):
            raise _Refused(_line(event), "a key must be a text", "look for a stray `?`, `[` or `{{ }}`")
        if event.anchor:
            self._anchors[event.anchor] = _Tree(_line(event), event.value)
        return str(event.value)

    def _merge(self, tree: _Tree, part: _Tree) -> None:
        """What a merge key brings: maps; the first that has a key wins, but never over the map's own."""
        if isinstance(part.value, list):
            for _, each in part.parts.values():
                self._merge(tree, each)
        elif isinstance(part.value, dict):
            for key, below in part.parts.items():
                if key not in tree.value:
                    tree.value[str(key)] = below[1].value
                    tree.parts[key] = below
        else:
            raise _Refused(part.line, "a merge key << brings no map", "name a map, or a list of maps")


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1
