"""What batch jobs ask of `run` beside a study: its tick, a status file, a webhook, what changed."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Any, Self

import typer

from hpsearch.errors import HpsearchError, Interrupted
from hpsearch.redaction import redact
from hpsearch.show import answers, lines
from hpsearch.study.front import best_of
from hpsearch.study.trial import Entry, Outcome, State, Study

if TYPE_CHECKING:
    from hpsearch.ship.changes import Changes
    from hpsearch.ship.tick import Tick
    from hpsearch.ship.webhook import Webhook
    from hpsearch.show.console import Console
    from hpsearch.spec.model import Problem
    from hpsearch.study.home import Home
    from hpsearch.study.search import Search
    from hpsearch.sweep import Result

Tags = Annotated[
    list[str] | None,
    typer.Option(
        "--tag",
        metavar="KEY=VALUE",
        envvar="HPSEARCH_TAGS",
        help="A tag for the runs of a new study; repeatable, or several with spaces between in the variable.",
    ),
]
Schedule = Annotated[
    str | None,
    typer.Option(
        "--schedule",
        metavar="NAME",
        envvar="HPSEARCH_SCHEDULE",
        help="This is a tick of that schedule: its time names the study.",
    ),
]
ScheduledTime = Annotated[
    str | None,
    typer.Option(
        "--scheduled-time",
        metavar="TIME",
        envvar="HPSEARCH_SCHEDULED_TIME",
        help='Its time: 2026-11-25T01:17:00Z; or the newest that was due: "17 2 * * * Europe/Berlin".',
    ),
]
StatusPath = Annotated[
    Path | None,
    typer.Option("--status-file", metavar="FILE", help="Keep state, counts and exit code there, as JSON."),
]
WebhookEnv = Annotated[
    str | None,
    typer.Option(
        "--webhook-env",
        metavar="VAR",
        help="Post the end to the address that a variable holds [HPSEARCH_WEBHOOK, if set].",
    ),
]
WebhookFile = Annotated[
    Path | None,
    typer.Option("--webhook-file", metavar="FILE", help="Post the end to the address that this file holds."),
]

ERROR = "error"
WEBHOOK = "HPSEARCH_WEBHOOK"
MARK = "webhook.posted"
# Between two counts for the status file (seconds).
COUNTING = 10.0
# Who interrupts a driver waits for it to go: one try, and a short one (seconds).
HASTY = 3.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Batch:
    """What was asked for; `tick` is None for a study of no schedule."""

    tick: Tick | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    status_file: Path | None = None
    webhook: Webhook | None = None

    @property
    def study(self) -> str | None:
        """The name of the tick's study."""
        return self.tick.study if self.tick else None


def batch(
    file: Path,
    tag: Sequence[str] | None,
    schedule: str | None,
    scheduled_time: str | None,
    status_file: Path | None,
    webhook_env: str | None,
    webhook_file: Path | None,
) -> Batch:
    """What the options mean. Raises UsageError."""
    from hpsearch.ship.tick import SWEEP, given_tags, tick
    from hpsearch.ship.webhook import webhook

    found = tick(schedule or None, scheduled_time or None, datetime.now(UTC))
    if webhook_env is None and webhook_file is None and os.environ.get(WEBHOOK):
        webhook_env = WEBHOOK
    tags = given_tags(tag or ()) | dict(found.tags if found else {})
    hook = webhook(webhook_env, webhook_file)
    if webhook_env:
        os.environ.pop(webhook_env, None)  # no trial needs it
    return Batch(found, {SWEEP: file.stem} | tags if tags else {}, status_file, hook)


