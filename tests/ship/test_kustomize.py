"""The kustomize tree as kubectl builds it: what is applied is valid, closed, and starts nothing."""

from __future__ import annotations

import functools
import re
import shutil
from collections.abc import Iterator
from importlib import util
from pathlib import Path
from typing import Any

import pytest
import yaml
from manifests import IMAGE, ROOT, SWEEP, asked, built, conform, job, parsed, sweep, templates, texts, wishes

from hpsearch.ship import cronjob, making, render
from hpsearch.ship.cronjob import Timetable
from hpsearch.ship.job import Gi
from hpsearch.ship.lint import checks, crds, sources

K8S = ROOT / "k8s"
OVERLAYS = ("dev", "prod", "kueue")
CRDS = ROOT.parent / "shared/kuberay_crds/v1.7.0"
# Made by people, or by an operator for secrets; see the overlays' comments.
SECRETS = {"hpsearch-mlflow": {"username", "password", "flask-secret-key"}, "hpsearch-store": {"url"}}
Object = dict[str, Any]

pytestmark = pytest.mark.skipif(
    shutil.which("kubectl") is None, reason="no kubectl here: NO kustomization was built"
)


@functools.cache
def overlay(name: str) -> tuple[Object, ...]:
    return tuple(built(K8S / "overlays" / name))


def of_kind(name: str, kind: str) -> dict[str, Object]:
    return {each["metadata"]["name"]: each for each in overlay(name) if each["kind"] == kind}


