"""The CronJob of a schedule: every line that keeps a night from being lost, doubled, or never ending."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from manifests import IMAGE, asked, conform, job, parsed, sweep, wishes

from hpsearch.errors import HpsearchError, Interrupted, NoSuccess, ServiceUnavailable, StudyBusy, UsageError
from hpsearch.ship import making
from hpsearch.ship.choices import Overlap, Profile, Submitter
from hpsearch.ship.cronjob import FINAL_CODES, Timetable, cronjob, options, patience

NIGHTLY = Timetable(
    name="nightly",
    cron="17 4 * * *",
    time_zone="Europe/Berlin",
    image=IMAGE,
    config_map="nightly-sweep",
    patience=90_000,
    period=86_400,
)


def spec_of(**given: Any) -> Any:
    made = cronjob(replace(NIGHTLY, **given))
    assert conform([made]) == 1
    return made["spec"]


def test_a_tick_has_a_zone_a_window_and_a_history() -> None:
    spec = spec_of()
    assert (spec["schedule"], spec["timeZone"]) == ("17 4 * * *", "Europe/Berlin")
    assert spec["startingDeadlineSeconds"] == 300
    assert (spec["successfulJobsHistoryLimit"], spec["failedJobsHistoryLimit"]) == (3, 3)
    assert spec["suspend"] is False
    assert spec_of(suspended=True)["suspend"] is True


@pytest.mark.parametrize(
    ("overlap", "policy", "window"),
    [(Overlap.SKIP, "Forbid", 300), (Overlap.QUEUE, "Forbid", 86_400), (Overlap.REPLACE, "Replace", 300)],
)
def test_what_a_tick_does_while_another_runs_is_kubernetes_policy_and_the_launchers_word(
    overlap: Overlap, policy: str, window: int
) -> None:
    spec = spec_of(overlap=overlap)
    assert spec["concurrencyPolicy"] == policy
    assert spec["startingDeadlineSeconds"] == window
    words = spec["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]["args"]
    assert words[words.index("--overlap") + 1] == overlap
    assert "--wait" in words, "Forbid protects only because the launcher waits"


def test_a_window_is_never_shorter_than_the_controllers_own_pace() -> None:
    assert spec_of(overlap=Overlap.QUEUE, period=5)["startingDeadlineSeconds"] == 10


def test_an_end_that_the_same_command_will_meet_again_fails_the_job_and_a_drained_node_costs_nothing() -> (
    None
):
    job_spec = spec_of()["jobTemplate"]["spec"]
    assert job_spec["backoffLimit"] == 4
    ignore, fail = job_spec["podFailurePolicy"]["rules"]
    assert ignore == {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    assert fail["action"] == "FailJob"
    [container] = job_spec["template"]["spec"]["containers"]
    assert fail["onExitCodes"]["containerName"] == container["name"]
    assert fail["onExitCodes"]["values"] == [2, 3, 4, 74]
    assert job_spec["template"]["spec"]["restartPolicy"] == "Never", "failure policies need it"


def test_codes_that_are_worth_another_try_are_none_of_the_final_ones() -> None:
    again: tuple[type[HpsearchError], ...] = (ServiceUnavailable, StudyBusy, Interrupted)
    assert not {kind.exit_code for kind in again} & set(FINAL_CODES)
    assert {UsageError.exit_code, NoSuccess.exit_code} <= set(FINAL_CODES)


def test_a_launcher_knows_its_job_and_has_the_one_account_with_rights() -> None:
    pod = spec_of()["jobTemplate"]["spec"]["template"]["spec"]
    assert pod["serviceAccountName"] == "hpsearch-launch"
    assert pod["automountServiceAccountToken"] is True
    [container] = pod["containers"]
    path = "metadata.labels['batch.kubernetes.io/job-name']"
    assert container["env"] == [{"name": "JOB_NAME", "valueFrom": {"fieldRef": {"fieldPath": path}}}]
    assert container["args"][:5] == [
        "launch",
        "/etc/hpsearch/sweep.yaml",
        "--job-name",
        "$(JOB_NAME)",
        "--wait",
    ]
    assert "command" not in container, "the image's entrypoint is hpsearch"
    assert {"name": "sweep", "configMap": {"name": "nightly-sweep"}} in pod["volumes"]


def test_a_launcher_waits_longer_than_all_clusters_of_its_job_may_take() -> None:
    made = job(deadline=3600.0, retries=2)
    one = 3600 + made.platform.pre_running + 300
    limit = patience(made.platform, made.deadline)
    assert limit is not None and limit > 3 * one
    assert spec_of(patience=limit)["jobTemplate"]["spec"]["activeDeadlineSeconds"] == limit


def test_under_a_queue_nothing_limits_the_wait_for_ones_turn() -> None:
    made = job(queue="hpsearch")
    assert patience(made.platform, made.deadline) is None
    assert "activeDeadlineSeconds" not in spec_of(patience=None)["jobTemplate"]["spec"]


def test_a_name_leaves_room_for_those_of_jobs_and_rayjobs() -> None:
    assert cronjob(replace(NIGHTLY, name="a" * 36))
    for name in ("a" * 37, "Nightly", "1st"):
        with pytest.raises(ValueError, match=name):
            cronjob(replace(NIGHTLY, name=name))


def test_the_words_of_a_launcher_ask_for_the_same_job() -> None:
    given = wishes(
        sweep="auto_mpg",
        study="s",
        profile=Profile.RETAIN,
        submitter=Submitter.NONE,
        groups=("a:max=2", "b:max=1,spot"),
        head_cpus=3.5,
        head_memory="16Gi",
        claim="other",
        store_secret="stores:dsn",
        mlflow_secret="mlflow",
        tracking_uri="https://mlflow.example",
        storage="s3://sweeps/nightly",
        storage_secret="keys",
        deadline=1_234_567.0,
        retries=5,
    )
    words = options(given)
    read = asked(words)
    numbers = {"head_cpus": float(read.head_cpus), "deadline": float(read.deadline or 0)}
    assert replace(read, **numbers, retries=int(read.retries)) == given
    assert making.job(sweep(), given) == making.job(sweep(), replace(read, **numbers, retries=5))
    assert options(wishes()) == []
    # The launcher's own door reads them, too.
    launched = parsed(["launch", "sweep.yaml", "--job-name", "j", *words]).params
    assert launched["group"] == ["a:max=2", "b:max=1,spot"]
    assert launched["deadline"] == 1_234_567.0
