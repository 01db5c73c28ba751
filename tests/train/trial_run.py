"""A trial that runs in this process: a trainer given as text, and everything it reports."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import pytest

from hpsearch.spec.model import Value
from hpsearch.study.trial import Checkpoint, Context, Ending, Launch, Measurement, Report
from hpsearch.train import loop
from hpsearch.train.trial import execute

NAMES = count()


@dataclass
class Said:
    """What a trial reported, in order."""

    reports: list[Report] = field(default_factory=list)

    @property
    def measurements(self) -> list[Measurement]:
        return [report.measurement for report in self.reports if report.measurement]

    @property
    def curve(self) -> list[tuple[int, Mapping[str, float]]]:
        return [(measurement.step, measurement.metrics) for measurement in self.measurements]

    @property
    def checkpoints(self) -> list[Checkpoint]:
        return [report.checkpoint for report in self.reports if report.checkpoint]

    @property
    def notes(self) -> list[str]:
        return [report.note for report in self.reports if report.note]

    @property
    def endings(self) -> list[Ending]:
        return [report.ending for report in self.reports if report.ending]

    @property
    def verdict(self) -> tuple[str, str]:
        """State and reason of the one ending, which must be the last report."""
        (ending,) = self.endings
        assert self.reports[-1].ending is ending
        return ending.state.value, ending.reason


Run = Callable[..., Said]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a trainer: `stop_after` measurements it is told to stop; `resume` is a checkpoint to go on from."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    # These trials are so short that their checkpoints would be thinned out; here every one counts.
    monkeypatch.setattr(loop, "CHECKPOINT_SHARE", math.inf)

    def run(
        source: str,
        *,
        params: Mapping[str, Value] | None = None,
        metric: str = "rmse",
        metrics: tuple[str, ...] = (),
        max_steps: int = 40,
        measure_every: int = 5,
        seed: int = 7,
        args: tuple[str, ...] = (),
        attempt: int = 1,
        resume: Checkpoint | None = None,
        earlier: Checkpoint | None = None,
        stop_after: int | None = None,
        said: Said | None = None,
        storage: str = "",
    ) -> Said:
        module = f"trainer_{next(NAMES)}"
        (tmp_path / f"{module}.py").write_text(source)
        context = Context(
            number=3,
            attempt=attempt,
            seed=seed,
            max_steps=max_steps,
            measure_every=measure_every,
            directory=tmp_path / "trial",
            checkpoint=tmp_path / "trial" / resume.name if resume else None,
            checkpoint_sha256=resume.sha256 if resume else None,
            earlier=((tmp_path / "trial" / earlier.name, earlier.sha256),) if earlier else (),
            storage=storage,
        )
        said = said or Said()

        def report(what: Report) -> bool:
            said.reports.append(what)
            return stop_after is None or len(said.measurements) < stop_after

        path = (str(tmp_path),)
        execute(Launch(module, args, params or {}, context, metric, path, metrics=metrics), report)
        return said

    return run


@pytest.fixture
def noisy() -> str:
    """A trainer in which everything that could break an exact resume has a say."""
    return Path(__file__).with_name("noisy_trainer.py").read_text()
