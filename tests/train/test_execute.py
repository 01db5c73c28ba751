"""Whatever a trainer does, its trial says the truth about it and ends once."""

from __future__ import annotations

import math
import sys
import time
from pathlib import Path

import pytest
from trial_run import Run, Said

from hpsearch.study.trial import Context, Launch, Report
from hpsearch.train.trial import execute, fixed_params

HEAD = "from hpsearch.train.learner import *\nimport torch\nimport numpy as np\n"


def generator(body: str) -> str:
    return HEAD + "def train(params, context):\n" + "".join(f"    {line}\n" for line in body.splitlines())


def learner(loss: str = "model(batch[0]).square().mean()", evaluate: str = "{'rmse': 1.0}") -> str:
    return (
        HEAD
        + f"""
def build(params, context):
    model = torch.nn.Linear(2, 1)
    return Learner(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        batches=Batches(torch.ones(4, 2), batch_size=2, seed=context.seed),
        loss=lambda batch: {loss},
        evaluate=lambda: {evaluate},
    )
"""
    )


def yielding(*values: str) -> str:
    return generator(
        "\n".join(f"yield Measurement({step}, {{'rmse': {v}}})" for step, v in enumerate(values, 1))
    )


def test_a_generator_that_reaches_the_last_step_is_complete_and_is_closed(run: Run, tmp_path: Path) -> None:
    said = run(
        generator(
            f"try:\n    for step in range(1000): yield Measurement(step, {{'rmse': 1 / (step + 1)}})\n"
            f"finally: open({str(tmp_path / 'closed')!r}, 'w').close()"
        )
    )
    assert said.verdict == ("completed", "reached step 40")
    assert [step for step, _ in said.curve] == list(range(41))
    assert (tmp_path / "closed").exists()


def test_a_generator_that_ends_earlier_finished_at_its_last_step(run: Run) -> None:
    assert run(yielding("3", "2")).verdict == ("completed", "finished at step 2")


def test_a_generator_may_be_any_iterable_of_measurements(run: Run) -> None:
    said = run(generator("return [Measurement(7, {'rmse': 2})]"))
    assert said.verdict == ("completed", "finished at step 7")


def test_a_stopped_generator_is_closed_and_reports_no_ending(run: Run, tmp_path: Path) -> None:
    said = run(
        generator(
            "try:\n    for step in range(30): yield Measurement(step, {'rmse': 1})\n"
            f"finally: open({str(tmp_path / 'closed')!r}, 'w').close()"
        ),
        stop_after=4,
    )
    assert len(said.reports) == 4
    assert (tmp_path / "closed").exists()


def test_an_error_while_a_stopped_generator_tidies_up_reports_no_ending(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    source = generator("try: yield Measurement(1, {'rmse': 1})\nfinally: raise ValueError('untidy')")
    assert len(run(source, stop_after=1).reports) == 1
    assert "ValueError: untidy" in capsys.readouterr().err


def test_generators_are_seeded(run: Run) -> None:
    body = (
        "import random\nyield Measurement(1, {'rmse': random.random() + np.random.rand() + torch.rand(())})"
    )
    first = run(generator(body)).curve
    assert run(generator(body)).curve == first
    assert run(generator(body), seed=8).curve != first


def test_a_trainer_gets_a_plain_dict_with_the_arguments_of_the_file_under_the_params(run: Run) -> None:
    body = (
        "assert type(params) is dict\nyield Measurement(1, {k: v for k, v in params.items() if k != 'name'})"
    )
    said = run(
        generator(body),
        args=("--hidden-layers=2", "--rmse", "1e-3", "--name=wide"),
        params={"hidden_layers": 5},
    )
    assert said.curve == [(1, {"hidden_layers": 5.0, "rmse": 0.001})]


def test_arguments_are_numbers_where_they_spell_one() -> None:
    given = fixed_params(["--a-b=2", "--c", "-0.5", "--d=relu", "--e=x=y"])
    assert given == {"a_b": 2, "c": -0.5, "d": "relu", "e": "x=y"}
    assert type(given["a_b"]) is int
    with pytest.raises(ValueError, match=r"'wide' is not of the form --name=value"):
        fixed_params(["wide"])


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3.0),
        ("True", 1.0),
        ("np.float32(0.5)", 0.5),
        ("np.int64(4)", 4.0),
        ("np.bool_(True)", 1.0),
        ("np.array(2.5)", 2.5),
        ("torch.tensor(1.5)", 1.5),
        ("torch.tensor([[2.0]], requires_grad=True)", 2.0),
        ("torch.tensor(3, dtype=torch.int8)", 3.0),
        ("torch.tensor(0.5, dtype=torch.bfloat16)", 0.5),
        ("1e308", 1e308),
        ("5e-324", 5e-324),
    ],
)
def test_scalars_of_every_kind_become_floats(run: Run, text: str, value: float) -> None:
    said = run(yielding(text))
    assert said.curve == [(1, {"rmse": value})]
    assert type(said.curve[0][1]["rmse"]) is float
    assert said.notes == []


