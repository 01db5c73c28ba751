"""Trainers that misbehave, one for each `kind`; what they start is noted in files of their directories.

As a module it offers `train`; run as a program (`python -m misbehaving_program`) it does the same.
"""

from __future__ import annotations

import ctypes
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hpsearch.train.learner import Context, Measurement

Said = Iterator[Measurement]
FOREVER = 600
STATE = {"trials": 0}


class OutOfMemoryError(RuntimeError):
    """Looks like torch's own."""


OutOfMemoryError.__module__ = "torch.cuda"


class Unshowable:
    def __repr__(self) -> str:
        raise RuntimeError("no text")


class Unreadable:
    @property
    def dtype(self) -> str:
        raise KeyError("dtype")


def train(params: dict[str, Any], context: Context) -> Said:
    with (context.directory / "pids").open("a") as file:
        file.write(f"{os.getpid()}\n")
    yield from KINDS.get(params["kind"], steps)(context)


def steps(context: Context, value: Any = 1.0, name: str = "loss") -> Said:
    for turn in (1, 2, 3):
        yield Measurement(turn * context.measure_every, {name: value})


def note(context: Context, *pids: int) -> None:
    with (context.directory / "pids").open("a") as file:
        file.writelines(f"{pid}\n" for pid in pids)


def one(context: Context) -> Said:
    yield Measurement(context.measure_every, {"loss": 2.0})


def _only_first(context: Context, act: Callable[[], object]) -> Said:
    yield from one(context)
    if context.attempt == 1:
        act()
    yield from list(steps(context))[1:]


def killed(context: Context) -> Said:
    yield from _only_first(context, lambda: os.kill(os.getpid(), signal.SIGKILL))


def segfault(context: Context) -> Said:
    yield from one(context)
    ctypes.string_at(0)


def exits_zero(context: Context) -> Said:
    print("all is well")
    os._exit(0)
    yield from one(context)


def exits_three(context: Context) -> Said:
    yield from one(context)
    for number in range(60):
        print(f"line {number}")
    os._exit(3)


def raises(context: Context) -> Said:
    yield from one(context)
    for number in range(60):
        print(f"line {number}")
    raise ValueError("no good")


def system_exit(context: Context) -> Said:
    yield from one(context)
    sys.exit("gave up")


def own_exception(context: Context) -> Said:
    class Strange(BaseException):
        def __str__(self) -> str:
            raise RuntimeError("not even this")

    yield from one(context)
    raise Strange


def recursion(context: Context) -> Said:
    def deeper() -> None:
        deeper()

    yield from one(context)
    deeper()


def never_reports(context: Context) -> Said:
    os.read(os.pipe()[0], 1)
    yield from one(context)


def stops_itself(context: Context) -> Said:
    yield from _only_first(context, lambda: os.kill(os.getpid(), signal.SIGSTOP))


def deadlocks(context: Context) -> Said:
    yield from one(context)
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()


def ignores_term(context: Context) -> Said:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sleeper = subprocess.Popen(["sh", "-c", "trap '' TERM; sleep 600 & wait; sleep 600"])
    note(context, sleeper.pid)
    yield from one(context)
    time.sleep(FOREVER)


def bomb(context: Context) -> Said:
    """Forks like one, and stops at a number that harms nobody even if nothing holds it."""
    yield from one(context)
    for _ in range(200):
        pid = os.fork()
        if not pid:
            time.sleep(FOREVER)
        note(context, pid)
    (context.directory / "exploded").touch()
    time.sleep(FOREVER)


def crowd(context: Context) -> Said:
    """Many processes that share all they have, for longer than it takes to look at them."""
    yield from one(context)
    children = []
    for _ in range(20):
        if not (pid := os.fork()):
            time.sleep(FOREVER)
        children.append(pid)
        note(context, pid)
    sizes = [Path(f"/proc/{pid}/statm").read_text().split()[1] for pid in children]
    time.sleep(2.0)
    for pid in children:
        os.kill(pid, signal.SIGKILL)
    yield Measurement(300, {"loss": 1.0, "mebibytes": sum(map(int, sizes)) * 4096 / 2**20})


def daemons(context: Context) -> Said:
    """A session of its own, and a child of nobody."""
    script = "sleep 600 & echo $! >> pids; sleep 600 & echo $! >> pids"
    subprocess.run(["setsid", "sh", "-c", script], cwd=context.directory, check=True)
    if not os.fork():
        os.setsid()
        if not os.fork():
            note(context, os.getpid())
            os.closerange(0, 100)
            time.sleep(FOREVER)
        os._exit(0)
    while len(_noted(context)) < 4:
        time.sleep(0.01)
    yield from steps(context)


def daemons_then_hangs(context: Context) -> Said:
    yield from list(daemons(context))[:1]
    (context.directory / "ready").touch()
    time.sleep(FOREVER)


def zombies(context: Context) -> Said:
    for _ in range(20):
        pid = os.fork()
        if not pid:
            os._exit(0)
        note(context, pid)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    (context.directory / "undead").write_text(
        str(sum(") Z " in Path(f"/proc/{pid}/stat").read_text() for pid in _noted(context)))
    )
    yield from steps(context)


def _noted(context: Context) -> list[int]:
    return [int(line) for line in (context.directory / "pids").read_text().split()]


