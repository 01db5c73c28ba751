"""What trials get of a node: GPUs, whole and in parts, and as many threads as CPUs; no real GPU is needed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hpsearch.run import cluster
from hpsearch.spec.reading import parse
from hpsearch.study.pruning import make_pruner
from hpsearch.study.sampling import OptunaSampler
from hpsearch.study.search import Search
from hpsearch.study.store import Store
from hpsearch.study.trial import State, Study

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
FILE = """\
trainingInput:
  pythonModule: shares
  hyperparameters:
    goal: MINIMIZE
    hyperparameterMetricTag: loss
    maxTrials: {trials}
    maxParallelTrials: {trials}
    params:
      - {{parameterName: x, type: DOUBLE, minValue: 0, maxValue: 1}}
      - {{parameterName: together, type: DISCRETE, discreteValues: [{trials}]}}
hpsearch:
  maxSteps: 1
  measureEvery: 1
  sampler: {{type: RANDOM}}
  resources: {resources}
"""


@pytest.fixture(scope="module")
def with_gpus(ray_cluster: Any) -> Iterator[str]:
    """The address of a Ray with a node that says it has two GPUs."""
    node = ray_cluster.add_node(num_cpus=4, num_gpus=2)
    yield ray_cluster.address
    ray_cluster.remove_node(node)


def shares(directory: Path, address: str, resources: str, trials: int = 2) -> list[dict[str, Any]]:
    """What trials that run at the same time were given."""
    reading = parse(FILE.format(resources=resources, trials=trials), "shares.yaml")
    assert reading.spec, reading.errors
    study = Study("s", "u", 1, reading.spec, directory / "s")
    store = Store.create(study, "sqlite:///none.db")
    history = store.take(1)
    spec = history.study.spec
    search = Search(
        history.study, OptunaSampler(spec), make_pruner(spec), store, [str(Path(__file__).parent)]
    )
    search.epoch = history.epoch
    try:
        cluster.run(search, address=address)
        assert [trial.state for trial in search.trials.values()] == [State.COMPLETED] * trials
    finally:
        search.conclude(9)
        store.close()
    return [json.loads(path.read_text()) for path in sorted(study.directory.glob("trials/*/share.json"))]


def test_whole_gpus_are_ones_own_and_halves_are_shared_and_threads_follow_cpus(
    tmp_path: Path, with_gpus: str
) -> None:
    whole = shares(tmp_path / "whole", with_gpus, "{cpu: 2, gpu: 1}")
    assert sorted(share["gpus"] for share in whole) == ["0", "1"]
    assert [share["threads"] for share in whole] == [2, 2]
    half = shares(tmp_path / "half", with_gpus, "{cpu: 1, gpu: 0.5}")
    assert half[0]["gpus"] == half[1]["gpus"]
    assert half[0]["gpus"] in ("0", "1")
    assert [share["threads"] for share in half] == [1, 1]


def test_a_trial_without_a_gpu_sees_none(tmp_path: Path, with_gpus: str) -> None:
    assert [share["gpus"] or "" for share in shares(tmp_path, with_gpus, "{cpu: 1}", trials=1)] == [""]