@pytest.mark.parametrize(
    "text",
    [
        "'high'", "'1.0'", "None", "[1.0]", "(1,)", "{}", "1 + 2j", "object()", "lambda: 1", "b'1'",
        "10**400",
        "np.array([1.0, 2.0])", "np.array([])", "np.array(None)", "np.complex64(1)", "np.str_('a')",
        "np.datetime64(1, 'ns')", "torch.ones(2)", "torch.tensor(1j)", "torch.empty(0)",
        "torch.tensor(1.0, device='meta')", "float",
    ],
)  # fmt: skip
def test_a_metric_that_is_no_number_is_dropped_with_a_note_and_the_trial_lives(run: Run, text: str) -> None:
    said = run(yielding(text, "0.25"))
    assert said.curve == [(2, {"rmse": 0.25})]
    (note,) = said.notes
    assert note.startswith("metric rmse at step 1 is ") and note.endswith(", not a number: dropped")
    assert said.verdict == ("completed", "finished at step 2")


def test_the_note_names_metric_step_and_value(run: Run) -> None:
    assert run(yielding("'high'", "1")).notes == [
        "metric rmse at step 1 is str 'high', not a number: dropped"
    ]


def test_a_metric_that_is_dropped_often_is_noted_once_and_counted(run: Run) -> None:
    said = run(yielding(*["None"] * 9, "1.0"))
    assert said.notes == [
        "metric rmse at step 1 is None, not a number: dropped",
        "metric rmse: 8 more like the first",
    ]


@pytest.mark.parametrize(
    ("step", "note"),
    [
        ("-1", "step int -1 is not a whole number of at least 0: dropped"),
        ("3.5", "step float 3.5 is not a whole number of at least 0: dropped"),
        ("'4'", "step str '4' is not a whole number of at least 0: dropped"),
        ("None", "step None is not a whole number of at least 0: dropped"),
        ("True", "step bool True is not a whole number of at least 0: dropped"),
        ("3", "step 3 came after step 3: dropped"),
        ("2", "step 2 came after step 3: dropped"),
    ],
)
def test_a_step_that_is_no_progress_is_dropped_with_a_note(run: Run, step: str, note: str) -> None:
    body = "yield Measurement(3, {'rmse': 1})\n" + f"yield Measurement({step}, {{'rmse': 2}})\n"
    said = run(generator(body + "yield Measurement(np.int64(4), {'rmse': 3})"))
    assert said.curve == [(3, {"rmse": 1.0}), (4, {"rmse": 3.0})]
    assert said.notes == [note]
    assert said.verdict == ("completed", "finished at step 4")


def test_a_metric_without_a_name_is_dropped_with_a_note(run: Run) -> None:
    said = run(generator("yield Measurement(1, {3: 1.0, 'rmse': 1})"))
    assert said.curve == [(1, {"rmse": 1.0})]
    assert said.notes == ["metric name int 3 at step 1 is not a text: dropped"]


