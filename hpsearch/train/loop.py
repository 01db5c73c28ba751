"""The step loop: update, measure, checkpoint; resumed from a checkpoint it repeats the same curve."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from hpsearch.spec.model import Value
from hpsearch.study.trial import Context, Ending, Measurement, State
from hpsearch.train import checkpoint, snapshot
from hpsearch.train.learner import Learner
from hpsearch.train.reporter import Reporter

# Making checkpoints takes about this share of a trial's time; the first and the last are always made.
CHECKPOINT_SHARE = 0.01
# Between two measurements it is asked so often whether the trial must stop (seconds).
LOOK = 0.5

Build = Callable[[dict[str, Value], Context], Learner[Any]]


def run(build: Build, params: Mapping[str, Value], context: Context, reporter: Reporter) -> Ending | None:
    """Train to `max_steps` from the start or the checkpoint; None when the trial was told to stop.

    Every `measure_every` steps and at the last one: the metrics of `evaluate` and, unless it gives one, the
    loss of that step's batch as `train_loss`; then a checkpoint, written while training goes on, unless the
    last one was so recent that checkpoints would take more than `CHECKPOINT_SHARE` of the time.
    """
    learner, start = prepare(build, params, context, reporter)
    writer = checkpoint.Writer(
        context.directory,
        context.attempt,
        reporter.checkpoint,
        lambda text: reporter.note("checkpoints", text),
    )
    try:
        return train(learner, start, context, reporter, writer)
    finally:
        writer.close()


def prepare(
    build: Build, params: Mapping[str, Value], context: Context, reporter: Reporter
) -> tuple[Learner[Any], int]:
    """A seeded learner and the step it stands at: that of the newest good checkpoint, else 0."""
    newest = ((context.checkpoint, context.checkpoint_sha256),) if context.checkpoint else ()
    damaged: list[str] = []
    for path, sha256 in (*newest, *context.earlier):
        try:
            state = snapshot.parse(checkpoint.read(path, sha256))
            learner = fresh(build, params, context)
            snapshot.restore(learner, state)
        except checkpoint.CheckpointError as error:
            damaged.append(f"checkpoint {path.name} cannot be used ({error})")
            continue
        if damaged:
            reporter.resume_earlier(
                state["step"], f"{'; '.join(damaged)}: going on from step {state['step']}"
            )
        reporter.resume(state["step"], state["last"])
        return learner, state["step"]
    if damaged:
        reporter.resume_earlier(0, f"{'; '.join(damaged)}: starting from step 0")
    return fresh(build, params, context), 0


def fresh(build: Build, params: Mapping[str, Value], context: Context) -> Learner[Any]:
    """A learner as the seed makes it."""
    snapshot.seed_everything(context.seed)
    learner = build(dict(params), context)
    if not isinstance(learner, Learner):
        raise TypeError(f"build must return a Learner, got {type(learner).__name__}")
    return learner


def train(
    learner: Learner[Any], start: int, context: Context, reporter: Reporter, writer: checkpoint.Writer
) -> Ending | None:
    """Take the steps after `start`; ends early where the training loss is no longer finite."""
    learner.model.train()
    due, look = 0.0, time.perf_counter() + LOOK
    for step in range(start + 1, context.max_steps + 1):
        loss = update(learner, step)
        if step % context.measure_every and step != context.max_steps:
            if time.perf_counter() >= look:
                reporter.push()
                look = time.perf_counter() + LOOK
            if reporter.stopped:
                save(learner, step, reporter, writer)
                return None
            continue
        value = float(loss.detach())
        if not math.isfinite(value):
            # Evaluating a model that has diverged can only say nan, raise, or look like a number.
            going = reporter.measure(Measurement(step, {"train_loss": value}))
            return Ending(State.INFEASIBLE, f"training loss is {value} at step {step}") if going else None
        going = reporter.measure(Measurement(step, {"train_loss": value} | evaluate(learner)))
        # After the measurement: nobody may resume past a measurement that was never reported.
        if time.perf_counter() >= due or not going or step == context.max_steps:
            due = save(learner, step, reporter, writer)
        if not going:
            return None
    return Ending(State.COMPLETED, f"reached step {max(start, context.max_steps)}")


def save(learner: Learner[Any], step: int, reporter: Reporter, writer: checkpoint.Writer) -> float:
    """Hand the state of a step to the writer, or note why it cannot be kept; when the next one is due."""
    started = time.perf_counter()
    try:
        writer.offer(step, snapshot.take(learner, step, reporter.last))
    except checkpoint.CheckpointError as error:
        reporter.note("checkpoints", f"checkpoint step {step} not written: the trainer's state is {error}")
    ended = time.perf_counter()
    return ended + (ended - started + writer.effort) / CHECKPOINT_SHARE


def update(learner: Learner[Any], step: int) -> Tensor:
    """One optimizer update; the loss before it."""
    learner.optimizer.zero_grad(set_to_none=True)
    loss = learner.loss(learner.batches[step - 1])
    loss.backward()  # type: ignore[no-untyped-call]
    learner.optimizer.step()
    if learner.schedule:
        learner.schedule.step()
    return loss


def evaluate(learner: Learner[Any]) -> dict[str, Any]:
    """The trainer's metrics, in evaluation mode and without gradients."""
    learner.model.eval()
    with torch.no_grad():
        metrics = learner.evaluate()
    learner.model.train()
    if not isinstance(metrics, Mapping):
        raise TypeError(f"evaluate must return a mapping of names to numbers, got {type(metrics).__name__}")
    return dict(metrics)
