"""What is printed: plain lines, the live view, the end of a run; and that foreign text is only text."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import facts
import pytest
from facts import completed, failed, infeasible, pruned, running
from rich.console import Console as RichConsole
from screens import Terminal, summary

from hpsearch.errors import UsageError
from hpsearch.show import lines
from hpsearch.show.console import Console, live_view
from hpsearch.show.progress import Progress
from hpsearch.spec.model import Problem
from hpsearch.study.history import History
from hpsearch.study.search import Search
from hpsearch.study.trial import Attempt, Entry, Outcome, Trial

Make = Callable[..., History]
EVIL = "\x1b[2J\x1b]0;owned\x07 \x9b31m [bold]red[/bold]\nerror: forged\r :smile:"


@dataclass
class FakeSearch:
    """The trials of a search and how many it knew before, which is all that a watcher reads."""

    trials: dict[int, Trial] = field(default_factory=dict)
    known: int = 0


def watched(console: Console, home: Path, trials: Sequence[Trial], *, resumed: Sequence[Trial] = ()) -> None:
    """Show a run of these trials, one after the other."""
    search = FakeSearch({trial.number: trial for trial in resumed})
    console.started(facts.study(home), cast(Search, search), "http://u:secret@host", bool(resumed))
    for trial in trials:
        search.trials[trial.number] = trial
        for entry in facts.entries(trial):
            console.committed([entry])
    console.stopped()


def test_on_a_pipe_every_event_is_one_plain_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trials = [completed(0, 2.71), pruned(1, [5.0, 5.21]), completed(2, 3.5), completed(3, 1.5), failed(4)]
    watched(Console(), tmp_path, trials)
    params = "lr=0.01235 depth=3 batch=16 kind=a"
    out, err = capsys.readouterr()
    assert out.splitlines()[2:] == [
        f"trial 0 started: {params}",
        "trial 0 completed: loss 2.71 at step 200 (best so far)",
        f"trial 1 started: {params}",
        "trial 1 pruned at step 200: loss is worse than the median 1.5 of 5 completed trials",
        f"trial 2 started: {params}",
        "trial 2 completed: loss 3.5 at step 200",
        f"trial 3 started: {params}",
        "trial 3 completed: loss 1.5 at step 200 (best so far)",
        f"trial 4 started: {params}",
        "trial 4 failed: ValueError: no data",
    ]
    assert err == ""
    assert "\x1b" not in out


def test_a_run_says_first_what_it_will_do_and_never_a_password(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    redacting = Console(redact=lambda text: text.replace("u:secret@", ""))
    watched(redacting, tmp_path, [], resumed=[completed(0, 1.0)])
    assert capsys.readouterr().out.splitlines() == [
        "study demo, 1 trial ended before: minimize loss, 20 trials of at most 200 steps, 2 at once, "
        "TPE sampler (seed 0), no pruner",
        "tracking http://host",
    ]


def test_a_second_attempt_says_where_it_goes_on(tmp_path: Path) -> None:
    trial, spec = running(7), facts.study(tmp_path).spec
    again = [Entry(7, Attempt(2, 0, 100)), Entry(7, Attempt(3, 0, None))]
    assert [lines.event(entry, trial, spec, standing="") for entry in again] == [
        "trial 7 started again from step 100 (attempt 2)",
        "trial 7 started again from the beginning (attempt 3)",
    ]


def test_a_resumed_study_knows_its_best_trial(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    watched(Console(), tmp_path, [completed(1, 2.0)], resumed=[completed(0, 1.0)])
    assert capsys.readouterr().out.splitlines()[-1] == "trial 1 completed: loss 2 at step 200"


def test_foreign_text_cannot_drive_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], history: Make
) -> None:
    told = history(failed(0, EVIL), completed(1, 1.0))
    told.trials[1].params = {"kind": EVIL}
    console = Console()
    watched(console, tmp_path, told.trials)
    console.trials(told, owned=True)
    console.best(told)
    console.summary(summary(told, Outcome.COMPLETED, undelivered=3, problem=EVIL))
    console.error(UsageError(EVIL, hint=EVIL))
    console.problems("x.yaml", [Problem(1, 2, "a", EVIL, EVIL, EVIL)])
    with console:
        logging.getLogger("hpsearch.test").warning("%s", EVIL)
    out, err = capsys.readouterr()
    for text in (out, err):
        assert not any(c != "\n" and not c.isprintable() for c in text)
        assert "[bold]red[/bold]" in text
        assert ":smile:" in text
    assert not any(line.startswith("error: forged") for line in (out + err).splitlines())


def test_foreign_text_cannot_drive_the_live_view(tmp_path: Path) -> None:
    trial = completed(0, 1.0)
    trial.params = {"kind": EVIL}
    progress = Progress.start(facts.study(tmp_path), [trial], 0.0)
    screen = RichConsole(file=io.StringIO(), width=100, record=True)
    screen.print(live_view(progress, 1.0))
    text = screen.export_text()
    assert "[bold]red[/bold]" in text
    assert not any(c != "\n" and not c.isprintable() for c in text)


def test_the_live_view_shows_counts_the_best_trial_and_the_running_ones(tmp_path: Path) -> None:
    progress = Progress.start(facts.study(tmp_path), [], 100.0)
    trials = [completed(0, 2.5), pruned(1, [9.0]), running(2, 3.25), *(running(n) for n in range(3, 12))]
    for trial in trials:
        for entry in facts.entries(trial):
            progress.take(entry, trial)
    screen = RichConsole(file=io.StringIO(), width=100, record=True)
    screen.print(live_view(progress, 160.0))
    shown = [line.strip() for line in screen.export_text().splitlines()]
    assert shown[0].endswith("2/20 trials  time left 9m 00s")
    assert shown[1:4] == [
        "10 running, 1 completed, 1 pruned, 0 failed",
        "best so far: loss 2.5 at step 200, trial 0: lr=0.01235 depth=3 batch=16 kind=a",
        "trial 2  step 100/200  loss 3.25",
    ]
    assert shown[4] == "trial 3  step 0/200  loss -"
    assert shown[-1] == "and 2 more"
    assert all(len(line) <= 100 for line in shown)


def test_the_time_left_is_unknown_until_a_trial_of_this_run_has_ended(tmp_path: Path) -> None:
    progress = Progress.start(facts.study(tmp_path), [completed(0, 1.0)], 0.0)
    assert progress.left(50.0) is None
    trial = pruned(1, [1.0])
    for entry in facts.entries(trial):
        progress.take(entry, trial)
    assert progress.left(50.0) == 18 * 50.0


def test_a_terminal_gets_a_live_view_that_goes_away_and_leaves_the_cursor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm-256color")
    with Console() as console:
        search = FakeSearch({0: failed(0), 1: pruned(1, [1.0])})
        console.started(facts.study(tmp_path), cast(Search, search), "uri", False)
        for trial in search.trials.values():
            console.committed(list(facts.entries(trial)))
        logging.getLogger("hpsearch.test").warning("look out")
        console.stopped()
        assert sys.stdout is screen
    text = screen.getvalue()
    assert "trial 0 failed: ValueError: no data" in text
    assert "warning: look out" in text
    assert "1 pruned" in text
    assert "trial 1 pruned" not in text
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")
    # The last frame is taken away: as many lines up as it was high.
    assert text.endswith("\x1b[1A\x1b[2K")


def test_a_dumb_terminal_gets_plain_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setenv("TERM", "dumb")
    watched(Console(), tmp_path, [completed(0, 1.0)])
    assert "trial 0 completed: loss 1 at step 200 (best so far)" in screen.getvalue()
    assert "\x1b[2K" not in screen.getvalue()


def test_a_pipe_gets_no_colour_even_if_the_environment_forces_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, history: Make
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    Console().trials(history(pruned(0, [1.0])), owned=True)
    assert "\x1b" not in capsys.readouterr().out


def test_the_end_of_a_run_shows_the_leaders_and_what_to_do_next(
    capsys: pytest.CaptureFixture[str], history: Make
) -> None:
    trials = [completed(n, 20.0 - n) for n in range(12)]
    told = history(*trials, failed(12, "rare"), failed(13, "often"), failed(14, "often"), pruned(15, [1.0]))
    Console().summary(summary(told, Outcome.COMPLETED))
    out = capsys.readouterr().out.splitlines()
    assert out[0].split() == ["rank", "trial", "loss", "step", "params"]
    assert len(out[2:12]) == 10
    assert out[2].split()[:4] == ["1", "11", "9", "200"]
    assert out[11].split()[:4] == ["10", "2", "18", "200"]
    assert out[12:] == [
        "study demo completed: so it ended",
        "12 completed, 1 pruned, 3 failed of 20 trials",
        "failed most often, 2 of 3 failures: often",
        f"study    {told.study.directory}",
        "tracking http://host",
        "best     hpsearch best demo --home 'my home'",
        "MLflow   hpsearch ui --home 'my home'",
    ]


def test_an_interrupted_run_says_how_to_go_on_and_how_far_mlflow_lags(
    capsys: pytest.CaptureFixture[str], history: Make
) -> None:
    Console().summary(summary(history(running(0)), Outcome.INTERRUPTED, undelivered=1, problem="no answer"))
    out, err = capsys.readouterr()
    assert "go on    hpsearch resume demo --home 'my home' --local" in out.splitlines()
    assert "hpsearch best" not in out
    assert err.startswith("warning: MLflow lags 1 fact behind (no answer); `hpsearch resume demo")


def test_commands_are_short_in_the_default_home_and_name_the_cluster() -> None:
    told = lines.commands("demo", home=None, embedded=False, local=False, address="ray://a b")
    assert told == lines.Commands("hpsearch best demo", "hpsearch resume demo --address 'ray://a b'", ui="")


def test_a_quiet_console_prints_one_json_object_and_nothing_beside_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Console(quiet=True) as console:
        watched(console, tmp_path, [failed(0, EVIL)])
        print("a library says hello")
        console.json({"reason": EVIL, "name": "é"})
    out, err = capsys.readouterr()
    assert json.loads(out) == {"reason": EVIL, "name": "é"}
    assert out.count("\n") == 1
    assert not any(c != "\n" and not c.isprintable() for c in out)
    assert err == "a library says hello\n"


def test_warnings_of_hpsearch_are_lines_on_stderr_only_within_the_console(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logger = logging.getLogger("hpsearch.test")
    with Console(redact=lambda text: text.replace("secret", "***")):
        logger.warning("two\nlines of a secret")
        logger.info("not worth a line")
        logger.error("worse")
    assert logging.getLogger("hpsearch").handlers == []
    out, err = capsys.readouterr()
    assert (out, err) == ("", "warning: two\\nlines of a ***\nerror: worse\n")


def test_a_problem_is_written_as_compilers_do(capsys: pytest.CaptureFixture[str]) -> None:
    error = Problem(3, 5, "trainingInput.goal", "least", "is no goal", "write MINIMIZE")
    Console().problems("x.yaml", [error], [Problem(9, 1, "a.b", "", "is not used")])
    assert capsys.readouterr().err.splitlines() == [
        "x.yaml:3:5: trainingInput.goal: is no goal (value 'least'); write MINIMIZE",
        "x.yaml:9:1: warning: a.b: is not used",
    ]


def test_tables_on_a_pipe_are_never_cut(capsys: pytest.CaptureFixture[str], history: Make) -> None:
    Console().trials(history(failed(0, "x" * 500), infeasible(1, [1.0])), owned=True)
    row = next(line for line in capsys.readouterr().out.splitlines() if "failed" in line)
    assert "x" * 500 in row


def test_any_text_can_be_printed_in_any_encoding(monkeypatch: pytest.MonkeyPatch, history: Make) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    Console().trials(history(failed(0, "ünïcode \udce9")), owned=True)
    assert b"\\xfcn\\xefcode" in raw.getvalue()


def test_a_reader_that_goes_away_does_not_stop_the_work(tmp_path: Path) -> None:
    script = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
import facts
from test_console import FakeSearch, watched
from hpsearch.show.console import Console
console = Console()
for _ in range(50):
    watched(console, Path({str(tmp_path)!r}), [facts.completed(n, 1.0) for n in range(20)])
console.json({{"a": 1}})
sys.stderr.write("done")
"""
    reader, writer = os.pipe()
    process = subprocess.Popen([sys.executable, "-c", script], stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    os.read(reader, 10)
    os.close(reader)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, b"done")


def test_durations_are_short() -> None:
    assert [lines.duration(s) for s in (-1, 45.2, 185, 7_805)] == ["0s", "45s", "3m 05s", "2h 10m"]
