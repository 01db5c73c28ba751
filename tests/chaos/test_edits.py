"""Changed files, code and versions on resume: what goes on, what is refused, and what a fork knows."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import alone
import pytest

from hpsearch import cli, revising, sweep
from hpsearch.spec.model import Spec
from hpsearch.spec.reading import parse
from hpsearch.study import edits
from hpsearch.study.edits import RULES, classify
from hpsearch.study.home import Home
from hpsearch.study.trial import State
from hpsearch.train.code import Code, changes

Fired = Callable[..., None]

BASE = """\
trainingInput:
  pythonModule: toy
  args: ["--flag=1"]
  hyperparameters:
    goal: MINIMIZE
    hyperparameterMetricTag: loss
    maxTrials: 4
    maxParallelTrials: 2
    params:
      - {parameterName: x, type: DOUBLE, minValue: 0, maxValue: 1}
      - {parameterName: layers, type: INTEGER, minValue: 1, maxValue: 4}
      - {parameterName: kind, type: CATEGORICAL, categoricalValues: [a, b]}
      - {parameterName: size, type: DISCRETE, discreteValues: [8, 16]}
hpsearch:
  maxSteps: 500
  measureEvery: 100
  sampler: {type: TPE, seed: 1, startupTrials: 3}
  pruner: {type: ASHA, minSteps: 100}
  resources: {cpu: 1}
  limits: {trialTimeout: 30m, maxFailedTrials: 5}
  tracking: {experiment: one}
"""
TOY = """
from hpsearch.train.learner import Measurement

def train(params, context):
    for step in range(context.measure_every, context.max_steps + 1, context.measure_every):
        yield Measurement(step, {"loss": (params["x"] - 0.3) ** 2 + 1 / step, "extra": 1 - params["x"]})
