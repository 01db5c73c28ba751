"""A trial's process: fresh, quick, bounded, and gone when its owner is gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import forkserver
from pathlib import Path

import pytest

from hpsearch.run import child
from hpsearch.run.process import Slot
from hpsearch.run.wire import decode, encode
from hpsearch.study.trial import Checkpoint, Context, Ending, Launch, Measurement, Report, State

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def slot() -> Iterator[Slot]:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
            patch.setenv(name, "")  # a slot sets them for good, which is right in an actor only
        slot = Slot()
        yield slot
        slot.kill()


def launch(directory: Path, kind: str, *, attempt: int = 1, timeout: float | None = None) -> Launch:
    context = Context(0, attempt, 0, 300, 100, directory)
    return Launch("zoo", (), {"kind": kind}, context, "loss", (str(HERE),), timeout)


def reports(slot: Slot) -> tuple[list[Report], str | None]:
    """All that a process reports until its end."""
    found: list[Report] = []
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        heard = slot.poll(1.0)
        found += [decode(line) for line in heard.lines]
        if heard.lost or (found and found[-1].ending):
            return found, heard.lost
    raise AssertionError("the process neither ended nor was lost")


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + 20
    while is_alive(pid):
        assert time.monotonic() < deadline, f"process {pid} is still there"
        time.sleep(0.02)


def test_every_trial_gets_a_fresh_process(slot: Slot, tmp_path: Path) -> None:
    for turn in range(2):
        slot.start(launch(tmp_path / str(turn), "counts_trials"))
        found, _ = reports(slot)
        values = [r.measurement.metrics["loss"] for r in found if r.measurement]
        assert values == [1.0, 1.0, 1.0], "module state of an earlier trial was seen"
    pids = {(tmp_path / str(turn) / "ledger").read_text().split()[1] for turn in range(2)}
    assert len(pids) == 2


def test_a_child_has_the_heavy_imports_already(slot: Slot, tmp_path: Path) -> None:
    probe = tmp_path / "probe.py"
    probe.write_text(
        "import sys\n"
        "NAMES = ('torch._dynamo', 'hpsearch.train.trial', 'ray', 'mlflow')\n"
        "LOADED = [name in sys.modules for name in NAMES]\n"
        "def train(params, context):\n"
        "    raise RuntimeError(str(LOADED))\n"
        "    yield\n"
    )
    context = Context(0, 1, 0, 300, 100, tmp_path / "t")
    slot.start(Launch("probe", (), {}, context, "loss", (str(tmp_path),)))
    found, _ = reports(slot)
    assert found[-1].ending
    assert "[True, True, False, False]" in found[-1].ending.reason


def test_the_fork_server_has_one_thread(slot: Slot, tmp_path: Path) -> None:
    slot.start(launch(tmp_path, "good"))
    reports(slot)
    server = forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]
    assert len(list(Path(f"/proc/{server}/task").iterdir())) == 1, "a fork would leave locks taken for ever"


def test_what_a_trial_prints_is_in_its_log(slot: Slot, tmp_path: Path) -> None:
    slot.start(launch(tmp_path, "good"))
    reports(slot)
    assert "trial 0 is good" in (tmp_path / "output.log").read_text()


def test_a_signal_loses_the_attempt_and_says_which(slot: Slot, tmp_path: Path) -> None:
    slot.start(launch(tmp_path, "segfaults"))
    found, lost = reports(slot)
    assert lost == "its process was killed by signal 11 (SIGSEGV)"
    assert not any(report.ending for report in found)


def test_reports_made_before_a_kill_are_heard(slot: Slot, tmp_path: Path) -> None:
    slot.start(launch(tmp_path, "killed_once"))
    found, lost = reports(slot)
    assert lost == "its process was killed by signal 9 (SIGKILL)"
    assert [r.measurement.step for r in found if r.measurement] == [100]


def test_an_exit_in_the_middle_is_a_failure(slot: Slot, tmp_path: Path) -> None:
    slot.start(launch(tmp_path, "exits"))
    found, lost = reports(slot)
    assert lost is None
    assert found[-1].ending
    assert found[-1].ending.state is State.FAILED
    assert "exited with code 3" in found[-1].ending.reason


def test_a_trial_over_its_time_is_killed_and_failed(slot: Slot, tmp_path: Path) -> None:
    slot.start(launch(tmp_path, "hangs", timeout=1.0))
    pid = slot._process.pid
    found, _ = reports(slot)
    assert found[-1].ending
    assert found[-1].ending.state is State.FAILED
    assert found[-1].ending.reason == "trialTimeout: not finished after 1 s"
    wait_until_gone(pid)


def test_what_a_trial_leaves_in_its_group_is_killed(slot: Slot, tmp_path: Path) -> None:
    slot.start(launch(tmp_path, "leaves_a_child"))
    reports(slot)
    child = int((tmp_path / "child").read_text())
    assert is_alive(child), "the fault was not injected"
    slot.kill()
    wait_until_gone(child)


def test_what_a_trial_leaves_elsewhere_is_killed_too_even_where_nobody_is_its_parent(tmp_path: Path) -> None:
    (tmp_path / "daemonic.py").write_text(
        "import os, subprocess\n"
        "from hpsearch.train.learner import Measurement\n"
        "def train(params, context):\n"
        "    command = ['setsid', 'sh', '-c', 'sleep 600 & echo $! > child']\n"
        "    subprocess.run(command, cwd=context.directory, check=True)\n"
        "    yield Measurement(300, {'loss': 1.0})\n"
    )
    for slot in (Slot(), Slot(preload=())):
        context = Context(0, 1, 0, 300, 100, tmp_path / "t")
        slot.start(Launch("daemonic", (), {}, context, "loss", (str(tmp_path),)))
        reports(slot)
        child = int((tmp_path / "t/child").read_text())
        assert is_alive(child), "the fault was not injected"
        slot.kill()
        assert not is_alive(child)


def test_a_running_trial_is_killed_by_the_next_start(slot: Slot, tmp_path: Path) -> None:
    slot.start(launch(tmp_path / "a", "hangs"))
    pid = slot._process.pid
    slot.start(launch(tmp_path / "b", "good"))
    found, _ = reports(slot)
    assert found[-1].ending == Ending(State.COMPLETED, "reached step 300")
    wait_until_gone(pid)


def test_nothing_outlives_a_killed_owner(tmp_path: Path) -> None:
    script = f"""
