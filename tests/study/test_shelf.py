"""Checkpoints that go when they are superfluous, from directories and from a bucket alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from hpsearch.spec.reading import parse
from hpsearch.study.shelf import Files, Objects, Shelf, shelf_of
from hpsearch.study.storage import Bucket
from hpsearch.study.trial import Study

TEXT = """\
trainingInput:
  pythonModule: task
  hyperparameters:
    hyperparameterMetricTag: loss
    params: [{parameterName: x, type: DOUBLE, minValue: 0, maxValue: 1}]
"""
NAMES = [f"step-{step:08d}-attempt-1.pt" for step in (10, 20, 30)]

Make = Callable[..., tuple[Shelf, Callable[[], set[str]]]]


@pytest.fixture(params=["directories", "path", "bucket"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    """A shelf that holds these files of trials, and how to look what is left."""

    def make(*keys: str) -> tuple[Shelf, Callable[[], set[str]]]:
        spec = parse(TEXT, "f.yaml").spec
        assert spec
        study = Study("s", "uid", 0, spec, tmp_path / "home")
        if request.param == "bucket":
            study = replace(study, storage=request.getfixturevalue("bucket"))
            there = Bucket(study.storage)
            for key in keys:
                there.write(key, b"x")
            return shelf_of(study), there.keys
        if request.param == "path":
            study = replace(study, storage=str(tmp_path / "elsewhere"))
        for key in keys:
            (study.files / key).parent.mkdir(parents=True, exist_ok=True)
            (study.files / key).write_bytes(b"x")
        return shelf_of(study), lambda: {
            path.relative_to(study.files).as_posix() for path in study.files.rglob("*") if path.is_file()
        }

    return make


def keys(trial: int, *names: str) -> list[str]:
    return [f"trials/{trial:04d}/checkpoints/{name}" for name in names]


def test_it_knows_what_is_there_of_ours(make: Make) -> None:
    shelf, _ = make(*keys(0, *NAMES), *keys(7, NAMES[0], "mine.pt"), "trials/0007/attempt-1/output.log")
    assert shelf.names([0, 7, 8]) == {0: set(NAMES), 7: {NAMES[0]}, 8: set()}


def test_what_is_deleted_is_gone_and_nothing_else(make: Make) -> None:
    shelf, left = make(*keys(0, *NAMES, "mine.pt"), *keys(1, *NAMES))
    shelf.delete(0, [NAMES[0], "mine.pt", "../../0001/checkpoints/" + NAMES[0]])
    shelf.delete_others(1, {NAMES[2]})
    shelf.finish()
    assert left() == {*keys(0, *NAMES[1:], "mine.pt"), *keys(1, NAMES[2])}


def test_what_refuses_harms_nobody(tmp_path: Path, bucket: str) -> None:
    shelf = Objects(Bucket(bucket.replace("s3://", "s3://no-")))
    assert shelf.names([0]) == {0: set()}
    shelf.delete(0, NAMES)
    shelf.delete_others(0, ())
    shelf.finish()


def test_the_end_of_a_study_waits_for_a_slow_bucket_but_not_for_ever(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import threading

    go_on, called = threading.Event(), threading.Event()

    def slow(self: Bucket, keys: object) -> None:
        called.set()
        go_on.wait(60)

    monkeypatch.setattr(Bucket, "remove", slow)
    monkeypatch.setattr("hpsearch.study.shelf.PATIENCE", 0.05)
    shelf = Objects(Bucket(bucket))
    shelf.delete(0, NAMES)
    assert called.wait(30)
    shelf.finish()
    go_on.set()


def test_a_study_without_storage_has_files() -> None:
    spec = parse(TEXT, "f.yaml").spec
    assert spec
    assert isinstance(shelf_of(Study("s", "uid", 0, spec, Path("/nowhere"))), Files)
