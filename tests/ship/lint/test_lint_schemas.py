"""Schemas: Kubernetes' own kinds, and KubeRay's by their definitions, with every fault at its path."""

from __future__ import annotations

import copy
import json
from typing import Any

import kubernetes_validate
import lint_world as world
import pytest
from lint_cases import BOX, GROUP, HEAD, HEAD_POD, SPEC
from lint_world import CRD_FOLDER, GONE, Object

from hpsearch.errors import UsageError
from hpsearch.ship.lint import cel_rules, crds
from hpsearch.ship.lint.core_schemas import CoreSchemas
from hpsearch.ship.lint.finding import Level, written
from hpsearch.ship.lint.structural import converted, filled

needs_crds = pytest.mark.skipif(
    not CRD_FOLDER.is_dir(), reason=f"KubeRay's CRDs are not at {CRD_FOLDER}: its schemas are NOT tested"
)
UPSTREAM = """
apiVersion: ray.io/v1
kind: RayJob
metadata: {name: rayjob-sample, creationTimestamp: null}
spec:
  entrypoint: python /home/ray/samples/sample_code.py
  runtimeEnvYAML: |
    env_vars:
      counter_name: test_counter
  rayClusterSpec:
    rayVersion: "2.60.0"
    headGroupSpec:
      rayStartParams: {}
      template:
        spec:
          containers:
            - name: ray-head
              image: rayproject/ray:2.60.0
              ports: [{containerPort: 6379, name: gcs-server}, {containerPort: 8265, name: dashboard}]
              resources: {limits: {cpu: 1}, requests: {cpu: 200m}}
              volumeMounts: [{mountPath: /home/ray/samples, name: code-sample}]
          volumes:
            - name: code-sample
              configMap: {name: ray-job-code-sample, items: [{key: sample_code.py, path: sample_code.py}]}
    workerGroupSpecs:
      - replicas: 1
        minReplicas: 1
        maxReplicas: 5
        groupName: small-group
        rayStartParams: {}
        template:
          spec: {containers: [{name: ray-worker, image: "rayproject/ray:2.60.0"}]}
---
apiVersion: ray.io/v1
kind: RayCluster
metadata: {name: raycluster-autoscaler}
spec:
  rayVersion: "2.60.0"
  enableInTreeAutoscaling: true
  autoscalerOptions:
    upscalingMode: Default
    idleTimeoutSeconds: 60
    resources: {limits: {cpu: 500m, memory: 512Mi}}
  headGroupSpec:
    rayStartParams: {num-cpus: "0"}
    template: {spec: {containers: [{name: ray-head, image: "rayproject/ray:2.60.0"}]}}
  workerGroupSpecs:
    - groupName: workers
      template: {spec: {containers: [{name: ray-worker, image: "rayproject/ray:2.60.0"}]}}
---
apiVersion: ray.io/v1
kind: RayCronJob
metadata: {name: raycronjob-sample}
spec:
  schedule: "* * * * *"
  jobTemplate:
    entrypoint: python -c 'print(1)'
    clusterSelector: {ray.io/cluster: mine}
"""


@pytest.fixture(scope="module")
def known() -> crds.Crds:
    return crds.load(str(CRD_FOLDER))


def schema_faults(value: Object, known: crds.Crds) -> list[str]:
    return sorted(written(fault.path) for fault in known.check(value))


@needs_crds
def test_nine_planted_faults_are_nine_findings(known: crds.Crds) -> None:
    made = world.retained()
    rules = "spec deletionStrategy deletionRules"
    planted = {
        "spec shutdownAfterFinish": True,  # an unknown field
        f"{BOX} imagePullPolice": "Always",  # a typo in a container
        f"{HEAD} rayStartParams num-cpus": 0,  # a number where texts are
        f"{rules} 0 policy": "DeleteAll",  # not of the enumeration
        f"{rules} 0 condition ttlSeconds": -1,
        "spec ttlSecondsAfterFinished": "300",
        f"{GROUP} template spec containers 0 name": GONE,
        f"{rules} 1 condition": GONE,
        "spec managedBy": "me",  # by a rule in CEL
    }
    for path, new in planted.items():
        world.edited(made[1], path, new)
    assert schema_faults(made[1], known) == sorted(path.replace(" ", ".") for path in _bracketed(planted))
    found = [f for f in world.check(*made, known=known) if f.rule == "schema"]
    assert sorted(written(f.path) for f in found) == schema_faults(made[1], known)
    assert len(found) == 9


def _bracketed(paths: dict[str, Any]) -> list[str]:
    return [path.replace(" 0", "[0]").replace(" 1", "[1]") for path in paths]


@needs_crds
def test_samples_like_those_of_upstream_pass_the_definitions(known: crds.Crds) -> None:
    for value in world.documents(UPSTREAM):
        assert schema_faults(value, known) == []


