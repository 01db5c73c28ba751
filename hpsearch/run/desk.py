"""Where Ray Tune's hooks meet the Search: forwarding, which knows Tune's trials only by what they offer."""

from __future__ import annotations

import json
import logging
import os
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from hpsearch import faults
from hpsearch.errors import HpsearchError, Interrupted
from hpsearch.redaction import redact
from hpsearch.run.local import Deadline, now
from hpsearch.run.relay import Relay
from hpsearch.run.wire import decode
from hpsearch.study.search import Search
from hpsearch.study.trial import Cause, Ending, Launch, Outcome, State

log = logging.getLogger(__name__)
T = TypeVar("T")
ERROR_FILE = "driver-error.txt"
NOTHING = {"launch": ""}  # a config that starts nothing


class Desk:
    """Which Tune trial is which attempt, and what the Search says to each; no exception leaves a hook.

    Hooks are called on the thread of Tune's loop and carried out on the main one. It unpickles to nothing:
    Tune pickles its searcher and scheduler to disk, which nobody may read back.
    """

    def __init__(self, search: Search) -> None:
        self.search = search
        self.relay = Relay()
        self.failure: Exception | None = None
        self.refused = 0  # results of attempts that are over
        self.heard = time.monotonic()  # when a worker last said anything
        self.placed = False  # whether any worker ever did
        self.stopped: float | None = None  # since when nothing more starts
        self._attempts: dict[str, tuple[int, int]] = {}
        self._added: set[str] = set()
        self._parting: set[str] = set()
        self._preempted: dict[str, str] = {}  # and why
        self._deadline = Deadline(search)

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def stop(self, reason: str) -> None:
        """Launch nothing more and stop every trial at its next report."""
        self.search.stop(Outcome.INTERRUPTED, reason, now())

    def expire(self, reason: str) -> None:
        """The same, because a deadline has passed."""
        self.search.stop(Outcome.DEADLINE, reason, now())

    def look(self) -> None:
        """Look at the clock, also while no worker says anything."""
        self._deadline.check()
        if self.stopped is None and self.search.over:
            self.stopped = time.monotonic()

    def guarded(self, hook: Callable[[], T], otherwise: T) -> T:
        """Run a hook; its first exception stops the study, because Tune would lose trials over it."""
        return self.relay.ask(lambda: self._contained(hook, otherwise), otherwise)

    def _contained(self, hook: Callable[[], T], otherwise: T) -> T:
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
        path = self.search.study.directory / ERROR_FILE
        hint = "`hpsearch resume` goes on from here"
        try:
            _write(path, redact("".join(traceback.format_exception(self.failure))))
            hint = f"the traceback is in {path}; {hint}"
        except OSError as error:  # a full disk may be what failed
            log.warning("the traceback could not be written to %s: %s", path, error)
        raise Interrupted(f"the driver's loop failed: {self.failure!r}", hint=hint) from self.failure

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """A config for Tune, None for nothing now (or never again: see the search's `over`)."""
        self._deadline.check()
        launch = self.search.suggest(now())
        return self._config(trial_id, launch) if launch else None

    def hear(self, trial: Any, result: dict[str, Any]) -> bool:
        """Take a result; True while Tune's trial goes on. A lost process starts again on its actor."""
        self._deadline.check()
        self.heard, self.placed = time.monotonic(), True
        number, attempt = self._attempts[trial.trial_id]
        by = result.get("by")
        if by is not None and tuple(by) != (number, attempt, self.search.epoch):
            self._refuse(number, attempt, by)
            return True
        reports = [decode(line) for line in result.get("lines", ())]
        with faults.point("tune.report"):
            goes_on = self.search.measure(number, attempt, reports, now())
        if self.search.trials[number].ending is not None:
            return False
        if result.get("parted"):
            self._preempted[trial.trial_id] = result.get("why") or "its worker was preempted"
            return goes_on
        if not goes_on:
            return self._part(trial, bool(result.get("lost")))
        if result.get("lost"):
            return self._again(trial, result)
        return True

    def knows_lost(self, trial: Any) -> bool:
        """True if Tune adds this trial again because its actor was lost or preempted."""
        again = trial.trial_id in self._added
        self._added.add(trial.trial_id)
        return again

    def recover(self, trial_id: str, *, node_lost: bool) -> dict[str, Any]:
        """An actor is gone and Tune starts another: a config with the next attempt, or with nothing to do."""
        number, attempt = self._attempts[trial_id]
        reason, cause = "its worker was lost", Cause.CRASHED
        if why := self._preempted.pop(trial_id, ""):
            reason, cause = why, Cause.PREEMPTED
        elif node_lost:
            reason, cause = "its node was lost", Cause.PREEMPTED
        launch = self.search.lost(number, attempt, reason, now(), cause)
        if launch is None:
            return NOTHING
        log.warning("trial %d: %s; attempt %d follows", number, reason, launch.context.attempt)
        return self._config(trial_id, launch)

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

    def _again(self, trial: Any, result: dict[str, Any]) -> bool:
        """Start the next attempt where the last one's process was lost; False if there is none."""
        number, attempt = self._attempts[trial.trial_id]
        cause = Cause(result.get("cause", Cause.CRASHED))
        launch = self.search.lost(number, attempt, result["lost"], now(), cause)
        if launch is None:
            return False
        log.warning("trial %d: %s; attempt %d follows", number, result["lost"], attempt + 1)
        trial.temporary_state.ray_actor.relaunch.remote(self._config(trial.trial_id, launch))
        return True

    def _part(self, trial: Any, lost: bool) -> bool:
        """The study stops: ask an unfinished trial once to keep its state; its answer is the last result."""
        if lost or trial.trial_id in self._parting or self.failure is not None:
            return False
        self._parting.add(trial.trial_id)
        trial.temporary_state.ray_actor.part.remote()
        return True

    def _refuse(self, number: int, attempt: int, by: list[int]) -> None:
        self.refused += 1
        log.warning("trial %d: a report of trial %d, attempt %d, epoch %d came too late", number, *by)
        log.debug("trial %d is in attempt %d of epoch %d", number, attempt, self.search.epoch)

    def _config(self, trial_id: str, launch: Launch) -> dict[str, Any]:
        number, attempt = launch.context.number, launch.context.attempt
        self._attempts[trial_id] = number, attempt
        # What a result must bear to be believed: a worker that was cut off may speak for an earlier attempt.
        return {"launch": json.dumps(launch.to_json()), "by": [number, attempt, self.search.epoch]}


def _write(path: Path, text: str) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
    with os.fdopen(os.open(path, flags, 0o600), "w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(text)
