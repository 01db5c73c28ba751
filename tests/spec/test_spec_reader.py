"""What the reader makes of texts: places, limits, syntax errors with causes, files that cannot be read."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
from quick import NOMINAL, TRIES, in_a_second, yardstick

from hpsearch.errors import UsageError
from hpsearch.spec.model import Double, Problem
from hpsearch.spec.node import Findings, Kind
from hpsearch.spec.reader import compose
from hpsearch.spec.reading import parse, read

GOOD = """\
trainingInput:
  pythonModule: trainer.task
  hyperparameters:
    goal: MINIMIZE
    hyperparameterMetricTag: loss
    maxTrials: 4
    params:
      - {parameterName: lr, type: DOUBLE, minValue: 1e-4, maxValue: 0.1}
"""


def only_error(text: str) -> Problem:
    reading = parse(text)
    assert reading.spec is None
    assert len(reading.errors) == 1, reading.errors
    return reading.errors[0]


def test_every_value_of_the_tree_knows_its_place_and_path() -> None:
    findings = Findings()
    root = compose('a:\n  b: [1, "x"]\n  c: {d: ~}\n', findings)
    assert root is not None
    assert not findings.errors
    items = root.entries["a"].entries["b"].items
    assert [(n.line, n.column, n.path, n.text, n.plain) for n in items] == [
        (2, 7, "a.b[0]", "1", True),
        (2, 10, "a.b[1]", "x", False),
    ]
    nothing = root.entries["a"].entries["c"].entries["d"]
    assert (nothing.path, nothing.named, nothing.is_null) == ("a.c.d", (3, 7), True)
    assert root.entries["a"].kind is Kind.MAP


@pytest.mark.parametrize(
    ("text", "line", "column", "message", "hint"),
    [
        ("a:\n\tb: 1\n", 2, 1, "a tab", "use spaces"),
        ("a:\n  b: 1\n\tc: 1\n", 3, 1, "a tab", "use spaces"),
        (
            "a: b: c\n",
            1,
            5,
            "a `:` stands where no key can be",
            "indentation of this line and the one before",
        ),
        ("a: 1\n b: 2\n", 2, 3, "a `:` stands where no key can be", "indentation of this line"),
        ('a: 1\nb: "x\nc: 1\n', 2, 4, "a quote is not closed", "close it"),
        ("a: [1, 2\nb: 3\n", 2, 2, "a bracket or brace is not closed", "opened in line 1, column 4"),
        ("a: ]\n", 1, 4, "a value is missing", "stray comma or bracket"),
        ("{a: 1}\nb: 1\n", 2, 1, "does not fit the lines above", "what the lines above hold"),
        ("a: - b\n", 1, 4, "a `- ` stands where no item can be", "below its key"),
        ("a: ? b\n", 1, 4, "a `? ` stands where no key can be", "quote it"),
        ("- a\nb: 1\n", 2, 1, "does not fit the lines above", "indentation"),
        ("a: @x\n", 1, 4, "cannot start with this character", "quotes"),
        ("a: 1\nb 2\nc: 3\n", 2, 1, "a `:` is missing after a key", "with a blank after the `:`"),
        ("a: 1\nb:2\nc: 3\n", 2, 1, "a `:` is missing after a key", "with a blank after the `:`"),
        ("%%writefile a.yaml\na: 1\n", 1, 2, "a directive is not read", "remove the line"),
        ("```yaml\na: 1\n```\n", 1, 1, "a backquote", "Markdown fence"),
        ("a:\n \u00a0b: 1\n  c: 2\n", 2, 2, "a no-break or wide blank", "use spaces"),
        ("a: {{ b }}\n", 1, 5, "a key must be a text", "fill in a template's `{{ }}`"),
        ("a: !e!x 1\n", 1, 4, "a tag is not allowed", "remove it"),
        ('a: "\\q"\n', 1, 6, "a backslash", "single quotes"),
        ("%YAML 3.0\n---\na: 1\n", 1, 1, "this version of YAML", "remove the %YAML line"),
        ("a: 1\n---\nb: 2\n", 2, 1, "a second document", "split"),
        ("? [a]\n: b\n", 1, 3, "a key must be a text", "stray"),
        ("", 1, 1, "the file is empty", "trainingInput"),
        ("# only a comment\n", 1, 1, "the file is empty", "trainingInput"),
        ("- a\n", 1, 1, "a list, not a map", "trainingInput"),
        ("hello\n", 1, 1, "a scalar, not a map", "trainingInput"),
        ("a: b\nc: \x00d\n", 2, 4, "control character \\x00", "remove"),
        ("a: b\r\nc: \x1b[31m\r\n", 2, 4, "control character \\x1b", "remove"),
    ],
)
def test_a_text_that_does_not_parse_is_one_error_with_its_likely_cause(
    text: str, line: int, column: int, message: str, hint: str
) -> None:
    problem = only_error(text)
    assert (problem.line, problem.column) == (line, column)
    assert message in problem.message
    assert hint in problem.hint


@pytest.mark.parametrize(
    ("line", "column", "change", "path", "message"),
    [
        (
            5,
            30,
            ("loss", "&tag loss"),
            "trainingInput.hyperparameters.hyperparameterMetricTag",
            "anchor &tag",
        ),
        (4, 11, ("MINIMIZE", "*x"), "trainingInput.hyperparameters.goal", "alias *x"),
        (
            5,
            30,
            ("loss", "!!python/object/apply:os.system [id]"),
            "trainingInput.hyperparameters.hyperparameterMetricTag",
            "tag tag:yaml.org,2002:python/object/apply:os.system is not allowed",
        ),
        (6, 16, ("4", "!mine 4"), "trainingInput.hyperparameters.maxTrials", "tag !mine is not allowed"),
        (
            5,
            30,
            ("loss", '"\\0"'),
            "trainingInput.hyperparameters.hyperparameterMetricTag",
            "character \\x00",
        ),
    ],
)
def test_anchors_aliases_tags_and_escaped_control_characters_are_errors(
    line: int, column: int, change: tuple[str, str], path: str, message: str
) -> None:
    errors = parse(GOOD.replace(*change)).errors
    assert (errors[0].line, errors[0].column, errors[0].path) == (line, column, path)
    assert message in errors[0].message


def test_an_alias_is_told_once_and_not_as_a_wrong_value_too() -> None:
    problem = only_error(GOOD.replace("1e-4", "*low"))
    assert problem.message == "alias *low is not allowed"


def test_nothing_is_called_missing_in_a_map_with_a_merge_key() -> None:
    lent = GOOD.replace("type: DOUBLE, minValue: 1e-4, maxValue: 0.1", "<<: *lr")
    problem = only_error(lent)
    assert (problem.line, problem.column, problem.message) == (8, 33, "alias *lr is not allowed")
    assert not parse(lent).warnings
    assert only_error(lent.replace("*lr", "{type: DOUBLE}")).message == "merge key << is not allowed"


def test_core_tags_are_allowed_and_str_makes_a_text() -> None:
    text = GOOD.replace(
        "{parameterName: lr, type: DOUBLE, minValue: 1e-4, maxValue: 0.1}",
        "{parameterName: a, type: CATEGORICAL, categoricalValues: [!!str 128, !!str no]}",
    )
    reading = parse(text)
    assert not reading.errors
    assert not reading.warnings


def test_a_key_twice_in_one_map_is_an_error_that_names_both_lines() -> None:
    problem = only_error(GOOD.replace("    maxTrials: 4\n", "    maxTrials: 4\n    maxTrials: 9\n"))
    assert (problem.line, problem.column) == (7, 5)
    assert problem.path == "trainingInput.hyperparameters.maxTrials"
    assert "line 6" in problem.message
    assert "line 7" in problem.message
    assert problem.hint == "keep one of them"


HOSTILE = {
    "1,000 lists": ("a: " + "[" * 1000 + "]" * 1000, "nested more than 32 deep"),
    "a million brackets": ("[" * 999_999, "nested more than 32 deep"),
    "a million braces": ('{"a":' * 199_999, "nested more than 32 deep"),
    "block lists": ("- " * 499_999, "nested more than 32 deep"),
    "33 maps": (
        "".join("  " * i + "a:\n" for i in range(33)) + "  " * 33 + "b: 1",
        "nested more than 32 deep",
    ),
    "20,000 values": ("a: [" + "1," * 20_000 + "]", "more than 10,000 values"),
    "over a million bytes": ("# " + "x" * 1_000_000, "1,000,002 bytes"),
    "over a million bytes of few characters": ("# " + "€" * 400_000, "1,200,002 bytes"),
    "a long text": ("a: " + "x" * 1_001, "1,001 characters"),
    "a long key": ("x" * 900 + "y" * 101 + ": 1", "1,001 characters"),
    "a very long text": ("a: " + "x " * 400_000, "without a value that ends"),
    "a text without quotes over many lines": ("a\n" * 400_000, "without a value that ends"),
    "a block text": ("a: |\n" + "  x\n" * 200_000, "without a value that ends"),
    "blank lines": ("\n" * 900_000, "without a value that ends"),
    "many texts": ("a: [" + "x y " * 240 + ("," + "x y " * 240) * 900 + "]", "characters of values"),
    "laughs": ("a: &a [x]\nb: &b [*a, *a]\nc: &c [*b, *b]\n", "anchor &a is not allowed"),
    "a list in itself": ("a: &a [*a]", "anchor &a is not allowed"),
}


@pytest.mark.parametrize(("text", "message"), HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_text_gets_a_clear_error_in_under_a_second(text: str, message: str) -> None:
    reading = in_a_second(text)
    assert any(message in problem.message for problem in reading.errors), reading.errors
    assert all(len(p.value) <= 1_000 for p in reading.errors)


def test_limits_are_met_exactly() -> None:
    deepest = "".join("  " * i + "a:\n" for i in range(31)) + "  " * 31 + "b: 1"
    assert "nested" not in str(parse(deepest).errors)
    assert "characters" not in str(parse("a: " + "x" * 1_000).errors)
    assert not parse(GOOD.replace("  hyper", f"  args: [--text={'x' * 9_993}]\n  hyper", 1)).errors
    assert (
        "10,001" in only_error(GOOD.replace("  hyper", f"  args: [--text={'x' * 9_994}]\n  hyper", 1)).message
    )
    assert not parse(GOOD + ("#" + "x" * 98 + "\n") * 900).errors
    assert "at most 1,000,000" not in only_error("#" * 1_000_000).message


def test_json_is_read_with_tabs_places_and_escapes() -> None:
    text = (
        '{\n\t"trainingInput": {\n\t\t"hyperparameters": {"goal": "MINIMIZE", "maxTrials": "4",\n'
        '\t"hyperparameterMetricTag": "a\\/b \\ud83d\\ude00", "params": [{"parameterName": "lr", '
        '"type": "DOUBLE",\n\t"minValue":1e-4,"maxValue":true}]}}}\n'
    )
    problem = only_error(text)
    assert (problem.line, problem.column) == (5, 29)
    assert problem.path == "trainingInput.hyperparameters.params[0].maxValue"
    assert problem.value == "true"
    spec = parse(text.replace("true", "1E0")).spec
    assert spec is not None
    assert spec.objective.metric == "a/b 😀"
    assert spec.space.parameters == (Double("lr", 0.0001, 1.0),)


def test_half_a_json_character_is_refused() -> None:
    problem = only_error(GOOD.replace("loss", '"\\ud83d"'))
    assert (problem.line, problem.value) == (5, "\\ud83d")


def test_a_file_is_read_with_its_name_and_the_sha256_of_its_text(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_bytes(b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode())
    spec = read(file).spec
    assert spec is not None
    assert spec.text == GOOD.replace("\n", "\r\n")
    assert spec.sha256 == hashlib.sha256(spec.text.encode()).hexdigest()
    assert spec.source == str(file)
    assert (spec.dialect, spec.module) == ("cloud_ml_engine", "trainer.task")


def test_a_missing_path_a_directory_and_bytes_that_are_not_utf_8_are_usage_errors(tmp_path: Path) -> None:
    latin = tmp_path / "latin.yaml"
    latin.write_bytes("a: 1\nb: café\n".encode("latin-1"))
    for path, message in (
        (tmp_path / "none.yaml", "no file"),
        (tmp_path, "is a directory"),
        (latin, "not UTF-8: byte 0xe9 in line 2"),
        (latin / "below", "cannot read"),
        (Path("a\0b"), "cannot read"),
    ):
        with pytest.raises(UsageError, match=message) as caught:
            read(path)
        assert caught.value.hint
        assert caught.value.exit_code == 2


def test_a_file_whose_bytes_cannot_be_read_is_a_usage_error() -> None:
    # The kernel refuses this file's first page even to the superuser.
    with pytest.raises(UsageError, match="cannot read /proc/self/mem"):
        read(Path("/proc/self/mem"))


def test_a_file_without_end_is_an_error_at_once() -> None:
    reading = read(Path("/dev/zero"))
    assert "bytes; at most 1,000,000" in reading.errors[0].message


def test_problems_come_in_the_order_of_the_file_and_are_printable() -> None:
    reading = parse(GOOD.replace("4\n", "x\n").replace("MINIMIZE", '"a\\tb"').replace("0.1}", "-1}"))
    assert [p.line for p in reading.errors] == sorted(p.line for p in reading.errors)
    assert len(reading.errors) == 3
    assert all(text.isprintable() for p in reading.errors for text in (p.message, p.value, p.hint, p.path))


def test_importing_the_room_and_reading_a_file_is_quick_and_loads_no_heavy_library(tmp_path: Path) -> None:
    params = "".join(
        f"      - parameterName: p{i}\n        type: INTEGER\n        minValue: 1\n        maxValue: 9\n"
        for i in range(25)
    )
    file = tmp_path / "x.yaml"
    file.write_text(GOOD + params)
    script = (
        "import sys, time\nfrom pathlib import Path\nstart = time.process_time()\n"
        "from hpsearch.spec.reading import read\n"
        "assert len(read(Path(sys.argv[1])).spec.space.parameters) == 26\n"
        "print(time.process_time() - start)\n"
        "heavy = {'ray', 'torch', 'mlflow', 'optuna', 'sqlalchemy', 'numpy', 'rich', 'typer'}\n"
        "heavy &= set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    taken = []
    while len(taken) < TRIES and not (taken and taken[-1] < 0.5):
        slowness = max(1.0, yardstick() / NOMINAL)
        words = [sys.executable, "-c", script, str(file)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        taken.append(float(done.stdout) / slowness)
    assert taken[-1] < 0.5, f"it took {taken} seconds of an idle core"
