"""A job as Kubernetes objects: each field that matters, each pod as it will run, the same bytes each time."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st
from manifests import (
    DIGEST,
    IMAGE,
    ROOT,
    SWEEP,
    asking,
    conform,
    effective,
    job,
    parsed,
    rendered,
    sweep,
    templates,
    texts,
    wishes,
)

from hpsearch.ship import making, pods, render
from hpsearch.ship.choices import Profile, Submitter
from hpsearch.ship.job import Gi, Schedule
from hpsearch.ship.lint import checks, crds, sources

CRDS = ROOT.parent / "shared/kuberay_crds/v1.7.0"
SHELL = set(";&|<>`$\\\"'(){}*?!#~\n")
# The kinds of volumes that the restricted standard knows.
ALLOWED = {"configMap", "emptyDir", "persistentVolumeClaim", "projected", "secret"}
TICK = Schedule(name="nightly", scheduled_time="2026-11-25T01:17:00Z")
# Every way to render that there is.
WAYS: dict[str, dict[str, Any]] = {
    "plain": {},
    "retain": {"profile": Profile.RETAIN},
    "kueue": {"queue": "hpsearch", "queue_priority": "nightly"},
    "no submitter": {"submitter": Submitter.NONE},
    "database": {"store_secret": "hpsearch-store", "mlflow_secret": "hpsearch-mlflow"},
    "bucket": {"storage": "s3://sweeps/nightly", "storage_secret": "hpsearch-storage"},
    "gpu": {"groups": ("gpu:cpus=8,memory=32Gi,gpus=2,max=4,spot,taint.team=a,node.zone=b",)},
    "many": {"groups": tuple(f"g{n}:max=1" for n in range(16)), "queue": "q"},
}


@pytest.fixture(scope="session")
def definitions() -> crds.Crds:
    if not CRDS.is_dir():
        pytest.skip(f"KubeRay's CRDs are not at {CRDS}: NO schema of ray.io was checked")
    return crds.load(str(CRDS))


def spec_of(**given: Any) -> Any:
    return rendered(**given)["RayJob"]["spec"]


# -- the RayJob ------------------------------------------------------------------------------------------


def test_the_operator_is_told_what_no_default_of_it_would_do() -> None:
    spec = spec_of()
    cluster = spec["rayClusterSpec"]
    assert spec["backoffLimit"] == 2
    assert spec["preRunningDeadlineSeconds"] == 1800
    assert spec["submitterConfig"] == {"backoffLimit": 3}
    assert cluster["rayVersion"] == metadata.version("ray")
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["headGroupSpec"]["serviceType"] == "ClusterIP"
    assert cluster["headGroupSpec"]["enableIngress"] is False
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"


def test_what_is_not_ours_to_set_is_never_written() -> None:
    never = {"suspend", "managedBy", "clusterSelector", "runtimeEnvYAML", "entrypointNumCpus", "onFailure"}
    never |= {
        "entrypointNumGpus",
        "entrypointResources",
        "gcsFaultToleranceOptions",
        "networkPolicy",
        "jobId",
    }
    never |= {"tlsOptions", "enableK8sTokenAuth", "RAY_enable_autoscaler_v2", "hostPath", "onSuccess"}
    for way in WAYS.values():
        for each in rendered(**way).values():
            assert not never & set(texts(each))


def test_the_operators_deadline_comes_after_the_sweeps_own() -> None:
    """It deletes pods and stops nothing; it counts from the cluster's creation, the driver from its start."""
    for given_, own in ((None, 24 * 3600), (600.0, 600)):
        spec = spec_of(deadline=given_)
        words = spec["entrypoint"].split()
        assert words[words.index("--deadline") + 1] == f"{own}s"
        assert spec["activeDeadlineSeconds"] == own + spec["preRunningDeadlineSeconds"] + 300
    limited = replace(sweep(), limits=replace(sweep().limits, study_timeout=7200.0))
    assert "--deadline 7200s" in rendered(limited)["RayJob"]["spec"]["entrypoint"]


