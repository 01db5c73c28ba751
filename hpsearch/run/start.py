"""How a program starts: as a fork of this process that becomes `python -m module`, or as a command.

A fork has the heavy imports already. It is single-threaded here, and what becomes of it is a program like any
other: its own process group, signals, environment, `__main__`, and an end as the interpreter's own.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import multiprocessing
import os
import pkgutil
import runpy
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.machinery import PathFinder
from multiprocessing import forkserver, process, resource_tracker
from pathlib import Path
from types import ModuleType
from typing import NoReturn

from hpsearch.errors import HpsearchError
from hpsearch.run import contract
from hpsearch.run.kin import call_oneself, die_with
from hpsearch.study.trial import Launch

PREPARE = "hpsearch.train.trial:prepare"
CANNOT_START, INTERRUPTED = 126, 130  # as shells say it
MOST_DESCRIPTORS = 1 << 20
# Variables that the interpreter, the loader, the C library, or libraries that the fork server has imported
# read once and early; those that a fork heeds nevertheless.
READ_AT_START = (
    *("PYTHON", "LD_", "GLIBC_TUNABLES", "MALLOC_", "LANG", "LC_", "TZ"),
    *("OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_", "ATEN_", "TORCH", "PYTORCH_"),
)
HEEDED = frozenset({"PYTHONPATH", "PYTHONUNBUFFERED"})
RESET = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)
# As it is in the fork server: what multiprocessing takes a program's own process for.
MAIN_PROCESS = process.current_process()


@dataclass(frozen=True, slots=True)
class Start:
    """All that a program starts with; `executable` is the file to run, None for the launch's module here."""

    launch: Launch
    arguments: Sequence[str]
    environment: Mapping[str, str]
    directory: Path
    executable: str | None


def prepare(launch: Launch, metric_file: Path, *, fork: bool) -> Start:
    """Settle how a program starts, and make its directories; HpsearchError for a command that is not there.

    With `fork` a Python module starts in a fork of this process.
    """
    if users := os.environ.get(contract.UMASK):
        os.umask(int(users, 8))
    environment = contract.environment(launch, metric_file, os.environ)
    directory = contract.working_directory(launch).absolute()
    for name in contract.OUTPUTS:
        if path := contract.local(environment[name]):
            with contextlib.suppress(OSError):  # the program will say it better, if it wants to write there
                path.mkdir(parents=True, exist_ok=True)
    if fork and not launch.program.command and not _wants_an_interpreter(launch):
        return Start(launch, contract.arguments(launch), environment, directory, None)
    words = contract.command(launch)
    executable = contract.find_command(launch.program, directory, os.environ)
    if executable is None:
        raise HpsearchError(f"command {words[0]!r} cannot be found in {directory} or on the PATH")
    return Start(launch, words, environment, directory, executable)


def _wants_an_interpreter(launch: Launch) -> bool:
    """True if the file sets variables that are read when a process starts: a fork would not heed them."""
    return any(name.startswith(READ_AT_START) and name not in HEEDED for name, _ in launch.program.env)


def begin(start: Start, prints: int) -> int:
    """Start a program and return the number of its process, which leads its own group and prints to there."""
    parent = os.getpid()
    # Held back until the child has its own ways with signals: this process's would swallow one meant for it.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, RESET)
    child = os.fork()
    if child:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        with contextlib.suppress(OSError):  # it has done so itself, and more
            os.setpgid(child, child)
        return child
    try:
        os.dup2(prints, 1)
        os.dup2(prints, 2)
        call_oneself("python")
        _become(start, parent)
    except Exception as error:  # a process boundary
        name = start.launch.module if start.executable is None else start.executable
        os.write(
            2,
            f"{name} cannot be started: {type(error).__name__}: {error}\n".encode(errors="backslashreplace"),
        )
    finally:
        os._exit(CANNOT_START)


def _become(start: Start, parent: int) -> NoReturn:
    os.setpgid(0, 0)
    die_with(parent, signal.SIGKILL)
    signal.set_wakeup_fd(-1)
    for number in RESET:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.chdir(start.directory)
    if start.executable is not None:
        os.closerange(3, MOST_DESCRIPTORS)
        os.execve(start.executable, list(start.arguments), dict(start.environment))
    _forget_the_server()
    os.closerange(3, MOST_DESCRIPTORS)
    os.environ.clear()
    os.environ.update(start.environment)
    installed = [entry for entry in sys.path if not _is_rays_own(entry)]
    sys.path[:] = dict.fromkeys([str(start.directory), *_python_path(start.environment), *installed])
    pkgutil.resolve_name(PREPARE)(start.launch)
    _run(start.launch.module, start.arguments)


def _is_rays_own(entry: str) -> bool:
    """True for what Ray puts on its workers' path: copies of libraries that would hide the installed."""
    ray = PathFinder.find_spec("ray")
    inside = ray.submodule_search_locations if ray else None
    return any(Path(entry).is_relative_to(place) for place in inside or ())


def _python_path(environment: Mapping[str, str]) -> list[str]:
    """The entries of PYTHONPATH as an interpreter reads them that starts here."""
    given = environment["PYTHONPATH"]
    return [str(Path(entry).absolute()) for entry in given.split(os.pathsep)] if given else []


def _forget_the_server() -> None:
    """Make this the main process of a program in the eyes of multiprocessing, and of Ctrl-C."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115  the interpreter's own
    process.ORIGINAL_DIR = str(Path.cwd())  # type: ignore[attr-defined]
    MAIN_PROCESS.name = "MainProcess"
    process._current_process = MAIN_PROCESS  # type: ignore[attr-defined]
    process._parent_process = None  # type: ignore[attr-defined]
    process._process_counter = itertools.count(1)  # type: ignore[attr-defined]
    process._children = set()  # type: ignore[attr-defined]
    for server in (forkserver._forkserver, resource_tracker._resource_tracker):
        server.__init__()  # type: ignore[misc]
    multiprocessing.set_start_method(None, force=True)  # the program may choose one


def _run(module: str, arguments: Sequence[str]) -> NoReturn:
    """Do what `python -m module` does from its first line to its exit code."""
    sys.argv[:] = ["-m", *arguments]
    sys.modules["__main__"] = ModuleType("__main__")
    code = 0
    try:
        runpy._run_module_as_main(module)  # type: ignore[attr-defined]
    except SystemExit as end:
        code = _exit_code(end.code)
    except BaseException as error:
        code = INTERRUPTED if isinstance(error, KeyboardInterrupt) else 1
        _show(error)
    # Joins threads, calls what is to be called at exit, closes files: Python's own end, which cannot be
    # reached by returning, because the fork server's frames lie below.
    ctypes.pythonapi.Py_Exit(code)
    raise AssertionError("Py_Exit returned")


def _show(error: BaseException) -> None:
    """Print what was not caught, without the frame that caught it here."""
    error = error.with_traceback(error.__traceback__ and error.__traceback__.tb_next)
    try:
        sys.excepthook(type(error), error, error.__traceback__)
    except Exception:  # the program's own hook
        sys.__excepthook__(type(error), error, error.__traceback__)


def _exit_code(code: object) -> int:
    """What the interpreter makes of the argument of `sys.exit`."""
    if code is None:
        return 0
    if isinstance(code, int):
        return code & 0xFF
    print(code, file=sys.stderr)  # noqa: T201  the program's own last words
    return 1
