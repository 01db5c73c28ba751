"""The Ray door: starts or joins a Ray, runs a study on it through Tune, and leaves it whatever happens to it.

Tune's loop (see `tuning`) has a thread of its own, because calls into Ray may wait for ever: the main thread
stays free to hear signals, to watch over Ray, and to leave it behind.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import subprocess
import threading
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

from hpsearch.errors import HpsearchError, Interrupted, ServiceUnavailable, UsageError
from hpsearch.run import access, undertaker
from hpsearch.run.contract import UMASK
from hpsearch.run.desk import Desk
from hpsearch.run.lookout import UNREACHABLE, Alive, Lookout, answers, owner_of
from hpsearch.run.reach import within_reach
from hpsearch.run.scratch import Scratch, scratch
from hpsearch.run.signals import hear_again, heard_signals
from hpsearch.run.vigil import Vigil
from hpsearch.spec.model import Resources
from hpsearch.study.search import Search

SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    # A loop that was left behind must not start a Ray of its own.
    "RAY_ENABLE_AUTO_CONNECT": "0",
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
    # Its logs stay within the room that is asked for.
    "RAY_ROTATION_MAX_BYTES": str(4 << 20),
    "RAY_ROTATION_BACKUP_COUNT": "1",
}
os.environ.update(SETTINGS)  # before Ray is imported: it reads some of them only then

import ray  # noqa: E402
from ray._private import ray_constants  # noqa: E402
from ray._private.authentication.authentication_token_setup import enable_token_auth_by_default  # noqa: E402

from hpsearch.run import nodes, survey, tuning  # noqa: E402

log = logging.getLogger(__name__)
# After its stop Tune kills an actor that does not come back; beyond a program's grace it has had its time.
CLEANUP, CLEANUP_BEYOND_GRACE = 10.0, 5.0  # seconds
# It takes one or two; with a dead head it never ends (seconds).
SHUTDOWN = 6.0
GOES_ON = "`hpsearch resume` goes on"
# What happens to nodes Ray would print on standard output, which belongs to answers; it is told by us.
ray._private.worker.print_to_stdstream = lambda data, ignore_prefix: log.debug("Ray says: %s", data["lines"])
# Read by ray.init in a job of the Jobs API.
OVERRIDE = "RAY_OVERRIDE_JOB_RUNTIME_ENV"
# How Ray begins to say that it will not join a Ray of another version, or of another Python.
OTHER_VERSION = "Version mismatch"


def run(search: Search, *, address: str | None = None, start_timeout: float | None = None) -> None:
    """Run the study on a Ray cluster to its end, or until a signal.

    `address` joins a cluster; without one a private local Ray lives as long as the call. `start_timeout`: how
    long it may take until a first trial has a place there (seconds), None: for ever. Raises
    ServiceUnavailable, UsageError (resources that nobody has, a cluster open to all), Interrupted.
    """
    if address and access.check(address):
        enable_token_auth_by_default()
    with scratch(private=not address) as place, contextlib.ExitStack() as ray_of_ours:
        ray_of_ours.enter_context(_ray(address, place))
        search.study.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        spec = search.study.spec
        resources = within_reach(spec.resources, nodes.largest("GPU"))
        patient = start_timeout is not None
        slots = nodes.preflight(
            resources, spec.max_parallel_trials, joined=address is not None, patient=patient
        )
        search.limit(slots, resources.gpu)
        if address and (parcel := survey.survey(search, resources, place.directory / "parcel")):
            log.info("the trainer's code is sent to the nodes, which do not see it")
            ray_of_ours.close()
            ray_of_ours.enter_context(_ray(address, place, parcel.runtime_env))
        _follow(search, resources, slots, address, start_timeout, place.directory)


def _follow(
    search: Search,
    resources: Resources,
    slots: int,
    address: str | None,
    start_timeout: float | None,
    directory: Path,
) -> None:
    """Run the study on the Ray that is there."""
    cleanup = max(CLEANUP, search.study.spec.limits.grace_period + CLEANUP_BEYOND_GRACE)
    os.environ["TUNE_FORCE_TRIAL_CLEANUP_S"] = f"{cleanup:g}"
    desk = Desk(search)
    scheduler = tuning.Scheduler(desk)
    lookout = Lookout(_vital(address))
    awaited = partial(nodes.awaited, resources)
    vigil = Vigil(desk, lookout, awaited, scheduler.hurry, cleanup, start_timeout)
    with contextlib.closing(lookout), heard_signals(desk.stop):
        try:
            tuner = tuning.tuner(desk, scheduler, nodes.asked(resources), slots, directory)
            if not desk.relay.serve(tuner.fit, vigil.look):
                log.warning("Ray did not stop in time, and was left behind")
        except HpsearchError:
            raise
        except Exception as error:  # a border: Tune raises whatever its files or Ray's calls raise
            desk.failure = desk.failure or error
    desk.raise_failure()


@contextlib.contextmanager
def _ray(
    address: str | None, place: Scratch, runtime_env: Mapping[str, object] | None = None
) -> Iterator[None]:
    """A running Ray: the one at `address`, or a private local one that listens on loopback alone."""
    local = {
        "include_dashboard": False,
        "_temp_dir": str(place.directory),
        "_plasma_directory": str(place.object_store),
        "object_store_memory": place.object_store_size,
    }
    try:
        with _private_files(), _first(), _joining(address) if address else _apart(place.mark):
            ray.init(
                address=address or "local",
                log_to_driver=False,
                logging_level=logging.CRITICAL,  # what matters is said by us
                runtime_env=dict(runtime_env or {}),
                **(local if address is None else {}),
            )
    except SystemExit as error:  # Ray's own answer to a SIGTERM while it starts
        raise Interrupted("interrupted while Ray was starting", hint=GOES_ON) from error
    except Exception as error:  # a border: Ray raises plain Exceptions when its processes do not come up
        where = f"at {address}" if address else "on this machine"
        if str(error).startswith(OTHER_VERSION):
            raise UsageError(
                f"the Ray {where} is another than the driver's: {' '.join(str(error).split())}",
                hint="install the same Ray and Python on all nodes, or use one image for all of them",
            ) from error
        reason = (str(error) or type(error).__name__).splitlines()[0]
        hint = access.likely() if address else ""
        raise ServiceUnavailable(f"Ray cannot be reached {where}: {reason}", hint=hint) from error
    finally:
        hear_again()
    try:
        yield
    finally:
        _shut_down()
        hear_again()


def _shut_down() -> None:
    """Leave Ray, on a thread: with a dead head that would never end."""
    leaving = threading.Thread(target=ray.shutdown, name="shutdown", daemon=True)
    leaving.start()
    leaving.join(SHUTDOWN)
    if leaving.is_alive():
        # Nor would it at exit.
        atexit.unregister(ray.shutdown)


@contextlib.contextmanager
def _private_files() -> Iterator[None]:
    """Within it, what Ray writes is its owner's alone: its token, its logs, its sockets."""
    earlier = os.umask(0o077)
    # Programs write as the user wants it, and workers inherit the umask from here.
    os.environ.setdefault(UMASK, f"{earlier:03o}")
    access.close_token(Path.home())
    try:
        yield
    finally:
        os.umask(earlier)


