"""With --local a program has a process of its own, and so all that other trials have under Ray."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from program_run import PROGRAMS

from hpsearch.run import local
from hpsearch.spec.reading import parse
from hpsearch.study.history import StoreReader
from hpsearch.study.pruning import make_pruner
from hpsearch.study.sampling import OptunaSampler
from hpsearch.study.search import Search
from hpsearch.study.store import Store
from hpsearch.study.trial import Entry, Measurement, Outcome, State, Study

Make = Callable[..., Search]


class Watched:
    """A journal that does something when a measurement is durable."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.when_measured: Callable[[], None] = lambda: None

    def commit(self, entries: Sequence[Entry]) -> None:
        self.store.commit(entries)
        if any(isinstance(entry.fact, Measurement) for entry in entries):
            self.when_measured()


def yaml_of(module: str, args: Sequence[str], trials: int, tier: str, block: Mapping[str, str]) -> str:
    own = "".join(f"  {name}: {value}\n" for name, value in block.items())
    return f"""\
trainingInput:
  scaleTier: {tier}
  pythonModule: {module}
  args: {list(args)}
  hyperparameters:
    goal: MINIMIZE
    hyperparameterMetricTag: loss
    maxTrials: {trials}
    maxParallelTrials: 1
    params:
      - {{parameterName: lr, type: DISCRETE, discreteValues: [1, 2, 4]}}
hpsearch:
  sampler: {{type: RANDOM}}
{own}"""


@pytest.fixture
def search_for(tmp_path: Path) -> Iterator[Make]:
    """A Search over a real store for a study of one program."""
    stores: list[Store] = []

    def make(module: str, *args: str, trials: int = 1, tier: str = "BASIC", **block: str) -> Search:
        reading = parse(yaml_of(module, args, trials, tier, block), "programs.yaml")
        assert reading.spec, reading.errors
        study = Study("study", "u", 1, reading.spec, tmp_path / "study")
        stores.append(Store.create(study, "sqlite:///none.db"))
        study = stores[-1].take(1).study
        journal = Watched(stores[-1])
        spec = study.spec
        return Search(study, OptunaSampler(spec), make_pruner(spec), journal, python_path=[str(PROGRAMS)])

    yield make
    for store in stores:
        store.close()


def test_a_study_of_a_program_runs_to_its_end(
    search_for: Make, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    search = search_for("flat", "--epochs=2", trials=2)
    local.run(search)
    assert search.conclude(9).outcome is Outcome.COMPLETED
    stored = StoreReader(search.study.directory).history().trials
    assert len(stored) == 2
    for trial in stored:
        assert trial.state is State.COMPLETED
        lr = float(trial.params["lr"])
        assert trial.values("loss") == [(1, lr + 1), (2, lr + 2)]
        assert "training at" in (tmp_path / f"study/trials/{trial.number:04d}/output.log").read_text()
    assert capfd.readouterr() == ("", "")


def test_a_killed_program_gets_another_attempt(search_for: Make) -> None:
    search = search_for("killed_once")
    local.run(search)
    (trial,) = StoreReader(search.study.directory).history().trials
    assert trial.state is State.COMPLETED
    assert len(trial.attempts) == 2
    assert [step for step, _ in trial.values("loss")] == [1, 2]


def test_a_program_that_dies_each_time_fails_its_trial(search_for: Make) -> None:
    search = search_for("ends", "--kind=signal", limits="{maxAttempts: 2}")
    local.run(search)
    (trial,) = search.trials.values()
    assert len(trial.attempts) == 2
    assert trial.ending
    assert trial.ending.state is State.FAILED
    assert trial.ending.reason == "its process was killed by signal 11 (SIGSEGV), in attempt 2 of 2"


def test_an_interrupt_stops_a_program_that_says_nothing_any_more(search_for: Make, tmp_path: Path) -> None:
    search = search_for("until_stopped", "--then=save")
    pid = tmp_path / "study/trials/0000/pid"

    def interrupt() -> None:
        search._journal.when_measured = lambda: None  # type: ignore[attr-defined]  # what it saves is heard, too
        deadline = time.monotonic() + 20
        while not pid.exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    search._journal.when_measured = interrupt  # type: ignore[attr-defined]
    local.run(search)
    assert search.conclude(9).outcome is Outcome.INTERRUPTED
    assert search.counts()[State.RUNNING] == 1
    assert (tmp_path / "study/trials/0000/saved").exists()


def test_a_pruned_program_may_save(search_for: Make, tmp_path: Path) -> None:
    search = search_for("until_stopped", "--then=save", pruner="{type: THRESHOLD, upper: 0.5}")
    local.run(search)
    assert [trial.state for trial in search.trials.values()] == [State.PRUNED]
    assert (tmp_path / "study/trials/0000/saved").exists()


def test_a_programs_trial_timeout_is_kept(search_for: Make, tmp_path: Path) -> None:
    search = search_for("until_stopped", "--then=save", limits="{trialTimeout: 2s}")
    local.run(search)
    (trial,) = search.trials.values()
    assert trial.ending
    assert trial.ending.reason == "trialTimeout: not finished after 2 s"


@pytest.mark.parametrize("module", ["flat", "zoo"])
def test_a_trial_whose_directory_cannot_be_made_fails_after_its_attempts(
    search_for: Make, tmp_path: Path, module: str
) -> None:
    search = search_for(module, trials=2, limits="{maxAttempts: 2}")
    (tmp_path / "study/trials").touch()
    local.run(search)
    for trial in search.trials.values():
        assert len(trial.attempts) == 2
        assert trial.ending
        assert trial.ending.state is State.FAILED
        assert "could not be started: NotADirectoryError" in trial.ending.reason
        assert trial.ending.reason.endswith("in attempt 2 of 2")


def test_a_machines_name_promises_no_gpu_that_is_not_there(
    search_for: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "counts_gpus.py").write_text(
        "from hpsearch.train.learner import Measurement\n"
        "def train(params, context):\n"
        "    yield Measurement(1, {'loss': context.resources.gpu})\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    search = search_for("counts_gpus", tier="BASIC_GPU")
    local.run(search)
    (trial,) = search.trials.values()
    assert trial.values("loss") == [(1, 0.0)]
    assert "the file's machine has 1 GPU, the best one here 0: a trial gets 0" in caplog.messages


def test_an_error_of_the_store_leaves_no_program_behind(search_for: Make, tmp_path: Path) -> None:
    search = search_for("until_stopped")

    def fail() -> None:
        raise OSError("the store is gone")

    search._journal.when_measured = fail  # type: ignore[attr-defined]
    with pytest.raises(OSError, match="the store is gone"):
        local.run(search)
    child = int((tmp_path / "study/trials/0000/child").read_text())
    assert not Path(f"/proc/{child}").exists()


def test_a_driver_of_programs_imports_no_torch() -> None:
    code = "import sys, hpsearch.run.local, hpsearch.train.form; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
