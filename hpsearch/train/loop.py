"""The step loop: update, measure, checkpoint; resumed from a checkpoint it repeats the same curve."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from hpsearch.spec.model import Value
from hpsearch.study.trial import Context, Ending, Measurement, State, Team
from hpsearch.train import checkpoint, snapshot
from hpsearch.train.crew import Crew, gathered
from hpsearch.train.learner import Learner
from hpsearch.train.reporter import Reporter

# Making checkpoints takes about this share of a trial's time; the first and the last are always made.
CHECKPOINT_SHARE = 0.01

Build = Callable[[dict[str, Value], Context], Learner[Any]]


def run(
    build: Build, params: Mapping[str, Value], context: Context, reporter: Reporter, team: Team | None = None
) -> Ending | None:
    """Train to `max_steps` from the start or the checkpoint; None when the trial was told to stop.

    Every `measure_every` steps and at the last one: the metrics of `evaluate` and, unless it gives one, the
    loss of that step's batch as `train_loss`; then a checkpoint, written while training goes on, unless the
    last one was so recent that checkpoints would take more than `CHECKPOINT_SHARE` of the time.

    Several processes learn from the same batches as one would, each from its part of them. What only one
    does, the first one of the `team` does.
    """
    with gathered(team or Team(), context.resources.gpu) as crew:
        try:
            learner, start = join(build, params, context, reporter, crew)
        except checkpoint.Unwanted:
            return None
        writer = checkpoint.Writer(
            context.directory,
            context.attempt,
            reporter.checkpoint,
            lambda text: reporter.note("checkpoints", text),
            context.storage,
        )
        try:
            return train(learner, start, context, reporter, writer, crew)
        finally:
            writer.close()


def join(
    build: Build, params: Mapping[str, Value], context: Context, reporter: Reporter, crew: Crew
) -> tuple[Learner[Any], int]:
    """A learner and the step it stands at, the same in all processes of the trial."""
    if crew.leads:
        learner, start, data = prepare(build, params, context, reporter)
        crew.share(data)
    else:
        learner, start = fresh(build, params, context), 0
        if data := crew.share(None):
            state = snapshot.parse(data)
            snapshot.restore(learner, state)
            start = state["step"]
    crew.join(learner, context.seed)
    return learner, start


def prepare(
    build: Build, params: Mapping[str, Value], context: Context, reporter: Reporter
) -> tuple[Learner[Any], int, bytes | None]:
    """A seeded learner and the step it stands at: that of the newest good checkpoint, which is given, too."""
    newest = ((context.checkpoint, context.checkpoint_sha256),) if context.checkpoint else ()
    damaged: list[str] = []
    patience = checkpoint.Patience(reporter.wanted)
    for path, sha256 in (*newest, *context.earlier):
        try:
            data = checkpoint.read(path, sha256, context.storage, patience)
            state = snapshot.parse(data)
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
        return learner, state["step"], data
    if damaged:
        reporter.resume_earlier(0, f"{'; '.join(damaged)}: starting from step 0")
    return fresh(build, params, context), 0, None


def fresh(build: Build, params: Mapping[str, Value], context: Context) -> Learner[Any]:
    """A learner as the seed makes it."""
    snapshot.seed_everything(context.seed)
    learner = build(dict(params), context)
    if not isinstance(learner, Learner):
        raise TypeError(f"build must return a Learner, got {type(learner).__name__}")
    return learner


def train(
    learner: Learner[Any],
    start: int,
    context: Context,
    reporter: Reporter,
    writer: checkpoint.Writer,
    crew: Crew,
) -> Ending | None:
    """Take the steps after `start`; ends early where the training loss is no longer finite."""
    learner.model.train()
    due = 0.0
    for step in range(start + 1, context.max_steps + 1):
        loss = update(learner, step, crew)
        if step % context.measure_every and step != context.max_steps:
            if crew.stops(step, reporter):
                if crew.leads:
                    save(learner, step, reporter, writer)
                return None
            continue
        value = crew.mean(loss)
        if not math.isfinite(value):
            # Evaluating a model that has diverged can only say nan, raise, or look like a number.
            going = crew.leads and reporter.measure(Measurement(step, {"train_loss": value}))
            ending = Ending(State.INFEASIBLE, f"training loss is {value} at step {step}")
            return ending if crew.agree(going) else None
        going = crew.leads and reporter.measure(Measurement(step, {"train_loss": value} | evaluate(learner)))
        # After the measurement: nobody may resume past a measurement that was never reported.
        if crew.leads and (time.perf_counter() >= due or not going or step == context.max_steps):
            due = save(learner, step, reporter, writer)
        if not crew.agree(going):
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


def update(learner: Learner[Any], step: int, crew: Crew | None = None) -> Tensor:
    """One optimizer update; the loss before it, or this process's part of it."""
    learner.optimizer.zero_grad(set_to_none=True)
    batch = learner.batches[step - 1]
    loss = crew.loss(batch, step) if crew else learner.loss(batch)
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