def test_measurements_get_the_time_in_milliseconds_unless_they_have_one(run: Run) -> None:
    before = time.time_ns() // 1_000_000
    said = run(generator("yield Measurement(1, {'rmse': 1})\nyield Measurement(2, {'rmse': 1}, time=77)"))
    first, second = said.measurements
    assert before <= first.time <= time.time_ns() // 1_000_000
    assert second.time == 77


def test_an_objective_never_reported_is_a_failure_that_names_the_tags_seen(run: Run) -> None:
    said = run(generator("yield Measurement(1, {'loss': 1, 'acc': 0.5})"), metric="val_rmse")
    assert said.verdict == ("failed", "metric val_rmse never reported; tags seen: loss, acc")


def test_an_objective_that_was_always_rejected_is_named_with_its_value(run: Run) -> None:
    said = run(yielding("'high'"))
    assert said.verdict == (
        "failed",
        "metric rmse never reported; tags seen: none; rejected: rmse at step 1 is str 'high'",
    )


@pytest.mark.parametrize("text", ["nan", "inf", "-inf"])
def test_a_last_objective_that_is_not_finite_is_infeasible(run: Run, text: str) -> None:
    said = run(yielding("1.0", f"float('{text}')"))
    assert len(said.curve) == 2
    assert said.verdict == ("infeasible", f"rmse is {text} at step 2")
    assert run(yielding(f"float('{text}')", "1.0")).verdict == ("completed", "finished at step 2")


@pytest.mark.parametrize(
    ("measured", "state", "reason"),
    [
        ("{'a': 1}", "failed", "metric b never reported; tags seen: a"),
        (
            "{'a': 1, 'b': 'x'}",
            "failed",
            "metric b never reported; tags seen: a; rejected: b at step 1 is str 'x'",
        ),
        ("{'a': 1, 'b': float('nan')}", "infeasible", "b is nan at step 1"),
        ("{'a': 1, 'b': 2}", "completed", "finished at step 1"),
    ],
)
def test_every_objective_of_several_counts_for_the_end(
    run: Run, measured: str, state: str, reason: str
) -> None:
    said = run(generator(f"yield Measurement(1, {measured})"), metric="a", metrics=("a", "b"))
    assert said.verdict == (state, reason)


@pytest.mark.parametrize("text", ["nan", "inf"])
def test_a_training_loss_that_is_not_finite_ends_a_learner_as_infeasible(run: Run, text: str) -> None:
    said = run(learner(loss=f"model(batch[0]).mean() * 0 + float('{text}')"))
    assert said.verdict == ("infeasible", f"training loss is {text} at step 5")
    ((step, metrics),) = said.curve
    assert step == 5 and not math.isfinite(metrics["train_loss"])
    assert said.checkpoints == []


def test_a_learner_measures_the_loss_of_its_batches_unless_it_evaluates_one(run: Run) -> None:
    assert all(set(metrics) == {"train_loss", "rmse"} for _, metrics in run(learner()).curve)
    said = run(learner(evaluate="{'rmse': 1.0, 'train_loss': -5.0}"))
    assert {metrics["train_loss"] for _, metrics in said.curve} == {-5.0}


def test_a_learner_is_measured_at_the_last_step_too(run: Run) -> None:
    said = run(learner(), max_steps=12)
    assert [step for step, _ in said.curve] == [5, 10, 12]


def test_evaluation_sees_the_model_in_evaluation_mode_without_gradients(run: Run) -> None:
    source = learner(
        loss="model(batch[0]).square().mean() if model.training else None",
        evaluate="{'rmse': model.training, 'grad': torch.is_grad_enabled()}",
    )
    said = run(source)
    assert said.verdict == ("completed", "reached step 40")
    assert all(metrics["rmse"] == 0.0 and metrics["grad"] == 0.0 for _, metrics in said.curve)


def test_build_is_chosen_before_train(run: Run) -> None:
    said = run(learner() + "def train(params, context): raise AssertionError\n")
    assert said.verdict == ("completed", "reached step 40")


