"""Attempts whose files go to a bucket: there before the end is told, and nothing stays on the node."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_process import HERE, reports

from hpsearch.run.berth import Berth
from hpsearch.run.process import Slot
from hpsearch.run.wire import decode
from hpsearch.study import storage
from hpsearch.study.storage import Bucket
from hpsearch.study.trial import Context, Launch, Program, State

LEARNER = Path(__file__).parents[1] / "train/noisy_trainer.py"


@pytest.fixture(autouse=True)
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this node keeps what is temporary."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "node"))
    (tmp_path / "node").mkdir()
    return tmp_path / "node"


@pytest.fixture
def slot(bucket: str) -> Iterator[Slot]:
    slot = Slot(preload=())
    yield slot
    slot.kill()


def launch(bucket: str, kind: str, tmp_path: Path, *, attempt: int = 1) -> Launch:
    place = f"{bucket}/trials/0000"
    context = Context(0, attempt, 0, 300, 100, tmp_path / "home/trials/0000", storage=place)
    return Launch("zoo", (), {"kind": kind}, context, "loss", (str(HERE),), grace=5.0)


def test_the_files_of_each_attempt_are_there_before_its_end_is_told(
    slot: Slot, bucket: str, tmp_path: Path, node: Path
) -> None:
    there = Bucket(f"{bucket}/trials/0000")
    for attempt in (1, 2):
        slot.start(launch(bucket, "good", tmp_path, attempt=attempt))
        found, lost = reports(slot)
        assert lost is None
        assert [bool(report.measurement) for report in found] == [True, True, True, False]
        ending = found[-1].ending
        assert ending
        assert ending.state is State.COMPLETED
        assert "trial 0 is good" in there.read(f"attempt-{attempt}/output.log").decode()
        assert there.read(f"attempt-{attempt}/ledger").decode().startswith(f"{attempt} ")
        assert list(node.iterdir()) == []
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("kind", ["raises", "segfaults"])
def test_a_failed_or_lost_attempt_leaves_its_last_lines(
    slot: Slot, bucket: str, tmp_path: Path, kind: str
) -> None:
    slot.start(launch(bucket, kind, tmp_path))
    found, lost = reports(slot)
    assert (lost is not None) == (kind == "segfaults")
    assert lost or found[-1].ending
    last = Bucket(f"{bucket}/trials/0000").read("attempt-1/last-lines.txt").decode()
    assert ("no good" if kind == "raises" else f"trial 0 is {kind}") in last


def test_a_trial_that_is_told_to_end_leaves_its_output(
    slot: Slot, bucket: str, tmp_path: Path, node: Path
) -> None:
    slot.start(launch(bucket, "hangs", tmp_path))
    heard = slot.poll(60)
    assert decode(heard.lines[0]).measurement
    slot.kill(at_once=True)
    assert not slot.busy
    assert "trial 0 is hangs" in Bucket(f"{bucket}/trials/0000").read("attempt-1/output.log").decode()
    assert list(node.iterdir()) == []


def test_a_slow_bucket_holds_back_the_end_and_nothing_else(
    slot: Slot, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import threading

    go_on = threading.Event()
    put = Bucket.put

    def slow(self: Bucket, key: str, path: Path) -> None:
        assert go_on.wait(60)
        put(self, key, path)

    monkeypatch.setattr(Bucket, "put", slow)
    slot.start(launch(bucket, "good", tmp_path))
    found = []
    while len(found) < 3:
        found += [decode(line) for line in slot.poll(1.0).lines]
    assert [bool(report.measurement) for report in found] == [True] * 3
    while not slot.over:
        assert slot.poll(0.05).lines == []
    assert slot.poll(0.05).lines == []
    assert slot.busy
    go_on.set()
    found, _ = reports(slot)
    assert [bool(report.ending) for report in found] == [True]
    assert not slot.busy


def test_what_the_bucket_refuses_is_a_note_and_not_a_failure(
    slot: Slot, bucket: str, tmp_path: Path, node: Path
) -> None:
    slot.start(launch(bucket.replace("s3://", "s3://no-"), "good", tmp_path))
    found, _ = reports(slot)
    assert found[-1].ending
    assert found[-1].ending.state is State.COMPLETED
    [note] = [report.note for report in found if report.note]
    assert "2 of the attempt's 2 files could not be kept in s3://no-" in note
    assert list(node.iterdir()) == []


def test_a_programs_model_arrives_and_links_and_pipes_stay_behind(
    slot: Slot, bucket: str, tmp_path: Path
) -> None:
    (tmp_path / "program.py").write_text(
        "import os\n"
        "model = os.environ['AIP_MODEL_DIR']\n"
        "open(os.path.join(model, 'model.pt'), 'w').write('weights')\n"
        "os.symlink('/etc/passwd', os.path.join(model, 'link'))\n"
        "os.mkfifo(os.path.join(model, 'pipe'))\n"
        "open('_SUCCESS', 'w')\n"
        "from hypertune import HyperTune\n"
        "HyperTune().report_hyperparameter_tuning_metric('loss', 1.0, 300)\n"
    )
    context = Context(0, 1, 0, 300, 100, tmp_path / "away", storage=f"{bucket}/trials/0000")
    program = Program(command=("python", str(tmp_path / "program.py")), own_directory=True)
    given = Slot(preload=(), execute="hpsearch.run.attempt:execute_command")
    try:
        given.start(Launch("", (), {}, context, "loss", (str(tmp_path),), program=program))
        found, lost = reports(given)
    finally:
        given.kill()
    assert lost is None
    assert found[-1].ending
    assert found[-1].ending.state is State.COMPLETED, found[-1].ending.reason
    kept = Bucket(f"{bucket}/trials/0000/attempt-1").keys()
    assert {"model/model.pt", "_SUCCESS"} <= kept
    assert not {"model/link", "model/pipe", "output.log"} & kept


def test_a_preempted_trial_keeps_its_state_and_goes_on_elsewhere(
    slot: Slot, bucket: str, tmp_path: Path
) -> None:
    (tmp_path / "noisy.py").write_text(LEARNER.read_text())
    context = Context(0, 1, 0, 100_000, 5, tmp_path / "away", storage=f"{bucket}/trials/0000")
    slot.start(Launch("noisy", (), {}, context, "rmse", (str(tmp_path),), grace=20.0))
    while not any(decode(line).measurement for line in slot.poll(1.0).lines):
        pass
    said = [decode(line) for line in slot.part()]
    [checkpoint] = [report.checkpoint for report in said if report.checkpoint][-1:]
    data = Bucket(f"{bucket}/trials/0000").read(checkpoint.name)
    assert len(data) == checkpoint.size


def test_what_a_killed_worker_left_is_removed_by_the_next(bucket: str, tmp_path: Path, node: Path) -> None:
    code = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from hpsearch.run.berth import Berth\n"
        "from hpsearch.study.trial import Context, Launch\n"
        "berth = Berth(Launch('m', (), {}, Context(0, 1, 0, 1, 1, Path('x'), storage=sys.argv[1]), 'loss'))\n"
        "print(berth._base, flush=True)\n"
        "time.sleep(600)\n"
    )
    environment = {**os.environ, "TMPDIR": str(node)}
    words = [sys.executable, "-c", code, bucket]
    with subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout
        left = Path(worker.stdout.readline().strip())
        assert left.is_relative_to(node)
        mine = Berth(launch(bucket, "good", tmp_path))
        assert left.is_dir(), "its worker lives"
        worker.kill()
    other = Berth(launch(bucket, "good", tmp_path))
    assert not left.exists()
    assert mine._base.is_dir()
    for berth in (mine, other):
        berth.leave()
        deadline = time.monotonic() + 60
        while not berth.is_left(0.1):
            assert time.monotonic() < deadline


def test_what_a_process_leaves_at_its_exit_arrives_too(slot: Slot, bucket: str, tmp_path: Path) -> None:
    slot.start(launch(bucket, "tidies_up", tmp_path))
    found, lost = reports(slot)
    assert lost is None
    assert found[-1].ending
    there = Bucket(f"{bucket}/trials/0000/attempt-1")
    assert there.read("written-at-exit") == b"the last of it"
    assert b"said at exit\n" in there.read("output.log")


def test_a_service_that_never_answers_costs_the_files_and_not_the_end(
    slot: Slot, mute: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, node: Path
) -> None:
    monkeypatch.setattr(storage, "ANSWER", 1.0)
    slot.start(launch(mute, "good", tmp_path))
    found, _ = reports(slot)
    assert found[-1].ending
    assert found[-1].ending.state is State.COMPLETED
    [note] = [report.note for report in found if report.note]
    assert note.startswith("2 of the attempt's 2 files could not be kept in s3://")
    assert note.endswith("its service does not answer")
    assert list(node.iterdir()) == []


def test_after_a_service_has_failed_for_long_the_other_files_are_not_tried(
    slot: Slot, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def refuses(self: Bucket, key: str, path: Path) -> None:
        tried.append(key)
        raise TimeoutError(110, "its service does not answer")

    monkeypatch.setattr(Bucket, "put", refuses)
    monkeypatch.setattr(storage, "ANSWER", 0.0)
    slot.start(launch(bucket, "good", tmp_path))
    found, _ = reports(slot)
    [note] = [report.note for report in found if report.note]
    assert note.startswith("2 of the attempt's 2 files")
    assert tried == ["attempt-1/ledger"]


def test_an_end_that_is_told_before_its_files_have_arrived_says_so(
    slot: Slot, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Berth, "is_left", lambda self, within: False)
    slot.start(launch(bucket, "good", tmp_path))
    while not slot.over:
        slot.poll(0.05)
    note, last = [decode(line) for line in slot.part()]
    assert last.ending
    assert last.ending.state is State.COMPLETED
    assert note.note.startswith("not all of its files had reached s3://")
    assert not slot.busy
