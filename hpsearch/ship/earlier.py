"""The tick before: of all studies of a home the last one of the same schedule that was completed."""

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


def _earlier(home: Home, tick: Tick) -> Iterator[tuple[str, str]]:
    """The time and the name of each earlier tick."""
    now = moment_text(tick.time)
    for name in home.names():
        with suppress(HpsearchError):
            reader = home.reader(name)
            try:
                tags = reader.tags()
            finally:
                reader.close()
            time = tags.get(SCHEDULED_TIME, "")
            if tags.get(SCHEDULE) == tick.schedule and time < now:
                yield time, name
