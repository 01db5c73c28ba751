"""Trials that plant links where hpsearch writes later: nothing is written, read or deleted through them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from bad_trials import FORMS, Fired, Slot, follow, launch, slot, start_and_hear_first

from hpsearch.run.metric_file import MetricFile
from hpsearch.run.output import Output
from hpsearch.study import beneath
from hpsearch.study.trial import State
from hpsearch.train import checkpoint

__all__ = ["slot"]
forms = pytest.mark.parametrize("form", FORMS)
PLANTED = ("output.log", "output.log.1", "last-lines.txt", "output.metrics")


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Path]:
    """A directory elsewhere, which must stay as it is."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "canary").write_text("sings\n")
    before = {path.name: path.read_text() for path in elsewhere.iterdir()}
    yield elsewhere
    assert {path.name: path.read_text() for path in elsewhere.iterdir()} == before


def no_note(topic: str, text: str) -> None:
    raise AssertionError(text)


@pytest.mark.fault("F34")
@forms
@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_an_attempt_writes_beside_the_links_of_the_one_before(
    slot: Slot, tmp_path: Path, canary: Path, form: str, link: object, fired: Fired
) -> None:
    directory = tmp_path / "t"
    given = launch(directory, "exits_three", form, output=2 << 10)
    for name in PLANTED:
        link(canary / "canary", directory / name)  # type: ignore[operator]
    fired(all((directory / name).exists() for name in PLANTED))
    assert follow(slot, given).ending.state is State.FAILED
    assert "line 59" in (directory / "output.log").read_text()
    assert "line 59" in (directory / "last-lines.txt").read_text()
    assert not any((directory / name).is_symlink() for name in ("output.log", "last-lines.txt"))


@pytest.mark.fault("F34")
def test_a_link_in_place_of_the_trials_directory_is_not_entered(
    slot: Slot, tmp_path: Path, canary: Path, fired: Fired
) -> None:
    given = launch(tmp_path / "t", "steps")
    (tmp_path / "t").rmdir()
    (tmp_path / "t").symlink_to(canary)
    with pytest.raises(OSError, match="Not a directory"):
        slot.start(given)
    fired((tmp_path / "t/canary").exists())


@pytest.mark.fault("F34")
@forms
def test_links_that_are_planted_while_a_trial_runs_are_not_followed(
    slot: Slot, tmp_path: Path, canary: Path, form: str, fired: Fired
) -> None:
    directory = tmp_path / "t"
    start_and_hear_first(slot, launch(directory, "ignores_term", form))
    for name in PLANTED:
        (directory / name).unlink(missing_ok=True)
        (directory / name).symlink_to(canary / "canary")
    fired((directory / "output.log").is_symlink())
    slot.kill()


@pytest.mark.fault("F34")
def test_a_ring_turns_over_links_and_never_through_them(tmp_path: Path, canary: Path, fired: Fired) -> None:
    (tmp_path / "t").mkdir()
    output = Output(tmp_path / "t", 2000)
    for name in ("output.log", "output.log.1"):
        (tmp_path / "t" / name).unlink(missing_ok=True)
        (tmp_path / "t" / name).symlink_to(canary / "canary")
    fired((tmp_path / "t/output.log").is_symlink())
    for number in range(1000):
        output.write(f"line {number}\n".encode())
    output.close()
    assert output.last_line == "line 999"
    assert (tmp_path / "t/output.log").read_text().endswith("line 999\n")


@pytest.mark.fault("F34")
def test_a_metric_file_is_no_link(tmp_path: Path, canary: Path, fired: Fired) -> None:
    path = tmp_path / "output.metrics"
    path.symlink_to(canary / "canary")
    fired(path.is_symlink())
    file = MetricFile(path, "1", no_note)
    assert not path.is_symlink()
    assert file.descriptor is not None
    os.write(file.descriptor, b'{"loss": "1.0", "global_step": "1"}\n')
    assert len(file.take()) == 1
    path.unlink()
    path.symlink_to(canary / "canary")
    assert file.take(last=True) == []
    file.close()
    assert path.read_text() == '{"loss": "1.0", "global_step": "1"}\n'


@pytest.mark.fault("F34")
@pytest.mark.parametrize("trap", ["directory", "file", "pipe"])
def test_a_checkpoint_is_read_from_a_file_of_its_own_or_not_at_all(
    tmp_path: Path, canary: Path, trap: str, fired: Fired
) -> None:
    path = tmp_path / "checkpoints/canary"
    if trap == "directory":
        path.parent.symlink_to(canary)
    else:
        path.parent.mkdir()
        path.symlink_to(canary / "canary") if trap == "file" else os.mkfifo(path)
    fired(os.path.lexists(path))
    with pytest.raises(checkpoint.CheckpointError):
        checkpoint.read(path, "0" * 64)
    with pytest.raises(OSError, match=r"links|directory|no file"):
        beneath.read(tmp_path, "checkpoints", "canary")


@pytest.mark.fault("F34")
def test_a_checkpoint_is_written_where_no_link_leads(tmp_path: Path, canary: Path, fired: Fired) -> None:
    path = tmp_path / "checkpoints/step-00000001-attempt-1.pt"
    path.parent.symlink_to(canary)
    fired(path.parent.is_dir())
    with pytest.raises(OSError, match=r"directory|links"):
        checkpoint.write_durably(path, memoryview(b"state"))
    path.parent.unlink()
    path.parent.mkdir()
    for name in (path, path.with_suffix(".writing")):
        name.symlink_to(canary / "canary")
    checkpoint.write_durably(path, memoryview(b"state"))
    assert path.read_bytes() == b"state"
    assert not path.is_symlink()
