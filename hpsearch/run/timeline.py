"""When a program's points were: each gets a step that never goes back, and those of one step go together."""

from __future__ import annotations

from hpsearch.run.metric_file import LARGEST_STEP, Point
from hpsearch.study.trial import Measurement
from hpsearch.train.reporter import Reporter


class Timeline:
    """Reports points in the order of their arrival.

    Programs report the tags of one step one by one, and many name no step at all: the library then writes 0.
    So a point whose step is not ahead belongs to the current step, or to the next if its tag has been there.
    """

    def __init__(self, reporter: Reporter) -> None:
        self.step = -1
        self._reporter = reporter
        self._tags: set[str] = set()
        self._waiting: dict[str, object] = {}
        self._time = 0

    def has(self, tag: str) -> bool:
        """Whether a tag has a value at the current step."""
        return tag in self._tags

    def add(self, point: Point) -> None:
        """Give a point its step; it waits for others of that step until `flush`."""
        step = max(point.step, self.step + (point.tag in self._tags))
        if step > self.step:
            self.flush()
            self.step = min(step, LARGEST_STEP - 1)
            self._tags.clear()
        self._tags.add(point.tag)
        self._waiting[point.tag] = point.value
        self._time = point.time

    def flush(self) -> None:
        """Report what waits."""
        if self._waiting:
            waiting, self._waiting = self._waiting, {}
            self._reporter.measure(Measurement(self.step, waiting, self._time))  # type: ignore[arg-type]
