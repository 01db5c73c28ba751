"""The MLflow door: runs are found, made, fed and ended through MlflowClient; nothing else imports mlflow.

Fluent calls and autolog would set process-wide state, and the asynchronous mode only logs its failures:
neither is used. Every method raises ServiceUnavailable where asking again may help, Refused where it
never will.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import sqlite3
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from hpsearch import faults
from hpsearch.errors import ServiceUnavailable
from hpsearch.track.rows import INTERRUPTED, STUDY_UID, Param, Point, Row, Tag
from hpsearch.track.uri import local_database
from hpsearch.track.verdict import Refused, TimedOut, asked

THREAD_NAME = "hpsearch-outbox"
ROWS_PER_REQUEST = 1_000
EXPERIMENTS_PER_REQUEST = 500

_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    # The outbox backs off by itself; MLflow's own retries would hold one request for minutes.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    # Else set_terminated prints to stdout and reads the run again, a second request.
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}

# The time for one answer (seconds), read by MLflow at each request. It doubles while none comes in time: a
# server that is slow rather than away would otherwise carry out every request and never be believed.
TIMEOUT = "MLFLOW_HTTP_REQUEST_TIMEOUT"
FIRST_TIMEOUT, LONGEST_TIMEOUT = 10, 80

Answer = TypeVar("Answer")


@dataclass(slots=True)
class Run:
    """One run as MLflow has it; `active` is False once a user deleted it."""

    run_id: str
    status: str = "RUNNING"
    active: bool = True
    tags: dict[str, str] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)
    size: int = 0

    def unheard(self, tags: Mapping[str, str]) -> dict[str, str]:
        """The tags that the run does not have yet."""
        return {name: text for name, text in tags.items() if self.tags.get(name) != text}

    def forget(self) -> None:
        """Drop what only a live run needs, so that thousands of ended ones weigh little."""
        self.tags, self.params = {}, {}

    @property
    def interrupted(self) -> bool:
        """True if it was closed because its driver stopped, not because its trial ended."""
        return self.tags.get("state") == INTERRUPTED


class Runs:
    """The runs of one experiment; `running` looks at all of a server's."""

    # What an earlier one in this process set, to tell it from what the user did.
    _set: ClassVar[str] = ""

    def __init__(self, uri: str, experiment: str, artifact_root: Path | None) -> None:
        self._uri = uri
        self._experiment = experiment
        self._artifact_root = artifact_root
        self._experiment_id = ""
        self._client: Any = None
        self._entities: Any = None
        self._timeout = FIRST_TIMEOUT

    def connect(self) -> None:
        """Import MLflow and open the store; a new database gets its tables here (seconds)."""
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        if os.environ.get(TIMEOUT, Runs._set) == Runs._set:
            self._wait(FIRST_TIMEOUT)
        else:
            self._timeout = LONGEST_TIMEOUT  # somebody has said what it is to be
        warnings.filterwarnings("ignore", module=r"mlflow\.")
        self._asked(self._connect)

    def _connect(self) -> None:
        import mlflow.entities
        from mlflow.tracking import MlflowClient

        for handler in logging.getLogger("mlflow").handlers:
            handler.addFilter(_unless_mlflow_here)
        self._entities = mlflow.entities
        if (database := local_database(self._uri)) and not database.exists():
            _make_database(database, self._artifact_root or database.parent / "mlartifacts")
        self._client = MlflowClient(tracking_uri=self._uri, registry_uri=self._uri)
        # What was imported stays: a collection that looks through it all would stall the driver's loop.
        gc.freeze()

    def settle(self) -> None:
        """Move what SQLite keeps beside an embedded database into its file, which is then whole by itself."""
        database = local_database(self._uri)
        if database and database.exists():
            with (
                contextlib.suppress(sqlite3.Error),
                contextlib.closing(sqlite3.connect(database)) as connection,
            ):
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def open_experiment(self, tags: Mapping[str, str], run_id: str | None = None) -> bool:
        """Find the experiment, by a known run or by its name; restore a deleted one, make a missing one.

        True if it had to be restored or made.
        """
        experiment = self._asked(lambda: self._client.get_experiment_by_name(self._experiment))
        if run_id is not None:
            # A user may have renamed the experiment: its runs still know where they are.
            try:
                home = self._asked(lambda: self._client.get_run(run_id)).info.experiment_id
                experiment = self._asked(lambda: self._client.get_experiment(home))
            except Refused:
                pass  # another tracking server than last time: the study is delivered anew
        if experiment is None:
            location = self._artifact_root.absolute().as_uri() if self._artifact_root else None
            self._experiment_id = str(
                self._asked(lambda: self._client.create_experiment(self._experiment, location, dict(tags)))
            )
            return True
        deleted = bool(experiment.lifecycle_stage != "active")
        if deleted:
            self._asked(lambda: self._client.restore_experiment(experiment.experiment_id))
        self._experiment_id = str(experiment.experiment_id)
        return deleted

    def find(self, tag: str, text: str) -> list[Run]:
        """All runs with a tag, deleted ones too; those that hold most come first."""
        found = self._search([self._experiment_id], f"tags.`{tag}` = '{text}'", "ALL")
        return sorted(found, key=lambda run: (not run.active, -run.size, run.run_id))

    def running(self) -> list[Run]:
        """The runs of any study, in any experiment, that MLflow takes for running."""
        known = [str(e.experiment_id) for e in self._pages(self._experiments)]
        wanted = f"attributes.status = 'RUNNING' and tags.`{STUDY_UID}` LIKE '%'"
        found: list[Run] = []
        for start in range(0, len(known), EXPERIMENTS_PER_REQUEST):
            found += self._search(known[start : start + EXPERIMENTS_PER_REQUEST], wanted, "ACTIVE_ONLY")
        return found

    def _search(self, experiments: Sequence[str], wanted: str, view: str) -> list[Run]:
        return [
            _run(run)
            for run in self._pages(
                lambda token: self._client.search_runs(
                    list(experiments), wanted, getattr(self._entities.ViewType, view), 1_000, None, token
                )
            )
        ]

    def _experiments(self, token: str | None) -> Any:
        return self._client.search_experiments(max_results=1_000, page_token=token)

    def _pages(self, ask: Callable[[str | None], Any]) -> Iterator[Any]:
        token: str | None = None
        while True:
            page = self._asked(lambda token=token: ask(token))  # type: ignore[misc]
            yield from page
            token = page.token
            if not token:
                return

    def create(self, name: str, created: int, tags: Mapping[str, str]) -> Run:
        """Make a run that starts at a time (milliseconds) and has its tags from the first moment."""
        answer = self._asked(
            lambda: faults.called(
                "outbox.create_run",
                lambda: self._client.create_run(
                    self._experiment_id, start_time=created, tags=dict(tags), run_name=name
                ),
            )
        )
        if not answer.info.run_id:
            raise ServiceUnavailable("the answer to create_run is not MLflow's")
        return Run(str(answer.info.run_id), tags=dict(tags))

    def log(self, run_id: str, rows: Sequence[Row]) -> None:
        """Write rows to a run in one request, params first; at most ROWS_PER_REQUEST."""
        entities = self._entities
        metrics = [entities.Metric(r.name, r.value, r.time, r.step) for r in rows if isinstance(r, Point)]
        params = [entities.Param(r.name, r.text) for r in rows if isinstance(r, Param)]
        tags = [entities.RunTag(r.name, r.text) for r in rows if isinstance(r, Tag)]
        self._asked(
            lambda: faults.called(
                "outbox.send",
                lambda: self._client.log_batch(run_id, metrics=metrics, params=params, tags=tags),
            )
        )

    def end(self, run_id: str, status: str, time: int) -> None:
        """Set a final status and the time it was reached (milliseconds)."""
        self._asked(lambda: self._client.set_terminated(run_id, status, time))

    def reopen(self, run_id: str) -> None:
        """Set a run to RUNNING again."""
        self._asked(lambda: self._client.update_run(run_id, "RUNNING"))

    def delete(self, run_id: str) -> None:
        """Delete a run (MLflow keeps it restorable)."""
        self._asked(lambda: self._client.delete_run(run_id))

    def is_gone(self, run_id: str) -> bool:
        """True if a user deleted the run, restorable or for good."""
        return self._stage(run_id) != "active"

    def is_missing(self, run_id: str) -> bool:
        """True if MLflow has never heard of the run, or has forgotten it."""
        return self._stage(run_id) is None

    def _stage(self, run_id: str) -> str | None:
        try:
            return str(self._asked(lambda: self._client.get_run(run_id)).info.lifecycle_stage)
        except Refused as refusal:
            if refusal.missing:
                return None
            raise

    def keep_text(self, run_id: str, text: str, name: str) -> None:
        """Store a text as an artifact of a run."""
        self._asked(lambda: self._client.log_text(run_id, text, name))

    def _asked(self, request: Callable[[], Answer]) -> Answer:
        try:
            return asked(request)
        except TimedOut:
            if self._timeout < LONGEST_TIMEOUT:
                self._wait(min(2 * self._timeout, LONGEST_TIMEOUT))
            raise

    def _wait(self, seconds: int) -> None:
        """Let MLflow wait so long for an answer from now on."""
        self._timeout = seconds
        os.environ[TIMEOUT] = Runs._set = str(seconds)