def test_an_exception_becomes_one_line_with_the_place_in_the_users_module(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    said = run("def build(params, context):\n    raise ValueError('hidden_units must\\nbe positive')\n")
    state, reason = said.verdict
    assert state == "failed"
    assert reason.startswith("ValueError: hidden_units must be positive (trainer_")
    assert reason.endswith(".py:2)")
    assert "Traceback" in capsys.readouterr().err


def test_the_place_is_the_users_line_when_a_library_raises(run: Run) -> None:
    said = run(generator("yield Measurement(1, {'rmse': 1})\ntorch.ones(2) @ torch.ones(3)"))
    assert said.curve == [(1, {"rmse": 1.0})]
    assert said.verdict[0] == "failed"
    assert said.verdict[1].startswith("RuntimeError: ") and said.verdict[1].endswith(".py:6)")


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (generator("yield Measurement(1, {'rmse': 1})\nraise SystemExit(3)"), "SystemExit: 3 ("),
        (generator("yield Measurement(1, {'rmse': 1})\nassert False"), "AssertionError ("),
        (generator("yield {'rmse': 1}"), "TypeError: train must yield Measurements, got dict"),
        (generator("pass"), "TypeError: train must yield Measurements, it returned NoneType"),
        (generator("yield Measurement(1, 0.5)"), "TypeError: metrics must map names to numbers, got float"),
        (HEAD + "def build(params, context): return 3", "TypeError: build must return a Learner, got int"),
        (learner(evaluate="1.0"), "TypeError: evaluate must return a mapping of names to numbers, got float"),
        (learner(loss="model(batch[0])"), "RuntimeError: grad can be implicitly created only for scalar"),
        (learner().replace("batch_size=2", "batch_size=0"), "ValueError: batch_size must be at least 1"),
        (HEAD + "def build(params, context): params['units']", "KeyError: 'units' ("),
    ],
)  # fmt: skip
def test_what_a_trainer_does_wrong_fails_its_trial_in_one_line(run: Run, source: str, reason: str) -> None:
    state, found = run(source).verdict
    assert (state, found[: len(reason)]) == ("failed", reason)
    assert "\n" not in found


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (
            "import nothing_of_that_name",
            "ModuleNotFoundError: No module named 'nothing_of_that_name' (trainer_",
        ),
        ("def build(:", "SyntaxError: invalid syntax (trainer_"),
        ("1 / 0", "ZeroDivisionError: division by zero (trainer_"),
        ("raise SystemExit", "SystemExit (trainer_"),
    ],
)
def test_a_module_that_cannot_be_imported_fails_the_trial(run: Run, source: str, reason: str) -> None:
    state, found = run(source).verdict
    assert state == "failed"
    module, _, rest = found.removeprefix("cannot import ").partition(": ")
    assert module.startswith("trainer_")
    assert rest.startswith(reason)


def test_a_module_without_build_or_train_fails_the_trial(run: Run) -> None:
    state, reason = run("build = 3\n").verdict
    assert state == "failed"
    assert reason.endswith(" has neither build(params, context) nor train(params, context)")


def test_a_module_that_is_nowhere_fails_the_trial(tmp_path: Path) -> None:
    said = Said()
    launch = Launch("no_such.trainer", (), {}, Context(0, 1, 0, 10, 5, tmp_path), "rmse")
    execute(launch, lambda report: said.reports.append(report) or True)
    assert said.verdict == (
        "failed",
        "cannot import no_such.trainer: ModuleNotFoundError: No module named 'no_such'",
    )


def test_the_python_path_is_searched_first_and_listed_once(run: Run, tmp_path: Path) -> None:
    run(yielding("1"))
    run(yielding("1"))
    assert sys.path[0] == str(tmp_path)
    assert sys.path.count(str(tmp_path)) == 1


def test_an_error_of_the_report_itself_is_not_the_trainers_failure(tmp_path: Path) -> None:
    def report(what: Report) -> bool:
        raise BrokenPipeError("the parent is gone")

    launch = Launch(
        "hpsearch.trainers.linear_regression",
        (),
        {"learning_rate": 0.01, "batch_size": 4},
        Context(0, 1, 0, 10, 5, tmp_path),
        "rmse",
    )
    with pytest.raises(BrokenPipeError):
        execute(launch, report)
