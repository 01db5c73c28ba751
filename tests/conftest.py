"""The fault catalogue: which tests show that a fault is survived, and the count that the README prints.

A test of a fault is marked `@pytest.mark.fault("F16")` and asks for the fixture `fired`, which it calls with
evidence that its fault really happened: a pid that died, a count above zero, a line in a log.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from buckets import bucket, mute, object_store
from zygote import Zygote

__all__ = ["bucket", "mute", "object_store"]

if TYPE_CHECKING:
    from postgres_server import Server

CATALOGUE = tuple(f"F{number:02d}" for number in range(1, 65))
README = Path(__file__).parents[1] / "README.md"
LINE = re.compile(r"\b\d+ of 64 faults survived")
SURVIVED = "survived faults"

TIERS = ("chaos", "security")  # folders of tests, of which each is one of the fault catalogue's tiers

# Of these fixtures of a session there shall be one on a machine: all their tests run in one process.
ONE_OF_A_KIND = {
    "ray_cluster": "ray",
    "ray_address": "ray",
    "stable": "mlflow server",
    "lives": "mlflow server",
}

# Ray's workers are the most patient processes of a machine; here they would wait for all other tests.
os.environ.setdefault("RAY_worker_niceness", "0")

Fired = Callable[..., None]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-readme", action="store_true", help="write the count of survived faults there")
    parser.addoption("--tiers", action="store_true", help="only tests of faults, chaos and security")


def _faults(item: pytest.Item) -> list[str]:
    return [str(name) for mark in item.iter_markers("fault") for name in mark.args]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--tiers"):
        wanted = [item for item in items if item.path.parent.name in TIERS or _faults(item)]
        chosen = set(wanted)
        config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
        items[:] = wanted
    for item in items:
        # xdist 3.8 cannot tell its scheduler so under pytest 9.2: until it can, each process makes its own.
        if isinstance(item, pytest.Function) and (group := _group(item)):
            item.add_marker(pytest.mark.xdist_group(group))
        faults = _faults(item)
        if unknown := set(faults) - set(CATALOGUE):
            raise pytest.UsageError(f"{item.nodeid} names no fault of the catalogue: {sorted(unknown)}")
        if faults and "fired" not in getattr(item, "fixturenames", ()):
            raise pytest.UsageError(f"{item.nodeid} tests a fault without asking for `fired`")


def _group(item: pytest.Function) -> str | None:
    """What keeps tests in one process of a run: what they share is dear, a server or a cluster."""
    if (mark := item.get_closest_marker("xdist_group")) is not None:
        return str(mark.args[0])
    for name in item.fixturenames:
        if name in ONE_OF_A_KIND:
            return ONE_OF_A_KIND[name]
        for definition in item._fixtureinfo.name2fixturedefs.get(name, ()):
            if definition.scope in ("module", "package"):
                return item.path.name
    return None


@pytest.fixture
def fired(request: pytest.FixtureRequest) -> Iterator[Fired]:
    """Says that a fault happened: `fired(evidence)`, or `fired(evidence, "F16")` where there are several.

    A test of a fault in which it did not happen has tested nothing, and is an error.
    """
    faults = _faults(request.node)
    seen: set[str] = set()

    def fire(evidence: object, *names: str) -> None:
        assert evidence, f"the fault {' '.join(names or faults)} was not injected"
        seen.update(names or faults)

    yield fire
    missing = sorted(set(faults) - seen)
    # A test that failed has said more already.
    assert not missing or request.node.stash.get(FAILED, False), f"the faults {missing} never happened"


@pytest.fixture(scope="session")
def mlflow_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An embedded MLflow database as the product makes it, to be copied: MLflow's migrations take 10 seconds.

    It is made once for all processes of a run.
    """
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if base.name.startswith("popen-") else base
    path = shared / "mlflow-template" / "mlflow.db"
    with (shared / "mlflow-template.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            code = (
                "import sys; from pathlib import Path; from hpsearch.track.runs import _make_database\n"
                "_make_database(Path(sys.argv[1]), Path(sys.argv[2]))"
            )
            words = [sys.executable, "-W", "ignore", "-c", code, str(path), str(path.parent / "mlartifacts")]
            subprocess.run(words, check=True, capture_output=True)
    return path


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[Any]:
    """One Ray for all tests of a session, on loopback; they may add nodes, and it soon misses dead ones."""
    from hpsearch.run import cluster  # first: it sets what Ray reads at its import

    assert cluster.SETTINGS
    from ray._private import utils
    from ray.cluster_utils import Cluster

    checks = {"period_ms": "1000", "failure_threshold": "3", "initial_delay_ms": "1000"}
    head = {"num_cpus": 2, "include_dashboard": False, "node_ip_address": "127.0.0.1"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in checks.items():
            patch.setenv(f"RAY_health_check_{name}", value)
        patch.setattr(utils, "get_dashboard_dependency_error", lambda: "not wanted")  # starts sooner
        node = Cluster(initialize_head=True, head_node_args=head)
    yield node
    node.shutdown()


@pytest.fixture(scope="session")
def ray_address(ray_cluster: Any) -> str:
    """Where it is: each study joins it as it would join a cluster."""
    address: str = ray_cluster.address
    return address


@pytest.fixture(scope="session")
def zygote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zygote]:
    """One process that has imported everything, from which real drivers are forked."""
    made = Zygote(tmp_path_factory.mktemp("zygote"))
    yield made
    made.close()


NO_POSTGRES = "no PostgreSQL here"


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """A real server on loopback, one for all tests of a process; each test makes a database of its own."""
    from postgres_server import Missing, served

    with contextlib.ExitStack() as stack:
        try:
            server = stack.enter_context(served())
        except Missing as missing:
            pytest.skip(f"{NO_POSTGRES}: {missing}")
        yield server


FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    report = yield
    if call.when == "call":
        item.stash[FAILED] = not report.passed
    report.faults = _faults(item)  # travels to the process that counts
    return report


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    skipped = terminalreporter.stats.get("skipped", ())
    untested = [each for each in skipped if NO_POSTGRES in str(each.longrepr)]
    if untested:
        title = f"{len(untested)} tests of stores on PostgreSQL DID NOT RUN"
        terminalreporter.write_sep("!", title, red=True)
        terminalreporter.write_line(str(untested[0].longrepr[-1]))
    tested: dict[str, bool] = {}
    for outcome in ("passed", "failed", "error", "skipped", "rerun"):
        for report in terminalreporter.stats.get(outcome, ()):
            for name in getattr(report, "faults", ()):
                tested[name] = tested.get(name, True) and outcome == "passed"
    if not tested:
        return
    survived = sum(tested.values())
    whole = len(tested) > len(CATALOGUE) / 2  # whoever names a few tests wants no list of all others
    missing = [name for name in CATALOGUE if name not in tested]
    terminalreporter.write_sep("-", "fault catalogue")
    terminalreporter.write_line(f"{survived} of {len(CATALOGUE)} faults survived")
    for name, good in sorted(tested.items()):
        if not good:
            terminalreporter.write_line(f"{name}: a test failed or was skipped")
    if missing and whole:
        terminalreporter.write_line(f"not tested in this run: {' '.join(missing)}")
    if config.getoption("--write-readme"):
        README.write_text(LINE.sub(f"{survived} of 64 faults survived", README.read_text()))