def _make_database(path: Path, artifact_root: Path) -> None:
    """Make an SQLite database with MLflow's tables at a path, wholly or not at all.

    MLflow's migrations are not transactional: a process killed in the middle of them would leave a file
    that no MLflow opens again. Of several studies that start at once, the first one's file stays.
    """
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f"{path.name}.new-", dir=path.parent)
    os.close(descriptor)
    try:
        SqlAlchemyStore(f"sqlite:///{name}", artifact_root.absolute().as_uri()).engine.dispose()
        # Kept in the file: the UI then reads while a study writes, and a commit is one sync instead of four.
        with contextlib.closing(sqlite3.connect(name)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
        with contextlib.suppress(FileExistsError):
            os.link(name, path)
    finally:
        Path(name).unlink()


def _run(run: Any) -> Run:
    data = run.data
    return Run(
        run_id=str(run.info.run_id),
        status=str(run.info.status),
        active=run.info.lifecycle_stage == "active",
        tags=dict(data.tags),
        params=dict(data.params),
        size=len(data.params) + len(data.metrics),
    )


def _unless_mlflow_here(record: logging.LogRecord) -> bool:
    """Drop what MLflow logs in the outbox's threads: the outbox says in its own words what went wrong."""
    ours = (record.threadName or "").startswith(THREAD_NAME)
    return not ours or record.name.startswith("hpsearch")
