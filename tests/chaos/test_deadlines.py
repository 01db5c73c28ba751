"""What a driver is told at its start about time: how long it may run, how long a first trial may wait."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from ray_studies import ledger, life, steady
from watching import LOCAL, ending
from zygote import Zygote

Place = Callable[..., Path]


@pytest.mark.slow
def test_a_cluster_that_has_no_place_for_a_trial_ends_the_study_at_its_start_timeout(
    tmp_path: Path, ray_address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hpsearch.run import cluster, vigil

    monkeypatch.setattr(vigil, "QUIET", 0.5)  # nobody is there to say anything
    search, journal = life(tmp_path / "study", steady(1, resources="{gpu: 8}"))
    cluster.run(search, address=ray_address, start_timeout=3.0)
    concluded = search.conclude(1)
    assert concluded.outcome == "deadline"
    assert concluded.reason.startswith("no trial started within 3 s: waiting for 8 GPU, 0 exist")
    assert not ledger(search, 0)
    journal.store.close()


def test_a_driver_ends_at_its_own_deadline_where_that_comes_before_the_files(
    zygote: Zygote, place: Place
) -> None:
    directory = place(trials=3, steps=2000, every=1000, pause=0.01, own="limits: {studyTimeout: 10m}")
    told = zygote.run(*LOCAL, "--deadline", "1s", "--json", cwd=directory, code=4)
    assert json.loads(told.out)["state"] == "deadline"
    assert ending(directory) == ("deadline", "--deadline of 1 s passed")


def test_the_files_deadline_counts_where_the_drivers_comes_later(zygote: Zygote, place: Place) -> None:
    directory = place(trials=3, steps=2000, every=1000, pause=0.01, own="limits: {studyTimeout: 1s}")
    zygote.run(*LOCAL, "--deadline", "10m", cwd=directory, code=4)
    assert ending(directory) == ("deadline", "studyTimeout of 1 s passed")
