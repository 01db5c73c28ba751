"""Trials that print gigabytes, endless lines, bytes, colours and secrets: the log stays small and plain."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest
from bad_trials import FORMS, Fired, Slot, follow, launch, slot

from hpsearch.run.output import LONGEST_LINE, Output, Pump
from hpsearch.spec.model import Program
from hpsearch.study.trial import State

__all__ = ["slot"]
forms = pytest.mark.parametrize("form", FORMS)
FLOOD = 96 << 20  # bytes


@pytest.mark.fault("F27")
@forms
def test_a_flood_of_output_fills_a_ring_and_nobodys_memory(
    slot: Slot, tmp_path: Path, form: str, fired: Fired
) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    said = follow(slot, launch(tmp_path / "t", "prints", form, output=4 << 20))
    assert said.ending.state is State.COMPLETED
    files = {path.name: path.stat().st_size for path in (tmp_path / "t").glob("output.log*")}
    assert files.keys() == {"output.log", "output.log.1"}
    assert sum(files.values()) < 6 << 20
    dropped = int(said.notes.split(" bytes of its output were dropped")[0].split()[-1])
    fired(dropped > FLOOD // 2)
    assert FLOOD <= dropped + sum(files.values()) < FLOOD * 1.1
    assert (tmp_path / "t/output.log").read_text().rstrip().endswith("the last word")
    assert "[hpsearch: " in (tmp_path / "t/output.log").read_text()[:100], "what is missing is said there"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32 << 10, "KiB"


@pytest.mark.fault("F27")
@forms
def test_what_a_trial_prints_is_plain_text_without_secrets(
    slot: Slot, tmp_path: Path, form: str, fired: Fired, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The server had its environment before; what the trial says of it is what its owner knows.
    monkeypatch.setenv("HPS_TEST_TOKEN", "canary-hunter2")
    env = (("HPS_TEST_TOKEN", "canary-hunter2"),)
    program = Program(own_directory=True, env=env)
    said = follow(slot, launch(tmp_path / "t", "prints_anything", form, program=program))
    assert said.ending.state is State.COMPLETED
    printed = (tmp_path / "t/output.log").read_bytes()
    fired(b"before" in printed and b"after" in printed)
    text = printed.decode()
    assert "green but \\x1b]0;title\\x07" in text
    assert "\x1b" not in text
    assert "\\xff\\xfe" in text
    assert "\\x00" in text
    assert "naïve ☃" in text
    assert "hunter2" not in text
    assert "password=***" in text
    assert "in my environment: ***" in text
    assert "unfinished" in text


def test_a_long_line_is_cut_and_the_next_one_is_whole(tmp_path: Path) -> None:
    output = Output(tmp_path, 64 << 20)
    for _ in range(160):
        output.write(b"x" * (1 << 16))
    output.write(b"end\nnext\n")
    output.close()
    first, second = (tmp_path / "output.log").read_bytes().splitlines()
    assert second == b"next"
    kept = len(first.rstrip(b"]").split(b" [hpsearch: ")[0])
    assert LONGEST_LINE <= kept <= LONGEST_LINE + (1 << 16)
    dropped = (160 << 16) + 3 - kept
    assert first.endswith(f" [hpsearch: {dropped} bytes of this line were dropped]".encode())
    assert output.dropped == dropped


def test_a_disk_that_refuses_costs_the_output_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = Output(tmp_path, 1 << 20)

    def refuse(descriptor: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", refuse)
        output.write(b"lost\n")
    output.write(b"kept\n")
    output.close()
    assert output.dropped == 5
    assert output.last_line == "kept"
    assert (tmp_path / "output.log").read_text() == "kept\n"


def test_what_is_in_the_pipe_when_a_trial_dies_is_kept(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    pump = Pump(reader, Output(tmp_path, 1 << 20))
    pump.start()
    os.write(writer, b"said\nlast words without an end")
    os.close(writer)
    pump.close()
    os.close(reader)
    assert (tmp_path / "output.log").read_text() == "said\nlast words without an end"


def test_a_secret_of_the_programs_own_environment_is_masked(tmp_path: Path) -> None:
    output = Output(tmp_path, 1 << 20, {"MY_API_KEY": "s3cr3t-value"})
    output.write(b"using s3cr3t-value now\nplain\n")
    output.close()
    assert (tmp_path / "output.log").read_text() == "using *** now\nplain\n"
