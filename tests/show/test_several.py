"""What is printed of several objectives, constraints and conditions, also where the screen is narrow."""

from __future__ import annotations

import io
import math
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import facts
import pytest
from facts import completed, failed, running, scored
from rich.console import Console as RichConsole
from screens import Terminal, summary

from hpsearch.show import answers, lines
from hpsearch.show.console import Console, live_view
from hpsearch.show.progress import Progress
from hpsearch.spec.model import Program, Reading, Resources
from hpsearch.spec.reading import parse
from hpsearch.study.front import best_of, front_of
from hpsearch.study.history import History
from hpsearch.study.trial import Attempt, Entry, Measurement, Outcome

Make = Callable[..., History]


def grid_lines(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def test_with_several_objectives_a_line_tells_them_all_and_the_front(tmp_path: Path) -> None:
    study = facts.several(tmp_path, limit=100.0)
    progress = Progress.start(study, [scored(0, 3.0, 0.5, latency=1.0)], 0.0)
    trials = [
        scored(1, 2.0, 0.25, latency=5.0),
        scored(2, 9.0, 0.1, latency=9.0),
        scored(3, 1.0, 0.9, latency=101.5),
        scored(4, 1.0, 0.9),
        scored(5, 1.0, 0.9, latency=100.0),
    ]
    said = []
    for trial in trials:
        for entry in facts.entries(trial):
            progress.take(entry, trial)
        line = lines.event(entry, trial, study.spec, standing=lines.standing(trial, progress))
        said.append(line)
    assert said == [
        "trial 1 completed: loss 2, accuracy 0.25, latency 5 at step 100 (on the front of 2)",
        "trial 2 completed: loss 9, accuracy 0.1, latency 9 at step 100",
        "trial 3 completed: loss 1, accuracy 0.9, latency 101.5 at step 100 (unsafe: latency is above 100)",
        "trial 4 completed: loss 1, accuracy 0.9 at step 100 (unsafe: latency is nan)",
        "trial 5 completed: loss 1, accuracy 0.9, latency 100 at step 100 (on the front of 1)",
    ]


def test_what_was_never_reported_is_told_so_and_what_was_with_its_value(tmp_path: Path) -> None:
    spec = facts.several(tmp_path, limit=100.0).spec
    silent = scored(0, 1.0, 0.9)
    silent.measurements = [Measurement(100, {"loss": 1.0, "accuracy": 0.9})]
    assert lines.unsafe(silent, spec) == "unsafe: latency was never reported"
    assert lines.unsafe(scored(1, 1.0, 0.9, latency=math.inf), spec) == "unsafe: latency is inf"
    late = scored(2, 1.0, 0.9, latency=101.0)
    late.measurements.append(Measurement(200, {"latency": math.nan}))
    assert lines.unsafe(late, spec) == "unsafe: latency is above 100"


@pytest.mark.parametrize("limit", [None, 4.0])
def test_the_front_that_grows_is_the_front_of_all(tmp_path: Path, limit: float | None) -> None:
    study = facts.several(tmp_path, limit=limit)
    alone = replace(study, spec=replace(study.spec, objectives=study.spec.objectives[:1]))
    points = [(float(n * 7 % 11), float(n * 5 % 9), float(n * 3 % 8)) for n in range(60)]
    trials = [scored(n, loss, -loss * gain, latency=late) for n, (loss, gain, late) in enumerate(points)]
    for each in (study, alone):
        resumed = Progress.start(each, trials[:30], 0.0)
        fresh = Progress.start(each, [], 0.0)
        for place, trial in enumerate(trials):
            for progress in (fresh, resumed) if place >= 30 else (fresh,):
                progress.take(Entry(trial.number, trial.ending or facts.completed(0).ending), trial)
            known = trials[: place + 1]
            best = best_of(known, each)
            front = front_of(known, each) if each is study else [one for one in (best,) if one]
            assert fresh.front == answers.ranked(front, each.spec)
            assert [one for one in known if fresh.leads(one)] == front
        assert resumed.front == fresh.front


class Counted(list[Measurement]):
    """Measurements that count how often they are looked through."""

    looks = 0

    def __iter__(self) -> Iterator[Measurement]:
        self.looks += 1
        return super().__iter__()


def test_an_ending_and_the_live_view_look_at_few_trials_however_large_the_front(tmp_path: Path) -> None:
    def looks(size: int) -> int:
        trials = [scored(n, float(n), float(n)) for n in range(size)]
        for one in trials:
            one.measurements = Counted(one.measurements)
        progress = Progress.start(facts.several(tmp_path), trials, 0.0)
        assert len(progress.front) == size
        for one in trials:
            one.measurements.looks = 0  # type: ignore[attr-defined]
        last = scored(size, float(size), float(size))
        for entry in facts.entries(last):
            progress.take(entry, last)
        live_view(progress, 1.0)
        assert len(progress.front) == size + 1
        return sum(one.measurements.looks for one in trials)  # type: ignore[attr-defined]

    assert looks(10) == looks(200) > 0


def test_objectives_that_count_at_different_steps_each_say_theirs(tmp_path: Path) -> None:
    trial = scored(0, 1.0, 0.5)
    trial.measurements.append(Measurement(200, {"accuracy": 0.75}))
    said = lines.outcome(trial, facts.several(tmp_path).spec)
    assert said == "loss 1 at step 100, accuracy 0.75 at step 200"


def test_the_live_view_shows_a_few_of_the_front_and_all_objectives_of_the_running(tmp_path: Path) -> None:
    trials = [scored(n, float(n), 0.1 * n) for n in range(1, 7)]
    progress = Progress.start(facts.several(tmp_path), trials, 0.0)
    going = scored(7, 0.5, 0.25)
    going.ending = None
    for entry in facts.entries(going):
        progress.take(entry, going)
    screen = RichConsole(file=io.StringIO(), width=100, record=True)
    screen.print(live_view(progress, 1.0))
    shown = [line.strip() for line in screen.export_text().splitlines()]
    assert shown[2:] == [
        "6 trials on the front so far",
        *(
            f"loss {n}, accuracy {0.1 * n:.4g} at step 100, trial {n}: optimizer=adam rate=0.01 layers=1"
            for n in range(1, 5)
        ),
        "and 2 more",
        "trial 7  step 100/200  loss 0.5  accuracy 0.25",
    ]


def test_metrics_that_are_reported_one_by_one_are_shown_side_by_side(tmp_path: Path) -> None:
    progress, trial = Progress.start(facts.several(tmp_path), [], 0.0), running(0)
    for step, metrics in ((1, {"loss": 2.0}), (1, {"accuracy": 0.5}), (2, {"loss": math.nan})):
        progress.take(Entry(0, Measurement(step, metrics)), trial)
    assert progress.running == {0: (2, {"loss": 2.0, "accuracy": 0.5})}


def test_best_prints_the_front_by_its_first_objective_and_then_the_best_trial(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trials = [scored(0, 3.0, 0.9), scored(1, 1.0, 0.5), scored(2, 2.0, 0.4)]
    Console().best(facts.history(facts.several(tmp_path), trials))
    shown = capsys.readouterr().out
    params = ["optimizer=adam", "rate=0.01", "layers=1"]
    assert grid_lines(shown)[0] == ["trial", "loss", "accuracy", "step", "params"]
    assert grid_lines(shown)[2:4] == [
        ["1", "1", "0.5", "100", *params],
        ["0", "3", "0.9", "100", *params],
    ]
    assert shown.splitlines()[4:] == [
        "2 trials on the front, best by loss: trial 1, loss 1, accuracy 0.5 at step 100",
        "  optimizer: adam",
        "  rate: 0.01",
        "  layers: 1",
    ]


def test_the_trials_of_several_objectives_have_a_column_each_and_say_what_is_unsafe(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trials = [scored(0, 3.0, 0.9, latency=101.0), scored(1, 1.0, math.nan, latency=3.0)]
    trials[1].ending = failed(1).ending
    Console().trials(facts.history(facts.several(tmp_path, limit=100.0), trials), owned=True)
    header, _, first, second = capsys.readouterr().out.splitlines()
    assert header.split() == ["trial", "state", "loss", "accuracy", "latency", "step", "params", "reason"]
    assert first.split()[:6] == ["0", "completed", "3", "0.9", "101", "100"]
    assert first.rstrip().endswith("reached step 100; unsafe: latency is above 100")
    assert second.split()[:6] == ["1", "failed", "1", "-", "3", "100"]


def test_the_end_of_a_run_of_several_objectives_shows_ten_of_the_front(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trials = [scored(n, float(n), 0.05 * n) for n in range(12)]
    told = facts.history(facts.several(tmp_path), trials)
    Console().summary(summary(told, Outcome.COMPLETED))
    shown = grid_lines(capsys.readouterr().out)
    assert shown[0] == ["trial", "loss", "accuracy", "step", "params"]
    assert [row[0] for row in shown[2:12]] == [str(n) for n in range(10)]
    assert shown[12] == ["and", "2", "trials", "more", "on", "the", "front"]


def test_a_study_of_unsafe_trials_has_no_best_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = facts.history(facts.several(tmp_path, limit=100.0), [scored(0, 1.0, 0.9, latency=101.0)])
    Console().summary(summary(told, Outcome.COMPLETED))
    Console().shown(told, owned=False, tracking_uri="http://host")
    out = capsys.readouterr().out
    assert "hpsearch best" not in out
    assert "has latency at most 100" in out


def test_unsafe_trials_have_no_rank(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = facts.several(tmp_path, limit=100.0)
    study = replace(study, spec=replace(study.spec, objectives=study.spec.objectives[:1]))
    trials = [scored(0, 1.0, 0.9, latency=101.0), scored(1, 2.0, 0.9, latency=99.0)]
    Console().summary(summary(facts.history(study, trials), Outcome.COMPLETED))
    header, _, first, after, *_ = grid_lines(capsys.readouterr().out)
    assert header == ["rank", "trial", "loss", "latency", "step", "params"]
    assert (first[:4], after[0]) == (["1", "1", "2", "99"], "study")


def test_attempts_have_a_column_where_a_trial_had_more_than_one(
    capsys: pytest.CaptureFixture[str], history: Make
) -> None:
    told = history(completed(0, 1.0), completed(1, 1.0))
    Console().trials(told, owned=True)
    assert "attempts" not in capsys.readouterr().out
    told.trials[1].attempts.append(Attempt(2, facts.NOON, 100))
    Console().trials(told, owned=True)
    header, _, first, second = grid_lines(capsys.readouterr().out)
    assert (header[4], first[4], second[4]) == ("attempts", "1", "2")


def test_on_a_narrow_terminal_long_texts_stand_below_their_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = facts.history(facts.several(tmp_path, limit=100.0), [scored(0, 3.0, 0.9, latency=1.0), running(1)])
    screens = {}
    for width in ("60", "120"):
        monkeypatch.setattr(sys, "stdout", screens.setdefault(width, Terminal()))
        monkeypatch.setenv("COLUMNS", width)
        Console().trials(told, owned=True)
    assert uncoloured(screens["60"].getvalue()).splitlines() == [
        "trial  state      loss  accuracy  latency  step",
        "    0  completed     3       0.9        1   100",
        "       params optimizer=adam rate=0.01 layers=1",
        "       reason reached step 100",
        "    1  running       -         -        -     -",
        "       params lr=0.01235 depth=3 batch=16 kind=a",
    ]
    assert "optimizer=adam rate=0.01 layers=1" in screens["120"].getvalue().splitlines()[2]


def test_a_trial_that_nobody_runs_is_unfinished(capsys: pytest.CaptureFixture[str], history: Make) -> None:
    told = history(running(0, 1.0), completed(1, 1.0))
    for owned, state in ((True, "running"), (False, "unfinished")):
        Console().trials(told, owned=owned)
        _, _, first, second = grid_lines(capsys.readouterr().out)
        assert (first[1], second[1]) == (state, "completed")


def test_one_trial_is_told_as_one(tmp_path: Path, capsys: pytest.CaptureFixture[str], history: Make) -> None:
    told = history(completed(0, 1.0))
    one = replace(told, study=replace(told.study, spec=replace(told.study.spec, max_trials=1)))
    Console().shown(one, owned=False, tracking_uri="http://host")
    Console().summary(summary(one, Outcome.COMPLETED))
    shown = capsys.readouterr().out
    assert "1 of 1 trial: 1 completed" in shown
    assert "1 completed of 1 trial\n" in shown


def test_what_is_run_is_shown_without_its_secrets(tmp_path: Path) -> None:
    args = ("--api-key=abc", "--token", "abc def", "--password=abc def", "--db=http://ann:abc@host/x")
    module = replace(facts.study(tmp_path).spec, args=args)
    command = replace(module, program=Program(command=("env", "HF_TOKEN=abc", "run"), env=(("A", "b"),)))
    for spec in (module, command):
        shown = lines.program(spec)
        assert not {"abc", "def"} & set(re.findall(r"[a-z]+", shown))
        assert "--api-key=***" in shown
        assert "--db=http://host/x" in shown
    assert lines.program(command).startswith("env 'HF_TOKEN=***' run")


def uncoloured(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def test_check_shows_conditions_what_is_run_and_what_a_trial_asks_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = replace(
        facts.several(tmp_path, limit=100.0).spec,
        args=("--files=a b",),
        resources=Resources(4.0, 2.0, 3 * 2**29, hinted=True),
    )
    Console().checked(Reading("x.yaml", "vertex_ai", spec, (), ()))
    out = capsys.readouterr().out.splitlines()
    assert out[0].split() == ["parameter", "type", "values", "scale", "only", "if"]
    assert out[3].split() == [
        "rate",
        "DOUBLE",
        "0.001",
        "to",
        "0.1",
        "UNIT_LOG_SCALE",
        "optimizer",
        "is",
        "adam",
    ]
    assert out[6].rstrip().endswith("layers is 2 or 3")
    assert out[8:] == [
        "runs     module hpsearch.trainers.linear_regression with '--files=a b'",
        "a trial  asks for 4 CPUs, 2 GPUs (or as many as the machine has), 1.5 GiB of memory",
        "x.yaml is valid: minimize loss, maximize accuracy with latency at most 100, 20 trials of at most "
        "200 steps, 2 at once, TPE sampler (seed 0), no pruner",
    ]


def test_a_command_and_a_file_without_a_program_say_what_is_run(tmp_path: Path) -> None:
    spec = replace(facts.study(tmp_path).spec, module="")
    assert lines.program(spec) == "nothing to run here"
    command = replace(spec, program=Program(command=("python", "my task.py")), args=("--x",))
    assert lines.program(command) == "python 'my task.py' --x"
    # Nobody here knows after how many steps a command ends.
    assert lines.plan(command).startswith("minimize loss, 20 trials, 2 at once")
    assert (lines.progress(7, spec), lines.progress(7, command)) == ("step 7/200", "step 7")


def test_resources_are_named_where_the_file_asks_for_some(tmp_path: Path) -> None:
    spec = facts.study(tmp_path).spec
    asked = [Resources(), Resources(0.0, 0.5), Resources(1.0, 0.0, 512 * 2**20)]
    assert [lines.resources(replace(spec, resources=each)) for each in asked] == [
        "",
        "0.5 GPUs",
        "1 CPU, 512 MiB of memory",
    ]


def test_sizes_are_in_the_largest_unit_that_fits() -> None:
    assert [lines.size(n) for n in (1, 1023, 1024, 3 * 2**29, 2**50)] == [
        "1 B",
        "1023 B",
        "1 KiB",
        "1.5 GiB",
        "1024 TiB",
    ]


def test_steps_are_promised_only_where_the_file_names_them() -> None:
    file = "trainingInput:\n  pythonModule: m\n  hyperparameters:\n    goal: MINIMIZE\n    maxTrials: 2\n"
    file += "    hyperparameterMetricTag: loss\n"
    file += "    params: [{parameterName: x, type: DOUBLE, minValue: 0, maxValue: 1}]\n"
    silent, paced = parse(file).spec, parse(f"{file}hpsearch: {{maxSteps: 70}}\n").spec
    assert silent
    assert paced
    assert "step" not in lines.plan(silent)
    assert "2 trials of at most 70 steps" in lines.plan(paced)
    assert (lines.progress(7, silent), lines.progress(7, paced)) == ("step 7", "step 7/70")
