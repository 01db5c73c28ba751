"""Where Ray Tune's hooks meet the Search: forwarding, which knows Tune's trials only by what they offer."""

from __future__ import annotations

import json
import logging
import traceback
from collections.abc import Callable
from typing import Any, TypeVar

from hpsearch import faults
from hpsearch.errors import HpsearchError, Interrupted
from hpsearch.run.local import Deadline, now
from hpsearch.run.wire import decode
from hpsearch.study.search import Search
from hpsearch.study.trial import Ending, Launch, Outcome, State

log = logging.getLogger(__name__)
T = TypeVar("T")


class Desk:
    """Which Tune trial is which attempt, and what the Search says to each; no exception leaves a hook.

    It unpickles to nothing: Tune pickles its searcher and scheduler to disk, which nobody may read back.
    """

    def __init__(self, search: Search) -> None:
        self.search = search
        self.failure: Exception | None = None
        self._attempts: dict[str, tuple[int, int]] = {}
        self._added: set[str] = set()
        self._deadline = Deadline(search)

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def stop(self, reason: str) -> None:
        """Launch nothing more and stop every trial at its next report."""
        self.search.stop(Outcome.INTERRUPTED, reason, now())

    def guarded(self, hook: Callable[[], T], otherwise: T) -> T:
        """Run a hook; its first exception stops the study, because Tune would lose trials over it."""
        try:
            return hook()
        except Exception as error:  # a process boundary: Tune's loop is not ours
            if self.failure is None:
                self.failure = error
                self.stop(f"the driver's loop failed: {error!r}")
            return otherwise

    def raise_failure(self) -> None:
        """Raise what went wrong in the loop, if anything did; a bug leaves its traceback with the study."""
        if self.failure is None:
            return
        if isinstance(self.failure, HpsearchError):
            raise self.failure
        path = self.search.study.directory / "driver-error.txt"
        path.write_text("".join(traceback.format_exception(self.failure)))
        raise Interrupted(
            f"the driver's loop failed: {self.failure!r}",
            hint=f"the traceback is in {path}; `hpsearch resume` goes on from here",
        ) from self.failure

    def suggest(self, trial_id: str) -> dict[str, str] | None:
        """A config for Tune, None for nothing now (or never again: see the search's `over`)."""
        self._deadline.check()
        launch = self.search.suggest(now())
        return self._config(trial_id, launch) if launch else None

    def hear(self, trial: Any, result: dict[str, Any]) -> bool:
        """Take a result; True while Tune's trial goes on. A lost process starts again on its actor."""
        self._deadline.check()
        number, attempt = self._attempts[trial.trial_id]
        reports = [decode(line) for line in result.get("lines", ())]
        with faults.point("tune.report"):
            goes_on = self.search.measure(number, attempt, reports, now())
        if goes_on and result.get("lost"):
            launch = self.search.lost(number, attempt, result["lost"], now())
            if launch is None:
                return False
            log.warning("trial %d: %s; attempt %d follows", number, result["lost"], attempt + 1)
            trial.temporary_state.ray_actor.relaunch.remote(self._config(trial.trial_id, launch))
        return goes_on

    def knows_lost(self, trial: Any) -> bool:
        """True if Tune adds this trial again because its actor was lost or preempted."""
        again = trial.trial_id in self._added
        self._added.add(trial.trial_id)
        return again

    def recover(self, trial: Any) -> None:
        """An actor is gone and Tune starts another: give it the next attempt, or nothing to do."""
        number, attempt = self._attempts[trial.trial_id]
        launch = self.search.lost(number, attempt, "its worker was lost", now())
        config = self._config(trial.trial_id, launch) if launch else {"launch": ""}
        trial.set_config(config)

    def release(self, trial: Any) -> None:
        """Tune is done with a trial; its actor forgets it now rather than at its next launch."""
        actor = trial.temporary_state.ray_actor
        if actor is not None:
            actor.abandon.remote()
        self.search.released(self._attempts[trial.trial_id][0])

    def fail(self, trial_id: str) -> None:
        """Tune gave up on a trial's actors before the Search did."""
        number, _ = self._attempts[trial_id]
        self.search.finish(number, Ending(State.FAILED, "no worker could run it", now()))
        self.search.released(number)

    def _config(self, trial_id: str, launch: Launch) -> dict[str, str]:
        self._attempts[trial_id] = launch.context.number, launch.context.attempt
        return {"launch": json.dumps(launch.to_json())}