import sys; sys.path.insert(0, {str(HERE)!r})
from pathlib import Path
from test_process import launch
from multiprocessing import forkserver

from hpsearch.run.process import Slot
if __name__ == "__main__":
    slot = Slot()
    slot.start(launch(Path({str(tmp_path)!r}), "hangs"))
    while not slot.poll(1.0).lines: pass
    print(slot._process.pid, forkserver._forkserver._forkserver_pid, flush=True)
    sys.stdin.read()
"""
    path = tmp_path / "owner.py"
    path.write_text(script)
    with subprocess.Popen(
        [sys.executable, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as owner:
        assert owner.stdout
        child, server = (int(pid) for pid in owner.stdout.readline().split())
        assert is_alive(child)
        assert is_alive(server)
        os.kill(owner.pid, signal.SIGKILL)
    wait_until_gone(child)
    wait_until_gone(server)


def test_a_full_pipe_does_not_make_a_trial_wait(slot: Slot, tmp_path: Path) -> None:
    flood = tmp_path / "flood.py"
    flood.write_text(
        "from hpsearch.train.learner import Measurement\n"
        "def train(params, context):\n"
        "    for step in range(1, 5001):\n"
        "        yield Measurement(step, {'loss': 1.0 / step})\n"
        "    (context.directory / 'trained').write_text('')\n"
    )
    context = Context(0, 1, 0, 10_000, 1, tmp_path / "t")
    slot.start(Launch("flood", (), {}, context, "loss", (str(tmp_path),)))
    deadline = time.monotonic() + 30
    while not (tmp_path / "t" / "trained").exists():  # nobody reads meanwhile
        assert time.monotonic() < deadline, "the trial waits for its reader"
        time.sleep(0.02)
    found, _ = reports(slot)
    assert [r.measurement.step for r in found if r.measurement] == list(range(1, 5001))


def test_a_backlog_costs_the_next_report_nothing_and_arrives_whole_and_in_order() -> None:
    reader, writer = os.pipe()
    sender = child._Sender(writer)
    steps = range(50_000)
    before = time.process_time()
    for step in steps:
        assert sender.report(Report(Measurement(step, {"loss": 1.0}, 9)))
    assert time.process_time() - before < 10.0
    with ThreadPoolExecutor() as pool, os.fdopen(reader, "rb") as lines:
        done = pool.submit(sender.finish)
        done.add_done_callback(lambda _: os.close(writer))
        heard = [decode(line.decode()) for line in lines]
    assert heard == [Report(Measurement(step, {"loss": 1.0}, 9)) for step in steps]


def test_a_report_to_nobody_says_so() -> None:
    reader, writer = os.pipe()
    sender = child._Sender(writer)
    for step in range(5_000):
        assert sender.report(Report(Measurement(step, {"loss": 1.0})))
    os.close(reader)
    assert not sender.report(Report(note="anybody?"))
    sender.finish()
    os.close(writer)


def test_reports_survive_their_way_as_lines() -> None:
    for report in (
        Report(measurement=Measurement(3, {"a": 0.1 + 0.2, "b": float("inf")}, 9)),
        Report(checkpoint=Checkpoint(3, 1, "c", 4, "ff")),
        Report(ending=Ending(State.PRUNED, "line\nbreak", 7)),
        Report(note="dropped"),
    ):
        assert "\n" not in encode(report)
        assert decode(encode(report)) == report


def test_a_trainer_may_use_workers_that_only_a_fork_can_start(slot: Slot, tmp_path: Path) -> None:
    trainer = tmp_path / "loads.py"
    trainer.write_text(
        "import torch\n"
        "from hpsearch.train.learner import Measurement\n"
        "def train(params, context):\n"
        "    class Local(torch.utils.data.Dataset):\n"
        "        def __len__(self): return 4\n"
        "        def __getitem__(self, n): return float(n)\n"
        "    loader = torch.utils.data.DataLoader(Local(), num_workers=1, collate_fn=lambda b: sum(b))\n"
        "    yield Measurement(300, {'loss': float(sum(loader))})\n"
    )
    context = Context(0, 1, 0, 300, 100, tmp_path / "t")
    slot.start(Launch("loads", (), {}, context, "loss", (str(tmp_path),)))
    found, _ = reports(slot)
    assert found[-1].ending == Ending(State.COMPLETED, "reached step 300")
    assert [r.measurement.metrics["loss"] for r in found if r.measurement] == [6.0]


def test_a_start_that_fails_leaves_a_slot_that_works(
    slot: Slot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(process: object) -> None:
        raise EOFError("the fork server is gone")

    with monkeypatch.context() as patch:
        patch.setattr(slot._context.Process, "start", refuse)
        with pytest.raises(EOFError):
            slot.start(launch(tmp_path / "a", "good"))
    slot.start(launch(tmp_path / "b", "good"))
    found, _ = reports(slot)
    assert found[-1].ending == Ending(State.COMPLETED, "reached step 300")


def test_a_checkpoint_is_handed_on_at_once_where_other_reports_wait_for_company(
    slot: Slot, tmp_path: Path
) -> None:
    """Until its row is durable a kill of the driver costs the training since the one before."""
    (tmp_path / "announces.py").write_text(
        "import time\n"
        "from hpsearch.train.learner import Measurement\n"
        "def train(params, context):\n"
        "    yield Measurement(1, {'loss': 1.0})\n"
        "    time.sleep(600)\n"
    )
    context = Context(0, 1, 0, 100, 1, tmp_path / "t")
    slot.start(Launch("announces", (), {}, context, "loss", (str(tmp_path),), judged=False))
    while not slot.poll(1.0).lines:
        pass
    line = encode(Report(checkpoint=Checkpoint(1, 1, "c", 3, "ff")))
    read, given = slot._read, [[line], [], [], []]
    slot._read = lambda: given.pop(0) if given else read()  # type: ignore[method-assign]
    began = time.monotonic()
    assert slot.poll(5.0).lines == [line]
    assert time.monotonic() - began < 0.9, "it waited for company"
    slot.kill()
