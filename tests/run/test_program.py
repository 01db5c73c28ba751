"""Unmodified programs of the services run as trials, whichever way they parse and report."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import pytest
from program_run import PROGRAMS, Slot, commands, follow, forks, launch, slot

from hpsearch.spec.model import Program

__all__ = ["commands", "forks", "slot"]


def test_a_flat_script_trains_with_its_params_and_every_epoch_is_heard(slot: Slot, tmp_path: Path) -> None:
    said = follow(slot, launch(tmp_path, "flat", {"lr": 0.5, "epochs": 2, "note": "64 32 -- $HOME"}))
    assert said.curve == [(1, {"loss": 1.5}), (2, {"loss": 2.5})]
    assert said.verdict == ("completed", "finished at step 2")
    assert "training at 0.5" in (tmp_path / "output.log").read_text()
    assert all(measurement.time > 1_600_000_000_000 for measurement in said.measurements)


def test_a_packaged_trainer_gets_its_files_its_job_directory_and_its_params(
    slot: Slot, tmp_path: Path
) -> None:
    program = Program(job_dir=f"{tmp_path}/jobs/", own_directory=True)
    params = {"learning-rate": 1e-05, "hidden-units": "64 32", "batch-size": 2}
    given = launch(
        tmp_path,
        "census.task",
        params,
        args=("--train-files", "a.csv", "b.csv", "--verbosity", "DEBUG"),
        metric="test_loss",
        program=program,
    )
    said = follow(slot, given)
    assert said.verdict == ("completed", "finished at step 2")
    merged: dict[int, dict[str, float]] = {}
    for step, metrics in said.curve:
        merged.setdefault(step, {}).update(metrics)
    assert merged == {step: {"test_loss": 1e-05, "width": 192.0} for step in (1, 2)}
    log = (tmp_path / "output.log").read_text()
    assert f"files ['a.csv', 'b.csv'] job {tmp_path}/jobs/7" in log


def test_a_package_runs_its_main_module(slot: Slot, tmp_path: Path) -> None:
    said = follow(slot, launch(tmp_path, "packaged", {"a": 1}))
    assert said.curve == [(0, {"loss": 0.25})]
    assert "arguments ['--a=1']" in (tmp_path / "output.log").read_text()


def test_a_program_that_parses_with_click(slot: Slot, tmp_path: Path) -> None:
    said = follow(slot, launch(tmp_path, "with_click", {"learning-rate": 0.25, "layers": 3}))
    assert said.curve == [(1, {"loss": 0.75})]
    assert said.verdict == ("completed", "finished at step 1")


def test_a_program_that_parses_with_fire_and_names_no_step_counts_its_reports(
    slot: Slot, tmp_path: Path
) -> None:
    args = ("--training_dataset_path", "gs://bucket/data.csv", "--hptune")
    given = launch(tmp_path, "with_fire", {"alpha": 0.25, "max_iter": 10}, args=args, metric="accuracy")
    said = follow(slot, given)
    assert said.curve == [(step, {"accuracy": 2.5 + step}) for step in range(3)]


def test_a_program_finds_its_trial_and_its_directories_in_the_environment(slot: Slot, tmp_path: Path) -> None:
    job = {"args": ["--x"], "hyperparameters": {"maxTrials": 2}}
    program = Program(
        env=(("OF_THE_FILE", "a b"), ("AIP_DATA_FORMAT", "csv")),
        output=f"{tmp_path}/out",
        job=json.dumps(job),
        region="europe-west1",
        own_directory=True,
    )
    given = launch(
        tmp_path, "reads_environment", args=(f"--output_dir={tmp_path}/o",), program=program, cpu=2
    )
    assert follow(slot, given).verdict == ("completed", "finished at step 1")
    seen = json.loads((tmp_path / "seen.json").read_text())
    env = seen["env"]
    assert seen["job_dir"] == env["AIP_MODEL_DIR"] == f"{tmp_path}/out/7/model/"
    assert env["AIP_TENSORBOARD_LOG_DIR"] == f"{tmp_path}/out/7/logs/"
    assert (tmp_path / "out/7/model/weights.txt").exists()
    assert (tmp_path / "out/7/checkpoints/last.txt").exists()
    assert (tmp_path / "o/7/model.txt").read_text() == env["CLOUD_ML_TRIAL_ID"] == "7"
    assert json.loads(env["TF_CONFIG"]) == {
        "cluster": {},
        "environment": "cloud",
        "job": job,
        "task": {"index": 0, "trial": "7"},
    }
    assert (env["CLOUD_ML_JOB_ID"], env["CLOUD_ML_REGION"]) == ("census-1", "europe-west1")
    assert (env["OF_THE_FILE"], env["OMP_NUM_THREADS"]) == ("a b", "2")
    assert env["CLOUD_ML_HP_METRIC_FILE"] == str(tmp_path / "output.metrics")


def test_both_ways_of_starting_give_a_program_the_same_environment(
    forks: Slot, commands: Slot, tmp_path: Path
) -> None:
    seen = []
    for each in (forks, commands):
        follow(each, launch(tmp_path, "reads_environment", args=(f"--output_dir={tmp_path}/{len(seen)}",)))
        seen.append(json.loads((tmp_path / "seen.json").read_text()))
    forked, commanded = (set(each["env"].items()) for each in seen)
    # Ray sets it in a process that uses it, as this one may have since it started its server of forks.
    assert {name for name, _ in forked ^ commanded} <= {"PYTHONBREAKPOINT"}
    assert seen[0]["job_dir"] == seen[1]["job_dir"]


def test_a_program_starts_in_the_drivers_directory_and_finds_what_lies_there(
    slot: Slot, tmp_path: Path
) -> None:
    (tmp_path / "data.csv").write_text("0.125")
    (tmp_path / "beside").mkdir()
    (tmp_path / "beside" / "reads_data.py").write_text(
        "import hypertune, sys\n"
        "print('path', sys.path[0])\n"
        "report = hypertune.HyperTune().report_hyperparameter_tuning_metric\n"
        "report('loss', open('data.csv').read())\n"
    )
    path = (str(tmp_path), str(tmp_path / "beside"))
    said = follow(slot, launch(tmp_path / "t", "reads_data", program=Program(), python_path=path))
    assert said.curve == [(0, {"loss": 0.125})]
    assert f"path {tmp_path}\n" in (tmp_path / "t/output.log").read_text()


def test_a_program_may_use_workers_and_choose_how_they_start(slot: Slot, tmp_path: Path) -> None:
    said = follow(slot, launch(tmp_path, "with_workers"))
    assert said.curve == [(1, {"loss": 182.0})]


def test_a_program_in_a_fork_has_torch_and_starts_in_a_fraction_of_the_time(
    forks: Slot, commands: Slot, tmp_path: Path
) -> None:
    (tmp_path / "imports.py").write_text("import torch\nfrom flat import *\n")
    path = (str(tmp_path), str(PROGRAMS))
    took = {}
    for name, each in (("fork", forks), ("command", commands)):
        before = time.time()
        follow(each, launch(tmp_path / name, "imports", {"lr": 1}, python_path=path))
        first, torch_is_there = (tmp_path / name / "output.log").read_text().split()[3:5]
        took[name] = float(first) - before
        assert torch_is_there == "True"
    assert took["fork"] < took["command"] / 4, took
    said = follow(forks, launch(tmp_path / "plain", "flat", {"lr": 1}))
    assert "True" in (tmp_path / "plain/output.log").read_text(), said


def test_a_programs_draws_are_its_trials(forks: Slot, tmp_path: Path) -> None:
    (tmp_path / "draws.py").write_text(
        "import random, torch, numpy, hypertune\n"
        "assert torch.get_num_threads() == 2\n"
        "report = hypertune.HyperTune().report_hyperparameter_tuning_metric\n"
        "report('loss', random.random() + numpy.random.rand() + float(torch.rand(())))\n"
    )
    curves = [
        follow(forks, launch(tmp_path / str(turn), "draws", cpu=2, python_path=(str(tmp_path),))).curve
        for turn in range(2)
    ]
    assert curves[0] == curves[1]
    assert curves[0]


@pytest.mark.parametrize(
    ("kind", "state", "reason"),
    [
        ("good", "completed", "finished at step 4"),
        ("nan", "infeasible", "loss is nan at step 4"),
        ("silent", "failed", "metric tag loss never reported; tags seen: other"),
        ("code", "failed", "the program exited with code 3: half a line of progress"),
        ("text", "failed", "the program exited with code 1: no data in ./data"),
        ("raises", "failed", "the program exited with code 1: ValueError: no good"),
        (
            "import",
            "failed",
            "the program exited with code 1: ModuleNotFoundError: No module named 'no_such_package'",
        ),
        ("at_once", "failed", "the program exited with code 7"),
    ],
)
def test_each_end_of_a_program_is_told_as_it_was(
    slot: Slot, tmp_path: Path, kind: str, state: str, reason: str
) -> None:
    (tmp_path / "output.log").write_text("of an earlier attempt\n")
    assert follow(slot, launch(tmp_path, "ends", {"kind": kind})).verdict == (state, reason)


@pytest.mark.parametrize(
    ("said", "state", "reason"),
    [
        ("('loss', 1, 4)", "failed", "metric tag speed never reported; tags seen: loss"),
        ("('loss', 1, 4), ('speed', 'nan', 4)", "infeasible", "speed is nan at step 4"),
        ("('loss', 'nan', 4), ('speed', 1, 4)", "infeasible", "loss is nan at step 4"),
        ("('loss', 'nan', 4)", "failed", "metric tag speed never reported; tags seen: loss"),
        ("('loss', 1, 4), ('speed', 2, 4)", "completed", "finished at step 4"),
    ],
)
def test_every_objective_of_several_counts_for_the_end(
    commands: Slot, tmp_path: Path, said: str, state: str, reason: str
) -> None:
    (tmp_path / "several.py").write_text(
        "import hypertune\n"
        f"for tag, value, step in [{said}]:\n"
        "    hypertune.HyperTune().report_hyperparameter_tuning_metric(tag, value, step)\n"
    )
    given = launch(tmp_path, "several", metrics=("loss", "speed"), python_path=(str(tmp_path),))
    assert follow(commands, given).verdict == (state, reason)


def test_a_program_that_reports_nothing_hears_why_it_was_run_as_one(slot: Slot, tmp_path: Path) -> None:
    assert follow(slot, launch(tmp_path, "ends", {"kind": "mute"})).verdict == (
        "failed",
        "metric tag loss never reported; tags seen: none; ends was run as a program because it offers"
        " neither build(params, context) nor train(params, context)",
    )


def test_a_program_that_dies_of_a_signal_is_a_lost_attempt(slot: Slot, tmp_path: Path) -> None:
    said = follow(slot, launch(tmp_path, "ends", {"kind": "signal"}))
    assert said.lost == "its process was killed by signal 11 (SIGSEGV)"
    assert said.curve == [(4, {"loss": 1.5})]


def test_a_program_ends_as_the_interpreter_ends(slot: Slot, tmp_path: Path) -> None:
    said = follow(slot, launch(tmp_path, "ends", {"kind": "tidies"}))
    assert said.curve == [(4, {"loss": 1.5}), (5, {"loss": 0.5})], "threads are waited for"
    assert (tmp_path / "unclosed.txt").read_text() == "flushed\n"
    assert (tmp_path / "atexit.txt").read_text() == "__main__"
    assert (tmp_path / "output.log").read_text().endswith("still in the buffer")


def test_shared_memory_that_a_program_forgets_is_given_back(slot: Slot, tmp_path: Path) -> None:
    (tmp_path / "forgets.py").write_text(
        "from multiprocessing.shared_memory import SharedMemory\n"
        "memory = SharedMemory(create=True, size=8)\n"
        "print('memory', memory.name, flush=True)\n"
    )
    follow(slot, launch(tmp_path / "t", "forgets", python_path=(str(tmp_path),)))
    word, name, *warning = (tmp_path / "t" / "output.log").read_text().split()
    assert word == "memory"
    assert "leaked" in warning, "multiprocessing's helper says so when it gives it back"
    assert not Path("/dev/shm", name).exists()


def test_what_a_program_leaves_has_a_moment_to_end_by_itself(slot: Slot, tmp_path: Path) -> None:
    (tmp_path / "leaves.py").write_text(
        "import subprocess\nsubprocess.Popen(['sh', '-c', 'sleep 0.1; echo done > done.txt; sleep 600'])\n"
    )
    follow(slot, launch(tmp_path, "leaves", python_path=(str(tmp_path),)))
    assert (tmp_path / "done.txt").exists()


@pytest.mark.parametrize("padding", [0, 280, 10_000, 100_000])
def test_what_a_program_died_of_is_told_without_its_secrets(
    commands: Slot, tmp_path: Path, padding: int
) -> None:
    (tmp_path / "talks.py").write_text(
        f"raise SystemExit('{'x' * padding} cannot connect to postgresql://bob:hunter2@db/x'"
        "' (password=hunter2)')"
    )
    state, reason = follow(commands, launch(tmp_path, "talks", python_path=(str(tmp_path),))).verdict
    assert state == "failed"
    assert reason.startswith("the program exited with code 1")
    assert "hunter2" not in reason
    assert ("cannot connect to postgresql://" in reason) == (padding == 0)


@pytest.mark.parametrize(
    ("name", "value", "expression"),
    [
        ("PYTHONPATH", "/no/such:lib", "sys.path[:4]"),
        ("PYTHONHASHSEED", "7", "hash('x')"),
        ("PYTHONWARNINGS", "ignore", "sys.warnoptions"),
        ("PYTHONOPTIMIZE", "1", "sys.flags.optimize"),
        ("LD_LIBRARY_PATH", "/no/such", "'=/no/such' in open('/proc/self/environ').read()"),
        ("TZ", "XYZ-5", "time.tzname"),
    ],
)
def test_a_files_variables_act_in_a_fork_as_in_an_interpreter_of_its_own(
    forks: Slot, commands: Slot, tmp_path: Path, name: str, value: str, expression: str
) -> None:
    (tmp_path / "looks.py").write_text(f"import sys, time\nprint({expression})\n")

    def seen(slot: Slot, *env: tuple[str, str]) -> str:
        program = Program(own_directory=True, env=env)
        (tmp_path / "t/output.log").unlink(missing_ok=True)
        follow(slot, launch(tmp_path / "t", "looks", python_path=(str(tmp_path),), program=program))
        return (tmp_path / "t/output.log").read_text()

    assert seen(forks, (name, value)) == seen(commands, (name, value)) != seen(forks)


def test_a_traceback_in_the_log_begins_with_the_program(slot: Slot, tmp_path: Path) -> None:
    follow(slot, launch(tmp_path, "ends", {"kind": "raises"}))
    log = (tmp_path / "output.log").read_text()
    assert log.startswith("Traceback (most recent call last):\n")
    assert f'File "{PROGRAMS}/ends.py"' in log
    assert "hpsearch" not in log.replace(str(PROGRAMS), "")


def test_a_module_that_is_not_there_fails_and_says_so(forks: Slot, tmp_path: Path) -> None:
    assert follow(forks, launch(tmp_path, "no.such.module")).verdict == (
        "failed",
        "cannot import no.such.module: ModuleNotFoundError: No module named 'no'",
    )


def test_a_command_runs_without_a_shell_and_with_this_interpreter(slot: Slot, tmp_path: Path) -> None:
    code = (
        "import sys, hypertune; print(sys.executable, sys.argv[1:]);"
        "hypertune.HyperTune().report_hyperparameter_tuning_metric('loss', 2)"
    )
    program = Program(command=("python3", "-c", code), own_directory=True)
    said = follow(slot, launch(tmp_path, "", {"text": "$(touch x); `y`"}, args=("a b",), program=program))
    assert said.verdict == ("completed", "finished at step 0")
    expected = f"{sys.executable} ['a b', '--text=$(touch x); `y`']"
    assert expected in (tmp_path / "output.log").read_text()
    assert not (tmp_path / "x").exists()


def test_a_command_may_be_a_script_beside_the_data(slot: Slot, tmp_path: Path) -> None:
    script = tmp_path / "train.sh"
    script.write_text('#!/bin/sh\nexec python -m flat "$@"\n')
    script.chmod(0o755)
    program = Program(command=("./train.sh",), own_directory=True)
    said = follow(slot, launch(tmp_path, "", {"lr": 1, "epochs": 1}, program=program))
    assert said.curve == [(1, {"loss": 2.0})]


@pytest.mark.parametrize("name", ["no_such_command", "./no_such_script"])
def test_a_command_that_is_not_there_fails_and_says_so(slot: Slot, tmp_path: Path, name: str) -> None:
    program = Program(command=(name, "--x"), own_directory=True)
    assert follow(slot, launch(tmp_path, "", program=program)).verdict == (
        "failed",
        f"command {name!r} cannot be found in {tmp_path} or on the PATH",
    )


def test_a_command_that_cannot_be_executed_fails_and_says_so(slot: Slot, tmp_path: Path) -> None:
    (tmp_path / "broken").write_bytes(b"\x7fELF")
    (tmp_path / "broken").chmod(0o755)
    state, reason = follow(
        slot, launch(tmp_path, "", program=Program(command=("./broken",), own_directory=True))
    ).verdict
    assert state == "failed"
    assert "exited with code 126" in reason
    assert "Exec format error" in reason


def test_a_trial_leaves_the_driver_as_it_was(commands: Slot, tmp_path: Path) -> None:
    before = dict(os.environ), Path.cwd(), list(sys.path), sys.modules["__main__"].__dict__.copy()
    follow(commands, launch(tmp_path, "flat", {"lr": 1}))
    assert (dict(os.environ), Path.cwd(), list(sys.path), sys.modules["__main__"].__dict__.copy()) == before
