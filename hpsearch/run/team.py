"""A trial of several processes as one: the first runs here, the others on workers of their own.

It offers what a Slot offers. The first process is the trial: it alone reports, and its ending is the trial's.
When any of them is lost, all are ended and the attempt is lost, because those left could only wait.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from hpsearch.run.parcel import VARIABLE, landed
from hpsearch.run.process import Heard, Slot
from hpsearch.run.ranks import Whereabouts, launches, reserved_port
from hpsearch.run.wire import decode, encode, is_ending
from hpsearch.study.trial import Cause, Ending, Launch, Report, State

# How often the others are looked at (seconds).
LOOK = 0.25
# When one process has failed the others follow, and say so within some seconds: which was the first is known
# only then.
SETTLING, HASTE = 4.0, 1.0
# What a process says that failed because it lost the others: a hint, by which only the reason is chosen, and
# whether one that no other explains is worth another attempt.
CUT = re.compile(r"gloo|nccl|TCPStore|Dist(Network|Backend|Store)Error|SIGABRT", re.IGNORECASE)


class MemberLost(Exception):
    """The worker of another process is gone."""

    def __init__(self, reason: str, cause: Cause = Cause.CRASHED) -> None:
        super().__init__(reason)
        self.cause = cause


class Member(Protocol):
    """A worker for another process of a trial; `where`, `gone` and `is_cut_off` may take seconds."""

    def where(self) -> Whereabouts:
        """Where it runs, once it does; raises MemberLost if it does not."""
        ...

    def start(self, launch: Launch) -> None:
        """Start a process, ending whatever still runs there."""
        ...

    def hear(self) -> Mapping[str, Any] | None:
        """What a Place said since the last time, None for nothing; raises MemberLost."""
        ...

    def is_cut_off(self) -> bool:
        """Whether its node is lost, also where nothing has said so yet."""
        ...

    def part(self) -> None:
        """Ask the process to end, within its grace."""
        ...

    def end(self) -> None:
        """End the process."""
        ...

    def gone(self, seconds: float) -> bool:
        """Wait until nothing of the process is left; False for a worker that does not say so."""
        ...


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why one process of a trial ended before its time: lost for a cause, or failed, then without one."""

    rank: int
    reason: str
    cause: Cause | None

    @property
    def order(self) -> tuple[bool, bool, int]:
        """The cause of the others comes first: what was no consequence, then what was lost, then by rank."""
        return self.is_cut, self.cause is None, self.rank

    @property
    def is_cut(self) -> bool:
        """Whether it may have come of another process's end."""
        return self.cause in (None, Cause.CRASHED) and CUT.search(self.reason) is not None


