"""The Ray door: Ray Tune places trials and nothing else; hides its searcher, scheduler and trainable.

Every decision comes from the Search that the hooks forward to. A Tune trial is one hpsearch trial on an
actor that is reused; the actor holds a fork server and runs each trial in a fresh process.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hpsearch.errors import Interrupted, ServiceUnavailable, UsageError
from hpsearch.run.desk import Desk
from hpsearch.run.process import Slot
from hpsearch.run.reach import within_reach
from hpsearch.run.signals import hear_again, heard_signals
from hpsearch.spec.model import Resources
from hpsearch.study.search import Search
from hpsearch.study.trial import Launch

SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # Actors never use prestarted workers, which cost a second each to start and some CPU for ever.
    "RAY_enable_worker_prestart": "0",
    "RAY_prestart_worker_first_driver": "0",
    "RAY_task_events_report_interval_ms": "0",
}
os.environ.update(SETTINGS)  # before Ray is imported: it reads some of them only then

import ray  # noqa: E402
from ray import tune  # noqa: E402
from ray.exceptions import RayError  # noqa: E402
from ray.tune import TuneError  # noqa: E402
from ray.tune.schedulers import FIFOScheduler, TrialScheduler  # noqa: E402
from ray.tune.search import Searcher  # noqa: E402

log = logging.getLogger(__name__)
# A step of the trainable returns at least this often (seconds), so that stops are heard.
STEP = 1.0
KNOCK = 5.0  # seconds
LONGEST_TEMP = 30
# After its stop Tune kills an actor that does not come back; beyond a program's grace it has had its time.
CLEANUP, CLEANUP_BEYOND_GRACE = 10.0, 5.0  # seconds
LOCAL_OBJECT_STORE = 128 << 20  # bytes; reports are small and nothing else goes through it


def run(search: Search, *, address: str | None = None) -> None:
    """Run the study on a Ray cluster to its end, or until a signal.

    `address` joins a cluster; without one a private local Ray lives as long as the call. Raises
    ServiceUnavailable, UsageError (resources that nobody has), Interrupted.
    """
    # Ray's sockets lie there, and a socket's path may have 107 bytes.
    short = None if len(tempfile.gettempdir()) < LONGEST_TEMP else "/tmp"
    with (
        tempfile.TemporaryDirectory(prefix="hps-", dir=short, ignore_cleanup_errors=True) as scratch,
        _ray(address, scratch),
    ):
        spec = search.study.spec
        resources = within_reach(spec.resources, _largest("GPU"))
        slots = _preflight(resources, spec.max_parallel_trials, address)
        search.limit(slots, resources.gpu)
        cleanup = max(CLEANUP, spec.limits.grace_period + CLEANUP_BEYOND_GRACE)
        os.environ["TUNE_FORCE_TRIAL_CLEANUP_S"] = f"{cleanup:g}"
        desk = Desk(search)
        with heard_signals(desk.stop):
            try:
                _tuner(desk, resources, slots, Path(scratch)).fit()
            except (TuneError, RayError) as error:
                desk.failure = desk.failure or error
        desk.raise_failure()


@contextlib.contextmanager
def _ray(address: str | None, scratch: str) -> Iterator[None]:
    """A running Ray: the one at `address`, or a private local one without any listener for people."""
    if address:
        _knock(address)
    local = {"include_dashboard": False, "_temp_dir": scratch, "object_store_memory": LOCAL_OBJECT_STORE}
    try:
        ray.init(
            address=address or "local",
            log_to_driver=False,
            logging_level=logging.CRITICAL,  # what matters is said by us
            **(local if address is None else {}),
        )
    except SystemExit as error:  # Ray's own answer to a SIGTERM while it starts
        raise Interrupted("interrupted while Ray was starting", hint="`hpsearch resume` goes on") from error
    except Exception as error:  # a border: Ray raises plain Exceptions when its processes do not come up
        where = f"at {address}" if address else "on this machine"
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ServiceUnavailable(f"Ray cannot be reached {where}: {reason}") from error
    try:
        yield
    finally:
        ray.shutdown()
        hear_again()


def _knock(address: str) -> None:
    """Raise ServiceUnavailable if nobody listens at HOST:PORT: Ray itself would try for minutes."""
    if address.startswith("ray://"):
        raise UsageError(
            f"--address {address!r} is a Ray client address, which moves the driver's objects to the head",
            hint="give the cluster's own HOST:PORT, from a machine that is part of it",
        )
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit():
        return  # "auto" and the like are Ray's to find
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=KNOCK).close()
    except (OSError, OverflowError) as error:
        raise ServiceUnavailable(
            f"no Ray at {address}: {error}",
            hint="start one there with `ray start --head`, or leave out --address",
        ) from error


def _largest(name: str) -> float:
    """The most of a resource that one node has."""
    return max((node["Resources"].get(name, 0.0) for node in ray.nodes() if node["Alive"]), default=0.0)


def _preflight(resources: Resources, parallel: int, address: str | None) -> int:
    """How many trials may run at once; Ray itself would wait for ever for what nobody has.

    A joined cluster may grow, so only a local Ray bounds the number. Raises UsageError.
    """
    asked = {"CPU": resources.cpu, "GPU": resources.gpu, "memory": float(resources.memory or 0)}
    fits = parallel
    for name, amount in asked.items():
        there = _largest(name)
        if amount > there:
            raise UsageError(
                f"a trial asks for {amount:g} {name}, the largest node has {there:g}",
                hint="lower hpsearch.resources, or join a cluster that has them with --address",
            )
        if amount and address is None:
            fits = min(fits, math.floor(there / amount + 1e-9))
    if fits < parallel:
        log.warning("maxParallelTrials is %d, this machine has room for %d trials at once", parallel, fits)
    return fits


def _tuner(desk: Desk, resources: Resources, slots: int, scratch: Path) -> tune.Tuner:
    bundle = {"CPU": resources.cpu, "GPU": resources.gpu, "memory": resources.memory or 0}
    placement = tune.PlacementGroupFactory([{name: amount for name, amount in bundle.items() if amount}])
    return tune.Tuner(
        tune.with_resources(_Trainable, placement),
        tune_config=tune.TuneConfig(
            search_alg=_Searcher(desk),
            scheduler=_Scheduler(desk),
            num_samples=-1,
            reuse_actors=True,
            max_concurrent_trials=slots,
            trial_name_creator=lambda trial: trial.trial_id,
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=tune.RunConfig(
            name="tune",  # Tune's own directory is scratch: nothing is ever read back from it
            storage_path=str(scratch),
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=desk.search.study.spec.limits.max_attempts),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
        ),
    )


class _Searcher(Searcher):  # type: ignore[misc]
    """Ray Tune's searcher that asks the desk."""

    def __init__(self, desk: Desk) -> None:
        super().__init__()
        self._desk = desk

    def set_max_concurrency(self, max_concurrent: int) -> bool:
        """True: the Search counts live trials itself."""
        return True

    def suggest(self, trial_id: str) -> dict[str, str] | str | None:
        """Tune's question for the next trial."""
        config = self._desk.guarded(lambda: self._desk.suggest(trial_id), None)
        never: str = Searcher.FINISHED
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


