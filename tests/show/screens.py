"""What the tests of the console print on, and what they print."""

from __future__ import annotations

import io
from typing import Any

from hpsearch.show import lines
from hpsearch.study.history import History
from hpsearch.study.trial import Outcome, StudyEnding


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def summary(history: History, outcome: Outcome, **changes: Any) -> lines.Summary:
    commands = lines.commands("demo", home="my home", embedded=True, local=True, address=None)
    ending = StudyEnding(outcome, "so it ended")
    values = {"undelivered": 0, "problem": None, "tracking_uri": "http://host", "commands": commands}
    return lines.Summary(history, ending, **(values | changes))