class Team:
    """A slot for trials of `size` processes, the first `here`; `recruit` brings the worker for a rank."""

    def __init__(
        self, size: int, here: Whereabouts, recruit: Callable[[int], Member], slot: Callable[[], Slot] = Slot
    ) -> None:
        self._here = here
        self._recruit = recruit
        self._members: dict[int, Member] = {rank: recruit(rank) for rank in range(1, size)}
        self._missing: set[int] = set()
        self._troubles: dict[int, Trouble] = {}
        # Whether a node of the others is lost or going: this place has seen its last trial, because Ray might
        # look long for another node, and the others would hold theirs meanwhile.
        self.broken = False
        self._held = contextlib.ExitStack()
        self._own = slot()

    def start(self, launch: Launch) -> None:
        """Start the processes of a launch; raises MemberLost where a worker for one does not come."""
        self.kill()
        self.broken = False
        for rank in self._missing:
            self._members[rank] = self._recruit(rank)
        self._missing.clear()
        places = [self._here]
        for rank, member in self._members.items():
            try:
                places.append(member.where())
            except MemberLost as lost:
                self._missing.add(rank)
                self.broken = lost.cause is Cause.PREEMPTED
                raise MemberLost(f"rank {rank}: {lost}", lost.cause) from lost
        port = self._held.enter_context(reserved_port())
        first, *others = launches(launch, places, port)
        for member, other in zip(self._members.values(), others, strict=True):
            member.start(other)
        self._own.start(landed(first, os.environ.get(VARIABLE)))

    def poll(self, timeout: float) -> Heard:
        """What the first process reports; lost where any of them is."""
        lines: list[str] = []
        until = time.monotonic() + timeout
        while True:
            heard = self._own.poll(max(0.0, min(LOOK, until - time.monotonic())))
            lines += heard.lines
            own = _trouble(0, Heard(lines, heard.lost, heard.cause))
            if own is None and lines and is_ending(lines[-1]):
                self._dismiss()
                return Heard(lines)
            if not self._own.over:  # else nothing that becomes of the others changes its last word
                self._listen()
            if own or self._troubles:
                return self._judged(Heard(lines, heard.lost, heard.cause), own)
            if lines or time.monotonic() >= until:
                return Heard(lines)

    @property
    def busy(self) -> bool:
        """Whether a trial runs here."""
        return self._own.busy

    @property
    def grace(self) -> float:
        """How long the trial here may take to end when it is asked to (seconds)."""
        return self._own.grace

    def part(self) -> list[str]:
        """End the trial, which may keep its state within its grace; what it said meanwhile."""
        for member in self._present():
            member.part()
        lines = self._own.part()
        self.kill()
        return lines

    def kill(self) -> None:
        """End all processes of the trial, and wait for that."""
        self._dismiss()
        self._own.kill()
        self._missing |= {rank for rank, member in self._members.items() if not self._is_gone(rank, member)}
        self._troubles.clear()
        self._held.close()

    def _is_gone(self, rank: int, member: Member) -> bool:
        return rank in self._missing or member.gone(self.grace)

    def _present(self) -> list[Member]:
        return [member for rank, member in self._members.items() if rank not in self._missing]

    def _dismiss(self) -> None:
        for member in self._present():
            member.end()

    def _listen(self) -> None:
        """Note what became of the others."""
        for rank, member in self._members.items():
            if rank in self._missing or rank in self._troubles:
                continue
            try:
                result = member.hear()
            except MemberLost as lost:
                self._missing.add(rank)
                self._troubles[rank] = Trouble(rank, str(lost), lost.cause)
                continue
            if result is None:
                continue
            heard = Heard(result["lines"], result["lost"], Cause(result["cause"]))
            if result.get("leaving"):
                self._troubles[rank] = Trouble(rank, "its worker was preempted", Cause.PREEMPTED)
            elif trouble := _trouble(rank, heard):
                self._troubles[rank] = trouble

    @property
    def _leaving(self) -> list[Trouble]:
        return [each for each in self._troubles.values() if each.cause is Cause.PREEMPTED]

    def _look_after_nodes(self) -> None:
        """Note which nodes are lost, where all that is known is that processes lost each other."""
        if all(each.is_cut for each in self._troubles.values()):
            for rank, member in self._members.items():
                if member.is_cut_off():
                    self._missing.add(rank)
                    self._troubles[rank] = Trouble(rank, "its node was lost", Cause.PREEMPTED)

    def _judged(self, heard: Heard, own: Trouble | None) -> Heard:
        """The end of an attempt in which a process failed: by the first reason, once all said theirs."""
        leaving = self._leaving
        if own is None and leaving:
            # The others may still live for it: then it can keep its state.
            self.broken = True
            lines = heard.lines + self.part()
            return Heard(_unended(lines), f"rank {leaving[0].rank}: {leaving[0].reason}", Cause.PREEMPTED)
        until = time.monotonic() + SETTLING
        while own is None and self._own.busy and time.monotonic() < until:
            more = self._own.poll(LOOK)
            heard = Heard(heard.lines + more.lines, more.lost, more.cause)
            own = _trouble(0, heard)
            self._listen()
        if own and (own.cause is None or own.is_cut):
            until = min(until, time.monotonic() + (SETTLING if own.is_cut else HASTE))
            while all(each.is_cut for each in self._troubles.values()) and time.monotonic() < until:
                time.sleep(LOOK / 5)
                self._listen()
            if own.is_cut:
                self._look_after_nodes()
        self.broken = bool(self._leaving)
        first = min([*filter(None, [own]), *self._troubles.values()], key=lambda each: each.order)
        self.kill()
        return _told(heard, first)


def _trouble(rank: int, heard: Heard) -> Trouble | None:
    """Why a process ended before its time, None if it did not."""
    if heard.lost:
        return Trouble(rank, heard.lost, heard.cause)
    ending = decode(heard.lines[-1]).ending if heard.lines and is_ending(heard.lines[-1]) else None
    # All but the first may be silent: nobody hears what they report.
    if ending is None or ending.state is not State.FAILED or (rank and ending.silent):
        return None
    return Trouble(rank, ending.reason, None)


def _told(heard: Heard, first: Trouble) -> Heard:
    """What is heard of an attempt that ended for this reason."""
    if first.is_cut:
        reason = f"its processes lost each other; rank {first.rank}: {first.reason}"
        return Heard(_unended(heard.lines), reason)
    if first.rank == 0:
        return heard
    reason = f"rank {first.rank}: {first.reason}"
    if first.cause is not None:
        return Heard(_unended(heard.lines), reason, first.cause)
    return Heard([*_unended(heard.lines), encode(Report(ending=Ending(State.FAILED, reason)))])


def _unended(lines: list[str]) -> list[str]:
    return [line for line in lines if not is_ending(line)]
