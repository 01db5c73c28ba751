"""Trials of several processes, which are real and speak by gloo on loopback."""

from __future__ import annotations

from pathlib import Path

import pytest
from trial_run import Run, Said

TRAINER = Path(__file__).with_name("shared_trainer.py").read_text()


def numbers(said: Said) -> list[list[float]]:
    return [[step, *metrics.values()] for step, metrics in said.curve]


def close(one: Said, other: Said, rel: float = 1e-4) -> bool:
    assert [list(m) for _, m in one.curve] == [list(m) for _, m in other.curve]
    return numbers(one) == [pytest.approx(row, rel=rel) for row in numbers(other)]


@pytest.mark.parametrize(("size", "batch"), [(2, 7), (3, 7), (2, 1)], ids=["uneven", "three", "one example"])
def test_several_workers_measure_what_one_measures(together, run: Run, size: int, batch: int) -> None:
    alone = run(TRAINER, metric="loss", params={"batch": batch})
    first, *others = together(TRAINER, size=size, params={"batch": batch})
    assert first.verdict == alone.verdict == ("completed", "reached step 40")
    assert len(alone.curve) == 8
    assert close(first, alone)
    assert all(other.curve == other.checkpoints == [] for other in others), "only the first reports"
    assert all(other.endings[0].silent for other in others)


def test_one_worker_goes_on_from_the_checkpoint_of_two_and_two_from_that_of_one(together, run: Run) -> None:
    whole = run(TRAINER, metric="loss")
    half, _ = together(TRAINER, attempt=2, stop_after=4)
    assert [c.step for c in half.checkpoints] == [5, 10, 15, 20]
    assert half.endings == []
    rest = run(TRAINER, metric="loss", attempt=3, resume=half.checkpoints[-1])
    assert rest.curve[0][0] == 25
    assert close(rest, Said(reports=whole.reports[-len(rest.reports) :]))
    again, _ = together(TRAINER, attempt=4, resume=whole.checkpoints[3])
    assert close(again, rest)


def test_two_workers_that_draw_go_on_as_if_they_had_never_stopped(together) -> None:
    params = {"dropout": 0.5}
    whole, _ = together(TRAINER, params=params)
    half, _ = together(TRAINER, params=params, attempt=2, stop_after=4)
    rest, _ = together(TRAINER, params=params, attempt=3, resume=half.checkpoints[-1])
    assert half.curve + rest.curve == whole.curve
