"""A cluster that shares no folder: the home is on the driver's own disk, trials' files are in a bucket."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from lab import BIN, OWN_DISK, START, STORE_PORT, Cluster, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200), pytest.mark.xdist_group("three nodes")]
STEADY = Path(__file__).parents[1] / "chaos" / "steady.py"
FILE = """\
trainingInput:
  pythonModule: steady
  args: ["--notes={notes}"]
  hyperparameters:
    goal: MINIMIZE
    hyperparameterMetricTag: loss
    maxTrials: 2
    maxParallelTrials: 1
    params:
      - {{parameterName: target, type: DOUBLE, minValue: 0.5, maxValue: 1.5}}
hpsearch:
  maxSteps: 1000
  measureEvery: 10
  sampler: {{type: RANDOM}}
"""
MAKE = "import boto3; boto3.client('s3').create_bucket(Bucket='sweeps')"
LIST = """
import json
from hpsearch.study.storage import Bucket
there = Bucket("s3://sweeps/team")
print(json.dumps({key: there.read(key).decode(errors="replace")[-300:] for key in sorted(there.keys())}))
"""


def there(cluster: Cluster, code: str) -> str:
    """What a program says on the head's host."""
    command = cluster.head.entered(str(BIN / "python"), "-c", code)
    done = subprocess.run(command, env=cluster.lab.environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def object_store_of_the_lab(cluster: Cluster, tmp_path: Path) -> Iterator[None]:
    """An S3 service on the head's host."""
    said = tmp_path / "s3"
    words = cluster.head.entered(str(BIN / "moto_server"), "-H", "0.0.0.0", "-p", str(STORE_PORT))
    with said.open("w") as out:
        process = subprocess.Popen(words, env=cluster.lab.environment, stdout=out, stderr=out)
    try:
        wait_for(lambda: process.poll() is not None or "Running on" in said.read_text(), START)
        assert process.poll() is None, said.read_text()
        there(cluster, MAKE)
        yield
    finally:
        process.kill()
        process.wait()


def ledger(notes: Path) -> dict[int, list[tuple[int, int]]]:
    """What each attempt at a trial did: (step, pid), in order."""
    found: dict[int, list[tuple[int, int]]] = {}
    if (notes / "ledger").exists():
        for line in (notes / "ledger").read_text().splitlines():
            attempt, step, pid, _ = map(int, line.split())
            found.setdefault(attempt, []).append((step, pid))
    return found


@pytest.mark.usefixtures("object_store_of_the_lab")
@pytest.mark.fault("F58")
def test_a_trial_whose_node_dies_goes_on_elsewhere_from_its_checkpoint_in_the_bucket(
    cluster: Cluster, tmp_path: Path, fired: Callable[..., None]
) -> None:
    notes = tmp_path / "notes"
    notes.mkdir()
    (notes / "hold").touch()
    cluster.head.put(STEADY, steady=FILE.format(notes=notes))
    driver = cluster.run("steady.yaml", f"{OWN_DISK}/bucket-home", "--storage", "s3://sweeps/team")
    first = wait_for(lambda: ledger(notes).get(1, [])[5:], START, driver.said)[0][1]
    place = cluster.place_of(first)
    cluster.workers[place].kill()
    fired(cluster.workers[place].has_ended())
    second = wait_for(lambda: ledger(notes).get(2, [])[1:], START, driver.said)[0][1]
    assert cluster.place_of(second) != place
    (notes / "hold").unlink()
    assert driver.wait(START) == 0, driver.said()
    shown = json.loads(driver.out)
    assert shown["counts"]["completed"] == 2
    assert shown["storage"].startswith("s3://sweeps/team/s-")
    before, after = ledger(notes)[1], ledger(notes)[2]
    assert 10 < after[0][0] <= before[-1][0] + 10, "it did not go on from a checkpoint"
    kept = json.loads(there(cluster, LIST))
    folder = shown["storage"].rpartition("/")[2]
    checkpoints = [key for key in kept if "/checkpoints/" in key]
    assert len(checkpoints) == 1, kept
    assert checkpoints[0].startswith(
        f"{folder}/trials/{shown['best']['number']:04d}/checkpoints/step-00001000-"
    )
    assert [key for key in kept if not key.startswith(f"{folder}/trials/")] == []


@pytest.mark.usefixtures("object_store_of_the_lab")
def test_nodes_that_reach_no_bucket_are_named_before_a_trial_starts(cluster: Cluster, tmp_path: Path) -> None:
    cluster.head.put(STEADY, steady=FILE.format(notes=tmp_path))
    refused = cluster.run("steady.yaml", f"{OWN_DISK}/other-home", "--storage", "s3://never-made/x")
    assert refused.wait(START) == 2, refused.said()
    assert "trials cannot keep their files in s3://never-made/x/s-" in refused.err