@needs_crds
@pytest.mark.parametrize("made", [world.job, world.retained, world.queued, world.cluster, world.ray_cron])
def test_what_is_rendered_passes_the_definitions_and_all_rules(known: crds.Crds, made: Any) -> None:
    found = world.check(*made(), known=known, versions=("1.28", "1.37"))
    told = {f.rule for f in found if f.level is not Level.NOTE}
    assert told == ({"cron/ray-cron"} if made is world.ray_cron else set())


@needs_crds
def test_a_rule_on_what_may_change_is_not_asked_of_a_new_object(known: crds.Crds) -> None:
    made = world.job()[1]
    made["spec"]["managedBy"] = "ray.io/kuberay-operator"
    assert schema_faults(made, known) == []


@needs_crds
@pytest.mark.parametrize(
    ("path", "new", "wrong"),
    [
        (f"{GROUP} maxReplicas", GONE, []),  # has a default
        ("spec suspend", None, []),  # nulls are dropped
        ("metadata annotations", 5, ["metadata.annotations"]),  # ObjectMeta has its own schema
        (f"{BOX} resources limits cpu", 2, []),  # an integer or a text
        (
            f"{BOX} resources limits cpu",
            [2],
            ["spec.rayClusterSpec.headGroupSpec.template.spec.containers[0].resources.limits.cpu"],
        ),
        (
            f"{HEAD_POD} containers 1",
            {"name": "ray-head"},
            ["spec.rayClusterSpec.headGroupSpec.template.spec.containers[1]"],
        ),
        (f"{SPEC} headGroupSpec template", GONE, ["spec.rayClusterSpec.headGroupSpec.template"]),
        ("apiVersion", "ray.io/v9", ["apiVersion"]),
        (f"{SPEC} headGroupSpec", "none", ["spec.rayClusterSpec.headGroupSpec"]),
    ],
)
def test_the_definitions_are_read_as_the_api_server_reads_them(
    known: crds.Crds, path: str, new: Any, wrong: list[str]
) -> None:
    made = world.job()
    world.edited(made[1], path, new)
    found = [f for f in world.check(*made, known=known) if f.rule == "schema"]
    assert [written(f.path) for f in found] == wrong


@needs_crds
def test_what_a_schema_refuses_is_not_said_again_by_a_rule(known: crds.Crds) -> None:
    made = world.retained()
    world.edited(made[1], "spec deletionStrategy deletionRules 0 condition jobStatus", "STOPPED")
    path = "spec.deletionStrategy.deletionRules[0].condition.jobStatus"
    told = [f.rule for f in world.check(*made, known=known) if written(f.path) == path]
    untold = [f.rule for f in world.check(*made) if written(f.path) == path]
    assert (told, untold) == (["schema"], ["kuberay/rule-status"])


@needs_crds
def test_the_definitions_of_a_group_that_lack_a_kind_say_so(known: crds.Crds) -> None:
    made = {"apiVersion": "ray.io/v1", "kind": "RayJobb", "metadata": {"name": "a"}, "spec": {}}
    assert "define no ray.io RayJobb" in world.check(made, known=known)[0].message


def test_without_definitions_a_typo_in_a_container_is_still_found() -> None:
    made = world.job()
    world.edited(made[1], f"{BOX} imagePullPolice", "Always")
    found = [f for f in world.check(*made) if f.rule == "schema"]
    assert [f.hint for f in found] == ["did you mean imagePullPolicy?"]


def test_a_rule_that_cannot_be_evaluated_is_a_fault() -> None:
    schema = {
        "type": "object",
        cel_rules.RULES: [{"rule": "self.a > 1"}, {"rule": "self.b >"}, {"rule": "oldSelf"}],
    }
    found = [fault.message for fault in cel_rules.broken(schema, {"c": 1})]
    assert len(found) == 2
    assert all("cannot be evaluated" in message for message in found)
    first = next(cel_rules.broken(schema, {"a": 1}))
    assert first.message == "the rule `self.a > 1` does not hold"


def test_rules_are_looked_for_in_properties_items_and_maps() -> None:
    rule = {cel_rules.RULES: [{"rule": "self != 'x'", "message": "an x"}]}
    schema = {
        "properties": {
            "one": rule,
            "list": {"items": rule},
            "map": {"additionalProperties": rule},
        }
    }
    value = {"one": "x", "list": ["a", "x"], "map": {"k": "x"}}
    assert [f.path for f in cel_rules.broken(schema, value)] == [("one",), ("list", 1), ("map", "k")]


