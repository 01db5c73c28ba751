"""SQLite's write-ahead log as bytes: which frames prove themselves, and where damage hides good ones.

SQLite ends its reading at the first frame that does not fit and says nothing; whoever walks on sees whether
that was the end of the log or a hole in it. Format: https://sqlite.org/fileformat2.html#walformat
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace

LITTLE, BIG = 0x377F0682, 0x377F0683  # magic numbers: in which order of bytes the checksums read words
VERSION = 3007000
HEADER, FRAME_HEADER = 32, 24
_MASK = 0xFFFFFFFF

Sums = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Walk:
    """What a walk saw: `end` is the offset behind the last commit that SQLite takes, all before is proven.

    `tail` bytes of the same log follow it and are dropped by SQLite. `damage` is the offset of something
    bad that hides good frames behind it, with `problem` in words.
    """

    end: int = 0
    commits: int = 0
    tail: int = 0
    damage: int | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class _Log:
    """A log's header."""

    order: str
    page_size: int
    sequence: int
    salts: Sums
    sums: Sums

    @property
    def frame(self) -> int:
        return FRAME_HEADER + self.page_size


@dataclass(frozen=True, slots=True)
class _Frame:
    """A frame's header, and how it stands to the log's: of it (`ours`), perhaps `left` by an earlier one."""

    offset: int
    commit: bool
    stored: Sums
    ours: bool
    left: bool


def walk(data: bytes) -> Walk:
    """Walk all frames of a log."""
    if len(data) < HEADER:
        return Walk(tail=len(data))
    log = _header(data)
    if log is None:
        if len(data) == HEADER:
            return Walk(tail=HEADER)
        return Walk(damage=0, problem="the header of the log does not match its checksum")
    end, commits, sums = HEADER, 0, log.sums
    frames = _frames(data, log)
    for frame in frames:
        computed = _sums(data, frame.offset, log, sums)
        if not frame.ours or computed != frame.stored:
            return _behind(data, log, frame, computed, frames, Walk(end, commits))
        sums = frame.stored
        if frame.commit:
            end, commits = frame.offset + log.frame, commits + 1
    return Walk(end, commits, len(data) - end)


def _behind(
    data: bytes, log: _Log, bad: _Frame, computed: Sums, frames: Iterator[_Frame], seen: Walk
) -> Walk:
    """What the first frame that does not fit means: the end of the log, its torn tail, or a hole in it."""
    seeds: tuple[Sums, ...] = (bad.stored, computed)
    torn = not bad.left
    until = bad.offset + log.frame * torn
    for frame in frames:
        # The checksum that the next one builds on may itself be what is damaged.
        if frame.ours and any(_sums(data, frame.offset, log, seed) == frame.stored for seed in seeds):
            problem = "a frame of the log does not match its checksum, and good ones follow it"
            return replace(seen, damage=bad.offset, problem=problem)
        torn, seeds = torn and not frame.left, (frame.stored,)
        until += log.frame * torn
    return replace(seen, tail=(len(data) if torn else until) - seen.end)


def resealed(data: bytes, page_size: int) -> bytes:
    """A copy in which every frame up to the last commit fits: SQLite reads all of it, proven or not."""
    log = _header(data)
    if log is None:
        sequence = struct.unpack_from(">I", data, 12)[0]
        first, second = struct.unpack_from(">II", data, HEADER + 8) if len(data) >= HEADER + 16 else (0, 0)
        log = _Log("<", page_size, sequence, (first, second), (0, 0))
    found = list(_frames(data, log))
    last = max((n for n, frame in enumerate(found) if frame.ours and frame.commit), default=-1)
    magic = LITTLE if log.order == "<" else BIG
    copy = bytearray(struct.pack(">IIIIII", magic, VERSION, log.page_size, log.sequence, *log.salts))
    sums = _add((0, 0), bytes(copy), log.order)
    copy += struct.pack(">II", *sums)
    for frame in found[: last + 1]:
        body = bytearray(data[frame.offset : frame.offset + log.frame])
        body[8:16] = struct.pack(">II", *log.salts)
        sums = _sums(bytes(body), 0, log, sums)
        body[16:24] = struct.pack(">II", *sums)
        copy += body
    return bytes(copy)


def _header(data: bytes) -> _Log | None:
    """The header, None where it does not prove itself."""
    magic, version, page_size, sequence, *rest = struct.unpack_from(">8I", data)
    salts: Sums = rest[0], rest[1]
    stored = rest[2], rest[3]
    if magic not in (LITTLE, BIG) or version != VERSION:
        return None
    order = "<" if magic == LITTLE else ">"
    if _add((0, 0), data[:24], order) != stored or not 512 <= page_size <= 65536:
        return None
    return _Log(order, page_size, sequence, salts, stored)


def _frames(data: bytes, log: _Log) -> Iterator[_Frame]:
    """The whole frames, whatever they hold."""
    for offset in range(HEADER, len(data) - log.frame + 1, log.frame):
        _, size, *rest = struct.unpack_from(">6I", data, offset)
        salts, stored = (rest[0], rest[1]), (rest[2], rest[3])
        # A restart of the log counts the first salt up by one and draws the second anew.
        earlier = 1 <= (log.salts[0] - salts[0]) & _MASK <= log.sequence
        left = earlier and salts[1] != log.salts[1]
        yield _Frame(offset, size > 0, stored, salts == log.salts, left)


def _sums(data: bytes, offset: int, log: _Log, seed: Sums) -> Sums:
    """The checksum of a frame after the one before it: over 8 bytes of its header, and its page."""
    start = offset + FRAME_HEADER
    content = data[offset : offset + 8] + data[start : start + log.page_size]
    return _add(seed, content, log.order)


def _add(seed: Sums, content: bytes, order: str) -> Sums:
    first, second = seed
    words = iter(struct.unpack(f"{order}{len(content) // 4}I", content))
    for one, other in zip(words, words, strict=True):
        first = (first + one + second) & _MASK
        second = (second + other + first) & _MASK
    return first, second
