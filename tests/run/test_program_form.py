"""Which modules are programs is read from their source, and nothing of theirs is executed for it."""

from __future__ import annotations

import py_compile
import sys
import zipfile
from pathlib import Path

import pytest
from program_run import PROGRAMS, launch

from hpsearch.spec.model import Program
from hpsearch.train.form import find, is_program

GUARD = "\nif __name__ == '__main__':\n    main()\n"
OURS = {
    "learner": "def build(params, context): ...",
    "generator": "def train(params, context):\n    yield",
    "ours with a guard": "def train(params, context): ...\ndef main(): ..." + GUARD,
    "other names": "def build(config, trial): ...",
    "a default": "def train(params, context, extra=None, *more): ...",
    "imported": "from .other import train",
    "renamed": "from other import fit as train",
    "bound": "def _fit(p, c): ...\ntrain = _fit",
    "partial": "import functools\ntrain = functools.partial(_fit, kind='a')\nprint('loaded')",
    "in a branch": "try:\n    import fast\nexcept ImportError:\n    def train(params, context): ...",
}
PROGRAMS_OF_THE_WILD = {
    "nothing": "import torch\nfor _ in range(3): pass",
    "three parameters": "def train(args, model, device): ...",
    "one parameter": "def train(epoch): ...",
    "two with a guard": "def train(model, loader): ...\ndef main(): ..." + GUARD,
    "guard turned round": "from x import train\nif '__main__' == __name__ and True: train(1, 2)",
    "flat script": "def train(model, loader): ...\nfor epoch in range(3):\n    train(0, 1)",
    "flat with a result": "def train(model, loader): ...\nloss = train(0, 1)",
    "calls main": "def train(model, loader): ...\ndef main(): train(0, 1)\nmain()",
    "exits": "import sys\ndef train(m, l): ...\ndef main(): ...\nsys.exit(main())",
    "parses": "import argparse\nfrom engine import train\nargs = argparse.ArgumentParser().parse_args()",
    "fire": "import fire\ndef train(lr, layers): ...\nfire.Fire(train)",
    "data": "import pandas\ntrain = pandas.read_csv('train.csv')\ntrain, test = train[:9], train[9:]",
    "only when run": "if __name__ == '__main__':\n    from x import train\n    build = train",
    "keywords only": "def train(*, params, context): ...",
    "needed keyword": "def train(model, loader, *, lr): ...",
    "inside of a class": "class Trainer:\n    def train(self, params, context): ...",
}


def module(directory: Path, source: str) -> str:
    (directory / "trainer_under_test.py").write_text(source)
    return "trainer_under_test"


@pytest.mark.parametrize("name", OURS)
def test_what_offers_build_or_train_to_us_is_no_program(tmp_path: Path, name: str) -> None:
    given = launch(tmp_path, module(tmp_path, OURS[name]), python_path=(str(tmp_path),))
    assert not is_program(given)


@pytest.mark.parametrize("name", PROGRAMS_OF_THE_WILD)
def test_programs_of_the_wild_are_programs(tmp_path: Path, name: str) -> None:
    given = launch(tmp_path, module(tmp_path, PROGRAMS_OF_THE_WILD[name]), python_path=(str(tmp_path),))
    assert is_program(given)


@pytest.mark.parametrize("path", sorted(PROGRAMS.glob("*.py")), ids=lambda path: path.stem)
def test_the_programs_of_these_tests_are_programs(tmp_path: Path, path: Path) -> None:
    assert is_program(launch(tmp_path, path.stem))


def test_looking_executes_neither_the_module_nor_its_parents(tmp_path: Path) -> None:
    package = tmp_path / "parent_under_test" / "deeper"
    package.mkdir(parents=True)
    for name in ("__init__.py", "deeper/__init__.py", "deeper/task.py"):
        (tmp_path / "parent_under_test" / name).write_text("raise SystemExit('executed')")
    assert is_program(launch(tmp_path, "parent_under_test.deeper.task", python_path=(str(tmp_path),)))
    assert "parent_under_test" not in sys.modules


def test_a_package_is_a_program_if_it_can_be_run_and_offers_nothing(tmp_path: Path) -> None:
    path = (str(tmp_path),)
    (tmp_path / "pack").mkdir()
    given = launch(tmp_path, "pack", python_path=path)
    assert not is_program(given)
    (tmp_path / "pack" / "__main__.py").write_text("import trainer")
    assert is_program(given)
    (tmp_path / "pack" / "__init__.py").write_text("from .model import build")
    assert not is_program(given)
    (tmp_path / "pack" / "__init__.py").write_text("")
    assert is_program(given)


def test_a_command_is_a_program_whatever_the_module(tmp_path: Path) -> None:
    name = module(tmp_path, OURS["learner"])
    assert is_program(launch(tmp_path, name, program=Program(command=("x",)), python_path=(str(tmp_path),)))


def test_where_only_an_import_can_tell_it_is_left_to_the_import(tmp_path: Path) -> None:
    path = (str(tmp_path),)
    assert not is_program(launch(tmp_path, "not_there", python_path=path))
    assert not is_program(launch(tmp_path, module(tmp_path, "def broken(:"), python_path=path))
    (tmp_path / "latin.py").write_bytes(b"# \xfc\nx = 1\n")
    assert not is_program(launch(tmp_path, "latin", python_path=path))
    (tmp_path / "only_compiled.py").write_text("x = 1")
    py_compile.compile(str(tmp_path / "only_compiled.py"), cfile=str(tmp_path / "only_compiled.pyc"))
    (tmp_path / "only_compiled.py").unlink()
    assert not is_program(launch(tmp_path, "only_compiled", python_path=path))
    assert not is_program(launch(tmp_path, "math", python_path=path))


def test_a_module_in_an_archive_is_read_there(tmp_path: Path) -> None:
    archive = tmp_path / "trainers.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("zipped/__init__.py", "")
        file.writestr("zipped/task.py", "def train(args, model, device): ...")
    assert is_program(launch(tmp_path, "zipped.task", python_path=(str(archive),)))


def test_finding_knows_what_is_there_and_what_is_not(tmp_path: Path) -> None:
    path = [str(PROGRAMS)]
    for name in ("flat", "census", "census.task", "packaged.__main__", "json", "sys", "hpsearch.train.form"):
        assert find(name, path), name
    for name in ("", ".", "census.", "census..task", "flat.x", "no_such", "census.no_such", "a/b", "sys.x"):
        assert find(name, path) is None, name
    assert "census" not in sys.modules
    (tmp_path / "appears_later.py").write_text("")
    assert find("appears_later", [str(tmp_path)])