def launcher(name: str) -> Object:
    """The CronJob's container in an overlay."""
    [made] = of_kind(name, "CronJob").values()
    container: Object = made["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]
    return container


def pods_in(objects: tuple[Object, ...]) -> Iterator[Object]:
    for each in objects:
        if each["kind"] == "CronJob":
            yield each["spec"]["jobTemplate"]["spec"]["template"]["spec"]
        elif each["kind"] == "Deployment":
            yield each["spec"]["template"]["spec"]


# -- whole overlays --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OVERLAYS)
def test_an_overlay_passes_every_schema_and_every_rule(name: str, tmp_path: Path) -> None:
    objects = overlay(name)
    assert conform(objects) >= 20
    file = tmp_path / "all.yaml"
    file.write_text(render.dump(list(objects)))
    known = crds.load(str(CRDS)) if CRDS.is_dir() else None
    verdict = checks.check(sources.gather([str(file)]), known, checks.Wishes())
    assert [each.text for each in verdict.findings if each.level != "note"] == []


@pytest.mark.parametrize("name", OVERLAYS)
def test_applying_an_overlay_starts_no_sweep(name: str) -> None:
    kinds = {each["kind"] for each in overlay(name)}
    assert not kinds & {"RayJob", "RayCluster", "RayService", "RayCronJob", "Job", "Pod"}
    for made in of_kind(name, "CronJob").values():
        assert made["spec"]["suspend"] is True


@pytest.mark.parametrize("name", OVERLAYS)
def test_every_name_in_an_overlay_is_that_of_something(name: str) -> None:
    there = {(each["kind"], each["metadata"]["name"]): each for each in overlay(name)}
    named = 0
    for pod in pods_in(overlay(name)):
        assert ("ServiceAccount", pod["serviceAccountName"]) in there
        for volume in pod["volumes"]:
            if "configMap" in volume:
                assert ("ConfigMap", volume["configMap"]["name"]) in there
                named += 1
            if "persistentVolumeClaim" in volume:
                assert ("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]) in there
        for container in pod["containers"]:
            for each in container["env"]:
                if (place := each.get("valueFrom", {}).get("secretKeyRef")) is not None:
                    assert place["key"] in SECRETS[place["name"]]
    assert named
    for binding in of_kind(name, "RoleBinding").values():
        assert ("Role", binding["roleRef"]["name"]) in there
        for subject in binding["subjects"]:
            assert (subject["kind"], subject["name"]) in there
            assert subject["namespace"] == "hpsearch"


@pytest.mark.parametrize("name", OVERLAYS)
def test_what_a_launcher_will_make_finds_all_that_it_names_in_its_overlay_and_fits_its_quota(
    name: str,
) -> None:
    """Its flags are texts to kustomize: nothing else would notice that one of them is stale."""
    words = launcher(name)["args"]
    assert parsed(words).params["job_name"] == "$(JOB_NAME)"
    spec = sweep()
    made = making.job(spec, asked(words[7:]))
    rayjob = render.ray_job(made)
    names = set(texts([each["metadata"]["name"] for each in overlay(name)]))
    for template in templates(rayjob).values():
        for volume in template["spec"]["volumes"]:
            if "persistentVolumeClaim" in volume:
                assert volume["persistentVolumeClaim"]["claimName"] in names
        assert template["spec"].get("serviceAccountName", "hpsearch-run") in names
        for each in template["spec"]["containers"][0]["env"]:
            if "valueFrom" in each:
                assert each["valueFrom"]["secretKeyRef"]["name"] in SECRETS
    if made.platform.queue:
        assert made.platform.queue in of_kind(name, "LocalQueue")
    [quota] = of_kind(name, "ResourceQuota").values()
    cpus = made.platform.head.cpus + sum(group.cpus * group.max_replicas for group in made.platform.groups)
    assert cpus + 2 <= int(quota["spec"]["hard"]["requests.cpu"])
    memory = made.platform.head.memory + sum(g.memory * g.max_replicas for g in made.platform.groups)
    assert memory + 2 * Gi <= int(quota["spec"]["hard"]["requests.memory"].removesuffix("Gi")) * Gi
    # SQLite is refused on what several nodes mount.
    [modes] = [
        claim["spec"]["accessModes"]
        for n, claim in of_kind(name, "PersistentVolumeClaim").items()
        if "st" in n
    ]
    assert (made.platform.store is not None) == (modes == ["ReadWriteMany"])


@pytest.mark.parametrize("name", OVERLAYS)
def test_all_is_in_the_one_namespace_which_is_restricted_at_a_pinned_version(name: str) -> None:
    [namespace] = of_kind(name, "Namespace").values()
    labels = namespace["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    assert re.fullmatch(r"v1\.\d+", labels["pod-security.kubernetes.io/enforce-version"])
    everywhere = {"Namespace", "ClusterQueue", "ResourceFlavor"}
    for each in overlay(name):
        inside = each["metadata"].get("namespace")
        assert inside == (None if each["kind"] in everywhere else namespace["metadata"]["name"]), each["kind"]


@pytest.mark.parametrize("name", OVERLAYS)
def test_an_overlay_holds_no_secret_and_no_way_in_from_outside(name: str) -> None:
    assert not of_kind(name, "Secret")
    assert not of_kind(name, "Ingress")
    for service in of_kind(name, "Service").values():
        assert service["spec"]["type"] == "ClusterIP"
    [quota] = of_kind(name, "ResourceQuota").values()
    hard = quota["spec"]["hard"]
    assert hard["services.loadbalancers"] == hard["services.nodeports"] == "0"
    assert {"count/rayjobs.ray.io", "pods", "requests.nvidia.com/gpu", "limits.memory"} <= set(hard)


# -- rights and networks ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OVERLAYS)
def test_a_launcher_may_do_what_it_does_and_nothing_else(name: str) -> None:
    assert not of_kind(name, "ClusterRole")
    [role] = of_kind(name, "Role").values()
    may = {
        (group, resource): set(rule["verbs"])
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }
    assert may == {
        ("ray.io", "rayjobs"): {"create", "get", "list", "watch"},
        ("", "configmaps"): {"create", "get"},
        ("policy", "poddisruptionbudgets"): {"create", "get"},
        ("batch", "jobs"): {"get"},
    }
    [binding] = of_kind(name, "RoleBinding").values()
    assert [subject["name"] for subject in binding["subjects"]] == ["hpsearch-launch"]
    for account in of_kind(name, "ServiceAccount").values():
        assert account["automountServiceAccountToken"] is False


def allows(name: str, labels: dict[str, str], way: str) -> list[Object]:
    """The rules of an overlay's policies for pods with some labels, Ingress or Egress."""
    found: list[Object] = []
    for policy in of_kind(name, "NetworkPolicy").values():
        selector = policy["spec"]["podSelector"]
        wanted = selector.get("matchLabels", {}).items() <= labels.items()
        for each in selector.get("matchExpressions", []):
            there = labels.get(each["key"])
            wanted &= there in each["values"] if each["operator"] == "In" else there is not None
        if wanted and way in policy["spec"]["policyTypes"]:
            found += policy["spec"].get(way.lower(), [])
    return found


HEAD = {
    "ray.io/node-type": "head",
    "app.kubernetes.io/name": "hpsearch",
    "app.kubernetes.io/component": "head",
}
WORKER = HEAD | {"ray.io/node-type": "worker", "app.kubernetes.io/component": "worker"}
SUBMITTER = {"app.kubernetes.io/name": "hpsearch", "app.kubernetes.io/component": "submitter"}
LAUNCHER = SUBMITTER | {"app.kubernetes.io/component": "launcher"}
STRANGER = {"app.kubernetes.io/name": "stranger"}


def ports(rules: list[Object]) -> set[int | None]:
    """The ports that rules open; None: all of them."""
    return {port["port"] for rule in rules for port in rule.get("ports", [{"port": None}])}


@pytest.mark.parametrize("name", OVERLAYS)
def test_nothing_goes_in_or_out_but_what_is_named(name: str) -> None:
    policies = of_kind(name, "NetworkPolicy")
    denied = policies.pop("default-deny")["spec"]
    assert denied == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    for policy in policies.values():
        for way in policy["spec"]["policyTypes"]:
            rules = policy["spec"][way.lower()]
            assert rules, "an empty list would deny what others allow to nobody"
            for rule in rules:
                assert rule.get("from") or rule.get("to"), "that would be everybody"
    assert ports(allows(name, STRANGER, "Ingress")) == set()
    assert ports(allows(name, STRANGER, "Egress")) == {53}
    assert ports(allows(name, HEAD, "Ingress")) == {None, 8265, 8080}
    assert ports(allows(name, HEAD, "Egress")) == {None, 53, 443, 6443, 5000, 5432}
    assert ports(allows(name, WORKER, "Ingress")) == {None, 8080}
    assert ports(allows(name, WORKER, "Egress")) == {None, 53, 443}
    assert ports(allows(name, SUBMITTER, "Egress")) == {53, 8265}
    assert ports(allows(name, LAUNCHER, "Egress")) == {53, 443, 6443}


def test_pods_have_the_labels_that_policies_go_by() -> None:
    found = templates(render.ray_job(job()))
    operators = {"ray.io/node-type"}  # the operator's own
    for ours, template in ((HEAD, "head"), (WORKER, "spot"), (SUBMITTER, "submitter")):
        wanted = {key: value for key, value in ours.items() if key not in operators}
        assert wanted.items() <= found[template]["metadata"]["labels"].items()
    [made] = of_kind("dev", "CronJob").values()
    assert LAUNCHER.items() <= made["spec"]["jobTemplate"]["spec"]["template"]["metadata"]["labels"].items()


def test_the_metadata_service_of_a_node_is_never_reached() -> None:
    for name in OVERLAYS:
        for policy in of_kind(name, "NetworkPolicy").values():
            for rule in policy["spec"].get("egress", []):
                for place in rule["to"]:
                    block = place.get("ipBlock", {"cidr": ""})
                    if block["cidr"] == "0.0.0.0/0":
                        assert block["except"] == ["169.254.0.0/16"]


# -- what kustomize does not do by itself ----------------------------------------------------------------


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the tree, with the README's sweep beside the base in a kustomization of somebody's own."""
    shutil.copytree(K8S, tmp_path / "k8s")
    (tmp_path / "k8s/mine").mkdir()
    return tmp_path / "k8s/mine"


def mine(tree: Path, **fields: Any) -> list[Object]:
    (tree / "kustomization.yaml").write_text(yaml.safe_dump({"kind": "Kustomization", **fields}))
    return built(tree)


def test_names_inside_of_a_rayjob_follow_those_of_what_they_name(tree: Path) -> None:
    both: dict[str, Any] = {"namePrefix": "x-", "resources": ["../base", "../sweep"]}
    [made] = [each for each in mine(tree, **both) if each["kind"] == "RayJob"]
    for template in templates(made).values():
        for volume in template["spec"]["volumes"]:
            if "configMap" in volume:
                assert volume["configMap"]["name"] == "x-auto-mpg-sweep"
            if "persistentVolumeClaim" in volume:
                assert volume["persistentVolumeClaim"]["claimName"] == "x-hpsearch-studies"
        assert template["spec"].get("serviceAccountName", "x-hpsearch-run") == "x-hpsearch-run"
    # What makes it so is the base's own configuration.
    base = tree.parent / "base/kustomization.yaml"
    base.write_text(base.read_text().replace("configurations:\n  - kuberay-refs.yaml\n", ""))
    [stale] = [each for each in mine(tree, **both) if each["kind"] == "RayJob"]
    assert "hpsearch-studies" in set(texts(stale)), "kustomize knows RayJobs by now: drop our configuration"


def test_an_image_is_replaced_in_every_pod_at_once(tree: Path) -> None:
    digest = "sha256:" + "a" * 64
    images = [{"name": "registry.example/hpsearch", "newName": "other.example/h", "digest": digest}]
    objects = mine(tree, resources=["../overlays/dev", "../sweep"], images=images)
    for each in objects:
        assert IMAGE not in set(texts(each))
    [made] = [each for each in objects if each["kind"] == "RayJob"]
    assert set(texts(made)) & {f"other.example/h@{digest}"}


def test_the_component_spot_leaves_what_it_does_not_mean(tree: Path) -> None:
    fields: dict[str, Any] = {
        "resources": ["../overlays/prod", "../sweep"],
        "components": ["../components/spot"],
    }
    objects = mine(tree, **fields)
    [made] = [each for each in objects if each["kind"] == "RayJob"]
    was = yaml.safe_load((K8S / "sweep/rayjob.yaml").read_text())
    spot, *others = made["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    assert spot["template"]["spec"].pop("nodeSelector") == {"karpenter.sh/capacity-type": "spot"}
    assert [spot, *others] == was["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    [cron] = [each for each in objects if each["kind"] == "CronJob"]
    words = cron["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]["args"]
    [group] = making.job(sweep(), asked(words[7:])).platform.groups
    assert group.spot and group.node_selector == (("karpenter.sh/capacity-type", "spot"),)


def test_the_component_gpu_makes_room_and_asks_for_gpus(tree: Path) -> None:
    objects = mine(tree, resources=["../overlays/prod"], components=["../components/gpu"])
    [quota] = [each for each in objects if each["kind"] == "ResourceQuota"]
    [cron] = [each for each in objects if each["kind"] == "CronJob"]
    assert conform([quota, cron]) == 2
    words = cron["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]["args"]
    [group] = making.job(sweep(), asked(words[7:])).platform.groups
    assert group.gpus * group.max_replicas <= int(quota["spec"]["hard"]["requests.nvidia.com/gpu"])


def test_a_queue_takes_the_limit_of_time_from_the_launcher() -> None:
    [plain] = of_kind("prod", "CronJob").values()
    [queued] = of_kind("kueue", "CronJob").values()
    assert "activeDeadlineSeconds" in plain["spec"]["jobTemplate"]["spec"]
    assert "activeDeadlineSeconds" not in queued["spec"]["jobTemplate"]["spec"]
    assert making.job(sweep(), asked(launcher("kueue")["args"][7:])).platform.elastic is False
    [queue] = of_kind("kueue", "LocalQueue").values()
    assert queue["spec"]["clusterQueue"] in of_kind("kueue", "ClusterQueue")


# -- what is committed is what is made -------------------------------------------------------------------


def test_the_base_launches_the_readmes_sweep() -> None:
    assert (K8S / "base/sweep.yaml").read_bytes() == SWEEP.read_bytes()


def test_the_bases_cronjob_is_what_schedule_makes() -> None:
    given = wishes(mlflow_secret="hpsearch-mlflow", sweep="auto_mpg")
    made = making.job(sweep(), given)
    nightly = Timetable(
        name="hpsearch-nightly",
        cron="17 4 * * *",
        time_zone="Etc/UTC",
        image=IMAGE,
        config_map="hpsearch-nightly-sweep",
        options=cronjob.options(given),
        patience=cronjob.patience(made.platform, made.deadline),
        suspended=True,
    )
    assert (K8S / "base/cronjob.yaml").read_text() == render.dump([cronjob.cronjob(nightly)])


# -- MLflow for trying things out ------------------------------------------------------------------------


def mlflow() -> Object:
    [made] = of_kind("dev", "Deployment").values()
    spec: Object = made["spec"]
    return spec


def test_the_mlflow_server_is_one_behind_a_login_that_nobody_knows_by_default() -> None:
    spec = mlflow()
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})
    [container] = spec["template"]["spec"]["containers"]
    assert {"--app-name=basic-auth", "--workers=1"} <= set(container["args"])
    assert container["resources"]["requests"]["memory"] == "2Gi"
    env = {each["name"]: each for each in container["env"]}
    for name in ("AUTH_ADMIN_USERNAME", "AUTH_ADMIN_PASSWORD", "FLASK_SERVER_SECRET_KEY"):
        assert env[f"MLFLOW_{name}"]["valueFrom"]["secretKeyRef"]["name"] == "hpsearch-mlflow"
    # Its own database, and neither a password nor a user in the file.
    [config] = [each for name, each in of_kind("dev", "ConfigMap").items() if "auth" in name]
    assert "sqlite:////data/auth.db" in config["data"]["basic_auth.ini"]
    assert "admin_" not in config["data"]["basic_auth.ini"]
    assert spec["template"]["spec"]["enableServiceLinks"] is False, "MLFLOW_PORT would be an address"


def test_the_mlflow_server_answers_to_its_names_and_no_others() -> None:
    [container] = mlflow()["template"]["spec"]["containers"]
    hosts = {each["name"]: each.get("value") for each in container["env"]}["MLFLOW_SERVER_ALLOWED_HOSTS"]
    assert hosts is not None
    names = hosts.split(",")
    [service] = of_kind("dev", "Service").values()
    for host in (service["metadata"]["name"], f"{service['metadata']['name']}.hpsearch.svc", "localhost"):
        assert {host, f"{host}:*"} <= set(names)
    assert not [name for name in names if name.startswith("*") or re.match(r"\d", name)]
    assert f"http://{service['metadata']['name']}:{service['spec']['ports'][0]['port']}" == making.MLFLOW


def test_only_the_path_that_needs_no_login_is_probed_and_a_first_start_has_five_minutes() -> None:
    [container] = mlflow()["template"]["spec"]["containers"]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["path"] == "/health"
    startup = container["startupProbe"]
    assert startup["failureThreshold"] * startup["periodSeconds"] == 300


def test_every_setting_of_the_mlflow_server_is_one_that_it_knows() -> None:
    found = util.find_spec("mlflow")
    assert found and found.origin
    source = Path(found.origin).with_name("environment_variables.py").read_text()
    [container] = mlflow()["template"]["spec"]["containers"]
    for name in [each["name"] for each in container["env"]]:
        assert f'"{name}"' in source, name
