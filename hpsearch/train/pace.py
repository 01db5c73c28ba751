"""How many reports of one trial go out: all of them up to a pace, beyond it those that matter."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

# So many reports at any speed, then so many a second. A store takes some thousands a second from all trials.
BURST, RATE = 2000, 50.0
Value = tuple[int, float, int]  # step, value, milliseconds since the epoch


class Pace:
    """Says which measurements go out at once, and keeps the last value of each metric of those that do not.

    The first measurement at or after each multiple of `every` goes out whatever the pace, up to step `until`:
    at these trials are compared. The clock is that of the measurements, so that a history that is read late
    is no faster than it was made. `dropped` counts values that a later one has replaced.
    """

    def __init__(self, every: int, until: int) -> None:
        self.dropped = 0
        self._every, self._until = every, until
        self._room = float(BURST)
        self._time = 0
        self._step = -1  # the last that went out
        self._held: dict[str, Value] = {}

    def goes_out(self, step: int, time: int) -> bool:
        """Whether a measurement of a step goes out now; the other metrics of a step do if the first has."""
        if step == self._step:
            return True
        self._refill(time)
        due = step <= self._until and step // self._every > max(0, self._step) // self._every
        if not due and self._room < 1:
            return False
        self._room = max(0.0, self._room - 1)
        self._step = step
        return True

    def hold(self, step: int, metrics: Mapping[str, float], time: int) -> None:
        """Keep what did not go out."""
        self.dropped += len(self._held.keys() & metrics.keys())
        self._held |= {name: (step, value, time) for name, value in metrics.items()}

    def held(self, newer: Mapping[str, float] | None = None) -> Iterator[tuple[int, dict[str, float], int]]:
        """Give up what is kept, in the order of its steps, but for what is `newer`."""
        held, self._held = self._held, {}
        for name in held.keys() & (newer or {}).keys():
            del held[name]
            self.dropped += 1
        by_step: dict[int, dict[str, float]] = {}
        for name, (step, value, _) in sorted(held.items(), key=lambda each: each[1][0]):
            by_step.setdefault(step, {})[name] = value
        times = {step: time for step, _, time in held.values()}
        for step, metrics in by_step.items():
            self._step = max(self._step, step)
            yield step, metrics, times[step]

    def has_room(self, time: int) -> bool:
        """Whether what is kept may go out now."""
        self._refill(time)
        return bool(self._held) and self._room >= 1

    def _refill(self, time: int) -> None:
        self._room = min(BURST, self._room + max(0, time - self._time) * RATE / 1000)
        self._time = max(self._time, time)
