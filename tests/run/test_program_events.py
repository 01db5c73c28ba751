"""Programs that report to TensorBoard alone are heard there, at their own steps; others' files are not."""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import hypertune
import pytest
import torch
from program_run import Slot, commands, follow, forks, launch, slot
from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.util import tensor_util
from torch.utils.tensorboard import SummaryWriter

from hpsearch.run import events
from hpsearch.run.events import EventFiles
from hpsearch.run.listener import Listener
from hpsearch.spec.model import Program
from hpsearch.study.trial import Measurement, Report
from hpsearch.train.reporter import Reporter

__all__ = ["commands", "forks", "slot"]


def mine() -> set[int]:
    return {os.getpid()}


class Room:
    """Directories as a trial has them, and what is read there."""

    def __init__(self, top: Path) -> None:
        self.trial, self.shared = top / "trial", top / "runs"
        self.notes: list[str] = []
        self.files = EventFiles([self.trial], self.shared, lambda _, text: self.notes.append(text))

    def take(self, processes: Callable[[], set[int]] = mine) -> list[tuple[str, object, int]]:
        return [(point.tag, point.value, point.step) for point in self.files.take(processes)]


@pytest.fixture
def room(tmp_path: Path) -> Room:
    return Room(tmp_path)


def record(step: int, *values: summary_pb2.Summary.Value, time: float = 1.7e9) -> bytes:
    """An event as it lies in a file; the checksums are not looked at."""
    event = event_pb2.Event(step=step, wall_time=time, summary=summary_pb2.Summary(value=values))
    content = event.SerializeToString()
    return struct.pack("<Q4x", len(content)) + content + b"\0\0\0\0"


def simple(tag: str, value: float) -> summary_pb2.Summary.Value:
    return summary_pb2.Summary.Value(tag=tag, simple_value=value)


def tensor(tag: str, value: object) -> summary_pb2.Summary.Value:
    return summary_pb2.Summary.Value(tag=tag, tensor=tensor_util.make_tensor_proto(value))


def event_file(directory: Path, *records: bytes) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "events.out.tfevents.1700000000.host"
    with path.open("ab") as file:
        file.write(b"".join(records))
    return path


def test_a_writer_is_heard_while_it_writes(room: Room) -> None:
    with SummaryWriter(str(room.trial / "logs")) as writer:
        for step in (1, 2):
            writer.add_scalar("loss", 1 / step, step)
            writer.flush()
            assert room.take() == [("loss", 1 / step, step)]
        writer.add_histogram("weights", torch.ones(2), 3)
        writer.add_text("note", "text", 3)
        writer.add_hparams({"lr": 0.1}, {"best": 1.0}, run_name="sub")
    assert room.take() == [("best", 1.0, 0)]
    assert room.notes == []


def test_scalars_are_read_in_both_forms_and_other_tensors_are_not(room: Room) -> None:
    values = [simple("a", 0.5), tensor("b", 1.5), tensor("c", [2.5]), tensor("d", 3)]
    others = [tensor("image", [1.0, 2.0]), tensor("text", b"x"), tensor("none", [])]
    event_file(room.trial, record(4, *values, *others))
    assert room.take() == [("a", 0.5, 4), ("b", 1.5, 4), ("c", 2.5, 4), ("d", 3.0, 4)]


def test_half_a_record_waits_for_its_other_half(room: Room) -> None:
    whole = record(1, simple("loss", 0.5))
    for part in (whole[:5], whole[5:15], whole[15:-1]):
        event_file(room.trial, part)
        assert room.take() == []
    event_file(room.trial, whole[-1:], record(2, simple("loss", 0.25)))
    assert room.take() == [("loss", 0.5, 1), ("loss", 0.25, 2)]


def test_a_damaged_record_costs_itself_only(room: Room) -> None:
    broken = struct.pack("<Q4x", 5) + b"\xff" * 9
    event_file(room.trial, broken, record(2, simple("loss", 0.25)))
    assert room.take() == [("loss", 0.25, 2)]
    event_file(room.trial / "x", struct.pack("<Q4x", 2**62) + b"abc")
    assert room.take() == []


def test_much_is_read_in_parts(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "AT_ONCE", 500)
    event_file(room.trial, *(record(step, simple("loss", float(step))) for step in range(100)))
    parts = [room.take()]
    while room.files.more:
        parts.append(room.take())
    assert len(parts) > 3
    assert [step for part in parts for _, _, step in part] == list(range(100))


