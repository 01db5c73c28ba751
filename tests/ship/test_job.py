"""What becomes a job, and what is refused before anything is sent to a cluster."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from manifests import DIGEST, IMAGE, asking, job, sweep, wishes

from hpsearch.errors import UsageError
from hpsearch.ship import fit, making
from hpsearch.ship.job import Gi, Group, Job, Schedule
from hpsearch.spec.model import Program, Resources, Tracking
from hpsearch.spec.reading import parse


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("auto_mpg.yaml", "auto-mpg"),
        ("Mnist CNN (v2).yaml", "mnist-cnn-v2"),
        ("7layers.yaml", "s-7layers"),
        ("a" * 60 + ".yaml", "a" * 47),
        ("a" * 46 + "_b.yaml", "a" * 46),
    ],
)
def test_a_files_name_becomes_that_of_a_rayjob(file: str, name: str) -> None:
    assert job(replace(sweep(), source=file)).name == name


def test_a_job_has_one_study_whatever_attempt_runs_it() -> None:
    made = job(name="nightly-29372597-r", study="auto_mpg-20261125T011700Z")
    assert made.name == "nightly-29372597-r"
    words = made.entrypoint.split()
    assert words[words.index("--study") + 1] == "auto_mpg-20261125T011700Z"
    assert words[words.index("--resume") + 1] == "auto"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"image": "registry.example/hpsearch:latest"}, "names no digest"),
        ({"image": "registry.example/hpsearch@sha256:abc"}, "names no digest"),
        ({"name": "a" * 48}, "at most 47"),
        ({"name": "Auto_MPG"}, "'Auto_MPG'"),
        ({"name": "1st"}, "a letter first"),
        ({"study": "../elsewhere"}, "'../elsewhere'"),
        ({"study": "a;reboot"}, "'a;reboot'"),
        ({"namespace": "Kube_System"}, "'Kube_System'"),
        ({"claim": "my claim"}, "'my claim'"),
        ({"claim": "gs://bucket/studies"}, "cannot lie in an object store"),
        ({"store_secret": "Store"}, "'Store'"),
        ({"store_secret": "store:ur l"}, "'ur l'"),
        ({"queue": "hpsearch", "profile": "retain"}, "profile retain"),
        ({"tracking_uri": "sqlite:///mlflow.db"}, "is a place of one pod"),
        ({"tracking_uri": "https://user:hunter22@mlflow.example"}, "by a Secret's name"),
        ({"tracking_uri": "http://mlflow:5000/$(id)"}, "a shell may act"),
        ({"storage": "/data"}, "'/data' is a directory of one pod"),
        ({"storage": "data"}, "'data' is relative to a directory"),
        ({"storage": "s3://bucket/$(id)"}, "a shell may act"),
        ({"storage": "s3://me:hunter22@host/x"}, "holds a password"),
        ({"storage_secret": "keys"}, "'keys' is for --storage s3://"),
        ({"storage": "gs://bucket", "storage_secret": "keys"}, "'keys' is for --storage s3://"),
        ({"storage": "s3://bucket", "storage_secret": "My Keys"}, "'My Keys'"),
        ({"head_memory": "8GB"}, "'8GB'"),
        ({"head_memory": "1Gi"}, "the head has 1Gi of memory"),
        ({"groups": ("head:max=1",)}, "'head'"),
        ({"groups": ("a:max=1", "a:max=2")}, "two worker groups"),
        ({"groups": ("a:max=1,min=2",)}, "2 replicas at least"),
        ({"groups": ("a:max=0",)}, "max: "),
        ({"groups": ("a:cpus=4",)}, "max= is missing"),
        ({"groups": ("a:max=1,disk=3",)}, "'disk'"),
        ({"groups": ("a:max=many",)}, "'many'"),
        ({"groups": tuple(f"g{n}:max=1" for n in range(17))}, "16"),
    ],
)
def test_what_cannot_be_is_refused_with_its_value(given: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as refused:
        job(**given)
    assert said in refused.value.message
    assert refused.value.exit_code == 2
    assert refused.value.hint
    assert "hunter22" not in str(refused.value)


def test_a_file_that_holds_a_secret_is_refused_with_its_line_and_without_it() -> None:
    text = sweep().text + "# exported with API_KEY=hunter2222\n"
    with pytest.raises(UsageError) as refused:
        job(replace(sweep(), text=text))
    assert f"auto_mpg.yaml:{text.count(chr(10))} holds what looks like a secret" in refused.value.message
    assert "hunter2222" not in str(refused.value)


def test_a_sweep_that_keeps_what_it_makes_in_one_pod_is_refused() -> None:
    for spec in (
        replace(sweep(), tracking=Tracking(uri="sqlite:////tmp/mlflow.db")),
        replace(sweep(), program=Program(job_dir="/tmp/output")),
        replace(sweep(), program=Program(job_dir="output")),
        replace(sweep(), program=Program(output="/mnt/out")),
    ):
        with pytest.raises(UsageError, match="one pod"):
            job(spec)
    assert job(replace(sweep(), program=Program(job_dir="/var/lib/hpsearch/studies/out")))
    assert job(replace(sweep(), program=Program(output="gs://bucket/out")))


def test_a_file_that_names_its_mlflow_keeps_it_and_one_that_names_none_gets_the_clusters() -> None:
    assert job(replace(sweep(), tracking=Tracking(uri="https://mlflow.example"))).tracking_uri is None
    assert job().entrypoint.endswith(" --tracking-uri http://mlflow:5000")


def test_a_text_too_large_for_a_config_map_is_refused_in_words() -> None:
    with pytest.raises(UsageError, match=r"1,0\d\d,\d\d\d bytes, and a ConfigMap takes 1,048,576"):
        job(replace(sweep(), text=sweep().text + "# more\n" * 150_000))


# -- fit -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("group", "resources", "trials"),
    [
        ("a:cpus=4,max=1", Resources(cpu=1), 4),
        ("a:cpus=3.5,max=1", Resources(cpu=1), 4),  # Ray counts the limit rounded up
        ("a:cpus=4,max=1", Resources(cpu=0.5), 8),
        ("a:cpus=1,max=1", Resources(cpu=0.1), 10),
        ("a:cpus=4,max=1", Resources(cpu=5), 0),
        ("a:cpus=8,gpus=2,max=1", Resources(cpu=1, gpu=1), 2),
        ("a:cpus=8,gpus=1,max=1", Resources(cpu=1, gpu=0.25), 4),
        ("a:cpus=8,gpus=2,max=1", Resources(cpu=1, gpu=0.6), 2),  # no trial spans two
        ("a:cpus=8,gpus=1,max=1", Resources(cpu=1, gpu=2), 0),
        ("a:cpus=8,memory=8Gi,max=1", Resources(cpu=1, memory=2 * Gi), 3),
        ("a:cpus=8,memory=8Gi,max=1", Resources(cpu=1, memory=8 * Gi), 0),  # Ray itself needs some
    ],
)
def test_a_worker_holds_as_many_trials_as_ray_will_put_there(
    group: str, resources: Resources, trials: int
) -> None:
    assert fit.places(making.group(group), resources) == trials


def test_a_trial_that_fits_no_worker_is_refused_with_what_both_have() -> None:
    with pytest.raises(UsageError) as refused:
        job(asking(cpu=8, gpu=1, memory=4 * Gi), groups=("a:cpus=4,max=9", "b:cpus=16,memory=32Gi,max=9"))
    assert "asks for 8 CPUs, 1 GPUs, 4Gi of memory" in refused.value.message
    assert "one of a has 4 CPUs, 0 GPUs" in refused.value.message
    assert "--group" in refused.value.hint


def test_more_trials_at_once_than_all_workers_hold_are_refused() -> None:
    groups = ("a:cpus=4,max=2", "b:cpus=2,max=1")
    assert job(asking(10, cpu=1), groups=groups)
    with pytest.raises(UsageError, match=r"is 11, all workers hold 10 trials \(a 2 x 4, b 1 x 2\)"):
        job(asking(11, cpu=1), groups=groups)


def test_a_trial_of_several_processes_needs_a_place_for_each() -> None:
    groups = ("a:cpus=4,max=2",)
    assert job(asking(2, cpu=1, workers=4), groups=groups)
    with pytest.raises(UsageError, match=r"is 3, all workers hold 2 trials of 4 processes each \(a 2 x 4\)"):
        job(asking(3, cpu=1, workers=4), groups=groups)
    with pytest.raises(UsageError, match="5 CPUs, 0 GPUs for each of 2 processes"):
        job(asking(1, cpu=5, workers=2), groups=groups)


@pytest.mark.parametrize("queue", [None, "hpsearch"])
@pytest.mark.parametrize(
    "asked",
    [
        {"cpu": 1},
        {"cpu": 0.25},
        {"cpu": 3},
        {"cpu": 16, "memory": 60 * Gi},
        {"cpu": 2, "gpu": 1},
        {"cpu": 1, "gpu": 0.3},
        {"cpu": 4, "gpu": 4, "memory": 100 * Gi},
        {"cpu": 0, "memory": Gi},
        {"cpu": 1, "gpu": 1, "workers": 8},
    ],
)
@pytest.mark.parametrize("parallel", [1, 2, 7, 64])
def test_workers_that_are_made_to_measure_hold_what_the_file_asks_for(
    asked: dict[str, Any], parallel: int, queue: str | None
) -> None:
    spec = asking(parallel, **asked)
    made = job(spec, queue=queue).platform
    for group in made.groups:
        at_once = fit.places(group, spec.resources)
        needed = parallel * spec.resources.workers
        assert at_once * group.max_replicas >= needed
        assert at_once * (group.max_replicas - 1) < needed, "more workers than are needed"
    assert [group.name for group in made.groups] == (["workers"] if queue else ["spot", "on-demand"])


def test_spot_workers_grow_first() -> None:
    spot, on_demand = job().platform.groups
    assert spot.spot and not on_demand.spot
    assert spot.priority > on_demand.priority


def test_a_group_is_read_from_its_text() -> None:
    text = "big:cpus=7.5,memory=24Gi,gpus=1,storage=50Gi,min=1,max=3,priority=4,spot"
    text += ",node.cloud.google.com/gke-accelerator=nvidia-l4,taint.team=vision,taint.busy="
    assert making.group(text) == Group.model_validate(
        {
            "name": "big",
            "cpus": 7.5,
            "memory": 24 * Gi,
            "gpus": 1,
            "ephemeral_storage": 50 * Gi,
            "min_replicas": 1,
            "max_replicas": 3,
            "priority": 4,
            "spot": True,
            "node_selector": (("cloud.google.com/gke-accelerator", "nvidia-l4"),),
            "tolerations": ({"key": "team", "value": "vision"}, {"key": "busy"}),
        }
    )


# -- the model itself ------------------------------------------------------------------------------------


def test_a_job_is_frozen_and_knows_its_fields() -> None:
    made = job()
    with pytest.raises(ValueError, match="frozen"):
        made.name = "other"  # type: ignore[misc]
    with pytest.raises(ValueError, match="extra"):
        Job.model_validate(made.model_dump() | {"owner": "me"})


def test_a_job_shows_no_sweep_in_its_repr() -> None:
    assert "learning_rate" not in repr(job())


def test_what_is_hashed_is_what_the_driver_reads(tmp_path: Path) -> None:
    """A BOM is no part of the text, and line ends stay as they are."""
    text = sweep().text.replace("\n", "\r\n")
    spec = parse(text, "auto_mpg.yaml").spec
    assert spec is not None
    made = job(spec)
    assert made.sweep.text == text
    assert made.sweep.sha256 == spec.sha256


def test_a_schedule_has_a_moment_in_a_zone() -> None:
    made = making.job(sweep(), wishes(), Schedule(name="nightly", scheduled_time="2026-11-25T01:17:00Z"))
    assert made.schedule is not None
    for time in ("", "2026-11-25T01:17:00", "tomorrow"):
        with pytest.raises(ValueError, match="scheduled_time"):
            Schedule(name="nightly", scheduled_time=time)


def test_the_image_and_its_digest_are_one() -> None:
    assert job().platform.image == IMAGE
    assert job().platform.digest == DIGEST
