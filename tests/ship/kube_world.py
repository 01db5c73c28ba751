"""A whole cluster for a test: the fake API server with our role, KubeRay's operator, a launcher's own Job."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kube_kinds import JOB, KINDS, NAMESPACE, RAY_JOB, Kind, kind_of
from kube_operator import Operator
from kube_ray import Clock
from kube_server import Api, served
from kube_store import Store, as_it_is

from hpsearch.ship.access import Access
from hpsearch.ship.api import Client, Time

Json = dict[str, Any]
ROOT = Path(__file__).parents[2]
BASE = ROOT / "k8s" / "base"
CRDS = ROOT.parent / "shared" / "kuberay_crds" / "v1.7.0"
IMAGE = "registry.example/hpsearch@sha256:" + "a" * 64
SPACE, ACCOUNT = "hpsearch", "hpsearch-launch"
TICK = "2026-11-25T02:17:00Z"
CRON_JOB = next(kind for kind in KINDS if kind.name == "CronJob")
SWEEP = """\
trainingInput:
  pythonModule: hpsearch.trainers.linear_regression
  hyperparameters:
    goal: MINIMIZE
    hyperparameterMetricTag: loss
    maxTrials: 4
    maxParallelTrials: 2
    params:
      - {parameterName: lr, type: DOUBLE, minValue: 1e-4, maxValue: 1e-1, scaleType: UNIT_LOG_SCALE}
hpsearch: {maxSteps: 20, measureEvery: 10}
"""


@functools.cache
def our_role() -> list[Json]:
    """The launcher's account, role and binding, as the manifests have them."""
    import yaml

    texts = [(BASE / name).read_text(encoding="utf-8") for name in ("accounts.yaml", "roles.yaml")]
    found = [each for text in texts for each in yaml.safe_load_all(text)]
    role = [each for each in found if each["metadata"]["name"] == ACCOUNT]
    assert [each["kind"] for each in role] == ["ServiceAccount", "Role", "RoleBinding"]
    return role


class NoChecks:
    """Takes every object as it is."""

    def __call__(self, kind: Kind, body: Json, strict: bool) -> tuple[Json, list[str]]:
        return as_it_is(kind, body, strict)


class CrdChecks:
    """Fills in defaults and finds faults by KubeRay's own definitions."""

    def __init__(self, crds: Any) -> None:
        self.crds = crds

    def __call__(self, kind: Kind, body: Json, strict: bool) -> tuple[Json, list[str]]:
        if kind.group != "ray.io":
            return body, []
        # What others have filled in and checked before is the same again.
        whole = self.crds.filled(body)
        faults = [f"{'.'.join(map(str, fault.path))}: {fault.message}" for fault in self.crds.check(whole)]
        return whole, faults


@functools.cache
def crd_checks() -> Any:
    """Those of KubeRay 1.7, if its definitions are beside the project."""
    if not CRDS.is_dir():
        return NoChecks()
    from hpsearch.ship.lint.crds import load

    return CrdChecks(load(str(CRDS)))


@dataclass
class World:
    """The parts, and what tests do with them."""

    api: Api
    operator: Operator
    clock: Clock
    folder: Path

    @property
    def store(self) -> Store:
        return self.api.store

    def mount(self) -> Path:
        """An account as a pod has it mounted."""
        mounted = self.folder / "serviceaccount"
        if not mounted.exists():
            mounted.mkdir()
            (mounted / "ca.crt").write_bytes(self.api.ca.read_bytes())
            (mounted / "namespace").write_text(SPACE)
            self.renew_token()
        return mounted

    def renew_token(self) -> str:
        """A new token, mounted in place of the one before."""
        token = self.api.token(SPACE, ACCOUNT)
        (self.folder / "serviceaccount" / "token").write_text(token + "\n")
        return token

    @property
    def environment(self) -> dict[str, str]:
        """What a pod is told of its cluster."""
        return {
            "KUBERNETES_SERVICE_HOST": "127.0.0.1",
            "KUBERNETES_SERVICE_PORT": str(self.api.server_port),
            "HPSEARCH_SERVICE_ACCOUNT": str(self.mount()),
        }

    def client(self, time: Time | None = None) -> Client:
        return Client(Access.in_pod(self.environment, self.mount()), time)

    def admin(self, time: Time | None = None) -> Client:
        """A client that may do everything, as people at a laptop may."""
        token = self.mount() / "admin"
        token.write_text(self.api.admin)
        road = Access("127.0.0.1", self.api.server_port, SPACE, token, self.mount() / "ca.crt")
        return Client(road, time)

    def own_job(self, name: str = "nightly-29401577", cron: str = "nightly", tick: str = TICK) -> Json:
        """The Job whose pod launches: of a CronJob, or by hand."""
        container = {"name": "launch", "image": IMAGE, "args": ["launch", "/etc/hpsearch/sweep.yaml"]}
        meta: Json = {"name": name}
        if cron:
            found = self.store.find(CRON_JOB, SPACE, cron)
            cron_job = found or self.store.create(CRON_JOB, SPACE, {"metadata": {"name": cron}, "spec": {}})
            uid = cron_job["metadata"]["uid"]
            owner = {
                "apiVersion": "batch/v1",
                "kind": "CronJob",
                "name": cron,
                "uid": uid,
                "controller": True,
            }
            meta["ownerReferences"] = [owner]
        if cron:
            ticked = {"batch.kubernetes.io/cronjob-scheduled-timestamp": tick}
            meta["annotations"] = ticked if tick else {"cronjob.kubernetes.io/instantiate": "manual"}
        spec = {"template": {"spec": {"restartPolicy": "Never", "containers": [container]}}}
        return self.store.create(JOB, SPACE, {"metadata": meta, "spec": spec})

    def rayjob(self, name: str = "nightly-29401577-r") -> Json:
        return self.store.get(RAY_JOB, SPACE, name)

    def set_status(self, status: Json, name: str = "nightly-29401577-r") -> None:
        """Say what an operator would."""
        self.store.patch(RAY_JOB, SPACE, name, {"status": status}, "status")


@contextmanager
def world(folder: Path, check: Any = None) -> Iterator[World]:
    """A cluster with our namespace and role; the operator works only where a test lets it."""
    with served(folder, check or NoChecks()) as api:
        clock = Clock()
        api.store.create(NAMESPACE, "", {"metadata": {"name": SPACE}})
        for each in our_role():
            api.store.create(kind_of(each), SPACE, each)
        yield World(api, Operator(api.store, clock), clock, folder)