def test_files_that_were_there_before_are_not_read(tmp_path: Path) -> None:
    event_file(tmp_path / "trial", record(1, simple("loss", 0.5)))
    assert Room(tmp_path).take() == []


def test_of_a_shared_directory_only_files_of_the_programs_processes_are_read(room: Room) -> None:
    with SummaryWriter(str(room.shared / "mine")) as writer:
        writer.add_scalar("loss", 1.0, 1)
    event_file(room.shared / "of_nobody", record(1, simple("loss", 2.0)))
    assert room.take(lambda: {1}) == []
    of_another_machine = room.shared / f"events.out.tfevents.1700000000.elsewhere.{os.getpid()}.0"
    of_another_machine.write_bytes(record(1, simple("loss", 4.0)))
    assert [value for _, value, _ in room.take()] == []
    again = Room(room.trial.parent)
    assert again.take() == [], "they were there before"
    with SummaryWriter(str(room.shared / "later")) as writer:
        writer.add_scalar("loss", 3.0, 1)
    assert again.take() == [("loss", 3.0, 1)]


def test_directories_prefix_where_they_train_or_come_second(room: Room) -> None:
    event_file(room.trial / "logs/train", record(0, simple("epoch_loss", 3.0)))
    event_file(room.trial / "logs/validation", record(0, simple("epoch_loss", 2.0), simple("epoch_acc", 1.0)))
    event_file(room.trial / "logs/zebra", record(0, simple("epoch_loss", 4.0)))
    assert {tag: value for tag, value, _ in room.take()} == {
        "train/epoch_loss": 3.0,
        "epoch_loss": 2.0,
        "epoch_acc": 1.0,
        "zebra/epoch_loss": 4.0,
    }


def test_a_great_directory_is_not_searched_for_ever(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "MOST_ENTRIES", 5)
    for number in range(9):
        (room.trial / str(number)).mkdir(parents=True)
    room.take()
    assert room.notes == [f"only 5 entries of {room.trial} were searched for events"]


