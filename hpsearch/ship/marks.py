"""A block of lines between two marks in a file that is somebody's: crontab, scrontab."""

from __future__ import annotations

import re

from hpsearch.errors import UsageError


def begin(name: str) -> str:
    """The line above the block of a schedule."""
    return f"# begin hpsearch schedule {name}"


def end(name: str) -> str:
    """The line below it."""
    return f"# end hpsearch schedule {name}"


def replaced(text: str, name: str, block: str) -> str:
    """The text with a schedule's block at its end, in place of an older one; all other lines as they are.

    Raises UsageError unless there are both marks once, in order, or none.
    """
    first, last = begin(name), end(name)
    whole = text if text.endswith("\n") or not text else text + "\n"
    marks = [line for line in whole.split("\n") if line in (first, last)]
    if marks not in ([], [first, last]):
        raise UsageError(
            f"the block of schedule {name!r} is not between one pair of marks",
            hint=f"look for the line {first!r}, and put it right by hand",
        )
    pattern = rf"^{re.escape(first)}\n.*?^{re.escape(last)}\n"
    return re.sub(pattern, "", whole, flags=re.MULTILINE | re.DOTALL) + block
