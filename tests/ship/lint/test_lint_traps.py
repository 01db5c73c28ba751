"""Known traps of Ray on Kubernetes: for each a manifest that walks into it, and the line that says so."""

from __future__ import annotations

from collections.abc import Callable

import lint_world as world
import pytest
import yaml
from lint_cases import BOX, GROUP, HEAD_POD, KEPT, NO_SUBMITTER, OPTIONS, SPEC, SUBMITTER, Edits, about
from lint_world import GONE, Object

from hpsearch.ship.lint import checks, crds, sources

Trap = tuple[str, Callable[[], list[Object]], Edits, str]
OTHER = f"registry.example/hpsearch@sha256:{'b' * 64}"


def server() -> list[Object]:
    return world.documents(world.SERVER)


def cron() -> list[Object]:
    return world.documents(world.CRONJOB)


def with_job() -> list[Object]:
    made = world.job()
    return [*made, {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "auto-mpg"}, "spec": {}}]


def renamed_by_kustomize() -> list[Object]:
    made = world.job()
    made[0]["metadata"]["name"] += "-7kk2h2b9d4"
    return made


def stale_text() -> list[Object]:
    text = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"image": OTHER}}
    return [*world.job(), text]


# trap, what it is about, edits that walk into it, what the line says
TRAPS: list[Trap] = [
    (
        "01 a RayJob named like a Job",
        with_job,
        {},
        "RayJob/auto-mpg metadata.name: a Job is called auto-mpg too",
    ),
    ("02 the log stream ends", world.job, NO_SUBMITTER, "the operator's own submitter follows the log"),
    (
        "02 the log stream ends",
        world.job,
        {f"{SUBMITTER} command": ["ray", "job", "submit", "--", "x"]},
        "the submitter follows the log by `ray job`",
    ),
    (
        "03 the driver gets no SIGTERM",
        world.job,
        {f"{BOX} lifecycle": GONE},
        "preStop is not `hpsearch stop --here`",
    ),
    (
        "03 the driver gets no SIGTERM",
        world.job,
        {f"{BOX} lifecycle preStop exec command": ["ray", "job", "stop", "x"]},
        "stops the Ray job for good",
    ),
    ("04 GPUs go on burning", world.job, {"spec ttlSecondsAfterFinished": 86400}, "burns 86400 s more"),
    (
        "04 GPUs go on burning",
        world.job,
        {"spec activeDeadlineSeconds": 3600},
        "the driver's own deadline is 3600 s",
    ),
    ("05 a stopped sweep keeps its cluster", world.job, KEPT, "the cluster stays for ever"),
    ("05 a stopped sweep keeps its cluster", world.retained, {}, "stopped through Ray keeps its cluster"),
    ("06 forgotten maxReplicas", world.job, {f"{GROUP} maxReplicas": GONE}, "may grow to 2147483647"),
    (
        "07 a slim image never ready",
        world.job,
        {f"{SPEC} rayVersion": GONE},
        "no rayVersion: probes need wget",
    ),
    (
        "08 everything is rerun",
        world.job,
        {"spec entrypoint": "hpsearch run /etc/hpsearch/sweep.yaml --study a"},
        "without --resume auto starts anew",
    ),
    (
        "08 everything is rerun",
        world.job,
        {f"{HEAD_POD} volumes 2": {"name": "studies", "emptyDir": {"sizeLimit": "1Gi"}}},
        "is lost with the pod",
    ),
    (
        "09 no schema of RayJobs",
        world.job,
        {"spec shutdownAfterFinish": True},
        "unknown field 'shutdownAfterFinish'",
    ),
    (
        "10 names in RayJobs",
        renamed_by_kustomize,
        {},
        "no ConfigMap auto-mpg-sweep in these files, but auto-mpg-sweep-7",
    ),
    ("11 a patch removes containers", world.job, {f"{BOX} image": GONE}, "container 'ray-head' has no image"),
    ("11 a patch removes groups", world.job, {f"{SPEC} workerGroupSpecs": []}, "no worker can ever start"),
    ("12 a stale digest", stale_text, {}, "in a text, and pods of these files run sha256:aaaaaaaaaaaa..."),
    ("12 a stale digest", world.job, {f"{SUBMITTER} image": OTHER}, "is not the head's"),
    (
        "13 pods wait without end",
        world.job,
        {"spec preRunningDeadlineSeconds": GONE},
        "a head that gets no node is waited for without end",
    ),
    (
        "13 pods wait without end",
        world.job,
        {"spec entrypoint": "hpsearch run /etc/hpsearch/sweep.yaml --study a --resume auto"},
        "without --start-timeout waits for workers without end",
    ),
    (
        "14 MLflow answers 403",
        server,
        {"spec template spec containers 0 env": []},
        "it answers 403 to all names",
    ),
    (
        "15 ray stop",
        world.job,
        {f"{GROUP} template spec containers 0 lifecycle preStop exec command": ["ray", "stop"]},
        "container 'ray-worker' runs `ray stop`",
    ),
    (
        "16 a token that all read",
        world.job,
        {f"{HEAD_POD} volumes 0": {"name": "tmp", "secret": {"secretName": "token"}}},
        "is mounted with mode 0644 (the default): everybody in the pod reads it",
    ),
    # -- security
    ("no token", world.job, {f"{SPEC} authOptions": GONE}, "authentication is off"),
    (
        "an open door",
        world.job,
        {f"{SPEC} headGroupSpec serviceType": "NodePort"},
        "a Service of type NodePort",
    ),
    ("an Ingress", world.job, {f"{SPEC} headGroupSpec enableIngress": True}, "a head behind an Ingress"),
    (
        "added without security",
        world.job,
        {f"{OPTIONS} securityContext": GONE},
        "'autoscaler' (added by KubeRay)",
    ),
    (
        "a secret in clear text",
        server,
        {"spec template spec containers 0 env 1": {"name": "MLFLOW_TRACKING_PASSWORD", "value": "hunter2x"}},
        "the value of MLFLOW_TRACKING_PASSWORD is a secret",
    ),
    ("missed ticks", cron, {"spec startingDeadlineSeconds": GONE}, "no startingDeadlineSeconds"),
]


