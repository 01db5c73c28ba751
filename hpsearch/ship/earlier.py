"""The other ticks of a schedule: the last one that was completed, and those that run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from hpsearch.errors import HpsearchError
from hpsearch.ship.tick import SCHEDULE, SCHEDULED_TIME, Tick, moment_text
from hpsearch.study.history import History
from hpsearch.study.home import Home
from hpsearch.study.trial import Outcome

# So many that were not completed are looked at before none is found.
PATIENCE = 20


def last_completed(home: Home, tick: Tick) -> History | None:
    """The study of the newest completed tick before this one, None where there is none.

    What cannot be read is passed over: another study's damage is no reason to end this one badly.
    """
    earlier = sorted(_earlier(home, tick), reverse=True)
    for _, name in earlier[:PATIENCE]:
        with suppress(HpsearchError):
            history = home.history(name)
            if history.ending and history.ending.outcome is Outcome.COMPLETED:
                return history
    return None


def running(home: Home, schedule: str) -> list[str]:
    """The studies of a schedule that a driver works on now."""
    return [name for name, _ in _ticks(home, schedule) if home.is_owned(name)]


def _earlier(home: Home, tick: Tick) -> Iterator[tuple[str, str]]:
    """The time and the name of each earlier tick."""
    now = moment_text(tick.time)
    for name, time in _ticks(home, tick.schedule):
        if time < now:
            yield time, name


def _ticks(home: Home, schedule: str) -> Iterator[tuple[str, str]]:
    """The name and the time of each tick of a schedule that can be read."""
    for name in home.names():
        with suppress(HpsearchError):
            reader = home.reader(name)
            try:
                tags = reader.tags()
            finally:
                reader.close()
            if tags.get(SCHEDULE) == schedule:
                yield name, tags.get(SCHEDULED_TIME, "")
