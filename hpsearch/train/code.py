"""The code that trials run, as proofs of its files: read, never imported."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from hpsearch.train.form import find

MOST_FILES = 200
LARGEST = 1 << 22  # bytes; a larger file of a command is data


class Code:
    """The files of a trainer: its module and what that imports from beside it, or those that a command names.

    `proofs` reads again only what has changed its time, size or place since.
    """

    def __init__(self, module: str, command: Sequence[str], python_path: Sequence[str]) -> None:
        self._module, self._command, self._path = module, tuple(command), tuple(python_path)
        self._stamps: dict[Path, tuple[int, ...] | None] = {}
        self._proofs: dict[str, str] = {}

    def files(self) -> Mapping[str, Path]:
        """Where each file lies, by its path as `proofs` says it."""
        return dict(self._found())

    def proofs(self) -> Mapping[str, str]:
        """The sha256 of each file, by its path, which starts where trainers are looked for."""
        if not self._stamps or any(_stamp(path) != stamp for path, stamp in self._stamps.items()):
            found = dict(self._found())
            self._stamps = {path: _stamp(path) for path in found.values()}
            self._proofs = {name: proof for name, path in found.items() if (proof := _proof(path))}
        return self._proofs

    def _found(self) -> Iterator[tuple[str, Path]]:
        if self._command:
            for word in self._command:
                for root in self._path:
                    path = Path(root, word)
                    if path.is_file() and path.stat().st_size <= LARGEST:
                        yield word, path
                        break
            return
        spec = find(self._module, self._path)
        if spec is None or spec.origin is None:
            return
        origin = Path(spec.origin)
        parts = self._module.split(".")
        depth = len(parts) + (origin.name == "__init__.py")
        top = origin.parents[depth - 1]
        inside = str(top) in self._path
        # Of an installed package only its own modules: the others have versions.
        roots = [Path(root) for root in self._path] if inside else [top]
        yield from _closure(self._module, roots, "" if inside else parts[0])


def changes(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    """What changed of the code, file by file, in words."""
    said = [f"{name} is gone" for name in old if name not in new]
    said += [f"{name} is new" for name in new if name not in old]
    return said + [
        f"{name} changed (sha256 {old[name][:12]}, now {new[name][:12]})"
        for name in new
        if name in old and old[name] != new[name]
    ]


def _closure(module: str, roots: Sequence[Path], only: str) -> Iterator[tuple[str, Path]]:
    """A module and all that it imports from some directories, `only` of one package if it is named."""
    waiting, seen = [module], set[str]()
    while waiting and len(seen) < MOST_FILES:
        name = waiting.pop(0)
        for dotted in _with_parents(name):
            if dotted in seen or (dotted.partition(".")[0] == "hpsearch" and dotted != module):
                continue
            if only and dotted.partition(".")[0] != only:
                continue
            located = _located(dotted, roots)
            if located is None:
                continue
            seen.add(dotted)
            root, path = located
            yield str(path.relative_to(root)), path
            package = dotted if path.name == "__init__.py" else dotted.rpartition(".")[0]
            waiting += _imports(path, package)


def _with_parents(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[: count + 1]) for count in range(len(parts))]


def _located(dotted: str, roots: Sequence[Path]) -> tuple[Path, Path] | None:
    for root in roots:
        place = root.joinpath(*dotted.split("."))
        for path in (place / "__init__.py", place.with_name(f"{place.name}.py")):
            if path.is_file():
                return root, path
    return None


def _imports(path: Path, package: str) -> list[str]:
    """The full names of what a file imports, wherever in it; none where it is no Python."""
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError):
        return []
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            names += [f"{base}.{alias.name}" if base else alias.name for alias in node.names]
    return names


def _stamp(path: Path) -> tuple[int, ...] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _proof(path: Path) -> str | None:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None
