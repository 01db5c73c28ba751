"""The fork server of multiprocessing: starts with a mark, is watched for its death, knows no main module."""

from __future__ import annotations

import contextlib
import os
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from multiprocessing import forkserver
from typing import Any

from hpsearch.run.child import ADOPT
from hpsearch.run.kin import end_marked

# Stands in the environment of a fork server, and so of all that comes from it, to be found by.
MARK = "HPSEARCH_SLOT"
_mark = uuid.uuid4().hex
_also: list[str] = []


def start(context: Any, preload: Sequence[str]) -> None:
    """Start the server of this process, if it does not run, with these modules imported."""
    # One BLAS thread: a fork copies only the forking thread, and the locks of others stay taken.
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"
    context.set_forkserver_preload([ADOPT, *preload, *_also])
    with marking():
        forkserver.ensure_running()


def preload_also(module: str) -> None:
    """Have the server import a module, too, if it has not started yet."""
    if module not in _also:
        _also.append(module)


def pid() -> int:
    """The server's process; 0 where there is none."""
    return int(forkserver._forkserver._forkserver_pid or 0)  # type: ignore[attr-defined]


def has_died(patience: float = 0.0) -> bool:
    """Whether the server is dead, reaped or not, or dies within some seconds."""
    deadline = time.monotonic() + patience
    with contextlib.suppress(ChildProcessError):
        while os.waitid(os.P_PID, pid(), os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.01)
    return True


def end_brood() -> None:
    """Kill all that comes from a server that is dead: nobody knows whom its children were given to."""
    end_marked(f"{MARK}={_mark}")


@contextlib.contextmanager
def marking() -> Iterator[None]:
    """A server that is started within bears the mark, and other processes of this one do not."""
    os.environ[MARK] = _mark
    try:
        yield
    finally:
        os.environ.pop(MARK, None)


@contextlib.contextmanager
def without_main() -> Iterator[None]:
    """Hide the driver's main module, which multiprocessing would run again in the child."""
    main = vars(sys.modules["__main__"])
    hidden: dict[str, Any] = {name: main.pop(name) for name in ("__file__", "__spec__") if name in main}
    main["__spec__"] = None
    try:
        yield
    finally:
        main.update(hidden)
