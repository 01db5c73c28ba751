"""The Ray Tune door: Tune places trials and nothing else; hides its searcher, scheduler and trainable.

Every decision comes from the Search that the hooks forward to. A Tune trial is one hpsearch trial on an
actor that is reused; the actor holds a fork server and runs each trial in a fresh process. Imported by
`cluster` alone, which sets what Ray reads at its import.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher as TuneSearcher

from hpsearch.run import members, nodes
from hpsearch.run.desk import NOTHING, Desk
from hpsearch.run.place import Place
from hpsearch.run.process import Slot


def tuner(
    desk: Desk, scheduler: Scheduler, asked: Mapping[str, float], slots: int, directory: Path
) -> tune.Tuner:
    """What runs a study's trials, `slots` at once; each worker of one gets what is asked for."""
    place = [dict(asked) for _ in range(desk.search.study.spec.resources.workers)]
    return tune.Tuner(
        tune.with_resources(Trainable, tune.PlacementGroupFactory(place)),
        tune_config=tune.TuneConfig(
            search_alg=Searcher(desk),
            scheduler=scheduler,
            num_samples=-1,
            reuse_actors=True,
            max_concurrent_trials=slots,
            trial_name_creator=lambda trial: trial.trial_id,
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=tune.RunConfig(
            name="tune",  # Tune's own directory is scratch: nothing is ever read back from it
            storage_path=str(directory),
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=-1),  # the Search bounds attempts
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
        ),
    )


class Searcher(TuneSearcher):  # type: ignore[misc]
    """Ray Tune's searcher that asks the desk."""

    def __init__(self, desk: Desk) -> None:
        super().__init__()
        self._desk = desk

    def set_max_concurrency(self, max_concurrent: int) -> bool:
        """True: the Search counts live trials itself."""
        return True

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Tune's question for the next trial."""
        config = self._desk.guarded(lambda: self._desk.suggest(trial_id), None)
        never: str = TuneSearcher.FINISHED
        return never if config is None and self._desk.search.over else config

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Only Tune's own giving up is news here; everything else came through the scheduler."""
        if error:
            self._desk.guarded(lambda: self._desk.fail(trial_id), None)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the store is the only truth."""

    def restore(self, checkpoint_path: str) -> None:
        """Never: a Tune snapshot is not read back."""
        raise NotImplementedError("hpsearch resumes from its store, never from Tune's snapshot")


class Scheduler(FIFOScheduler):  # type: ignore[misc]
    """Ray Tune's scheduler that forwards results to the desk and stops what the Search stops."""

    def __init__(self, desk: Desk) -> None:
        super().__init__()
        self._desk = desk
        self._controller: Any = None
        # Where each trial was last heard from; Tune notes a result only after its hooks have heard it.
        self._nodes: dict[str, str] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def hurry(self) -> None:
        """End the loop with its next turn, also while trials wait for a place."""
        if self._controller is not None:
            self._controller.request_stop_experiment()

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """A trial that was added before is one that Tune recovers from a lost actor."""
        self._controller = tune_controller
        if not self._desk.guarded(lambda: self._desk.knows_lost(trial), False):
            return
        node = self._nodes.get(trial.trial_id)
        lost = node is not None and nodes.is_lost(node)
        recover = partial(self._desk.recover, trial.trial_id, node_lost=lost)
        trial.set_config(self._desk.guarded(recover, NOTHING))

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """The only door for measurements and endings."""
        if node := result.get("node"):
            self._nodes[trial.trial_id] = node
        goes_on = self._desk.guarded(lambda: self._desk.hear(trial, result), False)
        return str(TrialScheduler.CONTINUE if goes_on else TrialScheduler.STOP)

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """The trial was stopped; free its slot."""
        self._desk.guarded(lambda: self._desk.release(trial), None)

    def choose_trial_to_run(self, tune_controller: Any) -> None:
        """None: Tune starts pending trials in order by itself, without scanning them all each turn."""


class Trainable(tune.Trainable):  # type: ignore[misc]
    """The actor: one place that runs one launch after another."""

    def setup(self, config: dict[str, Any]) -> None:
        """Start the fork server and the first launch."""
        self._place = Place(slot=lambda: members.slot() or Slot())
        self._place.hear_notice()
        self._node = ray.get_runtime_context().get_node_id()
        self._place.relaunch(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Start the next launch; always True, because Tune tells nobody of a False."""
        self._place.relaunch(new_config)
        return True

    def relaunch(self, config: dict[str, Any]) -> None:
        """Start the next attempt after one that was lost."""
        self._place.relaunch(config)

    def step(self) -> dict[str, Any]:
        """What the trial's process reported since the last step."""
        if self._place.leaving:
            raise SystemExit("this worker goes away")
        return {**self._place.step(), "node": self._node}

    def part(self) -> None:
        """The study stops: let the trial keep its state."""
        self._place.part()

    def abandon(self) -> None:
        """The Search is done with the trial: kill what still runs of it."""
        self._place.abandon()

    def cleanup(self) -> None:
        """The actor ends."""
        self._place.abandon()

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Never: checkpoints are written by trials and known to the store."""
        raise NotImplementedError("Ray Tune must not take checkpoints of hpsearch's trials")
