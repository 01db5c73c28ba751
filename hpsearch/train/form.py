"""Which form a trainer has, read from its source: importing a program would already train."""

from __future__ import annotations

import ast
import importlib
import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from importlib.machinery import ModuleSpec, PathFinder

from hpsearch.study.trial import Launch

OFFERS = frozenset({"build", "train"})
READS_COMMAND_LINE = frozenset({"parse_args", "parse_known_args"})


def is_program(launch: Launch) -> bool:
    """True if a launch starts a program of its own: a command, or a module without `build` and `train`.

    False where only an import can tell: no such module, no readable source, a syntax error.
    """
    if launch.program.command:
        return True
    spec = find(launch.module, launch.python_path)
    if spec is None:
        return False
    tree = _tree(spec)
    if tree is None or offers(tree):
        return False
    inside = spec.submodule_search_locations
    return inside is None or PathFinder.find_spec("__main__", list(inside)) is not None


def find(module: str, python_path: Sequence[str] = ()) -> ModuleSpec | None:
    """What an import of a module would find, `python_path` first; None for nothing. Nothing is imported.

    The spec bears only the last part of the module's name, because a full name would need its parents.
    """
    path = [*python_path, *sys.path]
    spec = _walk(module, path)
    if spec is None:
        # Directories are listed from memory, which costs less, unless they have changed this very moment.
        importlib.invalidate_caches()
        spec = _walk(module, path)
    return spec


def _walk(module: str, path: list[str]) -> ModuleSpec | None:
    """Part by part: each package says where its own modules are."""
    first, *parts = module.split(".")
    spec = _top_level(first, path)
    for part in parts:
        inside = spec.submodule_search_locations if spec else None
        spec = PathFinder.find_spec(part, list(inside)) if inside and part else None
    return spec


def _top_level(name: str, path: list[str]) -> ModuleSpec | None:
    """From the path, else from the finders that editable installs add."""
    if not name:
        return None
    found = PathFinder.find_spec(name, path)
    for finder in sys.meta_path:
        found = found or finder.find_spec(name, None)
    return found


def _tree(spec: ModuleSpec) -> ast.Module | None:
    """A module's source as a tree, None if it cannot be read; a package without a source is empty."""
    if spec.loader is None or spec.origin is None:
        return ast.Module([], [])  # a namespace package
    try:
        source = spec.loader.get_source(spec.name)  # type: ignore[attr-defined]
        return None if source is None else ast.parse(source)
    except (AttributeError, ImportError, SyntaxError, ValueError, RecursionError):
        return None


def offers(tree: ast.Module) -> bool:
    """True if a module binds `build` or `train` for us rather than for itself.

    Ordinary programs have functions of these names, too. So `(params, context)` is always ours; anything
    else that could take the two is ours unless the module acts as a program when it is run.
    """
    statements = list(_executed(tree.body))
    functions = {s.name for s in statements if isinstance(s, ast.FunctionDef | ast.AsyncFunctionDef)}
    program = any(_acts(statement, functions | OFFERS) for statement in statements)
    return any(_is_ours(statement) or (not program and _may_be_ours(statement)) for statement in statements)


def _executed(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements that an import executes, those inside of `if` and `try` too."""
    for statement in body:
        yield statement
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        if not _is_guard(statement):
            yield from _executed(getattr(statement, "body", ()))
        yield from _executed(getattr(statement, "orelse", ()))
        yield from _executed(getattr(statement, "finalbody", ()))
        for handler in getattr(statement, "handlers", ()):
            yield from _executed(handler.body)


def _is_guard(statement: ast.stmt) -> bool:
    """`if __name__ == "__main__"`, the sides in any order, with other conditions or without."""
    if not isinstance(statement, ast.If):
        return False
    return any(
        isinstance(node, ast.Compare)
        and {"__name__", "__main__"} <= {_word(node.left), *map(_word, node.comparators)}
        for node in ast.walk(statement.test)
    )


def _word(node: ast.expr) -> object:
    return node.id if isinstance(node, ast.Name) else getattr(node, "value", None)


def _acts(statement: ast.stmt, functions: Iterable[str]) -> bool:
    """True for what only programs do: a main guard, parsing a command line, calling own functions."""
    if isinstance(statement, ast.Expr):
        names = {node.id for node in ast.walk(statement) if isinstance(node, ast.Name)}
        return not names.isdisjoint(functions) or _calls(statement, READS_COMMAND_LINE | OFFERS)
    if isinstance(statement, ast.Assign | ast.AnnAssign | ast.AugAssign):
        return not _binds(statement) and _calls(statement, READS_COMMAND_LINE | OFFERS)
    return _is_guard(statement)


def _calls(statement: ast.stmt, names: frozenset[str]) -> bool:
    calls = (node.func for node in ast.walk(statement) if isinstance(node, ast.Call))
    return any((f.attr if isinstance(f, ast.Attribute) else _word(f)) in names for f in calls)


def _is_ours(statement: ast.stmt) -> bool:
    """A function whose parameters are exactly (params, context)."""
    if not isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef) or statement.name not in OFFERS:
        return False
    args = statement.args
    names = [arg.arg for arg in [*args.posonlyargs, *args.args]]
    return names == ["params", "context"] and not (args.vararg or args.kwonlyargs or args.kwarg)


def _may_be_ours(statement: ast.stmt) -> bool:
    """Something that could be called with params and context, as far as its binding shows."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
        return statement.name in OFFERS and _takes_two(statement.args)
    if isinstance(statement, ast.ClassDef):
        return statement.name in OFFERS
    if isinstance(statement, ast.Import | ast.ImportFrom):
        return any((alias.asname or alias.name) in OFFERS for alias in statement.names)
    if isinstance(statement, ast.Assign | ast.AnnAssign) and _binds(statement):
        value = statement.value
        # Not the result of any other call: `train = read_csv("train.csv")` is data.
        named = isinstance(value, ast.Name | ast.Attribute | ast.Lambda)
        return named or (isinstance(value, ast.Call) and _calls(statement, frozenset({"partial"})))
    return False


def _binds(statement: ast.Assign | ast.AnnAssign | ast.AugAssign) -> bool:
    targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
    return any(isinstance(target, ast.Name) and target.id in OFFERS for target in targets)


def _takes_two(args: ast.arguments) -> bool:
    places = len(args.posonlyargs) + len(args.args)
    required = places - len(args.defaults)
    most = math.inf if args.vararg else places
    return required <= 2 <= most and None not in args.kw_defaults
