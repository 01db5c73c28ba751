"""Looking into values of which nothing is known: what is not of the shape that is asked for is empty."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hpsearch.ship.lint.finding import Path


def dig(value: Any, *path: str | int) -> Any:
    """What stands at a path, None where nothing does."""
    for step in path:
        if isinstance(step, int):
            if not isinstance(value, list) or step >= len(value):
                return None
            value = value[step]
        else:
            value = value.get(step) if isinstance(value, dict) else None
    return value


def mapping(value: Any, *path: str | int) -> dict[str, Any]:
    """The map at a path; an empty one for anything else."""
    found = dig(value, *path)
    return found if isinstance(found, dict) else {}


def sequence(value: Any, *path: str | int) -> list[Any]:
    """The list at a path; an empty one for anything else."""
    found = dig(value, *path)
    return found if isinstance(found, list) else []


def maps(value: Any, *path: str | int) -> Iterator[tuple[int, dict[str, Any]]]:
    """The maps of the list at a path, each with its place."""
    for place, item in enumerate(sequence(value, *path)):
        if isinstance(item, dict):
            yield place, item


def text(value: Any, *path: str | int) -> str:
    """The text at a path; an empty one for anything else."""
    found = dig(value, *path)
    return found if isinstance(found, str) else ""


def texts(value: Any, *path: str | int) -> list[str]:
    """The texts of the list at a path."""
    return [item for item in sequence(value, *path) if isinstance(item, str)]


def whole(value: Any, *path: str | int) -> int | None:
    """The integer at a path, None for anything else; a truth value is none."""
    found = dig(value, *path)
    return found if isinstance(found, int) and not isinstance(found, bool) else None


def walked(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Every value below one, itself included, with its path."""
    yield path, value
    if isinstance(value, dict):
        for key, part in value.items():
            yield from walked(part, (*path, key))
    elif isinstance(value, list):
        for place, part in enumerate(value):
            yield from walked(part, (*path, place))
