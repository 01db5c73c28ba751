"""The commands: exit codes, what goes to which stream, and that quick answers load nothing heavy."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hpsearch import cli, sweep
from hpsearch.errors import SpecError, StudyBusy
from hpsearch.study.trial import Outcome, StudyEnding

sys.path.insert(0, str(Path(__file__).parent / "show"))
import facts

HEAVY = ("ray", "torch", "mlflow", "optuna", "sqlalchemy", "numpy")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory whose ./studies holds two studies: one has a best trial, one has none."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HPSEARCH_HOME", raising=False)
    studies = tmp_path / "studies"
    ending = StudyEnding(Outcome.COMPLETED, "1 of 2 trials completed", facts.NOON)
    facts.stored(facts.study(studies, "good-1"), [facts.completed(0, 2.5), facts.failed(1)], ending)
    facts.stored(facts.study(studies, "poor-1"), [facts.pruned(0, [9.0])])
    (tmp_path / "demo.yaml").write_text(facts.YAML)
    return studies


class Told:
    """What a command did: its exit code and both streams."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def answer(self) -> Any:
        assert self.out.count("\n") == 1
        return json.loads(self.out)


@pytest.fixture
def hpsearch(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs a command in this process, through the door that users take."""

    def command(*arguments: str) -> Told:
        monkeypatch.setattr(sys, "argv", ["hpsearch", *arguments])
        with pytest.raises(SystemExit) as left:
            cli.main()
        code = left.value.code
        return Told(code if isinstance(code, int) else 0, *capsys.readouterr())

    return command


def fresh(*arguments: str, code: str = "") -> Told:
    """Run a command in a process of its own."""
    start = ["-c", code] if code else ["-m", "hpsearch", *arguments]
    done = subprocess.run([sys.executable, *start], capture_output=True, text=True, timeout=60, check=False)
    return Told(done.returncode, done.stdout, done.stderr)


def ended(home: Path, outcome: Outcome, **changes: Any) -> sweep.Result:
    """What the wiring of a run gives back."""
    ending = StudyEnding(outcome, "so it ended", facts.NOON)
    told = facts.history(facts.study(home, "good-1"), [facts.completed(0, 2.5)], ending)
    return sweep.Result(told, ending, changes.get("undelivered", 0), changes.get("problem"))


# -- check ------------------------------------------------------------------------------------------


def test_check_of_a_valid_file_prints_its_parameters() -> None:
    told = fresh("check", "demo.yaml")
    assert (told.code, told.err) == (0, "")
    lines = told.out.splitlines()
    assert lines[0].split() == ["parameter", "type", "values", "scale"]
    assert lines[2].split() == ["lr", "DOUBLE", "0.0001", "to", "0.1", "UNIT_LOG_SCALE"]
    assert lines[-1].startswith("demo.yaml is valid: minimize loss, 20 trials")


def test_check_of_an_invalid_file_names_every_mistake_and_leaves_with_2(tmp_path: Path) -> None:
    bad = facts.YAML.replace("maxTrials: 20", "maxTrials: many").replace("MINIMIZE", "DOWN")
    (tmp_path / "bad.yaml").write_text(bad)
    told = fresh("check", "bad.yaml")
    assert (told.code, told.out) == (2, "")
    first, second, last = told.err.splitlines()
    assert first.startswith("bad.yaml:4:11: trainingInput.hyperparameters.goal: ")
    assert "(value 'DOWN')" in first
    assert second.startswith("bad.yaml:6:16: trainingInput.hyperparameters.maxTrials: ")
    assert last == "error: bad.yaml is not valid: 2 errors"


def test_check_json_of_an_invalid_file_is_one_object_and_leaves_with_2(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(facts.YAML.replace("MINIMIZE", "DOWN"))
    told = fresh("check", "bad.yaml", "--json")
    assert told.code == 2
    assert told.answer["valid"] is False
    assert told.answer["errors"][0]["value"] == "DOWN"


def test_check_of_a_missing_file_leaves_with_2_and_a_hint() -> None:
    told = fresh("check", "nowhere.yaml", "--json")
    assert (told.code, told.out) == (2, "")
    assert told.err.splitlines()[0] == "error: no file nowhere.yaml"
    assert told.err.splitlines()[1].startswith("hint: ")


@pytest.mark.parametrize("arguments", [["check", "demo.yaml", "--json"], ["--version"], ["--help"]])
def test_quick_answers_load_nothing_heavy(arguments: list[str]) -> None:
    code = f"""
import sys
sys.argv = ["hpsearch", *{arguments!r}]
from hpsearch.cli import main
try:
    main()
finally:
    sys.stderr.write(repr([name for name in {HEAVY!r} if name in sys.modules]))
"""
    told = fresh(code=code)
    assert (told.code, told.err) == (0, "[]")


# -- questions --------------------------------------------------------------------------------------


def test_list_names_every_study(hpsearch: Any, home: Path) -> None:
    told = hpsearch("list", "--json")
    assert told.code == 0
    assert told.answer["home"] == str(home)
    found = [(s["study"], s["state"]) for s in told.answer["studies"]]
    assert found == [("good-1", "completed"), ("poor-1", "interrupted")]
    rows = hpsearch("list").out.splitlines()[2:]
    assert [row.split()[:5] for row in rows] == [
        ["good-1", "completed", "2/20", "loss", "2.5"],
        ["poor-1", "interrupted", "1/20", "loss", "-"],
    ]


def test_list_of_an_empty_home_says_so(hpsearch: Any) -> None:
    assert hpsearch("list", "--home", "elsewhere").out == "no studies in elsewhere\n"
    assert hpsearch("list", "--home", "elsewhere", "--json").answer["studies"] == []


def test_a_damaged_study_does_not_hide_the_others(hpsearch: Any, home: Path) -> None:
    (home / "poor-1" / "study.db").write_bytes(b"SQLite format 3\0" + b"x" * 5000)
    told = hpsearch("list", "--json")
    assert told.code == 0
    assert [s["state"] for s in told.answer["studies"]] == ["completed", "unreadable"]
    assert told.err.startswith("error: ")
    assert hpsearch("show", "poor-1").code == 74


def test_what_a_crash_left_before_there_was_a_study_is_none(hpsearch: Any, home: Path) -> None:
    (home / "early-1").mkdir()
    (home / "early-1" / "study.db").touch()
    told = hpsearch("list", "--json")
    assert [s["study"] for s in told.answer["studies"]] == ["good-1", "poor-1"]


def test_show_tells_state_counts_and_places(hpsearch: Any, home: Path) -> None:
    told = hpsearch("show", "good-1")
    assert told.code == 0
    assert told.out.splitlines()[0] == "study good-1: completed (1 of 2 trials completed)"
    assert "2 of 20 trials: 1 completed, 1 failed" in told.out
    assert "best: trial 0, loss 2.5 at step 200" in told.out
    assert f"study    {home / 'good-1'}" in told.out
    answer = hpsearch("show", "good-1", "--json").answer
    assert (answer["state"], answer["best"]["number"]) == ("completed", 0)


def test_show_of_an_owned_study_says_running(hpsearch: Any, home: Path) -> None:
    from hpsearch.study.store import Store

    store = Store.open(home / "good-1")
    try:
        assert hpsearch("show", "good-1", "--json").answer["state"] == "running"
    finally:
        store.close()


def test_trials_shows_every_trial_with_its_reason(hpsearch: Any) -> None:
    told = hpsearch("trials", "good-1")
    assert told.code == 0
    assert "ValueError: no data" in told.out
    assert [t["state"] for t in hpsearch("trials", "good-1", "--json").answer["trials"]] == [
        "completed",
        "failed",
    ]


def test_an_answer_that_a_full_disk_cuts_is_no_success() -> None:
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "hpsearch", "trials", "good-1", "--json"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 75
    assert done.stderr == "error: the answer could not be written: No space left on device\n"


def test_best_shows_params_in_full_precision(hpsearch: Any) -> None:
    told = hpsearch("best", "good-1")
    assert told.code == 0
    assert told.out.splitlines()[:2] == ["best: trial 0, loss 2.5 at step 200", "  lr: 0.012345678"]
    assert hpsearch("best", "good-1", "--json").answer["value"] == 2.5


def test_best_without_a_completed_trial_leaves_with_3_in_one_clear_line(hpsearch: Any) -> None:
    told = hpsearch("best", "poor-1")
    assert (told.code, told.out) == (3, "")
    assert told.err.splitlines()[0] == "error: no trial of study 'poor-1' has completed"
    told = hpsearch("best", "poor-1", "--json")
    assert (told.code, told.answer["trial"]) == (3, None)


@pytest.mark.parametrize("command", ["show", "trials", "best", "resume"])
def test_an_unknown_study_leaves_with_2_and_the_names_there_are(hpsearch: Any, command: str) -> None:
    told = hpsearch(command, "god-1")
    assert (told.code, told.out) == (2, "")
    assert told.err.splitlines() == [
        "error: no study 'god-1' in studies",
        "hint: did you mean 'good-1'? there are: good-1, poor-1",
    ]


def test_a_study_name_is_no_path(hpsearch: Any, home: Path) -> None:
    assert hpsearch("show", f"../{home.name}/good-1").code == 2


def test_the_home_comes_from_the_option_then_the_environment(
    hpsearch: Any, monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    monkeypatch.setenv("HPSEARCH_HOME", "nowhere")
    assert hpsearch("list", "--json").answer["studies"] == []
    assert len(hpsearch("list", "--json", "--home", str(home)).answer["studies"]) == 2


def test_passwords_in_tracking_addresses_are_not_shown(hpsearch: Any, home: Path) -> None:
    from hpsearch.study.store import Store

    Store.create(facts.study(home, "secret-1"), "https://me:hunter2@host/mlflow").close()
    for arguments in (["show", "secret-1"], ["show", "secret-1", "--json"], ["list", "--json"]):
        told = hpsearch(*arguments)
        assert "host/mlflow" in told.out
        assert "hunter2" not in told.out


# -- run, resume ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcome", "code"),
    [(Outcome.COMPLETED, 0), (Outcome.FAILED, 3), (Outcome.DEADLINE, 4), (Outcome.INTERRUPTED, 75)],
)
def test_a_run_leaves_with_the_code_of_its_outcome(
    hpsearch: Any, home: Path, monkeypatch: pytest.MonkeyPatch, outcome: Outcome, code: int
) -> None:
    monkeypatch.setattr(sweep, "run", lambda file, options, watcher: ended(home, outcome))
    monkeypatch.setattr(sweep, "resume", lambda name, options, watcher: ended(home, outcome))
    told = hpsearch("run", "demo.yaml", "--json")
    assert (told.code, told.answer["state"]) == (code, outcome)
    told = hpsearch("resume", "good-1")
    assert told.code == code
    assert f"study good-1 {outcome}: so it ended" in told.out
    assert ("hpsearch resume good-1" in told.out) == (code in (4, 75))


def test_a_run_gets_the_options_as_they_were_typed(
    hpsearch: Any, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(sweep, "run", lambda *given: (seen.append(given), ended(home, Outcome.COMPLETED))[1])
    hpsearch("run", "demo.yaml")
    typed = "--study s --resume auto --home h --local --address a --tracking-uri u"
    hpsearch("run", "demo.yaml", *typed.split())
    assert [given[0] for given in seen] == [Path("demo.yaml")] * 2
    assert [given[1] for given in seen] == [
        sweep.Options(Path("studies")),
        sweep.Options(Path("h"), "s", "auto", True, "a", "u"),
    ]


def test_the_object_of_a_run_is_that_of_show_and_how_far_mlflow_lags(
    hpsearch: Any, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = ended(home, Outcome.COMPLETED, undelivered=7, problem="https://me:hunter2@host says no")
    monkeypatch.setattr(sweep, "run", lambda *_: late)
    answer = hpsearch("run", "demo.yaml", "--json").answer
    lag = {"undelivered", "set_aside", "problem"}
    assert set(answer) == set(hpsearch("show", "good-1", "--json").answer) | lag
    assert (answer["undelivered"], answer["problem"]) == (7, "https://host says no")


def test_an_invalid_file_is_explained_line_by_line_when_run(hpsearch: Any, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(facts.YAML.replace("MINIMIZE", "DOWN"))
    told = hpsearch("run", "bad.yaml")
    assert (told.code, told.out) == (2, "")
    assert told.err.splitlines()[0].startswith("bad.yaml:4:11: trainingInput.hyperparameters.goal: ")
    assert told.err.splitlines()[1].startswith("error: bad.yaml is not valid: 1 error")


@pytest.mark.parametrize(
    ("error", "code"), [(StudyBusy("busy", hint="wait"), 73), (SpecError("bad", hint="wait"), 2)]
)
def test_an_error_is_one_line_and_a_hint_and_the_code_of_its_kind(
    hpsearch: Any, monkeypatch: pytest.MonkeyPatch, error: Exception, code: int
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(sweep, "run", fail)
    told = hpsearch("run", "demo.yaml", "--json")
    assert (told.code, told.out) == (code, "")
    assert told.err == f"error: {error.args[0]}\nhint: wait\n"


def test_a_bug_saves_its_traceback_without_secrets_and_leaves_with_1(
    hpsearch: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("while asking https://me:hunter2@host")

    monkeypatch.setattr(sweep, "run", fail)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    told = hpsearch("run", "demo.yaml")
    (saved,) = tmp_path.glob("hpsearch-bug-*.log")
    assert told.code == 1
    assert told.err.splitlines()[0] == (
        "error: a bug in hpsearch: ZeroDivisionError: while asking https://host"
    )
    assert str(saved) in told.err.splitlines()[1]
    assert "Traceback" in saved.read_text()
    assert "hunter2" not in saved.read_text() + told.err
    assert "Traceback" not in told.err


def test_a_bug_is_told_where_no_file_can_be_written(hpsearch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("so")

    monkeypatch.setattr(sweep, "run", fail)
    monkeypatch.setattr("tempfile.tempdir", "/nowhere/at/all")
    told = hpsearch("run", "demo.yaml")
    assert told.code == 1
    assert told.err.startswith("error: a bug in hpsearch: ZeroDivisionError: so\nTraceback")
    assert told.err.endswith("ZeroDivisionError: so\n")


# -- usage ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [["nonsense"], ["run"], ["run", "demo.yaml", "--resume", "maybe"], ["check", "--nonsense"], []],
)
def test_bad_usage_leaves_with_2(hpsearch: Any, arguments: list[str]) -> None:
    told = hpsearch(*arguments)
    assert told.code == 2
    assert "hpsearch" in told.err
    assert "Traceback" not in told.err


def test_help_lists_the_commands_that_exist(hpsearch: Any) -> None:
    text = hpsearch("--help").out.partition("Commands:\n")[2]
    listed = [line.split()[0] for line in text.splitlines()]
    asking = ["list", "show", "trials", "best", "schema", "ui"]
    shipping = ["submit", "status", "logs", "launch", "schedule", "store", "k8s"]
    assert listed == ["check", "run", "resume", "stop", *asking, "sync", "reconcile", *shipping]


def test_version_is_that_of_the_package(hpsearch: Any) -> None:
    from importlib.metadata import version

    assert hpsearch("--version").out == f"hpsearch {version('hpsearch')}\n"


def test_ui_serves_the_embedded_database_on_this_machine_only(
    hpsearch: Any, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[str]] = []

    def execute(path: str, command: list[str], env: dict[str, str]) -> None:
        seen.append(command)
        assert env["MLFLOW_SERVER_ALLOWED_HOSTS"] == "127.0.0.1:5001,localhost:5001"
        raise SystemExit(0)

    monkeypatch.setattr("os.execve", execute)
    told = hpsearch("ui")
    assert (told.code, seen) == (2, [])
    assert "no MLflow database in studies" in told.err
    (home / "mlflow.db").touch()
    assert hpsearch("ui", "--port", "5001").code == 0
    uri = f"sqlite:///{home / 'mlflow.db'}"
    wanted = ["-m", "mlflow", "ui", "--backend-store-uri", uri, "--host", "127.0.0.1", "--port", "5001"]
    assert seen == [[sys.executable, *wanted]]
