"""The cel door: the rules of a custom resource's schema, evaluated wherever a value has them.

A rule that cannot be evaluated is a fault as much as one that is broken: the API server refuses both.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Set
from typing import Any

from hpsearch.errors import UsageError
from hpsearch.ship.lint.core_schemas import EXTRA, INSTALL
from hpsearch.ship.lint.finding import Fault, Path
from hpsearch.ship.lint.shape import mapping

RULES = "x-kubernetes-validations"
# A rule on what may change needs the object that there was; the server skips it too when one is created.
_TRANSITION = re.compile(r"\boldSelf\b")


def broken(
    schema: dict[str, Any], value: Any, refused: Set[Path] = frozenset(), path: Path = ()
) -> Iterator[Fault]:
    """The rules of a schema that a value breaks, also those below its fields, items and map entries.

    At the paths `refused` only rules that can be evaluated are told.
    """
    if value is None:
        return
    for rule in schema.get(RULES, ()):
        if isinstance(rule, dict) and not _TRANSITION.search(str(rule.get("rule", ""))):
            yield from _applied(rule, value, path, quiet=path in refused)
    if isinstance(value, dict):
        properties, more = mapping(schema, "properties"), mapping(schema, "additionalProperties")
        for key, each in value.items():
            below = properties.get(key, more)
            if isinstance(below, dict):
                yield from broken(below, each, refused, (*path, key))
    elif isinstance(value, list):
        items = mapping(schema, "items")
        for place, each in enumerate(value):
            yield from broken(items, each, refused, (*path, place))


def _applied(rule: dict[str, Any], value: Any, path: Path, *, quiet: bool) -> Iterator[Fault]:
    source = str(rule.get("rule", ""))
    where: Path = path
    if isinstance(field := rule.get("fieldPath"), str):
        where = (*path, *(step for step in field.split(".") if step))
    try:
        held = _program(source).execute({"self": value})
    except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
        if quiet:
            return
        said = f"the rule `{source}` cannot be evaluated: {type(error).__name__}: {error}"
        yield Fault(where, said[:300], remedy="the API server refuses the object; look at the types in it")
        return
    if held is not True:
        message = str(rule.get("message") or f"the rule `{source}` does not hold").strip()
        yield Fault(where, message, remedy=f"the schema demands {source}")


@functools.cache
def _program(source: str) -> Any:
    try:
        import cel
    except ModuleNotFoundError:
        raise UsageError(EXTRA, hint=INSTALL) from None
    return cel.compile(source)
