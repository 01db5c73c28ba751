"""No trial is promised a GPU that is not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpsearch.run.reach import gpus_here, within_reach
from hpsearch.spec.model import Resources


@pytest.mark.parametrize(
    ("visible", "count"),
    [
        (None, 3),
        ("", 0),
        ("-1", 0),
        ("1", 1),
        ("0, 2", 2),
        ("0,-1,1", 1),
        ("0,1,2,3", 3),
        ("GPU-8932f937", 1),
    ],
)
def test_the_gpus_here_are_those_that_a_process_may_see(
    tmp_path: Path, visible: str | None, count: int
) -> None:
    for name in ("nvidia0", "nvidia1", "nvidia10", "nvidiactl", "nvidia-uvm", "nvidia-caps", "null"):
        (tmp_path / name).touch()
    assert gpus_here({} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}, tmp_path) == count


def test_a_machines_name_asks_for_no_more_than_there_is_and_a_number_of_the_file_does(
    caplog: pytest.LogCaptureFixture,
) -> None:
    hinted = Resources(gpu=4, hinted=True)
    assert within_reach(hinted, 1).gpu == 1
    assert caplog.messages == ["the file's machine has 4 GPUs, the best one here 1: a trial gets 1"]
    assert within_reach(hinted, 8) == hinted
    assert within_reach(Resources(gpu=4), 1).gpu == 4
    assert len(caplog.messages) == 1
