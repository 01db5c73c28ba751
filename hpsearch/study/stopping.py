"""When a study ends before all its trials are run: Vertex AI's `studyStoppingConfig`, folded from endings."""

from __future__ import annotations

from hpsearch.spec.model import Stopping
from hpsearch.study.front import costs
from hpsearch.study.trial import State, Study, Trial


class StoppingRule:
    """Asked at any time (milliseconds since the epoch) whether the study shall stop; a yes is for ever.

    The rules are looked at in their documented order; a minimum that is not reached blocks those behind it.
    Source: Vertex AI, `StudySpec.StudyStoppingConfig`; durations count from the study's creation.
    """

    def __init__(self, study: Study) -> None:
        self._spec = study.spec
        self._rules = study.spec.stopping
        self._active = self._rules != Stopping()
        self._created = study.created
        self._best: tuple[float, ...] | None = None
        self._improved = study.created
        self._since = 0  # trials that ended since the best improved
        self._completed = 0
        self.reason = ""

    @property
    def at_once(self) -> bool:
        """Whether running trials shall stop, too."""
        return bool(self.reason) and self._rules.as_soon_as_possible

    def ended(self, trial: Trial) -> None:
        """Take note of an ending; they come in the order of their times."""
        if not self._active or trial.ending is None:
            return
        self._since += 1
        if trial.state is not State.COMPLETED:
            return
        self._completed += 1
        found = costs(trial, self._spec)
        if found and (self._best is None or found < self._best):
            self._best, self._improved, self._since = found, trial.ending.time, 0

    def check(self, now: int, started: int) -> None:
        """Look at the clock and the counts; `started` are the study's trials so far."""
        if self._active and not self.reason:
            self.reason = self._verdict(now, started)

    def _verdict(self, now: int, started: int) -> str:
        rules, age = self._rules, (now - self._created) / 1000
        if rules.min_runtime is not None and age < rules.min_runtime:
            return ""
        if rules.min_end is not None and now < rules.min_end:
            return ""
        if rules.max_runtime is not None and age >= rules.max_runtime:
            return f"it has run for {age:.0f} s (maximumRuntimeConstraint {rules.max_runtime:g} s)"
        if rules.max_end is not None and now >= rules.max_end:
            return "the end time of maximumRuntimeConstraint has come"
        if rules.min_trials is not None and self._completed < rules.min_trials:
            return ""
        if rules.max_trials is not None and started >= rules.max_trials:
            return f"{started} trials have started (maxNumTrials)"
        if rules.max_trials_no_progress is not None and self._since >= rules.max_trials_no_progress:
            return f"the best has not improved for {self._since} trials (maxNumTrialsNoProgress)"
        idle = (now - self._improved) / 1000
        if rules.max_seconds_no_progress is not None and idle >= rules.max_seconds_no_progress:
            return f"the best has not improved for {idle:.0f} s (maxDurationNoProgress)"
        return ""
