"""One attempt of a trial, from the name of a module to its ending: the boundary around the user's code."""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from types import ModuleType
from typing import Any

import torch

from hpsearch.redaction import redact
from hpsearch.spec.model import Value
from hpsearch.study.trial import Context, Ending, Launch, Measurement, Report, State
from hpsearch.train import loop
from hpsearch.train.failing import failed
from hpsearch.train.reporter import Reporter
from hpsearch.train.snapshot import seed_everything


def execute(launch: Launch, report: Callable[[Report], bool]) -> None:
    """Run one attempt here and report all that happens, the ending last and once.

    `report` returns False when the trial must stop: it then stops without an ending. Whatever the user's
    code raises becomes a FAILED ending of one line, with the traceback on stderr.
    """
    prepare(launch)
    objectives, context = launch.metrics or (launch.metric,), launch.context
    reporter = Reporter(report, *objectives, every=context.measure_every, until=context.max_steps)
    try:
        module = load(launch.module, launch.python_path)
    except KeyboardInterrupt:  # somebody at a terminal, not the trainer
        raise
    except BaseException as error:  # also SystemExit and what a user derives from BaseException
        ending: Ending | None = failure(error, launch.module, f"cannot import {launch.module}: ")
    else:
        try:
            ending = attempt(module, launch, reporter)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            ending = failure(error, launch.module)
    if ending is not None and not reporter.stopped:
        reporter.end(ending)


def prepare(launch: Launch) -> None:
    """Give this process the trial's seed and threads.

    As many threads as CPUs, so that sums are added in the same order wherever it runs.
    """
    torch.set_num_threads(max(1, int(launch.context.resources.cpu)))
    seed_everything(launch.context.seed)


def attempt(module: ModuleType, launch: Launch, reporter: Reporter) -> Ending | None:
    """Find the trainer's form, `build` before `train`, and run it; None when the trial was told to stop."""
    params = fixed_params(launch.args) | dict(launch.params)
    if callable(build := getattr(module, "build", None)):
        ending = loop.run(build, params, launch.context, reporter, launch.team)
    elif callable(train := getattr(module, "train", None)):
        ending = follow(train, params, launch.context, reporter)
    else:
        return Ending(
            State.FAILED, f"{module.__name__} has neither build(params, context) nor train(params, context)"
        )
    if ending is not None and ending.state is State.COMPLETED:
        return reporter.verdict() or ending
    return ending


def load(name: str, python_path: Iterable[str]) -> ModuleType:
    """Import the trainer's module, looking in `python_path` first."""
    first = list(dict.fromkeys(python_path))
    sys.path[:] = first + [entry for entry in sys.path if entry not in first]
    return importlib.import_module(name)


def fixed_params(args: Iterable[str]) -> dict[str, Value]:
    """The params that the file fixes for all trials: `--layers=2` or `--layers 2`; a bare `--flag` is 1."""
    params: dict[str, Value] = {}
    words = list(args)
    while words:
        word = words.pop(0)
        name, equals, value = word.removeprefix("--").partition("=")
        if not word.startswith("--") or not name:
            raise ValueError(f"argument {word!r} is not of the form --name=value")
        if not equals:
            value = words.pop(0) if words and not words[0].startswith("--") else "1"
        params[name.replace("-", "_")] = plain(value)
    return params


def plain(text: str) -> Value:
    """A text as the int or float that it spells, else as it is."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def follow(
    train: Callable[[dict[str, Value], Context], Any],
    params: Mapping[str, Value],
    context: Context,
    reporter: Reporter,
) -> Ending | None:
    """Report what a generator yields until it ends or reaches `max_steps`; it always starts anew."""
    seed_everything(context.seed)
    given = train(dict(params), replace(context, checkpoint=None, checkpoint_sha256=None, earlier=()))
    if not isinstance(given, Iterable):
        raise TypeError(f"train must yield Measurements, it returned {type(given).__name__}")
    try:
        for measurement in given:
            if not isinstance(measurement, Measurement):
                raise TypeError(f"train must yield Measurements, got {type(measurement).__name__}")
            if not reporter.measure(measurement):
                return None
            if reporter.step is not None and reporter.step >= context.max_steps:
                return Ending(State.COMPLETED, f"reached step {reporter.step}")
        return Ending(State.COMPLETED, f"finished at step {reporter.step or 0}")
    finally:
        close = getattr(given, "close", None)
        if callable(close):
            close()


def failure(error: BaseException, module: str, doing: str = "") -> Ending:
    """FAILED as `ValueError: message (file.py:31)`, the place being the innermost in the user's module.

    The traceback goes to stderr, the trial's log.
    """
    traceback.print_exception(error)
    try:
        text = redact(" ".join(str(error).split()))
    except Exception:  # the user's own __str__
        text = "(its message cannot be shown)"
    kind = type(error).__name__
    places = [
        f" ({frame.f_code.co_filename.rpartition('/')[2]}:{line})"
        for frame, line in traceback.walk_tb(error.__traceback__)
        if frame.f_globals.get("__name__") == module
    ]
    reason = f"{kind}: {text[:500]}" if text else kind
    return failed(doing + reason + (places[-1] if places else ""))