class Report:
    """Tells a driver's life to whoever asked for it, beside the console; a Watcher of runs."""

    def __init__(self, asked: Batch, study: str | None, studies: Home, console: Console) -> None:
        from hpsearch.ship.status_file import StatusFile

        self._asked = asked
        self._study = study
        self._studies = studies
        self._console = console
        self._status = StatusFile(asked.status_file) if asked.status_file else None
        self._search: Search | None = None
        self._counted = 0.0
        self._was_over = False
        self._told = False

    def __enter__(self) -> Self:
        if self._status:
            self._status.__enter__()
            self._status.tell(self._named())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and not self._told:
            self._failed(error)
        if self._status:
            self._status.__exit__(kind, error, trace)

    def warned(self, file: str, warnings: Sequence[Problem]) -> None:
        """See Watcher."""
        self._console.warned(file, warnings)

    def started(self, study: Study, search: Search, tracking_uri: str, resumed: bool) -> None:
        """See Watcher."""
        self._search, self._was_over = search, search.over
        self._count()
        self._console.started(study, search, tracking_uri, resumed)

    def committed(self, entries: Sequence[Entry]) -> None:
        """See Watcher."""
        if self._status and time.monotonic() - self._counted > COUNTING:
            self._count()
        self._console.committed(entries)

    def stopped(self) -> None:
        """See Watcher."""
        self._console.stopped()

    def answer(self, result: Result) -> tuple[answers.Json, list[str]]:
        """What `run --json` says of a tick, and what people are told; nothing where it is none."""
        if self._asked.tick is None:
            return {}, []
        found = self._changes(result)
        said = found.lines() if found else []
        if found is None and result.ending.outcome is not Outcome.INTERRUPTED:
            said = [f"this is the first completed tick of schedule {self._asked.tick.schedule}"]
            said *= result.ending.outcome is Outcome.COMPLETED
        return dict(self._asked.tick.tags) | {"changes": found.to_json() if found else None}, said

    def ended(self, result: Result, exit_code: int, extra: answers.Json, said: Sequence[str]) -> None:
        """Say how it ended: in the status file, then by the webhook, whose failure changes nothing."""
        self._told = True
        history, ending = result.history, result.ending
        facts = _facts(history.study, history.trials)
        if self._status:
            self._status.end(str(ending.outcome), exit_code, redact(ending.reason), facts)
        mark = history.study.directory / MARK
        if self._asked.webhook is None or (self._was_over and mark.exists()):
            return
        counts = lines.counts({state: facts["counts"][str(state)] for state in State})
        planned = lines.counted(history.study.spec.max_trials, "trial")
        text = [
            f"study {history.study.name} {ending.outcome}: {ending.reason}",
            f"{counts} of {planned}",
            *said,
        ]
        told = {"outcome": str(ending.outcome), "exit_code": exit_code, "reason": redact(ending.reason)}
        interrupted = ending.outcome is Outcome.INTERRUPTED
        if self._post(text, facts | told | extra, hasty=interrupted) and not interrupted:
            try:
                mark.touch(mode=0o600)
            except OSError as error:
                _log.warning("%s cannot be written, a resume posts again: %s", mark, error.strerror)

    def _changes(self, result: Result) -> Changes | None:
        """What changed since the last completed tick; None where there is none, or this one is not over."""
        if self._asked.tick is None or result.ending.outcome is Outcome.INTERRUPTED:
            return None
        from hpsearch.ship.changes import changes
        from hpsearch.ship.earlier import last_completed

        try:
            then = last_completed(self._studies, self._asked.tick)
        except HpsearchError as error:
            _log.warning("what changed since the last tick is not known: %s", error.message)
            return None
        return changes(then, result.history) if then else None

    def _failed(self, error: BaseException) -> None:
        """An error before there was an ending, or instead of one."""
        known = isinstance(error, HpsearchError)
        code = error.exit_code if isinstance(error, HpsearchError) else 1
        outcome = str(Outcome.INTERRUPTED) if isinstance(error, Interrupted) else ERROR
        reason = redact(
            error.message if isinstance(error, HpsearchError) else f"{type(error).__name__}: {error}"
        )
        facts = self._seen() if known else {}
        if self._status:
            self._status.end(outcome, code, reason, facts)
        if self._asked.webhook:
            name = facts.get("study") or self._study or "a study"
            told = {"outcome": outcome, "exit_code": code, "reason": reason}
            self._post([f"{name} {outcome}: {reason}"], self._named() | facts | told, hasty=code == 75)

    def _post(self, text: Sequence[str], facts: answers.Json, *, hasty: bool) -> bool:
        hook = self._asked.webhook
        assert hook is not None
        told = {"hpsearch": self._named() | facts}
        said = redact("\n".join(text))
        return hook.post(said, told, tries=1, timeout=HASTY) if hasty else hook.post(said, told)

    def _count(self) -> None:
        if self._status:
            self._status.tell(self._seen())
        self._counted = time.monotonic()

    def _seen(self) -> answers.Json:
        return _facts(self._search.study, list(self._search.trials.values())) if self._search else {}

    def _named(self) -> answers.Json:
        return {"study": self._study, **(self._asked.tick.tags if self._asked.tick else {})}


def _facts(study: Study, trials: Sequence[Any]) -> answers.Json:
    winner = best_of(trials, study)
    best = answers.trial(winner, study) if winner else None
    return {
        "study": study.name,
        "counts": answers.counts(trials),
        "best": best,
        "metric": study.spec.objective.metric,
        "goal": str(study.spec.objective.goal),
    }