@pytest.fixture(scope="module")
def known() -> crds.Crds | None:
    return crds.load(str(world.CRD_FOLDER)) if world.CRD_FOLDER.is_dir() else None


@pytest.mark.parametrize(("trap", "base", "edits", "said"), TRAPS, ids=[trap[0] for trap in TRAPS])
def test_a_trap_is_told_on_one_line_with_its_place_and_a_remedy(
    trap: str, base: Callable[[], list[Object]], edits: Edits, said: str, known: crds.Crds | None
) -> None:
    if trap.startswith("09") and known is None:
        pytest.skip(f"KubeRay's CRDs are not at {world.CRD_FOLDER}: its schemas are NOT tested")
    made = base()
    for path, new in edits.items():
        world.edited(about(made), path, new)
    # Only one of them needs the definitions, whose look at an object takes longer than all rules.
    found = told(made, known if trap.startswith("09") else None)
    lines = [line for line in found if said in line]
    assert lines, found
    place, _, rest = lines[0].partition(": ")
    assert place.startswith("some.yaml:") and place.partition(":")[2].isdigit()
    assert rest.split()[0] in ("note:", "warning:") or "/" in rest.split()[0]
    assert "); " in rest


def told(made: list[Object], known: crds.Crds | None) -> list[str]:
    """The lines about objects that were read from a text."""
    given = sources.Sources(files=["some.yaml"])
    text = yaml.dump_all(made, Dumper=yaml.CSafeDumper, sort_keys=False)
    sources._take("some.yaml", text.encode(), given)
    return [finding.text for finding in checks.check(given, known, checks.Wishes()).findings]


def test_without_a_trap_nothing_is_told_but_what_must_be_there_already(known: crds.Crds | None) -> None:
    for base in (world.job, world.queued, server):
        assert all("it must be there already" in line for line in told(base(), known))


def test_a_finding_stands_at_the_line_of_its_field(known: crds.Crds | None) -> None:
    text = "---\napiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec:\n  type: NodePort\n"
    given = sources.Sources(files=["a.yaml"])
    sources._take("a.yaml", text.encode(), given)
    found = checks.check(given, None, checks.Wishes()).findings
    assert [f.text for f in found] == [
        "a.yaml:6: Service/a spec.type: a Service of type NodePort (object/service-type); "
        "set type: ClusterIP; use kubectl port-forward service/NAME PORT"
    ]
