"""What makes the fork server that imports it answer for its trial: it adopts and buries what one leaves."""

from __future__ import annotations

import atexit
import contextlib
import mmap
import os
import signal
import struct
import time
import warnings

from hpsearch.run.kin import adopt_orphans, end_adopted

# The trial's process and how long it may take to end (seconds), told by itself through memory that is shared.
_TOLD = struct.Struct("qd")
_shared = mmap.mmap(-1, _TOLD.size)
_server = os.getpid()


def tell(grace: float) -> None:
    """Say, as the trial's process, how long it may take to end when the server's owner is gone."""
    _shared[:] = _TOLD.pack(os.getpid(), grace)


def _bury() -> None:
    """End the trial and all it left, because the owner that would do so is gone."""
    if os.getpid() != _server:  # a trial's process
        return
    trial, grace = _TOLD.unpack(_shared[:])
    if not trial:
        return
    deadline = time.monotonic() + grace
    with contextlib.suppress(ProcessLookupError, ChildProcessError):
        for number in (signal.SIGTERM, signal.SIGCONT):
            os.kill(trial, number)
        while not os.waitpid(trial, os.WNOHANG)[0] and time.monotonic() < deadline:
            time.sleep(0.01)
    end_adopted(_server, ())


adopt_orphans()
with contextlib.suppress(OSError):
    os.setpgid(0, 0)  # whoever kills a worker with its group would leave nobody to bury the rest
atexit.register(_bury)
# It reaps the adopted ones, too, and would tell of each.
warnings.filterwarnings("ignore", "forkserver: waitpid returned unexpected pid")
