"""The fake API server behaves like a real one where clients can tell: real kubectl is one of them."""

from __future__ import annotations

import contextlib
import http.client
import json
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kube_client import Kubectl, kubectl
from kube_kinds import JOB, KINDS, NAMESPACE, RAY_JOB, SECRET, Kind, kind_of
from kube_server import Api, Fault, served
from kube_store import FOREGROUND, Rejected
from kube_world import ACCOUNT, CRDS, SPACE, crd_checks, our_role

CONFIG_MAP = next(kind for kind in KINDS if kind.name == "ConfigMap")
RAYJOBS = f"/apis/ray.io/v1/namespaces/{SPACE}/rayjobs"
MAPS = f"/api/v1/namespaces/{SPACE}/configmaps"


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    with served(tmp_path) as server:
        server.store.create(NAMESPACE, "", {"metadata": {"name": SPACE}})
        yield server


class Caller:
    """Requests by hand, as one user."""

    def __init__(self, api: Api, token: str) -> None:
        self.api, self.token = api, token
        self.lines: list[http.client.HTTPSConnection] = []

    def open(self, method: str, target: str, body: Any = None, kind: str = "application/json") -> Any:
        trust = ssl.create_default_context(cafile=str(self.api.ca))
        line = http.client.HTTPSConnection("127.0.0.1", self.api.server_port, timeout=20, context=trust)
        self.lines.append(line)
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": kind}
        line.request(method, target, None if body is None else json.dumps(body), headers)
        return line.getresponse()

    def __call__(self, method: str, target: str, body: Any = None, kind: str = "application/json") -> Any:
        answer = self.open(method, target, body, kind)
        raw = answer.read()
        self.lines.pop().close()
        return answer.status, json.loads(raw)

    def close(self) -> None:
        while self.lines:
            self.lines.pop().close()


@pytest.fixture
def admin(api: Api) -> Iterator[Caller]:
    with contextlib.closing(Caller(api, api.admin)) as caller:
        yield caller


@pytest.fixture
def launcher(api: Api) -> Caller:
    """Who may do what our role says, and nothing else."""
    for each in our_role():
        api.store.create(kind_of(each), SPACE, each)
    return Caller(api, api.token(SPACE, ACCOUNT))


def named(name: str, **meta: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, **meta}}


# -- kubectl ----------------------------------------------------------------------------------------


def test_real_kubectl_creates_gets_waits_patches_and_deletes(api: Api, tmp_path: Path) -> None:
    tool = kubectl(tmp_path / "kubectl", api, SPACE)
    manifest = {"apiVersion": "ray.io/v1", "kind": "RayJob", "spec": {"entrypoint": "true"}} | named("one")
    assert "created" in tool.run("create", "-f", "-", text=json.dumps(manifest)).stdout
    assert tool.json("get", "rayjobs")["items"][0]["metadata"]["name"] == "one"
    waiting: list[Any] = []
    condition = "--for=jsonpath={.status.jobDeploymentStatus}=Complete"
    wait = threading.Thread(
        target=lambda: waiting.append(tool.run("wait", condition, "rayjob/one", "--timeout=60s"))
    )
    wait.start()
    api.wait_for("GET", "watch=true")
    api.store.patch(RAY_JOB, SPACE, "one", {"status": {"jobDeploymentStatus": "Complete"}}, "status")
    wait.join()
    assert "condition met" in waiting[0].stdout
    tool.run("label", "rayjob", "one", "team=vision")
    assert api.store.get(RAY_JOB, SPACE, "one")["metadata"]["labels"] == {"team": "vision"}
    finalizer = {"metadata": {"finalizers": ["test/slow"]}}
    api.store.patch(RAY_JOB, SPACE, "one", finalizer)
    gone = threading.Thread(target=lambda: waiting.append(tool.run("delete", "rayjob", "one")))
    gone.start()
    api.wait_for("GET", "watch=true", times=2)
    assert api.store.get(RAY_JOB, SPACE, "one")["metadata"]["deletionTimestamp"]
    api.store.patch(RAY_JOB, SPACE, "one", {"metadata": {"finalizers": []}})
    gone.join()
    assert "deleted" in waiting[1].stdout
    assert api.store.list(RAY_JOB) == []


def test_real_kubectl_is_told_what_it_may_not_do(api: Api, launcher: Caller, tmp_path: Path) -> None:
    tool = kubectl(tmp_path / "kubectl", api, SPACE, launcher.token)
    refused = tool.run("get", "secrets", code=1)
    assert 'cannot list resource "secrets"' in refused.stderr
    expired = kubectl(tmp_path / "expired", api, SPACE, "nobody's")
    assert "must be logged in" in expired.run("get", "rayjobs", code=1).stderr


