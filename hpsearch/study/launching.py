"""What an attempt at a trial is started with, as a pure function of the study, the trial and its facts."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from hpsearch.spec.model import PruningRule, Resources
from hpsearch.study.seeds import seed_of
from hpsearch.study.trial import Attempt, Cause, Checkpoint, Context, Launch, Study, Trial

# Chance may have been against it once: another trial's memory, a stalled disk.
ONCE_AGAIN = (Cause.HUNG, Cause.OOM)
MOST_PREEMPTIONS = 20
KNOWN = 2  # checkpoints that a launch is told of, the newest first; the files of older ones are gone


def launch_of(study: Study, trial: Trial, resources: Resources, python_path: tuple[str, ...]) -> Launch:
    """The launch of a trial's last attempt; `resources` are what it gets of what the Spec asks for."""
    spec, directory = study.spec, trial_directory(study, trial.number)
    known = _newest_first(trial.checkpoints)[:KNOWN]
    context = Context(
        number=trial.number,
        attempt=trial.attempts[-1].number,
        seed=seed_of(spec.sampler.seed, trial.number, "training"),
        max_steps=spec.max_steps,
        measure_every=spec.measure_every,
        directory=directory,
        device="cuda" if resources.gpu else "cpu",
        resources=resources,
        checkpoint=directory / known[0].name if known else None,
        checkpoint_sha256=known[0].sha256 if known else None,
        earlier=tuple((directory / each.name, each.sha256) for each in known[1:]),
        storage=f"{study.storage}/{trial_key(trial.number)}" if study.in_bucket else "",
    )
    return Launch(
        module=spec.module,
        args=spec.args,
        params=trial.params,
        context=context,
        metric=spec.objective.metric,
        python_path=python_path,
        timeout=spec.limits.trial_timeout,
        judged=spec.pruner.type is not PruningRule.NONE or spec.stopping.as_soon_as_possible,
        study=study.name,
        metrics=tuple(objective.metric for objective in spec.objectives),
        program=spec.program,
        grace=spec.limits.grace_period,
        startup_timeout=spec.limits.startup_timeout,
        progress_timeout=spec.limits.progress_timeout,
        processes=spec.limits.max_processes,
        output=spec.limits.max_output,
    )


def are_spent(attempts: Iterable[Attempt], ended: Cause, most: int) -> bool:
    """Whether the last of these attempts, which ended for that cause, was the last that the trial gets.

    What was not the trial's own failure does not count, but for a trial that takes node after node with it.
    """
    causes = [*(each.cause for each in attempts), ended]
    if ended in ONCE_AGAIN and causes.count(ended) > 1:
        return True
    if not ended.counts:
        return causes.count(ended) > MOST_PREEMPTIONS
    return sum(cause.counts for cause in causes) >= most


def newest(checkpoints: Iterable[Checkpoint]) -> Checkpoint | None:
    """The checkpoint to go on from, None where there is none."""
    return next(iter(_newest_first(checkpoints)), None)


def trial_directory(study: Study, number: int) -> Path:
    """Where a trial's files lie; of a study in a bucket, where they would."""
    return study.files / trial_key(number)


def trial_key(number: int) -> str:
    """The part of a trial's directory below that of its study."""
    return f"trials/{number:04d}"


def _newest_first(checkpoints: Iterable[Checkpoint]) -> list[Checkpoint]:
    # An attempt goes on from the last one that could be used: what it writes replaces what could not be.
    return sorted(checkpoints, key=lambda each: (each.attempt, each.step), reverse=True)
