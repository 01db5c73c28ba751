"""Trials that are silent, stuck or too big: seen, ended, and tried again where it may have been chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from bad_trials import FORMS, Fired, Slot, follow, launch, left_of, noted, slot, works

from hpsearch.run.kin import Seen
from hpsearch.run.watch import HUNG, LONGEST_GAP, SUPERVISOR, Watch, memory_of
from hpsearch.study.trial import Cause, Launch, State

__all__ = ["slot"]
forms = pytest.mark.parametrize("form", FORMS)


@pytest.mark.fault("F19")
@forms
def test_a_trial_that_never_reports_is_ended_at_its_startup_timeout(
    slot: Slot, tmp_path: Path, form: str, fired: Fired
) -> None:
    said = follow(slot, launch(tmp_path / "t", "never_reports", form, startup_timeout=5.0))
    fired(noted(tmp_path / "t"))
    assert (said.lost, said.cause) == ("startupTimeout: no report for 5 s", Cause.HUNG)
    assert not left_of(tmp_path / "t")


@pytest.mark.fault("F20")
@forms
@pytest.mark.parametrize("kind", ["stops_itself", "deadlocks"])
def test_a_trial_that_hangs_after_a_report_is_ended_at_its_progress_timeout(
    slot: Slot, tmp_path: Path, form: str, kind: str, fired: Fired
) -> None:
    said = follow(slot, launch(tmp_path / "t", kind, form, progress_timeout=2.0))
    fired([m.step for m in said.measurements] == [100])
    assert (said.lost, said.cause) == ("progressTimeout: no further report for 2 s", Cause.HUNG)
    assert not left_of(tmp_path / "t")
    works(slot, tmp_path / "next")


@pytest.mark.fault("F25")
@forms
def test_a_trial_over_its_memory_is_ended_by_the_sum_of_its_processes(
    slot: Slot, tmp_path: Path, form: str, fired: Fired
) -> None:
    said = follow(slot, launch(tmp_path / "t", "eats", form, memory=220 << 20))
    fired(len(noted(tmp_path / "t")) == 2)
    assert said.lost
    assert said.lost.startswith("oom: its processes held ")
    assert said.lost.endswith(" MiB of memory, 220 MiB are allowed")
    assert said.cause is Cause.OOM
    assert not left_of(tmp_path / "t")


@pytest.mark.fault("F25")
def test_shared_pages_are_nobodys_alone(slot: Slot, tmp_path: Path, fired: Fired) -> None:
    said = follow(slot, launch(tmp_path / "t", "crowd", memory=700 << 20))
    assert said.ending.state is State.COMPLETED
    fired(said.measurements[-1].metrics["mebibytes"] > 1000.0)
    assert memory_of(1 << 30) == 0, "there is no such process"


@pytest.mark.fault("F26")
@forms
@pytest.mark.parametrize("kind", ["out_of_cuda_memory", "out_of_memory"])
def test_memory_that_ran_out_is_called_so_and_not_tried_for_ever(
    slot: Slot, tmp_path: Path, form: str, kind: str, fired: Fired
) -> None:
    said = follow(slot, launch(tmp_path / "t", kind, form))
    fired("MemoryError" in (tmp_path / "t/output.log").read_text())
    assert said.ending.state is State.FAILED
    assert said.ending.reason.startswith("oom: ")
    assert ("CUDA out of memory" in said.ending.reason) == (kind == "out_of_cuda_memory")


class Bench:
    """A watch over processes and a clock that the test moves."""

    def __init__(self, directory: Path, **settings: float) -> None:
        self.now, self.work = 0.0, 0.0
        self.launch: Launch = replace(launch(directory, "x"), **settings)
        self.watch = Watch(self.launch, self.family, lambda: self.now)

    def family(self) -> Sequence[Seen]:
        return [Seen(2, 1, 2, SUPERVISOR, self.now), Seen(3, 2, 3, "python", self.work)]

    def wait(self, seconds: float, work: float = 0.0, report: bool = False) -> str | None:
        """What is wrong at the end of some seconds in which a share of them is worked."""
        until = self.now + seconds
        while self.now < until:
            self.now += 1.0
            self.work += work
            if offence := self.watch.look():
                assert offence.cause in (Cause.HUNG, None)
                return f"{self.now:g}: {offence.reason}"
        if report:
            self.watch.heard()
        return None


@pytest.mark.fault("F19", "F20")
def test_without_a_limit_a_trial_is_hung_when_it_neither_reports_nor_prints_nor_works(
    tmp_path: Path, fired: Fired
) -> None:
    bench = Bench(tmp_path / "t")
    assert bench.wait(3000, work=0.01) is None, "it works, a little"
    assert bench.wait(HUNG - 100) is None
    (tmp_path / "t/output.log").write_text("still here\n")
    assert bench.wait(HUNG - 100) is None, "it has printed"
    found = bench.wait(300)
    fired(found, "F19")
    assert found
    assert found.endswith("it hung: no report, no output and no work for 600 s")
    bench = Bench(tmp_path / "t")
    for _ in range(4):
        assert bench.wait(100, report=True) is None
    found = bench.wait(3000)
    fired(found, "F20")
    assert found == "2400: it hung: no report, no output and no work for 2000 s", "20 of its usual intervals"


def test_a_limit_of_zero_is_none(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "t", startup_timeout=0.0, progress_timeout=0.0)
    assert bench.wait(5000) is None
    bench.watch.heard()
    assert bench.wait(5000) is None


@pytest.mark.fault("F10")
def test_time_in_which_everything_stood_still_counts_for_no_timeout(tmp_path: Path, fired: Fired) -> None:
    bench = Bench(tmp_path / "t", timeout=50.0, startup_timeout=30.0)
    bench.now += 3600.0
    fired(bench.now > 50.0)
    assert bench.wait(15) is None
    found = bench.wait(60)
    assert found == f"{3601 + 30 - LONGEST_GAP:g}: startupTimeout: no report for 30 s"
    bench.watch.heard()
    found = bench.wait(60)
    assert found == f"{3601 + 50 - LONGEST_GAP:g}: trialTimeout: not finished after 50 s"


@pytest.mark.fault("F22")
def test_a_limit_that_is_near_is_looked_at_sooner(tmp_path: Path, fired: Fired) -> None:
    many: list[Seen] = []
    now = [0.0]
    given = replace(launch(tmp_path / "t", "x"), processes=10)
    watch = Watch(given, lambda: many, lambda: now[0])
    now[0] = 1.0
    assert watch.look() is None
    assert watch.rest >= 0.9
    many += [Seen(n, 1, n, "python", 0.0) for n in range(8)]
    now[0] = 2.5
    assert watch.look() is None
    assert watch.rest <= 0.5
    many += many
    now[0] = 3.0
    offence = watch.look()
    fired(len(many) == 16)
    assert offence
    assert (offence.cause, offence.at_once) == (None, True)
