"""Every report of cloudml-hypertune is heard once, at a step that makes sense; nonsense costs nothing."""

from __future__ import annotations

import json
import os
import stat
import threading
from collections.abc import Mapping
from pathlib import Path

import hypertune
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from program_run import Slot, commands, follow, forks, launch, slot

from hpsearch.run import metric_file
from hpsearch.run.metric_file import MetricFile, Point
from hpsearch.run.timeline import Timeline
from hpsearch.study.trial import Measurement, Report
from hpsearch.train.reporter import Reporter

__all__ = ["commands", "forks", "slot"]


class Ear:
    """A metric file as a supervisor holds it, and what was noted about it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.notes: dict[str, str] = {}
        self.file = MetricFile(path, "7", lambda topic, text: self.notes.setdefault(topic, text) and None)

    def take(self, *, last: bool = False) -> list[tuple[str, object, int]]:
        return [(point.tag, point.value, point.step) for point in self.file.take(last=last)]


@pytest.fixture
def ear(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ear:
    monkeypatch.setenv("CLOUD_ML_HP_METRIC_FILE", str(tmp_path / "output.metrics"))
    monkeypatch.setenv("CLOUD_ML_TRIAL_ID", "7")
    return Ear(tmp_path / "output.metrics")


def report(tag: str, value: float, step: int | None = None, by: hypertune.HyperTune | None = None) -> None:
    (by or hypertune.HyperTune()).report_hyperparameter_tuning_metric(tag, value, step)


def line(time: object, **fields: object) -> str:
    return json.dumps({"timestamp": time, "trial": "7", "global_step": "1", "checkpoint_path": "", **fields})


def replace_by_file(path: Path, *lines: str) -> None:
    """Write as careful programs do: beside it first, then by one rename."""
    path.with_suffix(".tmp").write_text("".join(each + "\n" for each in lines))
    path.with_suffix(".tmp").rename(path)


@pytest.mark.parametrize(("objects", "reports"), [("many", 200), ("one", 250), ("many", 2000)])
def test_no_report_is_lost_however_fast_they_come(
    slot: Slot, tmp_path: Path, objects: str, reports: int
) -> None:
    said = follow(slot, launch(tmp_path, "floods", {"objects": objects, "reports": reports}))
    assert said.curve == [(step, {"loss": 1 / step}) for step in range(1, reports + 1)]
    assert said.notes == []
    left = [json.loads(each) for each in (tmp_path / "output.metrics").read_text().splitlines()]
    assert [record["global_step"] for record in left] == [str(step) for step in range(1, reports + 1)]


def test_a_report_wakes_its_reader(ear: Ear) -> None:
    mode = ear.path.stat().st_mode
    assert stat.S_ISFIFO(mode)
    assert ear.take() == []
    report("loss", 0.5, 10)
    assert ear.take() == [("loss", 0.5, 10)]
    assert ear.take() == []


def test_what_one_object_repeats_is_taken_once_also_beside_another(ear: Ear) -> None:
    one, other = hypertune.HyperTune(), hypertune.HyperTune()
    for step in range(1, 4):
        report("loss", step, step, by=one)
        report("accuracy", 1.0, step, by=other)
    taken = ear.take()
    assert taken == [(t, v, s) for s in (1, 2, 3) for t, v in (("loss", float(s)), ("accuracy", 1.0))]


def test_values_are_numbers_again_and_tags_may_be_any_text(ear: Ear) -> None:
    report("Taxi Model Accuracy", float("nan"), 1)
    report("", float("-inf"), 2)
    report("Training/Reward", 1e-300, 3)
    (nan, default, reward) = ear.take()
    assert (nan[0], str(nan[1])) == ("Taxi Model Accuracy", "nan")
    assert default == ("training/hptuning/metric", float("-inf"), 2)
    assert reward == ("Training/Reward", 1e-300, 3)


def test_steps_are_read_as_they_are_written(ear: Ear) -> None:
    given = ["10", 10, 10.0, "20.7", None, "", "x", -3, "1e400", 2**70, [1], {}]
    text = "".join(line(turn, global_step=step, loss="1") + "\n" for turn, step in enumerate(given, 1))
    ear.path.write_text(text)
    assert [step for _, _, step in ear.take()] == [10, 10, 10, 20, 0, 0, 0, 0, 0, 0, 0, 0]


def test_appending_to_the_file_works_too(ear: Ear) -> None:
    for turn in range(3):
        with ear.path.open("a") as file:
            file.write(line(turn, loss=str(turn)) + "\n")
    assert [value for _, value, _ in ear.take()] == [0.0, 1.0, 2.0]


def test_half_a_line_waits_for_its_other_half(ear: Ear) -> None:
    whole = line(1, loss="0.5") + "\n"
    for part in (whole[:20], whole[20:50], whole[50:]):
        assert ear.take() == []
        ear.path.write_text(part)
    assert ear.take() == [("loss", 0.5, 1)]


def test_nonsense_is_skipped_with_a_note_and_costs_no_memory(ear: Ear) -> None:
    writer = threading.Thread(target=lambda: ear.path.write_text("x" * (1 << 20)))
    writer.start()
    while writer.is_alive():
        assert ear.take() == []
        assert len(ear.file._partial) <= metric_file.LONGEST_LINE
    writer.join()
    bad = ["", "[1]", "nonsense", '{"a": ', "[" * 50_000, '"text"', "null"]
    ear.path.write_bytes("\n".join([*bad, line(1, loss="2"), ""]).encode() + b"\xff\xfe\n")
    assert ear.take() == [("loss", 2.0, 1)]
    assert ear.notes["metric file"].startswith("a line that is no record was skipped: b'xxx")


def test_a_record_of_another_trial_is_taken_and_noted(ear: Ear) -> None:
    ear.path.write_text(line(1, loss="2", trial="8") + "\n")
    assert ear.take() == [("loss", 2.0, 1)]
    assert ear.notes == {"metric file's trial": "a record says trial '8', this is trial 7"}


def test_a_value_that_is_no_number_is_left_to_the_reporter(ear: Ear) -> None:
    ear.path.write_text(line(1, loss="high", deep={"a": 1}) + "\n")
    assert ear.take() == [("loss", "high", 1), ("deep", {"a": 1}, 1)]


def test_a_file_that_takes_the_pipes_place_is_read_instead(ear: Ear) -> None:
    report("loss", 1.0, 1)
    replace_by_file(ear.path, line(2, loss="2"))
    assert ear.take() == [("loss", 1.0, 1), ("loss", 2.0, 1)]
    replace_by_file(ear.path, line(2, loss="2"), line(3, loss="3"))
    assert ear.take() == [("loss", 3.0, 1)]
    ear.path.unlink()
    assert ear.take() == []
    report("loss", 4.0, 4)
    assert ear.take() == [("loss", 4.0, 4)]
    with ear.path.open("a") as file:
        file.write(line(9, loss="9"))
    assert ear.take() == [], "its line is not finished yet"
    assert ear.take(last=True) == [("loss", 9.0, 1)]


def test_where_there_can_be_no_pipe_a_file_is_polled(ear: Ear, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("no pipes here")

    monkeypatch.setattr(os, "mkfifo", refuse)
    poor = Ear(ear.path)
    assert poor.file.descriptor is None
    one = hypertune.HyperTune()
    for step in (1, 2):
        report("loss", float(step), step, by=one)
        assert poor.take() == [("loss", float(step), step)]
    poor.file.close()
    assert len(poor.path.read_text().splitlines()) == 2


def test_a_long_file_is_read_from_its_end(ear: Ear, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metric_file, "LARGEST_FILE", 1000)
    replace_by_file(ear.path, *(line(turn, loss=str(turn)) for turn in range(1000)))
    values = [value for _, value, _ in ear.take()]
    assert 5 < len(values) < 20
    assert values[-1] == 999
    assert ear.notes == {}


def test_an_earlier_attempts_file_is_gone_and_this_ones_stays(ear: Ear) -> None:
    replace_by_file(ear.path, line(1, loss="1"))
    again = Ear(ear.path)
    assert again.take(last=True) == []
    again.file.close()
    assert not ear.path.exists(), "nothing was reported"
    third = Ear(ear.path)
    report("loss", 2.0, 1)
    third.take()
    third.file.close()
    assert stat.S_ISREG(ear.path.stat().st_mode)
    assert stat.S_IMODE(ear.path.stat().st_mode) == 0o600
    assert json.loads(ear.path.read_text())["loss"] == "2.0"


def test_memory_is_bounded_and_old_records_are_still_known(ear: Ear, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metric_file, "KNOWN", 10)
    monkeypatch.setattr(metric_file, "KEPT", 500)
    lines = [line(turn, loss=str(turn)) for turn in range(1, 101)]
    ear.path.write_text("\n".join(lines) + "\n")
    assert len(ear.take()) == 100
    ear.path.write_text("\n".join([*lines[:50], line(101, loss="101")]) + "\n")
    assert ear.take() == [("loss", 101.0, 1)]
    ear.file.close()
    assert ear.path.read_text().splitlines()[-1] == line(101, loss="101")
    assert ear.path.stat().st_size < 700


class Sink:
    """A timeline into a reporter that only listens."""

    def __init__(self) -> None:
        self.said: list[Measurement] = []
        self.notes: list[str] = []
        self.reporter = Reporter(self.hear, "loss")
        self.timeline = Timeline(self.reporter)

    def hear(self, report: Report) -> bool:
        self.said += [report.measurement] if report.measurement else []
        self.notes += [report.note] if report.note else []
        return True

    @property
    def curve(self) -> list[tuple[int, Mapping[str, float]]]:
        return [(measurement.step, measurement.metrics) for measurement in self.said]

    def play(self, *points: tuple[str, object, int], together: bool = True) -> Sink:
        for tag, value, step in points:
            self.timeline.add(Point(tag, value, step, 0))
            if not together:
                self.timeline.flush()
        self.timeline.flush()
        return self


def test_points_that_arrive_together_go_out_together_and_late_ones_follow_at_their_step() -> None:
    points = [("loss", 1.0, 5), ("accuracy", 2.0, 5), ("loss", 3.0, 10)]
    assert Sink().play(*points).curve == [(5, {"loss": 1.0, "accuracy": 2.0}), (10, {"loss": 3.0})]
    late = Sink().play(*points, together=False)
    assert late.curve == [(5, {"loss": 1.0}), (5, {"accuracy": 2.0}), (10, {"loss": 3.0})]
    assert late.notes == []


def test_reports_without_a_step_count_themselves() -> None:
    points = [
        ("loss", 1.0, 0),
        ("accuracy", 2.0, 0),
        ("loss", 3.0, 0),
        ("accuracy", 4.0, 0),
        ("loss", 5.0, 0),
    ]
    assert Sink().play(*points).curve == [
        (0, {"loss": 1.0, "accuracy": 2.0}),
        (1, {"loss": 3.0, "accuracy": 4.0}),
        (2, {"loss": 5.0}),
    ]


def test_a_point_behind_joins_the_current_step_or_opens_the_next() -> None:
    points = [("loss", 1.0, 7), ("accuracy", 2.0, 3), ("loss", 3.0, 7), ("loss", 4.0, 2), ("loss", 5.0, 100)]
    assert Sink().play(*points).curve == [
        (7, {"loss": 1.0, "accuracy": 2.0}),
        (8, {"loss": 3.0}),
        (9, {"loss": 4.0}),
        (100, {"loss": 5.0}),
    ]


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 2**63 - 1) | st.integers(0, 4), st.booleans()))
)
def test_every_point_goes_out_once_and_steps_never_go_back(points: list[tuple[str, int, bool]]) -> None:
    sink = Sink()
    room = 2**63 - 1 - len(points)
    for turn, (tag, step, alone) in enumerate(points):
        sink.timeline.add(Point(tag, float(turn), min(step, room), 0))
        if alone:
            sink.timeline.flush()
    sink.timeline.flush()
    sent = [(tag, value) for m in sink.said for tag, value in m.metrics.items()]
    assert sent == [(tag, float(turn)) for turn, (tag, _, _) in enumerate(points)]
    steps = [m.step for m in sink.said]
    assert steps == sorted(steps)
    assert len({(m.step, tag) for m in sink.said for tag in m.metrics}) == len(points)
    assert sink.notes == []


def test_a_reporter_takes_more_metrics_of_a_step_but_none_of_them_twice() -> None:
    sink = Sink()
    for metrics in ({"loss": 1.0}, {"accuracy": 2.0}, {"accuracy": 3.0}, {"recall": 1.0, "loss": 9.0}):
        sink.reporter.measure(Measurement(4, metrics))
    assert sink.curve == [(4, {"loss": 1.0}), (4, {"accuracy": 2.0})]
    assert sink.notes == ["step 4 came after step 4: dropped"]