def test_a_dry_run_of_kubectl_leaves_nothing(api: Api, tmp_path: Path) -> None:
    tool: Kubectl = kubectl(tmp_path / "kubectl", api, SPACE)
    manifest = {"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "b"}} | named("dry")
    assert (
        "server dry run"
        in tool.run("create", "--dry-run=server", "-f", "-", text=json.dumps(manifest)).stdout
    )
    assert api.store.list(CONFIG_MAP) == []


# -- objects ----------------------------------------------------------------------------------------


def test_a_name_is_given_once_and_generated_ones_differ(admin: Caller) -> None:
    assert admin("POST", MAPS, named("one"))[0] == 201
    status, told = admin("POST", MAPS, named("one"))
    assert (status, told["reason"]) == (409, "AlreadyExists")
    made = [admin("POST", MAPS, {"metadata": {"generateName": "auto-"}})[1] for _ in range(2)]
    assert made[0]["metadata"]["name"] != made[1]["metadata"]["name"]
    assert made[0]["metadata"]["name"].startswith("auto-")
    assert admin("POST", MAPS, {"metadata": {}})[0] == 422


def test_a_list_has_kinds_and_follows_selectors(admin: Caller) -> None:
    admin("POST", MAPS, named("a", labels={"tier": "x"}))
    admin("POST", MAPS, named("b", labels={"tier": "y"}))
    listed = admin("GET", MAPS)[1]
    assert (listed["kind"], listed["items"][0]["kind"]) == ("ConfigMapList", "ConfigMap")

    def names(query: str) -> list[str]:
        return [each["metadata"]["name"] for each in admin("GET", f"{MAPS}?{query}")[1]["items"]]

    assert names("labelSelector=tier%3Dx") == ["a"]
    assert names("labelSelector=tier!%3Dx") == ["b"]
    assert names("labelSelector=tier+in+(x,z)") == ["a"]
    assert names("labelSelector=tier+notin+(x,z),tier") == ["b"]
    assert names("labelSelector=!tier") == []
    assert names("fieldSelector=metadata.name%3Db") == ["b"]
    assert admin("GET", f"{MAPS}?fieldSelector=spec.x%3D1")[0] == 400


def test_status_is_written_by_its_own_path_only(admin: Caller) -> None:
    admin("POST", RAYJOBS, named("one") | {"status": {"jobStatus": "FAILED"}, "spec": {"backoffLimit": 1}})
    assert "status" not in admin("GET", f"{RAYJOBS}/one")[1]
    merge = "application/merge-patch+json"
    status, made = admin(
        "PATCH", f"{RAYJOBS}/one/status", {"status": {"jobStatus": "RUNNING"}, "spec": {}}, merge
    )
    assert (status, made["status"], made["spec"]) == (200, {"jobStatus": "RUNNING"}, {"backoffLimit": 1})
    made = admin("PATCH", f"{RAYJOBS}/one", {"spec": {"backoffLimit": 2}, "status": None}, merge)[1]
    assert (made["spec"], made["status"]) == ({"backoffLimit": 2}, {"jobStatus": "RUNNING"})
    assert made["metadata"]["generation"] == 2
    stale = made | {"metadata": made["metadata"] | {"resourceVersion": "1"}}
    assert admin("PUT", f"{RAYJOBS}/one", stale)[1]["reason"] == "Conflict"


def test_objects_go_with_their_owners_unless_those_are_orphaning(admin: Caller, api: Api) -> None:
    def family(name: str) -> None:
        uid = admin("POST", RAYJOBS, named(name))[1]["metadata"]["uid"]
        owner = {"apiVersion": "ray.io/v1", "kind": "RayJob", "name": name, "uid": uid}
        admin("POST", MAPS, named(f"{name}-child", ownerReferences=[owner]))

    for name in ("background", "orphan"):
        family(name)
    admin("DELETE", f"{RAYJOBS}/background")
    admin("DELETE", f"{RAYJOBS}/orphan", {"propagationPolicy": "Orphan"})
    assert [each["metadata"]["name"] for each in api.store.list(CONFIG_MAP)] == ["orphan-child"]
    # In the foreground the owner stays until its last object is gone.
    family("foreground")
    api.store.patch(CONFIG_MAP, SPACE, "foreground-child", {"metadata": {"finalizers": ["test/slow"]}})
    admin("DELETE", f"{RAYJOBS}/foreground", {"propagationPolicy": "Foreground"})
    assert FOREGROUND in api.store.get(RAY_JOB, SPACE, "foreground")["metadata"]["finalizers"]
    api.store.patch(CONFIG_MAP, SPACE, "foreground-child", {"metadata": {"finalizers": []}})
    assert api.store.find(RAY_JOB, SPACE, "foreground") is None
    # Whoever names an owner that never was is not long for this world.
    nobody = {"apiVersion": "ray.io/v1", "kind": "RayJob", "name": "x", "uid": "no such uid"}
    admin("POST", MAPS, named("lost", ownerReferences=[nobody]))
    assert api.store.find(CONFIG_MAP, SPACE, "lost") is None


def test_a_dead_collector_keeps_what_has_no_owner(admin: Caller, api: Api) -> None:
    nobody = {"apiVersion": "ray.io/v1", "kind": "RayJob", "name": "x", "uid": "no such uid"}
    api.store.collecting = False
    admin("POST", MAPS, named("lost", ownerReferences=[nobody]))
    assert api.store.find(CONFIG_MAP, SPACE, "lost")
    api.store.collecting = True
    api.store.collect()
    assert api.store.find(CONFIG_MAP, SPACE, "lost") is None


@pytest.mark.skipif(
    not CRDS.is_dir(), reason=f"KubeRay's definitions are NOT TESTED: there are none at {CRDS}"
)
def test_custom_objects_are_checked_by_their_definitions_and_get_defaults(api: Api, admin: Caller) -> None:
    api.store.check = crd_checks()
    template = {"spec": {"containers": [{"name": "ray", "image": "ray"}]}}
    group = {"groupName": "w", "rayStartParams": {}, "template": template}
    cluster = {"headGroupSpec": {"rayStartParams": {}, "template": template}, "workerGroupSpecs": [group]}
    spec = {"rayClusterSpec": cluster}
    status, made = admin("POST", RAYJOBS, named("good") | {"spec": spec})
    assert status == 201, made
    assert made["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["maxReplicas"] == 2147483647
    bad = spec | {"ttlSecondsAfterFinished": "soon", "entrypiont": "typo"}
    status, told = admin("POST", f"{RAYJOBS}?fieldValidation=Strict", named("bad") | {"spec": bad})
    assert (status, told["reason"]) == (422, "Invalid")
    assert "ttlSecondsAfterFinished" in told["message"]
    assert "entrypiont" in told["message"]


# -- watches ----------------------------------------------------------------------------------------


def events(answer: Any, count: int) -> list[tuple[str, str]]:
    told = [json.loads(answer.readline()) for _ in range(count)]
    return [(each["type"], each["object"]["metadata"].get("name", "")) for each in told]


def test_a_watch_tells_what_comes_after_a_version_and_keeps_to_its_selector(api: Api, admin: Caller) -> None:
    admin("POST", MAPS, named("old", labels={"a": "1"}))
    version = admin("GET", MAPS)[1]["metadata"]["resourceVersion"]
    query = f"watch=true&resourceVersion={version}&labelSelector=a%3D1"
    answer = admin.open("GET", f"{MAPS}?{query}")
    admin("POST", MAPS, named("other"))
    admin("POST", MAPS, named("new", labels={"a": "1"}))
    merge = "application/merge-patch+json"
    admin("PATCH", f"{MAPS}/old", {"metadata": {"labels": {"a": "2"}}}, merge)
    admin("DELETE", f"{MAPS}/new")
    assert events(answer, 3) == [("ADDED", "new"), ("DELETED", "old"), ("DELETED", "new")]
    # Without a version it begins with what is there.
    assert events(admin.open("GET", f"{MAPS}?watch=1"), 2) == [("ADDED", "old"), ("ADDED", "other")]


def test_a_watch_gets_bookmarks_ends_in_time_and_forgets(api: Api, admin: Caller) -> None:
    api.bookmarks = 0.0
    version = admin("GET", MAPS)[1]["metadata"]["resourceVersion"]
    query = f"watch=true&resourceVersion={version}&allowWatchBookmarks=true&timeoutSeconds=1"
    answer = admin.open("GET", f"{MAPS}?{query}")
    first = json.loads(answer.readline())
    assert (first["type"], first["object"]["metadata"]["resourceVersion"]) == ("BOOKMARK", version)
    rest = answer.read()
    assert rest.count(b"BOOKMARK") == rest.count(b"\n")
    admin("POST", MAPS, named("new"))
    api.store.forget()
    told = json.loads(admin.open("GET", f"{MAPS}?watch=true&resourceVersion={version}").readline())
    assert (told["type"], told["object"]["code"]) == ("ERROR", 410)


def test_a_watch_is_cut_in_the_middle(api: Api, admin: Caller) -> None:
    version = admin("GET", MAPS)[1]["metadata"]["resourceVersion"]
    answer = admin.open("GET", f"{MAPS}?watch=true&resourceVersion={version}")
    api.store.cut()
    with pytest.raises((http.client.IncompleteRead, OSError)):
        answer.read()
    assert admin("GET", f"{MAPS}?watch=true&sendInitialEvents=true")[0] == 422


# -- who may ----------------------------------------------------------------------------------------


def test_our_role_permits_what_a_launcher_does_and_nothing_else(api: Api, launcher: Caller) -> None:
    api.store.create(JOB, SPACE, named("own"))
    budgets, jobs = (
        f"/apis/policy/v1/namespaces/{SPACE}/poddisruptionbudgets",
        f"/apis/batch/v1/namespaces/{SPACE}/jobs",
    )
    for path in (RAYJOBS, MAPS, budgets):
        assert launcher("POST", path, named("mine"))[0] == 201
        assert launcher("GET", f"{path}/mine")[0] == 200
    assert launcher("GET", f"{jobs}/own")[0] == 200
    assert launcher("GET", RAYJOBS)[0] == 200
    merge = "application/merge-patch+json"
    refused = [
        launcher("DELETE", f"{RAYJOBS}/mine"),
        launcher("PATCH", f"{RAYJOBS}/mine", {}, merge),
        launcher("PATCH", f"{RAYJOBS}/mine/status", {}, merge),
        launcher("GET", MAPS),
        launcher("GET", f"{MAPS}?watch=true"),
        launcher("GET", f"/api/v1/namespaces/{SPACE}/secrets/any"),
        launcher("GET", jobs),
        launcher("DELETE", f"{jobs}/own"),
        launcher("GET", "/apis/ray.io/v1/rayjobs"),
        launcher("GET", "/apis/ray.io/v1/namespaces/other/rayjobs"),
    ]
    assert [status for status, _ in refused] == [403] * len(refused)
    assert f"system:serviceaccount:{SPACE}:{ACCOUNT}" in refused[0][1]["message"]


def test_whoever_makes_an_owner_wait_must_be_allowed_to(api: Api, launcher: Caller) -> None:
    uid = api.store.create(JOB, SPACE, named("own"))["metadata"]["uid"]
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": "own", "uid": uid}
    blocking = owner | {"blockOwnerDeletion": True}
    assert launcher("POST", RAYJOBS, named("a", ownerReferences=[blocking]))[0] == 403
    assert launcher("POST", RAYJOBS, named("a", ownerReferences=[owner]))[0] == 201


def test_a_rule_with_names_is_for_those_only(api: Api) -> None:
    role, binding = (next(o for o in our_role() if o["kind"] == kind) for kind in ("Role", "RoleBinding"))
    rule = {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get", "list", "create"]}
    api.store.create(kind_of(role), SPACE, role | {"rules": [rule | {"resourceNames": ["one"]}]})
    api.store.create(kind_of(binding), SPACE, binding)
    caller = Caller(api, api.token(SPACE, ACCOUNT))
    for name in ("one", "two"):
        api.store.create(SECRET, SPACE, named(name))
    secrets = f"/api/v1/namespaces/{SPACE}/secrets"
    assert caller("GET", f"{secrets}/one")[0] == 200
    assert caller("GET", f"{secrets}/two")[0] == 403
    assert caller("GET", f"{secrets}?fieldSelector=metadata.name%3Done")[0] == 200
    assert caller("GET", secrets)[0] == 403
    assert caller("POST", secrets, named("one"))[0] == 403  # the name of something new is in no list


def test_a_token_that_ran_out_is_nobody(api: Api, admin: Caller) -> None:
    del api.tokens[api.admin]
    status, told = admin("GET", MAPS)
    assert (status, told["reason"]) == (401, "Unauthorized")


# -- faults -----------------------------------------------------------------------------------------


def test_faults_strike_as_often_as_they_are_told_to(api: Api, admin: Caller) -> None:
    busy = Fault("GET", "configmaps", times=2, status=429, headers={"Retry-After": "3"})
    api.faults.append(busy)
    answer = admin.open("GET", MAPS)
    assert (answer.status, answer.headers["Retry-After"]) == (429, "3")
    assert [admin("GET", MAPS)[0] for _ in range(2)] == [429, 200]
    api.faults.append(Fault("POST", cut="before"))
    with pytest.raises((http.client.HTTPException, OSError)):
        admin("POST", MAPS, named("a"))
    assert api.store.list(CONFIG_MAP) == []
    api.faults.append(Fault("POST", cut="after"))
    with pytest.raises((http.client.HTTPException, OSError)):
        admin("POST", MAPS, named("a"))
    assert len(api.store.list(CONFIG_MAP)) == 1
    assert [r.code for r in api.asked("POST", "configmaps")] == [0, 0]


def test_what_nobody_serves_is_not_found(admin: Caller, api: Api) -> None:
    assert admin("GET", "/apis/nobody/v1/things")[0] == 404
    assert admin("GET", f"{MAPS}/missing")[1]["reason"] == "NotFound"
    with pytest.raises(Rejected):
        api.store.get(Kind("", "v1", "x", "X"), SPACE, "y")
