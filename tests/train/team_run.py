"""A trial of several real processes on loopback: a trainer given as text, and what each of them reports."""

from __future__ import annotations

import faulthandler
import multiprocessing
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import replace
from itertools import count
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import pytest
from trial_run import Said

from hpsearch.run.ranks import reserved_port
from hpsearch.spec.model import Resources, Value
from hpsearch.study.trial import Checkpoint, Context, Launch, Report, Team

NAMES = count()
PRELOAD = ["torch", "torch.optim", "torch._dynamo", "hpsearch.train.trial"]
SLOWEST = 60.0  # seconds


def member(launch: Launch, stop_after: int | None, reports: Connection) -> None:
    """One process: runs its launch, and tells what it reports."""
    # Should it hang, the test says where.
    faulthandler.dump_traceback_later(SLOWEST - 10, exit=True)
    sys.path.insert(0, launch.python_path[0])
    from hpsearch.train import loop
    from hpsearch.train.trial import execute

    loop.CHECKPOINT_SHARE = float("inf")  # trials here are so short that checkpoints would be thinned out
    measured = 0

    def report(what: Report) -> bool:
        nonlocal measured
        measured += what.measurement is not None
        reports.send(what)
        return stop_after is None or measured < stop_after

    execute(launch, report)
    reports.close()


TeamRun = Callable[..., list[Said]]


@pytest.fixture(scope="session")
def forks() -> Any:
    """Processes that have imported torch already."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            patch.setenv(name, "1")
        patch.setenv("GLOO_SOCKET_IFNAME", "lo")
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(PRELOAD)
        first = context.Process(target=int)
        first.start()
        first.join()
    return context


@pytest.fixture
def together(tmp_path: Path, forks: Any) -> Iterator[TeamRun]:
    """Run a trainer in `size` processes; what each of them reported, by rank."""
    started: list[Any] = []
    held = ExitStack()

    def run(
        source: str,
        *,
        size: int = 2,
        params: Mapping[str, Value] | None = None,
        metric: str = "loss",
        max_steps: int = 40,
        measure_every: int = 5,
        attempt: int = 1,
        resume: Checkpoint | None = None,
        stop_after: int | None = None,
    ) -> list[Said]:
        module = f"shared_{next(NAMES)}"
        (tmp_path / f"{module}.py").write_text(source)
        directory = tmp_path / "trial"
        context = Context(
            number=3,
            attempt=attempt,
            seed=7,
            max_steps=max_steps,
            measure_every=measure_every,
            directory=directory,
            resources=Resources(workers=size),
            checkpoint=directory / resume.name if resume else None,
            checkpoint_sha256=resume.sha256 if resume else None,
        )
        launch = Launch(module, (), params or {}, context, metric, (str(tmp_path),))
        port = held.enter_context(reserved_port())
        readers = []
        for rank in range(size):
            team = Team(rank, size, rank, size, "127.0.0.1", port)
            reader, writer = forks.Pipe(duplex=False)
            process = forks.Process(target=member, args=(replace(launch, team=team), stop_after, writer))
            process.start()
            writer.close()
            started.append(process)
            readers.append(reader)
        return _heard(readers)

    with held:
        yield run
    for process in started:
        process.join(SLOWEST)
        assert process.exitcode is not None, "a process of a trial outlived it"


def _heard(readers: list[Connection]) -> list[Said]:
    said = [Said() for _ in readers]
    open_ones = dict(zip(readers, said, strict=True))
    while open_ones:
        ready = wait(list(open_ones), SLOWEST)
        assert ready, "no process of the trial says anything any more"
        for reader in ready:
            assert isinstance(reader, Connection)
            try:
                open_ones[reader].reports.append(reader.recv())
            except EOFError:
                with closing(reader):
                    del open_ones[reader]
    return said