"""
# What is replaced by what, and what is said of it; no text: nothing is.
GOES_ON = {
    "a comment": ("hpsearch:\n", "# of ours\nhpsearch:\n", ""),
    "white space": ("maxTrials: 4", "maxTrials:   4", ""),
    "the order of keys": (
        "  maxSteps: 500\n  measureEvery: 100\n",
        "  measureEvery: 100\n  maxSteps: 500\n",
        "",
    ),
    "a default spelt out": ("maxFailedTrials: 5}", "maxFailedTrials: 5, maxAttempts: 3}", ""),
    "more trials": ("maxTrials: 4", "maxTrials: 9", "maxTrials was 4, here it is 9"),
    "fewer trials": ("maxTrials: 4", "maxTrials: 2", "maxTrials was 4, here it is 2"),
    "more at once": (
        "maxParallelTrials: 2",
        "maxParallelTrials: 3",
        "maxParallelTrials was 2, here it is 3",
    ),
    "a timeout": (
        "trialTimeout: 30m",
        "trialTimeout: 1h",
        "limits.trialTimeout was 1800, here it is 3600",
    ),
    "no timeout": (
        "trialTimeout: 30m, ",
        "",
        "limits.trialTimeout was 1800, here it is not given",
    ),
    "failures": (
        "maxFailedTrials: 5",
        "maxFailedTrials: 6",
        "limits.maxFailedTrials was 5, here it is 6",
    ),
    "resources": ("cpu: 1", "cpu: 2", "resources.cpu was 1, here it is 2"),
    "the experiment": ("experiment: one", "experiment: two", "tracking.experiment was one, here it is two"),
    "where MLflow is": (
        "experiment: one",
        "experiment: one, uri: 'http://me:hunter2@host:1'",
        "tracking.uri was not given, here it is http://host:1",
    ),
    "the pruner's settings": ("minSteps: 100", "minSteps: 200", "pruner.minSteps was 100, here it is 200"),
    "another pruner": (
        "type: ASHA, minSteps: 100",
        "type: MEDIAN, minSteps: 100",
        "pruner.type was ASHA, here it is MEDIAN",
    ),
    "start-up trials": (
        "startupTrials: 3",
        "startupTrials: 9",
        "sampler.startupTrials was 3, here it is 9",
    ),
    "checkpoints": (
        "  resources:",
        "  checkpoints: {keep: ALL}\n  resources:",
        "checkpoints was BEST, here it is ALL",
    ),
}
IS_REFUSED = {
    "a wider range": (
        "maxValue: 1}",
        "maxValue: 2}",
        "parameter x was DOUBLE 0..1 on a linear scale, here it is DOUBLE 0..2 on a linear scale",
    ),
    "another scale": (
        "minValue: 1, maxValue: 4",
        "minValue: 1, maxValue: 4, scaleType: UNIT_LOG_SCALE",
        "parameter layers was INTEGER 1..4 on a linear scale, here it is INTEGER 1..4 on a log scale",
    ),
    "another type": (
        "x, type: DOUBLE",
        "x, type: INTEGER",
        "parameter x was DOUBLE 0..1 on a linear scale, here it is INTEGER 0..1 on a linear scale",
    ),
    "another category": (
        "[a, b]",
        "[a, b, c]",
        "parameter kind was CATEGORICAL [a, b], here it is CATEGORICAL [a, b, c]",
    ),
    "another discrete value": ("[8, 16]", "[8, 32]", "parameter size was DISCRETE [8, 16]"),
    "a new parameter": (
        "hpsearch:\n",
        "      - {parameterName: new, type: INTEGER, minValue: 1, maxValue: 2}\nhpsearch:\n",
        "parameter new is new",
    ),
    "a parameter less": (
        "      - {parameterName: layers, type: INTEGER, minValue: 1, maxValue: 4}\n",
        "",
        "parameter layers is not here",
    ),
    "another name": ("parameterName: x", "parameterName: y", "parameter x is not here"),
    "a condition": (
        "  sampler:",
        "  conditions: {size: {kind: [a]}}\n  sampler:",
        "parameter size is",
    ),
    "the goal": (
        "goal: MINIMIZE",
        "goal: MAXIMIZE",
        "its objective was MINIMIZE loss, here it is MAXIMIZE loss",
    ),
    "the metric": (
        "MetricTag: loss",
        "MetricTag: extra",
        "its objective was MINIMIZE loss, here it is MINIMIZE extra",
    ),
    "which measurement counts": (
        "  sampler:",
        "  measurementSelectionType: BEST\n  sampler:",
        "selection was LAST, here it is BEST",
    ),
    "the module": ("pythonModule: toy", "pythonModule: toy2", "module was toy, here it is toy2"),
    "the arguments": ("--flag=1", "--flag=2", "args was [--flag=1], here it is [--flag=2]"),
    "longer trials": ("maxSteps: 500", "maxSteps: 900", "maxSteps was 500, here it is 900"),
    "other measurements": ("measureEvery: 100", "measureEvery: 50", "measureEvery was 100, here it is 50"),
    "another sampler": ("type: TPE", "type: RANDOM", "sampler.type was TPE, here it is RANDOM"),
    "another seed": ("seed: 1", "seed: 2", "sampler.seed was 1, here it is 2"),
    "where a program starts": (
        "  sampler:",
        "  workingDirectory: TRIAL\n  sampler:",
        "program.ownDirectory was false, here it is true",
    ),
    "an earlier study": (
        "    maxTrials: 4",
        "    resumePreviousJobId: s0\n    maxTrials: 4",
        "previous was not given, here it is s0",
    ),
}


def spec(text: str = BASE) -> Spec:
    found = parse(text, "toy.yaml")
    assert found.spec is not None, found.errors
    return found.spec


def edited(old: str, new: str) -> Spec:
    assert BASE.count(old) == 1, f"{old!r} is not once in the file"
    return spec(BASE.replace(old, new))


@pytest.mark.parametrize("edit", GOES_ON.values(), ids=GOES_ON)
def test_an_edit_that_leaves_all_results_true_goes_on(edit: tuple[str, str, str]) -> None:
    verdict = classify(spec(), edited(*edit[:2]))
    assert [str(each) for each in verdict.differences] == ([edit[2]] if edit[2] else [])
    assert verdict.refused == ()


@pytest.mark.parametrize("edit", IS_REFUSED.values(), ids=IS_REFUSED)
def test_an_edit_that_makes_results_untrue_is_refused_in_words(edit: tuple[str, str, str]) -> None:
    refused = classify(spec(), edited(*edit[:2])).refused
    assert any(str(each).startswith(edit[2]) for each in refused), list(map(str, refused))
    assert all(each.why for each in refused)


def test_the_order_of_parameters_counts_and_is_told() -> None:
    lines = BASE.splitlines(keepends=True)
    at = next(n for n, line in enumerate(lines) if "parameterName: layers" in line)
    lines[at], lines[at + 1] = lines[at + 1], lines[at]
    [refused] = classify(spec(), spec("".join(lines))).refused
    assert str(refused).startswith(
        "the order of the parameters was [x, layers, kind, size], here it is [x, k"
    )


def test_every_field_of_a_spec_has_its_rule_and_one_without_is_refused() -> None:
    base = spec()
    for field in fields(Spec):
        value = getattr(base, field.name)
        inside = [f"{field.name}.{each.name}" for each in fields(value)] if is_dataclass(value) else []
        known = field.name in RULES or (inside and all(name in RULES for name in inside))
        assert known, f"{field.name} has no rule"
    assert edits._rule("something.new")


def test_the_number_of_workers_stays_as_it_is_while_what_each_gets_may_change() -> None:
    verdict = classify(spec(), spec(BASE.replace("{cpu: 1}", "{cpu: 2, workers: 2}")))
    assert [str(each) for each in verdict.refused] == ["resources.workers was 1, here it is 2"]
    assert len(verdict.differences) == 2


def test_a_renewed_secret_goes_on_and_is_not_shown_while_another_variable_is_refused() -> None:
    def with_env(**variables: str) -> Spec:
        base = spec()
        return replace(base, program=replace(base.program, env=tuple(variables.items())))

    old = with_env(API_TOKEN="first-secret", DATA="/a")
    verdict = classify(old, with_env(API_TOKEN="second-secret", DATA="/a"))
    assert [str(each) for each in verdict.differences] == ["env API_TOKEN was ***, here it is ***"]
    assert verdict.refused == ()
    [refused] = classify(old, with_env(API_TOKEN="first-secret", DATA="/b")).refused
    assert str(refused) == "env DATA was /a, here it is /b"


# -- whole studies ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Told:
    """What a command said, and its exit code."""

    code: int
    out: str
    err: str


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Run a text as a study in this process, and nobody tells MLflow of it: its facts wait in the store."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sweep, "following", alone.unheard)
    (tmp_path / "toy.py").write_text(TOY)

    def run(text: str, study: str = "s", *, code: str = TOY, **options: Any) -> Any:
        (tmp_path / "toy.yaml").write_text(text)
        (tmp_path / "toy.py").write_text(code)
        sys.modules.pop("toy", None)
        wanted = sweep.Options(tmp_path / "studies", study, local=True, **{"resume": "auto"} | options)
        return sweep.run(Path("toy.yaml"), wanted, alone.Quiet()).history

    return run


def test_a_finished_study_goes_on_when_more_trials_are_asked_for_and_remembers_the_file(
    play: Callable[..., Any], tmp_path: Path
) -> None:
    first = play(BASE)
    assert len(first.trials) == 4
    more = play(BASE.replace("maxTrials: 4", "maxTrials: 6"))
    assert len(more.trials) == 6
    assert [t.ending for t in more.trials[:4]] == [t.ending for t in first.trials], "what had ended stays"
    revision = more.revisions[-1]
    assert revision.edits == ("maxTrials was 4, here it is 6",)
    assert revision.text is not None
    assert "maxTrials: 6" in revision.text
    assert revision.time > 0
    # A plain resume knows the new file.
    assert Home(tmp_path / "studies").history("s").study.spec.max_trials == 6
    again = sweep.resume("s", sweep.Options(tmp_path / "studies", "s", local=True), alone.Quiet())
    assert len(again.history.trials) == 6


def test_fewer_trials_than_were_started_start_nothing_more(play: Callable[..., Any]) -> None:
    play(BASE)
    fewer = play(BASE.replace("maxTrials: 4", "maxTrials: 2"))
    assert len(fewer.trials) == 4
    assert str(fewer.ending.outcome) == "completed"


def test_a_new_comment_alone_is_kept_and_ends_nothing_anew(play: Callable[..., Any]) -> None:
    first = play(BASE)
    noted = play(BASE + "# a note\n")
    assert noted.revisions[-1].edits == ()
    assert noted.revisions[-1].text.endswith("# a note\n")
    assert len(noted.trials) == len(first.trials)


def test_a_killed_life_after_an_accepted_edit_does_not_bring_the_old_ending_back(
    play: Callable[..., Any], tmp_path: Path
) -> None:
    play(BASE)
    home = Home(tmp_path / "studies")
    store = home.open("s")
    history = store.take(1)
    new = spec(BASE.replace("maxTrials: 4", "maxTrials: 6"))
    revised, verdict = revising.revised(history, new)
    from hpsearch.study.trial import Entry

    store.commit([Entry(None, revising.Revisions(revised, [str(tmp_path)]).edited(verdict, 1))])
    store._abandon()  # a kill: no ending is written
    found = home.history("s")
    assert found.last_ending is None
    assert found.study.spec.max_trials == 6


def test_changed_code_is_warned_of_and_the_attempts_after_it_carry_the_new_proof(
    play: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    first = play(BASE)
    caplog.clear()
    other = TOY + "\n# better\n"
    again = play(BASE.replace("maxTrials: 4", "maxTrials: 5"), code=other)
    [warning] = [r.getMessage() for r in caplog.records if "the trainer's code has changed" in r.getMessage()]
    assert "toy.py changed (sha256 " in warning
    before, after = first.revisions[-1].code, again.revisions[-1].code
    assert before.keys() == after.keys() == {"toy.py"}
    assert before != after


def test_changed_code_between_two_attempts_of_one_life_is_a_fact_before_the_second(
    play: Callable[..., Any], tmp_path: Path
) -> None:
    changing = TOY.replace(
        "def train(params, context):\n",
        "def train(params, context):\n"
        "    if context.number == 1:\n"
        "        with open(__file__, 'a') as own:\n"
        "            own.write('# changed by trial 1\\n')\n",
    )
    history = play(BASE, code=changing)
    assert [r.number for r in history.revisions] == [1, 2]
    rows = database(tmp_path, "SELECT lsn FROM revision ORDER BY lsn")
    attempts = dict(database(tmp_path, "SELECT trial, lsn FROM attempt"))
    assert attempts[1] < rows[1][0] < attempts[2], "the attempts after it ran the new code"


def test_other_versions_are_told_with_old_and_new_and_optunas_with_what_it_means(
    play: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    first = play(BASE)
    now = dict(first.revisions[-1].versions)
    fake = {**now, "python": "3.99.1", "torch": "9.9", "optuna": "5.9.0"} | {"ray": "9.0"}
    monkeypatch.setattr(revising, "versions", lambda: fake)
    caplog.clear()
    again = play(BASE.replace("maxTrials: 4", "maxTrials: 5"))
    said = [record.getMessage() for record in caplog.records]
    for name in ("python", "torch", "ray"):
        assert f"{name} was {now[name]}, now it is {fake[name]}" in said
    [draws] = [line for line in said if line.startswith("optuna was")]
    assert "what the sampler draws from now on may differ" in draws
    assert again.revisions[-1].versions == fake
    patch = {**now, "optuna": now["optuna"].rpartition(".")[0] + ".99"}
    [small] = revising._moved(now, patch)
    assert "draws" not in small


def test_a_changed_file_that_the_trainer_imports_is_seen_too(tmp_path: Path) -> None:
    (tmp_path / "toy.py").write_text("import helper\nfrom pack import inner\nimport torch\n")
    (tmp_path / "helper.py").write_text("A = 1\n")
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack/__init__.py").write_text("")
    (tmp_path / "pack/inner.py").write_text("from . import deep\n")
    (tmp_path / "pack/deep.py").write_text("B = 1\n")
    (tmp_path / "bystander.py").write_text("C = 1\n")
    code = Code("toy", (), [str(tmp_path)])
    before = dict(code.proofs())
    assert before.keys() == {"toy.py", "helper.py", "pack/__init__.py", "pack/inner.py", "pack/deep.py"}
    (tmp_path / "pack/deep.py").write_text("B = 22\n")
    assert [line.split(" (")[0] for line in changes(before, code.proofs())] == ["pack/deep.py changed"]


# -- forks --------------------------------------------------------------------------------------------


def test_a_fork_knows_the_trials_inside_of_its_space_and_counts_the_others(
    play: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    first = play(BASE.replace("maxTrials: 4", "maxTrials: 8"))
    inside = [t for t in first.trials if t.params["x"] <= 0.7 and t.ending]
    assert 0 < len(inside) < 8, "the space must cut the trials in two"
    forked = play(BASE.replace("maxValue: 1}", "maxValue: 0.7}"), fork="f", resume="never")
    assert [k.trial.params for k in forked.known] == [t.params for t in inside]
    assert all(t.params["x"] <= 0.7 for t in forked.trials)
    assert len(forked.trials) == 4
    out = 8 - len(inside)
    assert f"fork of s: {len(inside)} of 8 trials are known; {out} left out: outside of the search space" in [
        record.getMessage() for record in caplog.records
    ]
    # The batch job that made it may be started again.
    again = play(BASE.replace("maxValue: 1}", "maxValue: 0.7}"), fork="f")
    assert len(again.trials) == 4


@pytest.mark.parametrize(
    ("edit", "known", "said"),
    [
        (("MetricTag: loss", "MetricTag: extra"), "completed", ""),
        (("MetricTag: loss", "MetricTag: never"), "none", "another objective, which was not measured"),
        (("goal: MINIMIZE", "goal: MAXIMIZE"), "completed", ""),
        (("maxSteps: 500", "maxSteps: 600"), "none", "maxSteps was 500, here it is 600"),
        (("--flag=1", "--flag=2"), "none", "args was [--flag=1], here it is [--flag=2]"),
        (("seed: 1", "seed: 2"), "all", ""),
        (
            (
                "hpsearch:\n",
                "      - {parameterName: n, type: INTEGER, minValue: 1, maxValue: 2}\nhpsearch:\n",
            ),
            "none",
            "outside of the search space",
        ),
    ],
)
def test_a_fork_takes_over_only_what_is_true_for_it(
    play: Callable[..., Any], edit: tuple[str, str], known: str, said: str
) -> None:
    from hpsearch.study.lineage import fork

    first = play(BASE)
    found = fork(edited(*edit), first)
    counted = {
        "all": len(first.trials),
        "completed": sum(t.state is State.COMPLETED for t in first.trials),
        "none": 0,
    }[known]
    assert len(found.known) == counted
    assert found.left_out.total() == len(first.trials) - counted
    assert said in str(found)


# -- through the command line -------------------------------------------------------------------------


def database(home: Path, query: str) -> list[tuple[Any, ...]]:
    connection = sqlite3.connect(home / "studies/s/study.db")
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def hpsearch(cwd: Path, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "hpsearch", *words]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == code, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., Told]]:
    """The command line in this process, where nobody tells MLflow."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sweep, "following", alone.unheard)
    monkeypatch.setenv("HPSEARCH_UMASK", "")
    umask = os.umask(0o022)

    def run(*words: str) -> Told:
        monkeypatch.setattr(sys, "argv", ["hpsearch", *words])
        sys.modules.pop("toy", None)
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        return Told(int(ended.value.code or 0), out, err)

    yield run
    os.umask(umask)


