"""What the product's own source must never do, read from its syntax trees."""

from __future__ import annotations

import ast
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "hpsearch").rglob("*.py"))
# Bytes that Optuna itself made in this process, on their way to and from JSON (docs/decisions/0004).
IN_MEMORY = {("study/sampling.py", "pickle.loads")}
# Neither a PRAGMA nor the name of a table or of a setting can be bound: these words are constants of ours.
OWN_WORDS = {f"study/{name}.py" for name in ("sqlite", "postgresql", "salvage", "tenure")}
# Directories that the same module made under a name of its own; Python removes them without following links.
OWN_DIRECTORIES = {"run/scratch.py", "run/undertaker.py", "study/repair.py"}
FORBIDDEN = {
    *("eval", "exec", "compile", "__import__", "os.system", "os.popen", "subprocess.getoutput"),
    *("pickle.load", "pickle.loads", "marshal.loads", "dill.loads", "cloudpickle.loads", "joblib.load"),
    *(
        "yaml.load",
        "yaml.unsafe_load",
        "yaml.full_load",
        "shutil.rmtree",
        "Tuner.restore",
        "tune.Tuner.restore",
    ),
}


def calls() -> Iterator[tuple[str, str, ast.Call]]:
    for path in SOURCES:
        name = path.relative_to(ROOT / "hpsearch").as_posix()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                yield name, ast.unparse(node.func), node


def offences(found: Iterator[tuple[str, str, ast.Call]]) -> list[str]:
    """Where a call could run foreign code, hand words to a shell, or put values into SQL."""
    wrong = []
    for file, called, node in found:
        given = {keyword.arg: keyword.value for keyword in node.keywords}
        text = f"{file}:{node.lineno}: {ast.unparse(node)[:80]}"
        allowed = (file, called) in IN_MEMORY or (called == "shutil.rmtree" and file in OWN_DIRECTORIES)
        if called in FORBIDDEN and not allowed:
            wrong.append(text)
        shell = given.get("shell")
        if shell is not None and not (isinstance(shell, ast.Constant) and shell.value is False):
            wrong.append(text)
        if called == "torch.load" and ast.unparse(given.get("weights_only", ast.Constant(False))) != "True":
            wrong.append(text)
        is_sql = called.rpartition(".")[2] in ("exec_driver_sql", "execute", "text")
        if is_sql and node.args and isinstance(node.args[0], ast.JoinedStr) and file not in OWN_WORDS:
            wrong.append(text)
    return wrong


def test_nothing_runs_foreign_code_or_a_shell_or_text_as_sql() -> None:
    assert len(SOURCES) > 100
    assert shutil.rmtree.avoids_symlink_attacks
    assert offences(calls()) == []


@pytest.mark.parametrize(
    "source",
    [
        "eval(x)",
        "os.system(x)",
        "subprocess.run(x, shell=True)",
        "torch.load(x)",
        "torch.load(x, weights_only=False)",
        "pickle.loads(x)",
        "connection.execute(f'SELECT {x}')",
        "tune.Tuner.restore(x)",
    ],
)
def test_each_of_these_would_be_found(source: str) -> None:
    node = ast.parse(source, mode="eval").body
    assert isinstance(node, ast.Call)
    assert offences(iter([("x.py", ast.unparse(node.func), node)]))