def test_the_two_profiles_exclude_each_other() -> None:
    shutdown = spec_of()
    assert shutdown["shutdownAfterJobFinishes"] is True
    assert shutdown["ttlSecondsAfterFinished"] == 300
    assert "deletionStrategy" not in shutdown
    retain = spec_of(profile=Profile.RETAIN)
    assert retain["shutdownAfterJobFinishes"] is False
    assert "ttlSecondsAfterFinished" not in retain
    rules = retain["deletionStrategy"]["deletionRules"]
    assert [rule["policy"] for rule in rules] == ["DeleteCluster", "DeleteCluster"]
    assert [rule["condition"] for rule in rules] == [
        {"jobStatus": "SUCCEEDED", "ttlSeconds": 0},
        {"jobDeploymentStatus": "Failed", "ttlSeconds": 1800},
    ]


def test_all_three_counts_of_workers_are_always_written() -> None:
    for way in WAYS.values():
        for group in spec_of(**way)["rayClusterSpec"]["workerGroupSpecs"]:
            assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"] < 2**31 - 1


def test_workers_come_and_go_unless_a_queue_admits_them_all() -> None:
    elastic = spec_of(groups=("a:max=3,min=1",))["rayClusterSpec"]
    assert elastic["enableInTreeAutoscaling"] is True
    options = elastic["autoscalerOptions"]
    assert (options["version"], options["upscalingMode"], options["idleTimeoutSeconds"]) == (
        "v2",
        "Conservative",
        300,
    )
    assert options["resources"]["limits"]["memory"] == "1Gi"
    [group] = elastic["workerGroupSpecs"]
    assert [group[name] for name in ("replicas", "minReplicas", "maxReplicas")] == [1, 1, 3]
    made = rendered(groups=("a:max=3,min=1",), queue="gpus", queue_priority="high")["RayJob"]
    fixed = made["spec"]["rayClusterSpec"]
    assert fixed["enableInTreeAutoscaling"] is False
    assert "autoscalerOptions" not in fixed
    [group] = fixed["workerGroupSpecs"]
    assert [group[name] for name in ("replicas", "minReplicas", "maxReplicas")] == [3, 3, 3]
    assert not {"idleTimeoutSeconds", "priority"} & set(group), "they need the autoscaler"
    assert made["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpus"
    assert made["metadata"]["labels"]["kueue.x-k8s.io/priority-class"] == "high"
    assert made["spec"]["shutdownAfterJobFinishes"] is True


def test_without_a_submitter_the_operator_submits_over_http() -> None:
    spec = spec_of(submitter=Submitter.NONE)
    assert spec["submissionMode"] == "HTTPMode"
    assert not {"submitterPodTemplate", "submitterConfig"} & set(spec)


def test_ray_gives_trials_what_it_does_not_need_itself() -> None:
    [group] = spec_of(groups=("a:cpus=4,memory=16Gi,max=1",))["rayClusterSpec"]["workerGroupSpecs"]
    params = group["rayStartParams"]
    assert int(params["memory"]) == 16 * Gi - Gi // 2 - Gi
    assert int(params["object-store-memory"]) == Gi // 2
    assert all(isinstance(value, str) for value in params.values())


def test_metadata_holds_names_and_hashes_only() -> None:
    made = making.job(sweep(), wishes(store_secret="hpsearch-store", git_sha="0" * 40), TICK)
    assert render.ray_job(made)["spec"]["metadata"] == {
        "sweep": "auto_mpg",
        "study": "auto-mpg",
        "rayjob": "auto-mpg",
        "space_sha256": sweep().sha256,
        "image_digest": DIGEST,
        "git_sha": "0" * 40,
        "schedule": "nightly",
        "scheduled_time": TICK.scheduled_time,
    }


# -- what is run -----------------------------------------------------------------------------------------


def test_the_entrypoint_is_a_command_that_exists_and_holds_nothing_that_a_shell_acts_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for way in WAYS.values():
        entrypoint = spec_of(**way)["entrypoint"]
        assert not SHELL & set(entrypoint)
        program, *words = entrypoint.split()
        assert program == "hpsearch"
        found = parsed(words).params
        assert found["study"] == "auto-mpg"
        assert found["resume"] == "auto"
        assert found["address"] == "auto"
        assert (found["deadline"], found["start_timeout"]) == (86400.0, 1800.0)


def test_the_submitter_hands_over_the_entrypoint_and_finds_ray_where_the_operator_says() -> None:
    spec = spec_of()
    [container] = spec["submitterPodTemplate"]["spec"]["containers"]
    words = container["command"]
    assert words[:4] == ["hpsearch", "submit", "--wait", "--as-submitter"]
    assert words[words.index("--address") + 1] == "http://$(RAY_DASHBOARD_ADDRESS)"
    assert words[words.index("--submission-id") + 1] == "$(RAY_JOB_SUBMISSION_ID)"
    assert words[words.index("--") + 1 :] == spec["entrypoint"].split()
    assert "args" not in container
    found = parsed(words[1:])
    assert found.params["as_submitter"] and found.params["wait"]
    # What follows `--` is handed on as it stands.
    assert spec["entrypoint"].split() in found.params.values()


def hook(template: Any) -> list[str]:
    command: list[str] = template["spec"]["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
    return command


def test_a_head_that_ends_tells_its_driver_first_and_leaves_it_time() -> None:
    head = templates(rendered()["RayJob"])["head"]
    program, *words = hook(head)
    assert program == "hpsearch"
    assert parsed(words).params["here"] is True
    assert parsed(words).params["within"] == 50
    env = {each["name"]: each.get("value") for each in head["spec"]["containers"][0]["env"]}
    drain = float(env["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"])
    assert env["RAY_JOB_STOP_WAIT_TIME_S"] == "45"
    assert 50 + drain < head["spec"]["terminationGracePeriodSeconds"] == 90


def test_a_worker_that_ends_says_so_by_a_file_that_its_trials_supervisor_reads(tmp_path: Path) -> None:
    worker = templates(rendered()["RayJob"])["spot"]
    container = worker["spec"]["containers"][0]
    env = {each["name"]: each.get("value") for each in container["env"]}
    command = hook(worker)
    assert command[-1] == env["HPSEARCH_PREEMPTED"]
    # The folder is one that the container may write to, and that does not outlive the pod.
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in worker["spec"]["volumes"]}
    assert "emptyDir" in volumes[mounts[str(Path(command[-1]).parent)]]
    marker = tmp_path / "marker"
    subprocess.run([*command[:-1], str(marker)], check=True)
    assert marker.exists()
    assert float(env["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"]) < 90
    assert worker["spec"]["restartPolicy"] == "Never", "a container that starts again would find the marker"


# -- pods ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
def test_every_pod_as_it_will_run_is_restricted(way: str) -> None:
    """Also what the operator injects: who waits for the head, the autoscaler."""
    spec = asking(2, cpu=1, gpu=1) if way == "gpu" else sweep()
    found = effective(rendered(spec, **WAYS[way])["RayJob"])
    names = {container["name"] for pod in found.values() for container in pod["containers"]}
    assert "wait-gcs-ready" in names
    assert ("autoscaler" in names) == ("queue" not in WAYS[way])
    for pod in found.values():
        security = pod["securityContext"]
        assert security["runAsNonRoot"] is True
        assert security["runAsUser"] == pods.USER
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
        assert all(set(volume) - {"name"} <= ALLOWED for volume in pod["volumes"])
        for container in pod["containers"]:
            own = container["securityContext"]
            assert own["allowPrivilegeEscalation"] is False
            assert own["readOnlyRootFilesystem"] is True
            assert own["capabilities"] == {"drop": ["ALL"]}
            assert {"cpu", "memory"} <= set(container["resources"]["limits"])
            assert container["image"] == IMAGE
            assert container["imagePullPolicy"] == "IfNotPresent"
            places = [mount["mountPath"] for mount in container["volumeMounts"]]
            assert len(places) == len(set(places)), "the operator mounts there, too"
            assert {mount["name"] for mount in container["volumeMounts"]} <= {
                volume["name"] for volume in pod["volumes"]
            }


def test_only_a_head_that_scales_has_a_token() -> None:
    for way in WAYS.values():
        made = rendered(**way)["RayJob"]
        elastic = made["spec"]["rayClusterSpec"]["enableInTreeAutoscaling"]
        for name, template in templates(made).items():
            account = template["spec"].get("serviceAccountName")
            if name == "head" and elastic:
                # The operator makes an account for it.
                assert account is None
                assert "automountServiceAccountToken" not in template["spec"]
            else:
                assert account == "hpsearch-run"
                assert template["spec"]["automountServiceAccountToken"] is False


def test_head_and_workers_are_guaranteed_what_they_may_use() -> None:
    made = rendered(asking(2, cpu=1, gpu=1), **WAYS["gpu"])["RayJob"]
    for name, template in templates(made).items():
        resources = template["spec"]["containers"][0]["resources"]
        assert resources["requests"] == resources["limits"], name
        assert {"cpu", "memory", "ephemeral-storage"} <= set(resources["limits"])
    limits = templates(made)["gpu"]["spec"]["containers"][0]["resources"]["limits"]
    assert limits == {"cpu": "8", "memory": "32Gi", "ephemeral-storage": "20Gi", "nvidia.com/gpu": "2"}


def test_room_on_a_pods_own_disk_is_less_than_its_limit() -> None:
    units = {"Gi": 2**30, "Mi": 2**20}
    for template in templates(rendered()["RayJob"]).values():
        limit = template["spec"]["containers"][0]["resources"]["limits"]["ephemeral-storage"]
        sizes = [v["emptyDir"]["sizeLimit"] for v in template["spec"]["volumes"] if "emptyDir" in v]
        assert sum(int(size[:-2]) * units[size[-2:]] for size in sizes) < int(limit[:-2]) * units[limit[-2:]]


def test_a_head_is_never_moved_and_never_on_a_node_that_goes_away() -> None:
    head = templates(rendered()["RayJob"])["head"]
    assert head["metadata"]["annotations"] == {
        "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
        "karpenter.sh/do-not-disrupt": "true",
    }
    [term] = head["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][
        "nodeSelectorTerms"
    ]
    refused = {each["key"]: (each["operator"], each["values"]) for each in term["matchExpressions"]}
    assert refused["karpenter.sh/capacity-type"] == ("NotIn", ["spot"])
    assert "tolerations" not in head["spec"]


def test_spot_workers_tolerate_what_keeps_others_off_and_gpu_workers_too() -> None:
    made = templates(rendered(asking(2, cpu=1, gpu=1), **WAYS["gpu"])["RayJob"])["gpu"]["spec"]
    assert {each["key"] for each in made["tolerations"]} == {
        "nvidia.com/gpu",
        "cloud.google.com/gke-spot",
        "kubernetes.azure.com/scalesetpriority",
        "team",
    }
    assert made["nodeSelector"] == {"zone": "b"}


# -- secrets ---------------------------------------------------------------------------------------------


def test_secrets_are_named_and_never_written(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HPSEARCH_STORE", "MLFLOW_TRACKING_PASSWORD", "RAY_AUTH_TOKEN"):
        monkeypatch.setenv(name, "hunter2hunter2")
    made = rendered(store_secret="stores:dsn", mlflow_secret="hpsearch-mlflow")
    assert "hunter2" not in render.dump(list(made.values()))
    env = templates(made["RayJob"])["head"]["spec"]["containers"][0]["env"]
    secret = {each["name"]: each["valueFrom"]["secretKeyRef"] for each in env if "valueFrom" in each}
    assert secret == {
        "HPSEARCH_STORE": {"name": "stores", "key": "dsn"},
        "MLFLOW_TRACKING_USERNAME": {"name": "hpsearch-mlflow", "key": "username"},
        "MLFLOW_TRACKING_PASSWORD": {"name": "hpsearch-mlflow", "key": "password"},
    }
    # Only the driver needs them.
    for name, template in templates(made["RayJob"]).items():
        for each in template["spec"]["containers"][0]["env"]:
            assert name == "head" or "valueFrom" not in each


def test_with_an_object_store_workers_have_its_keys_and_no_claim() -> None:
    made = rendered(storage="s3://sweeps/nightly", storage_secret="hpsearch-storage")
    job = made["RayJob"]["spec"]
    assert "--storage s3://sweeps/nightly" in job["entrypoint"]
    names = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL", "AWS_DEFAULT_REGION"]
    for name, template in templates(made["RayJob"]).items():
        spec = template["spec"]
        env = {each["name"]: each for each in spec["containers"][0]["env"]}
        claims = [each for each in spec["volumes"] if "persistentVolumeClaim" in each]
        mounted = {each["name"] for each in spec["containers"][0]["volumeMounts"]}
        assert bool(claims) == ("studies" in mounted) == (name == "head")
        if name == "submitter":
            assert not set(names) & set(env)
            continue
        places = [env[each]["valueFrom"]["secretKeyRef"] for each in names]
        assert [each["key"] for each in places] == names
        assert {each["name"] for each in places} == {"hpsearch-storage"}
        assert [each.get("optional", False) for each in places] == [False, False, True, True]
    # Another store's pods show who they are by their account alone; a directory is on the claim of all.
    assert "AWS_" not in render.dump(list(rendered(storage="gs://sweeps").values()))
    shared = rendered(storage="/var/lib/hpsearch/studies/files")
    for name in templates(shared["RayJob"]).keys() - {"submitter"}:
        assert "persistentVolumeClaim" in render.dump([templates(shared["RayJob"])[name]])


def test_the_driver_finds_the_tags_of_its_run_in_its_environment() -> None:
    made = making.job(sweep(), wishes(git_sha="a" * 40), TICK)
    env = templates(render.ray_job(made))["head"]["spec"]["containers"][0]["env"]
    told = {each["name"]: each.get("value") for each in env}
    assert told["HPSEARCH_TAGS"] == f"sweep=auto_mpg rayjob=auto-mpg image_digest={DIGEST} git_sha={'a' * 40}"
    assert told["HPSEARCH_SCHEDULE"] == "nightly"
    assert told["HPSEARCH_SCHEDULED_TIME"] == "2026-11-25T01:17:00Z"
    with pytest.MonkeyPatch.context() as patch:
        for name in ("HPSEARCH_TAGS", "HPSEARCH_SCHEDULE", "HPSEARCH_SCHEDULED_TIME"):
            patch.setenv(name, str(told[name]))
        found = parsed(made.entrypoint.split()[1:]).params
    assert len(found["tag"]) == 4
    assert (found["schedule"], found["scheduled_time"]) == ("nightly", "2026-11-25T01:17:00Z")


# -- config map, budget ----------------------------------------------------------------------------------


def test_the_config_map_holds_the_file_to_the_byte_and_cannot_be_changed() -> None:
    made = rendered()["ConfigMap"]
    assert made["immutable"] is True
    assert made["data"]["sweep.yaml"].encode() == SWEEP.read_bytes()
    head = templates(rendered()["RayJob"])["head"]["spec"]
    assert {"name": "sweep", "configMap": {"name": made["metadata"]["name"]}} in head["volumes"]
    mounts = {each["name"]: each["mountPath"] for each in head["containers"][0]["volumeMounts"]}
    assert f"{mounts['sweep']}/sweep.yaml" == job().entrypoint.split()[2]


def test_a_budget_keeps_the_head_of_its_own_job_alone() -> None:
    made = rendered()
    budget = made["PodDisruptionBudget"]["spec"]
    assert budget["minAvailable"] == 1
    assert budget["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
    selected = budget["selector"]["matchLabels"]
    assert selected.pop("ray.io/node-type") == "head"  # the operator's own label
    assert selected.items() <= templates(made["RayJob"])["head"]["metadata"]["labels"].items()
    assert selected != rendered(name="other")["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"]


# -- schemas, all rules ----------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
def test_what_is_rendered_passes_every_schema_and_every_rule(
    way: str, tmp_path: Path, definitions: crds.Crds
) -> None:
    spec = asking(2, cpu=1, gpu=1) if way == "gpu" else sweep()
    made = rendered(spec, **WAYS[way])
    assert conform(made.values()) == 2
    file = tmp_path / "job.yaml"
    file.write_text(render.dump(list(made.values())))
    verdict = checks.check(sources.gather([str(file)]), definitions, checks.Wishes())
    notes = [each.text for each in verdict.findings if each.level != "note"]
    assert notes == []


# -- the text --------------------------------------------------------------------------------------------


def test_the_same_job_is_the_same_bytes_in_another_process() -> None:
    code = "import sys; sys.path.insert(0, sys.argv[1]); import manifests; from hpsearch.ship import render\n"
    code += "sys.stdout.write(render.dump(render.render(manifests.job())))"
    said = subprocess.run(
        [sys.executable, "-c", code, str(Path(__file__).parent)],
        env={"PATH": "/usr/bin:/bin", "PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo", "LC_ALL": "C"},
        capture_output=True,
        check=True,
    )
    assert said.stdout.decode() == render.dump(render.render(job()))


@example("\x85")
@example("\r\u2028\ufeff")
@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), max_size=60))
def test_any_text_comes_back_from_yaml_as_it_was(text: str) -> None:
    for value in (text, f"a: 1\n{text}", f"{text}\n", f"{text}\n\n", f" {text}\n"):
        assert yaml.safe_load(render.dump([{"text": value}])) == {"text": value}


def test_the_sweep_stands_in_the_text_as_its_author_wrote_it() -> None:
    text = render.dump([rendered()["ConfigMap"]])
    for line in SWEEP.read_text().splitlines():
        assert f"    {line}\n" in text