@contextlib.contextmanager
def _first() -> Iterator[None]:
    """Within it, what this driver says of its workers' environment goes before what its job says.

    A job of the Jobs API mostly has a working directory of its own, and Ray refuses to have two.
    """
    earlier = os.environ.get(OVERRIDE)
    os.environ[OVERRIDE] = "1"
    try:
        yield
    finally:
        if earlier is None:
            del os.environ[OVERRIDE]
        else:
            os.environ[OVERRIDE] = earlier


@contextlib.contextmanager
def _apart(mark: str) -> Iterator[None]:
    """Within it, a Ray starts on 127.0.0.1 alone, and all its processes bear the mark.

    That it asks for a token is its own default, unless the user's environment says otherwise.
    """
    os.environ[undertaker.VARIABLE] = mark
    try:
        with _on_loopback(), _bare():
            yield
    finally:
        del os.environ[undertaker.VARIABLE]


@contextlib.contextmanager
def _bare() -> Iterator[None]:
    """Within it, a Ray starts as where the extra ray[default] is not installed.

    What that brings, a dashboard's modules on each node, nobody asks for anything here: they would cost each
    start seconds, and listen.
    """
    known = ray._private.utils.get_dashboard_dependency_error
    ray._private.utils.get_dashboard_dependency_error = lambda: "not wanted"
    try:
        yield
    finally:
        ray._private.utils.get_dashboard_dependency_error = known


@contextlib.contextmanager
def _joining(address: str) -> Iterator[None]:
    """Within it, a Ray that listens on 127.0.0.1 alone can be joined, too."""
    place = access.host_and_port(address)
    alone = place is not None and access.is_here(place[0], loopback=True)
    if place and alone and not answers(ray.util.get_node_ip_address(), place[1]):
        with _on_loopback():
            yield
    else:
        yield


@contextlib.contextmanager
def _on_loopback() -> Iterator[None]:
    """Within it, Ray takes 127.0.0.1 for this machine's address, as it does on its own on a Mac.

    That it might have more than one machine is what makes it listen on every address of this one.
    """
    many, ray_constants.ENABLE_RAY_CLUSTER = ray_constants.ENABLE_RAY_CLUSTER, False
    os.environ[ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR] = "0"  # for its processes
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = many
        del os.environ[ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR]


def _vital(address: str | None) -> Mapping[str, tuple[Alive, float]]:
    """What a driver cannot do without, and for how long it may be gone (seconds)."""
    node = ray._private.worker._global_node
    if address is None:
        return {
            f"Ray's {name} (pid {each.process.pid})": (partial(_runs, each.process), 0.0)
            for name, processes in node.all_processes.items()
            if name in (ray_constants.PROCESS_TYPE_GCS_SERVER, ray_constants.PROCESS_TYPE_RAYLET)
            for each in processes
        }
    vital: dict[str, tuple[Alive, float]] = {}
    if place := access.host_and_port(node.gcs_address):
        vital[f"the head of the Ray at {node.gcs_address}"] = (lambda: answers(*place), UNREACHABLE)
    with contextlib.suppress(OSError):  # it is new to us where this Ray keeps its socket
        vital["this node's raylet"] = (owner_of(node.raylet_socket_name), 0.0)
    return vital


def _runs(process: subprocess.Popen[bytes]) -> bool:
    return process.poll() is None