class _Scheduler(FIFOScheduler):  # type: ignore[misc]
    """Ray Tune's scheduler that forwards results to the desk and stops what the Search stops."""

    def __init__(self, desk: Desk) -> None:
        super().__init__()
        self._desk = desk

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """A trial that was added before is one that Tune recovers from a lost actor."""
        if self._desk.knows_lost(trial):
            self._desk.guarded(lambda: self._desk.recover(trial), None)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """The only door for measurements and endings."""
        goes_on = self._desk.guarded(lambda: self._desk.hear(trial, result), False)
        return str(TrialScheduler.CONTINUE if goes_on else TrialScheduler.STOP)

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """The trial was stopped; free its slot."""
        self._desk.guarded(lambda: self._desk.release(trial), None)

    def choose_trial_to_run(self, tune_controller: Any) -> None:
        """None: Tune starts pending trials in order by itself, without scanning them all each turn."""


class _Trainable(tune.Trainable):  # type: ignore[misc]
    """The actor: one slot that runs one launch after another."""

    def setup(self, config: dict[str, Any]) -> None:
        """Start the fork server and the first launch."""
        self._slot = Slot()
        self.relaunch(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Start the next launch; always True, because Tune tells nobody of a False."""
        self.relaunch(new_config)
        return True

    def relaunch(self, config: dict[str, Any]) -> None:
        """Start a launch in a fresh process; what prevents it is told by the next step."""
        self._trouble = ""
        if not config["launch"]:
            return
        try:
            self._slot.start(Launch.from_json(json.loads(config["launch"])))
        except Exception as error:  # a process boundary; nobody hears what `relaunch` raises
            self._trouble = f"its process could not be started: {error!r}"

    def step(self) -> dict[str, Any]:
        """What the trial's process reported since the last step."""
        if self._trouble:
            return {"lines": [], "lost": self._trouble}
        heard = self._slot.poll(STEP)
        return {"lines": heard.lines, "lost": heard.lost}

    def abandon(self) -> None:
        """The Search is done with the trial: kill what still runs of it."""
        self._slot.kill()

    def cleanup(self) -> None:
        """The actor ends."""
        self._slot.kill()

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Never: checkpoints are written by trials and known to the store."""
        raise NotImplementedError("Ray Tune must not take checkpoints of hpsearch's trials")