def eats(context: Context) -> Said:
    """Half of what it takes is in a child: only the sum is too much."""
    yield from one(context)
    if not os.fork():
        note(context, os.getpid())
        kept = bytearray(os.urandom(1 << 20) * 120)
        time.sleep(FOREVER)
    kept = bytearray(os.urandom(1 << 20) * 120)
    time.sleep(FOREVER)
    del kept


def out_of_cuda_memory(context: Context) -> Said:
    yield from one(context)
    raise OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")


def out_of_memory(context: Context) -> Said:
    yield from one(context)
    bytearray(1 << 60)


def prints(context: Context) -> Said:
    yield from one(context)
    block = ("a line of output, as programs print them by the million\n" * 1000).encode()
    for _ in range(96 * 2**20 // len(block) + 1):
        left = memoryview(block)
        while left:
            left = left[os.write(1, left) :]
    print("the last word")
    yield from list(steps(context))[1:]


def prints_anything(context: Context) -> Said:
    os.write(1, b"before\n\x1b[32mgreen\x1b[0m but \x1b]0;title\x07\n\xff\xfe \x00\n")
    print("naïve ☃ password=hunter2", flush=True)
    print(f"in my environment: {os.environ.get('HPS_TEST_TOKEN', 'canary-hunter2')}", flush=True)
    os.write(2, b"after\nunfinished")
    yield from steps(context)


def metric_missing(context: Context) -> Said:
    for turn in range(1, 7):
        name = "loss" if turn % 2 else "other"
        yield Measurement(turn * context.measure_every // 2, {name: 1.0 / turn})


def backwards(context: Context) -> Said:
    for step in (100, 50, 100, -1, 2**70, 200, 200, 150, 300):
        yield Measurement(step, {"loss": float(step)})


def float_steps(context: Context) -> Said:
    for step in (100.0, "200", None, True, 300):
        yield Measurement(step, {"loss": 1.0})  # type: ignore[arg-type]


def many_names(context: Context) -> Said:
    yield Measurement(100, {f"name {n}": 1.0 for n in range(10_000)})
    yield Measurement(200, {"x" * (1 << 20): 1.0, "../../up": 2.0, "naïve ☃": 3.0, "": 4.0})
    yield Measurement(300, {"loss": 1.0})


def counts_trials(context: Context) -> Said:
    STATE["trials"] += 1
    fresh = STATE["trials"] == 1 and "LEAK" not in os.environ and Path.cwd() != Path("/")
    drawn = float(np.random.rand() + torch.rand(()))
    os.environ["LEAK"] = "1"
    os.chdir("/")
    np.random.seed(1)
    yield Measurement(300, {"loss": float(fresh), "drawn": drawn})


def rejected(value: Any) -> Callable[[Context], Said]:
    """A report that is nonsense, between two that are none: the trial lives."""

    def misbehaves(context: Context) -> Said:
        first, second, third = steps(context)
        yield first
        yield Measurement(second.step, {"loss": value})
        yield third

    return misbehaves


def ends_with(value: Any) -> Callable[[Context], Said]:
    return lambda context: steps(context, value)


NONSENSE: dict[str, Any] = {
    "text": "high",
    "none": None,
    "list": [1.0],
    "tuple": (1.0, 2.0),
    "dict": {"a": 1.0},
    "complex": 1 + 2j,
    "bytes": b"1.0",
    "set": {1.0},
    "object": object(),
    "unshowable": Unshowable(),
    "unreadable": Unreadable(),
    "function": len,
    "array": np.arange(3.0),
    "tensor": torch.arange(3.0),
    "date": np.datetime64("2026-01-01"),
    "numpy_text": np.str_("high"),
    "numpy_complex": np.complex64(1j),
    "complex_tensor": torch.tensor(1j),
    "decimal": Decimal("1.5"),
    "fraction": Fraction(1, 2),
}
NUMBERS: dict[str, Any] = {
    "bool": True,
    "int": 1,
    "huge_int": 10**400,
    "float32": np.float32(1.0),
    "float16": np.float16(1.0),
    "int64": np.int64(1),
    "zero_d": np.array(1.0),
    "one_element": np.array([[1.0]]),
    "scalar_tensor": torch.tensor(1.0, requires_grad=True),
    "bfloat16": torch.tensor(1.0, dtype=torch.bfloat16),
    "parameter": torch.nn.Parameter(torch.ones(1)),
}
EXTREMES = {"nan": math.nan, "inf": math.inf, "minus_inf": -math.inf, "1e308": 1e308, "subnormal": 5e-324}

KINDS: dict[str, Callable[[Context], Said]] = {
    **{name: rejected(value) for name, value in NONSENSE.items()},
    **{f"only_{name}": ends_with(value) for name, value in NONSENSE.items()},
    **{name: ends_with(value) for name, value in {**NUMBERS, **EXTREMES}.items()},
    **{
        function.__name__: function
        for function in (
            *(steps, killed, segfault, exits_zero, exits_three, raises, system_exit, own_exception),
            *(recursion, never_reports, stops_itself, deadlocks, ignores_term, bomb, crowd, daemons),
            *(daemons_then_hangs, zombies, eats, out_of_cuda_memory, out_of_memory, metric_missing),
            *(backwards, float_steps, many_names, counts_trials, prints, prints_anything),
        )
    },
}