@pytest.mark.fault("F62")
def test_through_the_command_line_edits_go_on_are_refused_line_by_line_or_fork(
    tmp_path: Path, fired: Fired, command: Callable[..., Told]
) -> None:
    file, code = tmp_path / "toy.yaml", tmp_path / "toy.py"
    run = ("run", "toy.yaml", "--local", "--study", "s")
    code.write_text(TOY)
    file.write_text(BASE)
    assert command(*run).code == 0

    file.write_text(BASE.replace("maxTrials: 4", "maxTrials: 5"))
    code.write_text(TOY + "# changed\n")
    went_on = command(*run, "--resume", "must")
    assert went_on.code == 0
    assert "new file: maxTrials was 4, here it is 5" in went_on.out
    assert "toy.py changed (sha256" in went_on.err
    fired("changed" in went_on.err)

    bad = BASE.replace("maxTrials: 4", "maxTrials: 5").replace("goal: MINIMIZE", "goal: MAXIMIZE")
    file.write_text(bad.replace("maxValue: 1}", "maxValue: 0.5}"))
    refused = hpsearch(tmp_path, *run, "--resume", "auto", code=2)
    lines = refused.stderr.splitlines()
    assert lines[0].startswith("toy.yaml:10:25: parameter x was DOUBLE 0..1 on a linear scale, here it is")
    assert lines[1].startswith("toy.yaml:5:5: its objective was MINIMIZE loss, here it is MAXIMIZE loss; ")
    assert lines[2].startswith("error: ")
    assert "--fork NAME" in lines[3]
    assert refused.stdout == ""
    kept = json.loads(command("show", "s", "--json").out)
    assert (kept["state"], kept["maxTrials"]) == ("completed", 5), "a refused file changes nothing"

    forked = command(*run, "--fork", "f", "--json")
    assert "warning: fork of s: " in forked.err
    shown = json.loads(forked.out)
    assert (shown["study"], shown["goal"], shown["state"]) == ("f", "MAXIMIZE", "completed")
    nobody = command("run", "toy.yaml", "--fork", "g", "--local")
    assert nobody.code == 2
    assert "--fork needs --study" in nobody.err
