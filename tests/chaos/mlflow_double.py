"""An MLflow tracking server in memory, behind the client that the door uses: found by tag, idempotent points.

What it takes and refuses is what MLflow 3.17 with an SQL store does: a run is made at each call, params
are written once, the same point twice is one point, a deleted run takes nothing.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

_FILTER = re.compile(r"tags\.`([^`]+)` = '([^']*)'")


class Refusal(Exception):
    """What MLflow's client raises, with its code."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.error_code = code


@dataclass(slots=True)
class StoredRun:
    """One run as a server keeps it; `points` are (metric, step, time, value) in the order of arrival."""

    run_id: str
    name: str
    created: int
    tags: dict[str, str]
    params: dict[str, str] = field(default_factory=dict)
    points: dict[tuple[str, int, int, str], None] = field(default_factory=dict)
    status: str = "RUNNING"
    ended: int | None = None
    stage: str = "active"


class Server:
    """The state of a tracking server, and the requests that a door makes; `down` more of them fail."""

    def __init__(self) -> None:
        self.runs: dict[str, StoredRun] = {}
        self.experiment = ""
        self.version = 0  # grows with every change
        self.requests = 0
        self.down = 0

    def snapshot(self) -> bytes:
        """All of it, frozen."""
        return pickle.dumps((self.runs, self.experiment, self.version))

    @classmethod
    def of(cls, snapshot: bytes) -> Server:
        """A server as it was."""
        server = cls()
        server.runs, server.experiment, server.version = pickle.loads(snapshot)
        return server

    def active(self) -> list[StoredRun]:
        """The runs that nobody deleted."""
        return [run for run in self.runs.values() if run.stage == "active"]

    # what MlflowClient offers -----------------------------------------------------------------------

    def get_experiment_by_name(self, name: str) -> Any:
        self._asked()
        found = self.experiment == name
        return SimpleNamespace(experiment_id="1", lifecycle_stage="active") if found else None

    def get_experiment(self, experiment_id: str) -> Any:
        self._asked()
        return SimpleNamespace(experiment_id=experiment_id, lifecycle_stage="active")

    def create_experiment(self, name: str, location: str | None, tags: Mapping[str, str]) -> str:
        self._changed()
        self.experiment = name
        return "1"

    def get_run(self, run_id: str) -> Any:
        self._asked()
        return _shown(self._run(run_id))

    def search_runs(
        self, experiments: Sequence[str], wanted: str, view: str, most: int, order: None, token: None
    ) -> Any:
        self._asked()
        found = _FILTER.fullmatch(wanted)
        assert found is not None, wanted
        tag, text = found.groups()
        page = _Page(_shown(run) for run in self.runs.values() if run.tags.get(tag) == text)
        page.token = None
        return page

    def create_run(self, experiment: str, *, start_time: int, tags: dict[str, str], run_name: str) -> Any:
        self._changed()
        run = StoredRun(f"run-{len(self.runs)}", run_name, start_time, dict(tags))
        self.runs[run.run_id] = run
        return _shown(run)

    def log_batch(self, run_id: str, *, metrics: Sequence[Any], params: Sequence[Any], tags: Any) -> None:
        run = self._changed(run_id)
        for param in params:
            if run.params.setdefault(param.key, param.value) != param.value:
                raise Refusal("INVALID_PARAMETER_VALUE", f"param {param.key} was logged as another value")
        for point in metrics:
            run.points[point.key, point.step, point.timestamp, repr(point.value)] = None
        run.tags.update((tag.key, tag.value) for tag in tags)

    def set_terminated(self, run_id: str, status: str, time: int) -> None:
        run = self._changed(run_id)
        run.status, run.ended = status, time

    def update_run(self, run_id: str, status: str) -> None:
        run = self._changed(run_id)
        run.status, run.ended = status, None

    def delete_run(self, run_id: str) -> None:
        self._changed(run_id).stage = "deleted"

    # inside -----------------------------------------------------------------------------------------

    def _asked(self) -> None:
        self.requests += 1
        if self.down > 0:
            self.down -= 1
            raise ConnectionError("connection refused")

    def _changed(self, run_id: str | None = None) -> StoredRun:
        self._asked()
        self.version += 1
        if run_id is None:
            return StoredRun("", "", 0, {})
        run = self._run(run_id)
        if run.stage != "active":
            raise Refusal("INVALID_PARAMETER_VALUE", f"run {run_id} must be in the 'active' state")
        return run

    def _run(self, run_id: str) -> StoredRun:
        if run_id not in self.runs:
            raise Refusal("RESOURCE_DOES_NOT_EXIST", f"run {run_id} not found")
        return self.runs[run_id]


class _Page(list[Any]):
    token: str | None


def _shown(run: StoredRun) -> Any:
    info = SimpleNamespace(run_id=run.run_id, status=run.status, lifecycle_stage=run.stage, experiment_id="1")
    metrics = {key for key, *_ in run.points}
    return SimpleNamespace(
        info=info, data=SimpleNamespace(tags=dict(run.tags), params=dict(run.params), metrics=metrics)
    )


ENTITIES = SimpleNamespace(
    ViewType=SimpleNamespace(ALL="ALL", ACTIVE_ONLY="ACTIVE_ONLY"),
    Metric=lambda key, value, timestamp, step: SimpleNamespace(
        key=key, value=value, timestamp=timestamp, step=step
    ),
    Param=lambda key, value: SimpleNamespace(key=key, value=value),
    RunTag=lambda key, value: SimpleNamespace(key=key, value=value),
)