def test_a_structural_schema_is_converted_as_the_api_server_means_it() -> None:
    schema = {
        "type": "object",
        "required": ["a", "b"],
        "properties": {
            "a": {"type": "integer", "default": 3, "nullable": True},
            "b": {"x-kubernetes-int-or-string": True, "anyOf": [{"type": "integer"}, {"type": "string"}]},
            "c": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
            "d": {
                "type": "array",
                "items": {"type": "object", "properties": {"e": {"type": "string", "default": "f"}}},
            },
        },
    }
    made = converted(schema)
    assert made["required"] == ["b"]
    assert made["additionalProperties"] is False
    assert made["properties"]["a"]["type"] == ["integer", "null"]
    assert made["properties"]["b"] == {"type": ["integer", "string"]}
    assert "additionalProperties" not in made["properties"]["c"]
    assert filled(schema, {"b": None, "d": [{}]}) == {"a": 3, "d": [{"e": "f"}]}
    assert filled(schema, {"a": None}) == {"a": None}


BROKEN_POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": 3},
    "spec": {
        "containers": [{"image": "x", "prots": 1, "ports": [{"containerPort": "x"}]}],
        "hostNetwork": "yes",
    },
}


def test_all_faults_of_a_core_object_are_told_where_the_library_stops_at_the_first() -> None:
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(BROKEN_POD, "1.28", strict=True)
    found = {written(f.path): f.message for f in CoreSchemas("1.28").check(BROKEN_POD) or ()}
    assert found == {
        "metadata.name": "3 is not a text",
        "spec.containers[0].name": "the field 'name' is missing",
        "spec.containers[0].prots": "unknown field 'prots'",
        "spec.containers[0].ports[0].containerPort": "'x' is not a whole number",
        "spec.hostNetwork": "'yes' is not true or false",
    }


@pytest.mark.parametrize("version", ["1.28", "1.37"])
def test_we_and_the_library_agree_on_what_is_valid(version: str) -> None:
    # The library reads a megabyte for each call: one object of a few kinds will do.
    platform = [*world.documents(world.PLATFORM), *world.documents(world.CRONJOB)]
    by_kind = {each["kind"]: each for each in platform}
    for kind in ("Role", "NetworkPolicy", "CronJob"):
        value = by_kind[kind]
        assert list(CoreSchemas(version).check(value) or ()) == []
        kubernetes_validate.validate(value, version, strict=True)
        broken = copy.deepcopy(value)
        broken["metadata"]["nmae"] = "a"
        assert len(list(CoreSchemas(version).check(broken) or ())) == 1
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, version, strict=True)


def test_the_library_knows_no_custom_kinds_and_we_do_not_pass_over_them() -> None:
    """A pinned behaviour: its function raises what is no ValidationError."""
    with pytest.raises(kubernetes_validate.SchemaNotFoundError):
        kubernetes_validate.validate(world.job()[1], "1.28", strict=True)


def test_a_kind_that_a_version_has_given_up_is_told() -> None:
    gone = {
        "apiVersion": "policy/v1beta1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": "a"},
        "spec": {},
    }
    found = [f.message for f in world.check(gone) if f.rule == "schema"]
    assert found == ["Kubernetes 1.28 has no policy/v1beta1 PodDisruptionBudget"]


@pytest.mark.parametrize(("wanted", "used"), [("1.28", "1.28"), ("v1.30.4", "1.30"), ("1.37", "1.37")])
def test_a_version_of_kubernetes_is_found(wanted: str, used: str) -> None:
    assert CoreSchemas(wanted).version == used


@pytest.mark.parametrize("wanted", ["1.9", "1.99", "2.0", "", "latest", "1.28x9"])
def test_a_version_that_there_is_not_is_refused(wanted: str) -> None:
    with pytest.raises(UsageError, match="no schemas of Kubernetes") as refused:
        CoreSchemas(wanted)
    assert "1.28" in refused.value.hint


def test_definitions_are_found_in_json_too(tmp_path: Any) -> None:
    definition = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "spec": {
            "group": "ray.io",
            "names": {"kind": "RayJob"},
            "versions": [{"name": "v1", "served": True, "schema": {"openAPIV3Schema": {"type": "object"}}}],
        },
    }
    (tmp_path / "crds.json").write_text(json.dumps({"kind": "List", "items": [definition]}))
    loaded = crds.load(str(tmp_path))
    assert loaded.knows("ray.io", "RayJob")
    assert not loaded.knows("other.io", "RayJob")
    assert not loaded.knows("ray.io", "RayCluster")


def test_a_folder_without_definitions_is_refused(tmp_path: Any) -> None:
    with pytest.raises(UsageError, match="no CRDs at"):
        crds.load(str(tmp_path / "nowhere"))
    with pytest.raises(UsageError, match="no CustomResourceDefinition"):
        crds.load(str(tmp_path))
    (tmp_path / "a.yaml").write_text("kind: CustomResourceDefinition\nspec: {names: {kind: RayJob}\n")
    with pytest.raises(UsageError, match="the CRDs cannot be read: line"):
        crds.load(str(tmp_path)).knows("ray.io", "RayJob")
