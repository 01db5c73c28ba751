"""The directory of a private Ray: where it fits, and that a dead owner's goes with what it left."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpsearch.errors import ServiceUnavailable
from hpsearch.run import scratch, undertaker

OWNER = """
import os, subprocess, sys, tempfile
tempfile.tempdir = sys.argv[1]
from hpsearch.run import scratch, undertaker
with scratch.scratch(private=True) as place:
    left = subprocess.Popen(["sleep", "600"], env={undertaker.VARIABLE: place.mark}, start_new_session=True)
    print(place.directory, place.mark, left.pid, flush=True)
    sys.stdin.read()
"""


class Owner:
    """A process that owns a scratch directory until it is told to end, and something of its Ray."""

    def __init__(self, place: Path) -> None:
        words = [sys.executable, "-c", OWNER, str(place)]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout
        assert self.process.stdin
        directory, self.mark, left = self.process.stdout.readline().split()
        self.directory, self.left = Path(directory), int(left)

    def undertaker(self) -> int:
        for process in Path("/proc").iterdir():
            if process.name.isdigit() and self.mark.encode() in (process / "cmdline").read_bytes():
                return int(process.name)
        raise AssertionError("it has no undertaker")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def owner(place: Path) -> Iterator[Owner]:
    made = Owner(place)
    yield made
    made.kill()
    assert made.process.stdin
    assert made.process.stdout
    made.process.stdin.close()
    made.process.stdout.close()


@pytest.fixture
def place() -> Iterator[Path]:
    """A short directory for temporary files."""
    import shutil
    import tempfile

    made = Path(tempfile.mkdtemp(prefix="hpt-", dir="/tmp"))
    yield made
    shutil.rmtree(made, ignore_errors=True)


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def within(seconds: float, what: object) -> bool:
    deadline = time.monotonic() + seconds
    while not what():  # type: ignore[operator]
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def test_an_owner_that_ends_takes_its_directory_and_its_processes_with_it(owner: Owner) -> None:
    assert owner.process.stdin
    assert stat.S_IMODE(owner.directory.stat().st_mode) == 0o700
    assert stat.S_IMODE((owner.directory / scratch.OWNER).stat().st_mode) == 0o600
    owner.process.stdin.close()
    assert owner.process.wait(20) == 0
    assert gone(owner.left)
    assert not owner.directory.exists()


def test_an_owner_that_is_killed_is_buried_within_ten_seconds(owner: Owner) -> None:
    owner.kill()
    assert within(10, lambda: gone(owner.left))
    assert within(10, lambda: not owner.directory.exists())


def test_a_killed_owner_whose_undertaker_was_killed_too_is_buried_by_the_next_start(
    owner: Owner, place: Path
) -> None:
    os.kill(owner.undertaker(), signal.SIGKILL)
    owner.kill()
    assert owner.directory.exists()
    assert not gone(owner.left)
    assert scratch.sweep(place) == [owner.directory]
    assert not owner.directory.exists()
    assert within(5, lambda: gone(owner.left))


def test_what_lives_or_is_not_ours_is_left_alone(owner: Owner, place: Path) -> None:
    (place / "hps-without-owner").mkdir()
    (place / "hps-other").mkdir()
    (place / "hps-other" / scratch.OWNER).write_text("no mark of ours")
    target = place / "target"
    target.mkdir()
    (target / scratch.OWNER).write_text("0" * 32)
    (place / "hps-link").symlink_to(target)
    (place / "hps-file").write_text("0" * 32)
    before = sorted(place.rglob("*"))
    assert scratch.sweep(place) == []
    assert sorted(place.rglob("*")) == before
    assert not gone(owner.left)


def test_a_mark_that_is_none_ends_nobody(owner: Owner) -> None:
    for text in ("", "/", "a" * 31, "A" * 32, owner.mark[:-1], f"{owner.mark}\n"):
        assert undertaker.end(text) == 0
    assert not gone(owner.left)


def test_a_ray_finds_room_in_shared_memory_or_elsewhere_or_says_what_it_needs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    room: dict[Path, int] = {}
    monkeypatch.setattr(scratch, "_free", lambda where: room[where] << 20)
    place = Path("/tmp")
    room |= {scratch.SHARED_MEMORY: 1000, place: 100}
    assert scratch._object_store(place) == (scratch.SHARED_MEMORY, scratch.OBJECT_STORE)
    room[scratch.SHARED_MEMORY] = 100
    assert scratch._object_store(place) == (scratch.SHARED_MEMORY, 90 << 20)
    room |= {scratch.SHARED_MEMORY: 64, place: 300}
    assert scratch._object_store(place) == (None, scratch.OBJECT_STORE)
    room[place] = 100
    with pytest.raises(
        ServiceUnavailable, match="/dev/shm has 64 MiB left, and /tmp, which would do, 100 MiB"
    ):
        scratch._object_store(place)
    room[place] = 20
    monkeypatch.setattr("tempfile.gettempdir", lambda: "/tmp")
    with pytest.raises(
        ServiceUnavailable, match="needs 64 MiB for its files, /tmp has 20 MiB left"
    ) as caught:
        scratch._place()
    assert caught.value.exit_code == 69
    assert "TMPDIR" in caught.value.hint


def test_a_full_disk_leaves_no_directory_that_nobody_owns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space left"):
        scratch.claim(tmp_path, "0" * 32)
    assert list(tmp_path.iterdir()) == []
