"""Names and values reach every sink as what they are: data."""

from __future__ import annotations

import io
import json
import subprocess
import unicodedata
from pathlib import Path

import pytest
from hostile import texts

from hpsearch.errors import HpsearchError, UsageError
from hpsearch.run import contract
from hpsearch.show.console import Console
from hpsearch.spec.model import Program
from hpsearch.study.birth import check_name
from hpsearch.study.trial import Context, Launch
from hpsearch.track.rows import artifact_name, clean_name, clean_text


def test_every_value_arrives_at_a_program_as_it_is_and_no_shell_sees_it(tmp_path: Path) -> None:
    """printf writes its arguments one by one, so what it prints is what it got."""
    context = Context(0, 1, 0, 1, 1, tmp_path)
    given = texts()
    for start in range(0, len(given), 500):
        params = {f"p{start + n}": value for n, value in enumerate(given[start : start + 500])}
        program = Program(command=("printf", r"%s\0"))
        launch = Launch("", (), params, context, "loss", program=program)
        words = contract.command(launch)
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, check=True)
        heard = done.stdout.decode().split("\0")[:-1]
        assert heard == [f"--{name}={value}" for name, value in params.items()]
    assert list(tmp_path.iterdir()) == [], "something was run"


def test_no_name_of_a_study_or_file_leads_out_of_its_directory(tmp_path: Path) -> None:
    taken = 0
    for text in texts():
        assert "/" not in artifact_name(text)
        try:
            check_name(text)
        except UsageError:
            continue
        taken += 1
        assert (tmp_path / text).parent == tmp_path
        assert (tmp_path / text).resolve().parent == tmp_path.resolve()
    assert taken < len(texts()) / 2


@pytest.mark.filterwarnings(r"ignore::DeprecationWarning:mlflow\.")
def test_every_name_and_text_is_one_that_mlflow_takes_as_data() -> None:
    from mlflow.utils.validation import _validate_metric, _validate_param, _validate_tag

    for text in texts():
        _validate_metric(clean_name(text), 1.0, 0, 0)
        _validate_param(clean_name(text), clean_text(text, 6_000))
        _validate_tag(clean_name(text), clean_text(text, 8_000))


def test_no_text_acts_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr("sys.stderr", screen)
    console = Console()
    given = texts()
    for text in given:
        console.error(HpsearchError(f"<{text}>"))
    shown = screen.getvalue()
    assert shown.count("error: ") >= len(given)
    acting = {c for c in shown if unicodedata.category(c) == "Cc" and c != "\n"}
    assert not acting, f"control characters reach the terminal: {acting!r}"
    assert "[red]x[/red]" in shown, "markup must be shown, not obeyed"


def test_a_json_answer_is_one_line_of_ascii_whatever_is_in_it(capsys: pytest.CaptureFixture[str]) -> None:
    Console(quiet=True).json({"texts": texts()})
    printed = capsys.readouterr().out
    assert printed.isascii()
    assert printed.count("\n") == 1
    assert json.loads(printed)["texts"] == texts()