class Heard:
    """A listener as a supervisor holds it."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch, **fields: object) -> None:
        self.said: list[Measurement] = []
        self.notes: list[str] = []
        directory.mkdir()
        path = directory / "output.metrics"
        monkeypatch.setenv("CLOUD_ML_HP_METRIC_FILE", str(path))
        monkeypatch.setenv("CLOUD_ML_TRIAL_ID", "7")
        monkeypatch.setattr("hpsearch.run.listener.EVENTS_EVERY", 0.0)
        monkeypatch.setattr("hpsearch.run.listener.EVENTS_SHARE", 1e9)
        given = launch(directory, "m", **fields)  # type: ignore[arg-type]
        self.listener = Listener(given, path, Reporter(self.hear, given.metric))

    def hear(self, report: Report) -> bool:
        self.said += [report.measurement] if report.measurement else []
        self.notes += [report.note] if report.note else []
        return True

    def new(self) -> list[tuple[int, Mapping[str, float]]]:
        self.listener.hear(mine)
        return self.rest()

    def rest(self) -> list[tuple[int, Mapping[str, float]]]:
        said, self.said = self.said, []
        return [(measurement.step, measurement.metrics) for measurement in said]


def report(tag: str, value: float, step: int) -> None:
    hypertune.HyperTune().report_hyperparameter_tuning_metric(tag, value, step)


def test_points_of_event_files_wait_for_the_objective_and_keep_their_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = tmp_path / "t"
    heard = Heard(trial, monkeypatch)
    event_file(trial / "logs", *(record(step, simple("batch", float(step))) for step in range(1, 6)))
    assert heard.new() == []
    event_file(trial / "logs/eval", record(2, simple("loss", 0.5)))
    assert heard.new() == [(1, {"batch": 1.0}), (2, {"batch": 2.0, "loss": 0.5})]
    event_file(trial / "logs/eval", record(3, simple("loss", 0.25)), record(4, simple("loss", 0.125)))
    event_file(trial / "logs", record(1, simple("late", 1.0)))
    assert heard.new() == [(3, {"batch": 3.0, "loss": 0.25}), (4, {"batch": 4.0, "loss": 0.125})]
    assert heard.notes == ["late at step 1 came after step 2: dropped"]
    heard.listener.finish(mine)
    assert heard.rest() == [(5, {"batch": 5.0})]


def test_an_objective_of_the_metric_file_is_never_taken_from_event_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = tmp_path / "t"
    heard = Heard(trial, monkeypatch)
    event_file(trial / "logs", *(record(step, simple("batch", 1.0)) for step in range(1000)))
    assert heard.new() == []
    report("loss", 0.5, 1)
    event_file(trial / "logs", record(1, simple("loss", 9.0)))
    assert heard.new() == [(1, {"loss": 0.5})]
    report("loss", 0.25, 2)
    assert heard.new() == [(2, {"loss": 0.25})]
    heard.listener.finish(mine)
    assert heard.rest() == []


def test_an_objective_that_came_from_event_files_is_not_taken_from_the_metric_file_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = tmp_path / "t"
    heard = Heard(trial, monkeypatch)
    event_file(trial / "logs", record(100, simple("loss", 0.5)))
    assert heard.new() == [(100, {"loss": 0.5})]
    report("loss", 0.5, 1)
    report("loss", 0.25, 2)
    event_file(trial / "logs", record(200, simple("loss", 0.25)))
    assert heard.new() == [(200, {"loss": 0.25})]
    heard.listener.finish(mine)
    assert heard.rest() == []
    assert heard.notes == ["loss at step 1 came after those of the event files: dropped"]


def test_a_second_objective_may_come_from_event_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = tmp_path / "t"
    heard = Heard(trial, monkeypatch, metrics=("loss", "recall"))
    report("loss", 0.5, 1)
    event_file(trial / "logs", record(1, simple("recall", 0.75), simple("loss", 9.0)))
    assert heard.new() == [(1, {"loss": 0.5}), (1, {"recall": 0.75})]


def test_a_wrong_tag_is_told_when_the_second_round_of_reports_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = Heard(tmp_path / "t", monkeypatch)
    for step, tag in ((1, "acc"), (1, "epoch_loss"), (2, "acc"), (2, "epoch_loss"), (3, "loss"), (3, "acc")):
        assert bool(heard.notes) == ((step, tag) == (2, "epoch_loss") or step == 3)
        report(tag, 0.5, step)
        heard.new()
    assert heard.notes == ["reports acc, epoch_loss, but not the metric tag loss so far"]


def test_a_late_objective_is_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trial = tmp_path / "t"
    heard = Heard(trial, monkeypatch)
    report("other", 0.5, 10)
    event_file(trial / "logs", record(3, simple("loss", 0.75)), record(4, simple("loss", 0.5)))
    assert heard.new() == [(10, {"other": 0.5}), (10, {"loss": 0.75}), (11, {"loss": 0.5})]


def test_without_tensorboard_the_trial_says_what_it_could_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = tmp_path / "t"
    heard = Heard(trial, monkeypatch)
    for name in ("tensorboard", "tensorboard.compat", "tensorboard.compat.proto"):
        monkeypatch.setitem(sys.modules, name, None)
    assert heard.listener.excuse == ""
    reason = "was not read: tensorboard is not installed (pip install 'hpsearch[tensorboard]')"
    for name in ("a", "b"):
        path = event_file(trial / name, record(1, simple("loss", 0.5)))
        assert heard.new() == []
        assert heard.listener.excuse == f"; {path} {reason}"
    assert heard.notes == [f"{trial}/a/events.out.tfevents.1700000000.host {reason}"], "one note will do"


@pytest.mark.parametrize("where", ["logs", "default"])
def test_a_program_with_a_summary_writer_is_a_trial(slot: Slot, tmp_path: Path, where: str) -> None:
    program = Program(own_directory=where == "logs")
    path = (str(tmp_path), str(Path(__file__).parent / "programs"))
    (tmp_path / "runs").mkdir()
    given = launch(tmp_path / "t", "with_events", {"where": where}, program=program, python_path=path)
    said = follow(slot, given)
    assert said.verdict == ("completed", "finished at step 7")
    objective = [(step, metrics["loss"]) for step, metrics in said.curve if "loss" in metrics]
    assert objective == [(1, 1.0), (2, 0.5), (3, pytest.approx(1 / 3))]
    assert [step for step, metrics in said.curve if "batch_loss" in metrics] == [2, 3, 4, 5, 6, 7]


def test_a_program_that_reports_both_ways_is_heard_in_the_metric_file(slot: Slot, tmp_path: Path) -> None:
    said = follow(slot, launch(tmp_path, "with_events", {"where": "logs"}, args=("--both",)))
    assert said.curve == [(1, {"loss": 10.0}), (2, {"loss": 5.0}), (3, {"loss": 10 / 3})]
