"""A launcher with nothing but our role starts a sweep once, whatever happens, and tells its end."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kube_kinds import JOB, KINDS, RAY_JOB
from kube_server import Fault
from kube_world import IMAGE, SPACE, SWEEP, World, crd_checks, world

from hpsearch.errors import Interrupted, ServiceUnavailable, StudyBusy, UsageError
from hpsearch.ship.api import Refused, Time
from hpsearch.ship.choices import Overlap
from hpsearch.ship.kuberay import Outcome
from hpsearch.ship.launch import QUOTA_WITHIN, Launcher, Wanted, job_of
from hpsearch.ship.making import Wishes
from hpsearch.ship.own_job import own_job, rayjob_name
from hpsearch.spec.model import Spec
from hpsearch.spec.reading import read

CONFIG_MAP = next(kind for kind in KINDS if kind.name == "ConfigMap")
BUDGET = next(kind for kind in KINDS if kind.name == "PodDisruptionBudget")
OWN, NAME = "nightly-29401577", "nightly-29401577-r"
LAUNCHER = f"system:serviceaccount:{SPACE}:hpsearch-launch"


@pytest.fixture(scope="session")
def spec(tmp_path_factory: pytest.TempPathFactory) -> Spec:
    path = tmp_path_factory.mktemp("sweep") / "demo.yaml"
    path.write_text(SWEEP)
    found = read(path).spec
    assert found is not None
    return found


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as made:
        yield made
        assert {request.user for request in made.api.requests} <= {LAUNCHER, "?"}


class Hurried:
    """A clock on which a pause is soon over, after which much time has passed; `pauses` counts them."""

    def __init__(self) -> None:
        self._skipped = 0.0
        self.pauses = 0
        self.paused = threading.Event()
        self.time = Time(lambda: time.monotonic() + self._skipped, self._sleep, lambda: 1.0)

    def _sleep(self, seconds: float) -> None:
        self._skipped += 5 * seconds
        self.pauses += 1
        self.paused.set()
        time.sleep(0.002)


class Launch:
    """A launcher on a thread; `end` is what it comes to."""

    def __init__(self, cluster: World, spec: Spec, wanted: Wanted, job: str = OWN, **wishes: Any) -> None:
        self.clock, self.said = Hurried(), []
        self.client = cluster.client(self.clock.time)
        prepare = lambda own: job_of(spec, Wishes(image="", **wishes), own)  # noqa: E731
        self.launcher = Launcher(self.client, prepare, wanted, self.said.append)
        self._ended: list[Outcome | BaseException] = []
        self._thread = threading.Thread(target=self._work, args=(job,), name="launcher")

    def start(self) -> Launch:
        self._thread.start()
        return self

    def _work(self, job: str) -> None:
        try:
            self._ended.append(self.launcher.launch(job))
        except BaseException as error:
            self._ended.append(error)

    def end(self, within: float = 60.0) -> Outcome:
        self._thread.join(within)
        assert self._ended, f"no end within {within} s: {self.said}"
        if isinstance(found := self._ended[0], BaseException):
            raise found
        return found

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()


Start = Callable[..., Launch]


@pytest.fixture
def launch(cluster: World, spec: Spec) -> Iterator[Start]:
    """Starts launchers of the cluster."""
    started: list[Launch] = []

    def start(wanted: Wanted | None = None, job: str = OWN, **wishes: Any) -> Launch:
        made = Launch(cluster, spec, wanted or Wanted(), job, **wishes)
        started.append(made)
        return made.start()

    yield start
    for each in started:
        each._thread.join(0.1)
        assert not each.alive, f"a launcher is left: {each.said}"


def watched(cluster: World, times: int = 1) -> None:
    cluster.api.wait_for("GET", "watch=true", times)


def succeed(cluster: World) -> None:
    cluster.set_status({"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"})


def everything(cluster: World) -> list[list[str]]:
    return [
        [each["metadata"]["name"] for each in cluster.store.list(kind, SPACE)]
        for kind in (RAY_JOB, CONFIG_MAP, BUDGET)
    ]


ALL = [[NAME], [f"{NAME}-sweep"], [f"{NAME}-head"]]


# -- what is created --------------------------------------------------------------------------------


def test_three_objects_are_created_each_owned_by_the_one_before(cluster: World, launch: Start) -> None:
    own = cluster.own_job()
    launcher = launch()
    watched(cluster)
    made = [request.target.rpartition("/")[2].split("?")[0] for request in cluster.api.asked("POST")]
    assert made == ["rayjobs", "configmaps", "poddisruptionbudgets"]
    rayjob = cluster.rayjob()
    (owner,) = rayjob["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["uid"], owner["controller"]) == ("Job", own["metadata"]["uid"], True)
    assert "blockOwnerDeletion" not in owner
    for kind, name in ((CONFIG_MAP, f"{NAME}-sweep"), (BUDGET, f"{NAME}-head")):
        (owner,) = cluster.store.get(kind, SPACE, name)["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["uid"]) == ("RayJob", rayjob["metadata"]["uid"])
        assert "blockOwnerDeletion" not in owner
    sweep = cluster.store.get(CONFIG_MAP, SPACE, f"{NAME}-sweep")
    assert (sweep["immutable"], sweep["data"]) == (True, {"sweep.yaml": SWEEP})
    assert all("fieldValidation=Strict" in request.target for request in cluster.api.asked("POST"))
    succeed(cluster)
    assert launcher.end() == Outcome("succeeded", 0)
    cluster.store.delete(JOB, SPACE, OWN)  # the Job takes all of it along
    assert everything(cluster) == [[], [], []]


def test_image_schedule_and_tick_come_from_the_launchers_own_job(cluster: World, launch: Start) -> None:
    cluster.own_job()
    launch(Wanted(wait=False)).end()
    rayjob = cluster.rayjob()
    template = rayjob["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]
    assert template["spec"]["containers"][0]["image"] == IMAGE
    assert rayjob["metadata"]["labels"]["hpsearch/schedule"] == "nightly"
    tags = rayjob["spec"]["metadata"]
    assert (tags["schedule"], tags["scheduled_time"]) == ("nightly", "2026-11-25T02:17:00Z")
    assert tags["study"] == "nightly-20261125T021700Z"
    assert "--study nightly-20261125T021700Z --resume auto" in rayjob["spec"]["entrypoint"]


def test_a_job_without_a_schedule_launches_a_study_of_its_own_name(cluster: World, launch: Start) -> None:
    cluster.own_job("by-hand", cron="")
    assert launch(Wanted(wait=False), "by-hand").end() == Outcome("started", 0)
    rayjob = cluster.rayjob("by-hand-r")
    assert "hpsearch/schedule" not in rayjob["metadata"]["labels"]
    assert "--study by-hand-r " in rayjob["spec"]["entrypoint"]


def test_a_queue_gets_a_label_and_a_fixed_number_of_workers(cluster: World, launch: Start) -> None:
    cluster.own_job()
    launch(Wanted(wait=False), queue="gpus").end()
    rayjob = cluster.rayjob()
    assert rayjob["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpus"
    assert rayjob["spec"]["rayClusterSpec"]["enableInTreeAutoscaling"] is False


@pytest.mark.parametrize("job", ["nightly-29401577", "a" * 36 + "-29401577"])
def test_a_rayjob_is_named_after_its_launchers_job_and_not_like_it(job: str) -> None:
    assert rayjob_name(job) == f"{job}-r"
    assert len(rayjob_name(job)) <= 47


@pytest.mark.parametrize("job", ["x" * 46, "x" * 63, "1st", "with.dots", "x" * 36 + "-" * 9 + "y", "9" * 63])
def test_a_name_that_a_rayjob_cannot_have_is_cut_and_told_apart_by_a_hash(job: str) -> None:
    assert re.fullmatch(r"[a-z][-a-z0-9]*[a-z0-9]-[0-9a-f]{8}-r", rayjob_name(job))
    assert len(rayjob_name(job)) <= 47


def test_long_names_that_begin_alike_stay_apart() -> None:
    names = {rayjob_name("n" * 50 + end) for end in ("a", "b", "", ".c", "-c")}
    assert len(names) == 5
    assert rayjob_name("same" * 15) == rayjob_name("same" * 15)


def test_a_tick_is_read_in_any_time_zone_and_from_the_name_where_it_is_not_noted(cluster: World) -> None:
    made = cluster.own_job(tick="2026-11-25T03:17:00+01:00")
    assert own_job(made).tick.isoformat() == "2026-11-25T02:17:00+00:00"
    del made["metadata"]["annotations"]
    found = own_job(made)
    assert (found.tick.timestamp(), found.scheduled) == (29401577 * 60, True)
    by_hand = own_job(cluster.own_job("by-hand", tick=""))
    assert (by_hand.tick, by_hand.scheduled, by_hand.schedule) == (by_hand.created, False, "nightly")


def test_the_image_is_that_of_the_container_that_launches(cluster: World) -> None:
    made = cluster.own_job()
    sidecar = {"name": "sidecar", "image": "registry.example/other:1"}
    made["spec"]["template"]["spec"]["containers"].insert(0, sidecar)
    assert own_job(made).image == IMAGE


def test_an_image_without_a_digest_is_refused_with_2(cluster: World, launch: Start) -> None:
    made = cluster.own_job()
    containers = [
        made["spec"]["template"]["spec"]["containers"][0] | {"image": "registry.example/hpsearch:latest"}
    ]
    cluster.store.patch(JOB, SPACE, OWN, {"spec": {"template": {"spec": {"containers": containers}}}})
    with pytest.raises(UsageError, match="digest"):
        launch().end()
    assert everything(cluster) == [[], [], []]


# -- each end ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "code"),
    [
        ({"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}, 0),
        ({"jobDeploymentStatus": "Complete", "jobStatus": "STOPPED"}, 3),
        ({"jobDeploymentStatus": "Failed", "jobStatus": "FAILED", "reason": "AppFailed"}, 3),
        ({"jobDeploymentStatus": "Failed", "reason": "SubmissionFailed"}, 3),
        ({"jobDeploymentStatus": "Failed", "reason": "JobStatusCheckTimeoutExceeded"}, 3),
        ({"jobDeploymentStatus": "Failed", "reason": "JobDeploymentStatusTransitionGracePeriodExceeded"}, 3),
        ({"jobDeploymentStatus": "Failed", "reason": "DeadlineExceeded"}, 4),
        ({"jobDeploymentStatus": "Failed", "reason": "PreRunningDeadlineExceeded"}, 4),
        ({"jobDeploymentStatus": "ValidationFailed", "message": "wrong"}, 2),
    ],
)
def test_the_end_of_the_rayjob_is_the_end_of_the_launcher(
    cluster: World, launch: Start, status: dict[str, Any], code: int
) -> None:
    cluster.own_job()
    launcher = launch()
    watched(cluster)
    cluster.set_status(status)
    assert launcher.end().code == code


def test_a_suspended_rayjob_is_waited_for(cluster: World, launch: Start) -> None:
    cluster.own_job()
    launcher = launch()
    watched(cluster)
    for phase in ("Suspending", "Suspended", "", "Initializing", "Running", "Retrying", "Running"):
        cluster.set_status({"jobDeploymentStatus": phase})
    cluster.store.cut()
    watched(cluster, 2)
    assert launcher.alive
    succeed(cluster)
    assert launcher.end().code == 0
    assert any("Suspended" in line for line in launcher.said)


def test_a_deleted_rayjob_is_no_success(cluster: World, launch: Start) -> None:
    cluster.own_job()
    launcher = launch()
    watched(cluster)
    cluster.store.patch(RAY_JOB, SPACE, NAME, {"metadata": {"finalizers": ["ray.io/rayjob-finalizer"]}})
    cluster.store.delete(RAY_JOB, SPACE, NAME)
    cluster.store.cut()
    watched(cluster, 2)
    assert launcher.alive  # it is still going
    cluster.store.patch(RAY_JOB, SPACE, NAME, {"metadata": {"finalizers": []}})
    found = launcher.end()
    assert (found.word, found.code) == ("deleted", 3)


def test_a_rayjob_that_was_made_anew_by_somebody_else_is_not_ours(cluster: World, launch: Start) -> None:
    cluster.own_job()
    launcher = launch()
    watched(cluster)

    def anew() -> None:
        cluster.store.delete(RAY_JOB, SPACE, NAME)
        cluster.store.create(RAY_JOB, SPACE, {"metadata": {"name": NAME}, "spec": {}})
        cluster.store.forget()

    cluster.api.faults.append(Fault("GET", "watch=true", do=anew))
    cluster.store.cut()
    assert launcher.end().word == "deleted"


def test_what_ended_while_nobody_watched_is_told(cluster: World, launch: Start) -> None:
    cluster.own_job()
    launcher = launch()
    watched(cluster)

    def ended() -> None:
        succeed(cluster)
        cluster.store.delete(RAY_JOB, SPACE, NAME)  # by a rule of deletion

    cluster.api.faults.append(Fault("GET", "watch=true", do=ended))
    cluster.store.cut()
    assert launcher.end().code == 0


def test_nobody_waits_beyond_the_timeout_which_counts_from_the_jobs_creation(
    cluster: World, launch: Start
) -> None:
    created = own_job(cluster.own_job()).created.timestamp()
    found = launch(Wanted(timeout=time.time() - created + 1.0)).end()
    assert (found.word, found.code) == ("timeout", 4)
    assert everything(cluster) == ALL  # left alone


# -- started again ----------------------------------------------------------------------------------


class Killed(Exception):
    """A launcher that dies here."""


@pytest.mark.parametrize("after", [0, 1, 2, 3])
def test_a_launcher_that_died_between_creations_is_gone_on_with(
    cluster: World, launch: Start, spec: Spec, after: int
) -> None:
    cluster.own_job()
    first = Launch(cluster, spec, Wanted())
    create, made = first.client.create, []

    def dying(path: str, body: dict[str, Any]) -> dict[str, Any]:
        if len(made) == after:
            raise Killed
        made.append(path)
        return create(path, body)

    first.client.create = dying
    first.start()
    if after == 3:
        watched(cluster)
        cluster.store.cut()
    else:
        with pytest.raises(Killed):
            first.end()
    before = cluster.store.find(RAY_JOB, SPACE, NAME)
    second = launch()
    watched(cluster, 1 + 2 * (after == 3))
    assert everything(cluster) == ALL
    assert before is None or cluster.rayjob()["metadata"]["uid"] == before["metadata"]["uid"]
    succeed(cluster)
    assert second.end().code == 0
    if after == 3:
        assert first.end().code == 0


def test_lost_answers_and_busy_servers_create_nothing_twice(cluster: World, launch: Start) -> None:
    cluster.own_job()
    for path in ("rayjobs", "configmaps", "poddisruptionbudgets"):
        cluster.api.faults.append(Fault("POST", path, cut="after"))
        cluster.api.faults.append(Fault("POST", path, status=500))
        cluster.api.faults.append(Fault("POST", path, status=429, headers={"Retry-After": "1"}))
    launcher = launch()
    watched(cluster)
    assert everything(cluster) == ALL
    succeed(cluster)
    assert launcher.end().code == 0


def test_two_launchers_at_once_start_one_sweep(cluster: World, launch: Start) -> None:
    cluster.own_job()
    meeting = threading.Barrier(2)
    cluster.api.faults.append(Fault("POST", "rayjobs", times=2, do=lambda: meeting.wait(60)))
    launchers = [launch(), launch()]
    watched(cluster, 2)
    assert everything(cluster) == ALL
    succeed(cluster)
    assert [each.end().code for each in launchers] == [0, 0]
    codes = sorted(request.code for request in cluster.api.asked("POST", "rayjobs"))
    assert codes == [201, 409]


def test_a_finished_sweep_is_told_again_without_starting_another(cluster: World, launch: Start) -> None:
    cluster.own_job()
    launch(Wanted(wait=False)).end()
    succeed(cluster)
    assert launch().end().code == 0
    assert everything(cluster) == ALL


def test_what_an_earlier_job_of_the_name_left_is_waited_out(cluster: World, launch: Start) -> None:
    cluster.own_job()
    launch(Wanted(wait=False)).end()
    old = cluster.rayjob()["metadata"]["uid"]
    cluster.store.collecting = False  # the collector is late
    cluster.store.delete(JOB, SPACE, OWN)
    cluster.own_job()
    launcher = launch(Wanted(overlap=Overlap.QUEUE))
    assert launcher.clock.paused.wait(60)
    assert launcher.alive
    cluster.store.collecting = True
    cluster.store.collect()
    watched(cluster)
    assert cluster.rayjob()["metadata"]["uid"] != old
    assert everything(cluster) == ALL
    succeed(cluster)
    assert launcher.end().code == 0


def test_what_stays_somebody_elses_is_refused_with_2(cluster: World, launch: Start) -> None:
    cluster.own_job()
    uid = cluster.store.create(
        JOB, SPACE, {"metadata": {"name": "other"}, "spec": {"template": {"spec": {}}}}
    )
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": "other", "uid": uid["metadata"]["uid"]}
    body = {"metadata": {"name": NAME, "ownerReferences": [owner]}, "spec": {}}
    cluster.store.create(RAY_JOB, SPACE, body)
    with pytest.raises(UsageError, match="Job other") as refused:
        launch().end()
    assert f"kubectl delete rayjob {NAME}" in refused.value.hint


def test_what_belongs_to_nobody_and_is_of_another_file_is_refused_with_2(
    cluster: World, launch: Start
) -> None:
    cluster.own_job()
    metadata = {"name": NAME, "annotations": {"hpsearch/space-sha256": "0" * 64}}
    cluster.store.create(RAY_JOB, SPACE, {"metadata": metadata, "spec": {}})
    with pytest.raises(UsageError, match="of another file: 000000000000") as refused:
        launch().end()
    assert refused.value.exit_code == 2
    assert everything(cluster) == [[NAME], [], []]


def test_what_belongs_to_nobody_is_gone_on_with(cluster: World, launch: Start) -> None:
    cluster.own_job()
    cluster.store.create(RAY_JOB, SPACE, {"metadata": {"name": NAME}, "spec": {}})
    launcher = launch()
    watched(cluster)
    assert everything(cluster) == ALL
    succeed(cluster)
    assert launcher.end().code == 0


# -- what is refused --------------------------------------------------------------------------------


def test_a_job_that_is_not_there_is_a_wrong_name(cluster: World, launch: Start) -> None:
    with pytest.raises(Refused, match="nowhere") as refused:
        launch(job="nowhere").end()
    assert refused.value.exit_code == 2


@pytest.mark.parametrize("status", [400, 401, 403, 422])
def test_a_refused_creation_ends_with_2(cluster: World, launch: Start, status: int) -> None:
    cluster.own_job()
    cluster.api.faults.append(Fault("POST", "rayjobs", status=status, times=99))
    with pytest.raises(Refused, match=f"HTTP {status}") as refused:
        launch().end()
    assert refused.value.exit_code == 2


FULL = (
    'rayjobs.ray.io "nightly" is forbidden: exceeded quota: hpsearch, requested: count/rayjobs.ray.io=1, '
    "used: count/rayjobs.ray.io=20, limited: count/rayjobs.ray.io=20"
)


def test_a_quota_that_others_use_up_is_waited_for(cluster: World, launch: Start) -> None:
    cluster.own_job()
    cluster.api.faults.append(Fault("POST", "rayjobs", status=403, message=FULL, times=3))
    launcher = launch()
    watched(cluster)
    assert everything(cluster) == ALL
    assert len([said for said in launcher.said if "exceeded quota: hpsearch" in said]) == 1
    succeed(cluster)
    assert launcher.end().code == 0


def test_a_quota_that_stays_used_up_ends_with_75_and_the_jobs_next_pod_waits_on(
    cluster: World, launch: Start
) -> None:
    cluster.own_job()
    cluster.api.faults.append(Fault("POST", "rayjobs", status=403, message=FULL, times=10_000))
    launcher = launch()
    with pytest.raises(Interrupted, match="exceeded quota") as full:
        launcher.end()
    assert full.value.exit_code == 75
    assert "kubectl describe quota" in full.value.hint
    assert launcher.clock.time.now() >= QUOTA_WITHIN


def test_a_quota_that_stays_used_up_until_the_timeout_ends_with_4(cluster: World, launch: Start) -> None:
    cluster.own_job()
    cluster.api.faults.append(Fault("POST", "rayjobs", status=403, message=FULL, times=10_000))
    ended = launch(Wanted(timeout=300.0)).end()
    assert (ended.word, ended.code) == ("timeout", 4)
    assert "exceeded quota" in ended.message


def test_a_quota_that_never_has_room_is_refused_at_once(cluster: World, launch: Start) -> None:
    cluster.own_job()
    never = FULL.replace("=20", "=0")
    cluster.api.faults.append(Fault("POST", "rayjobs", status=403, message=never, times=99))
    launcher = launch()
    with pytest.raises(Refused, match=r"limited: count/rayjobs\.ray\.io=0"):
        launcher.end()
    assert launcher.clock.pauses == 0


def test_what_was_created_is_found_though_the_quota_is_full_since(cluster: World, launch: Start) -> None:
    """Quotas are looked at before names: the answer is 403, not 409."""
    cluster.own_job()
    launch(Wanted(wait=False)).end()
    cluster.api.faults.append(Fault("POST", "", status=403, message=FULL, times=10_000))
    launcher = launch()
    watched(cluster)
    succeed(cluster)
    assert launcher.end().code == 0
    assert everything(cluster) == ALL


def test_two_creations_that_count_against_one_quota_are_no_name_that_is_taken(
    cluster: World, launch: Start
) -> None:
    cluster.own_job()
    said = "Operation cannot be fulfilled on resourcequotas: the object has been modified"
    cluster.api.faults.append(Fault("POST", "rayjobs", status=409, message=said, times=2))
    launcher = launch()
    watched(cluster)
    assert launcher.said[0] == f"RayJob {NAME} created"
    succeed(cluster)
    assert launcher.end().code == 0


@pytest.mark.parametrize("phase", ["Paused", "Waiting", "Suspending", "SomethingNew"])
def test_a_status_that_nobody_has_heard_of_or_that_goes_back_is_no_end(
    cluster: World, launch: Start, phase: str
) -> None:
    cluster.own_job()
    launcher = launch()
    watched(cluster)
    for status in ({"jobDeploymentStatus": "Running"}, {"jobDeploymentStatus": phase, "jobStatus": "LOST"}):
        cluster.set_status(status)
    cluster.set_status({"jobDeploymentStatus": "Initializing", "jobStatus": ""})
    cluster.set_status({"jobDeploymentStatus": "Running"})
    succeed(cluster)
    assert launcher.end().code == 0


def test_a_role_without_budgets_is_told_so(cluster: World, launch: Start) -> None:
    role = next(kind for kind in KINDS if kind.name == "Role")
    rules = [
        r for r in cluster.store.get(role, SPACE, "hpsearch-launch")["rules"] if r["apiGroups"] != ["policy"]
    ]
    cluster.store.patch(role, SPACE, "hpsearch-launch", {"rules": rules})
    cluster.own_job()
    with pytest.raises(Refused, match="cannot create resource") as refused:
        launch().end()
    assert "hpsearch-launch" in refused.value.hint


def test_a_silent_server_ends_with_69_and_what_was_created_stays(cluster: World, launch: Start) -> None:
    cluster.own_job()
    launcher = launch()
    watched(cluster)
    cluster.api.faults.append(Fault(cut="before", times=10_000))
    cluster.store.cut()
    with pytest.raises(ServiceUnavailable):
        launcher.end()
    assert everything(cluster) == ALL


def test_a_token_that_rotates_in_the_middle_is_no_interruption(cluster: World, launch: Start) -> None:
    cluster.own_job()
    launcher = launch()
    watched(cluster)
    old = [token for token in cluster.api.tokens if token != cluster.api.admin]
    cluster.renew_token()
    for token in old:
        del cluster.api.tokens[token]
    cluster.store.cut()
    watched(cluster, 2)
    succeed(cluster)
    assert launcher.end().code == 0


# -- others of the schedule -------------------------------------------------------------------------


def earlier(cluster: World, launch: Start, job: str = "nightly-29400137") -> str:
    """The RayJob of the tick before, still running."""
    cluster.own_job(job, tick="2026-11-24T02:17:00Z")
    launch(Wanted(wait=False), job).end()
    cluster.set_status({"jobDeploymentStatus": "Running", "jobStatus": "RUNNING"}, f"{job}-r")
    return f"{job}-r"


def test_a_tick_is_skipped_while_another_runs_which_is_no_failure(cluster: World, launch: Start) -> None:
    name = earlier(cluster, launch)
    cluster.own_job()
    found = launch().end()
    assert (found.word, found.code) == ("skipped", 0)
    assert name in found.message
    assert everything(cluster)[0] == [name]


def test_one_of_another_schedule_or_at_its_end_is_no_overlap(cluster: World, launch: Start) -> None:
    name = earlier(cluster, launch)
    cluster.own_job("weekly-1", cron="weekly")
    assert launch(Wanted(wait=False), "weekly-1").end().word == "started"
    cluster.own_job()
    for phase in ("Complete", "Failed", "ValidationFailed"):
        cluster.set_status({"jobDeploymentStatus": phase}, name)
        assert launch(Wanted(wait=False)).end().word == "started"
        cluster.store.delete(RAY_JOB, SPACE, NAME)


def test_a_launcher_that_is_started_again_does_not_skip_its_own(cluster: World, launch: Start) -> None:
    cluster.own_job()
    launch(Wanted(wait=False)).end()
    # A second one has come to be meanwhile, such as by hand.
    earlier_name = "nightly-1-r"
    labels = {"hpsearch/schedule": "nightly"}
    cluster.store.create(RAY_JOB, SPACE, {"metadata": {"name": earlier_name, "labels": labels}, "spec": {}})
    launcher = launch()
    watched(cluster)
    succeed(cluster)
    assert launcher.end().word == "succeeded"


def test_a_queued_tick_waits_for_the_one_before(cluster: World, launch: Start) -> None:
    name = earlier(cluster, launch)
    cluster.own_job()
    launcher = launch(Wanted(overlap=Overlap.QUEUE))
    assert launcher.clock.paused.wait(60)
    assert cluster.store.find(RAY_JOB, SPACE, NAME) is None
    cluster.set_status({"jobDeploymentStatus": "Failed", "reason": "AppFailed"}, name)
    watched(cluster)
    succeed(cluster)
    assert launcher.end().code == 0
    assert f"waiting for {name} of the schedule nightly" in launcher.said


def test_a_queued_tick_that_waits_too_long_ends_with_4(cluster: World, launch: Start) -> None:
    earlier(cluster, launch)
    cluster.own_job()
    found = launch(Wanted(overlap=Overlap.QUEUE, timeout=3600)).end()
    assert (found.word, found.code) == ("timeout", 4)
    assert cluster.store.find(RAY_JOB, SPACE, NAME) is None


def test_a_replacing_tick_waits_until_the_one_before_has_gone_with_its_job(
    cluster: World, launch: Start
) -> None:
    name = earlier(cluster, launch)
    cluster.store.patch(RAY_JOB, SPACE, name, {"metadata": {"finalizers": ["ray.io/rayjob-finalizer"]}})
    cluster.store.delete(JOB, SPACE, "nightly-29400137")  # what concurrencyPolicy Replace does
    assert cluster.rayjob(name)["metadata"]["deletionTimestamp"]
    cluster.own_job()
    launcher = launch(Wanted(overlap=Overlap.REPLACE))
    assert launcher.clock.paused.wait(60)
    cluster.store.patch(RAY_JOB, SPACE, name, {"metadata": {"finalizers": []}})
    watched(cluster)
    assert everything(cluster) == ALL
    succeed(cluster)
    assert launcher.end().code == 0


def test_a_replacing_tick_gives_up_on_one_that_nobody_deletes_with_73(cluster: World, launch: Start) -> None:
    name = earlier(cluster, launch)
    cluster.own_job()
    with pytest.raises(StudyBusy, match=name) as busy:
        launch(Wanted(overlap=Overlap.REPLACE)).end()
    assert busy.value.exit_code == 73


@pytest.mark.parametrize("overlap", [Overlap.SKIP, Overlap.REPLACE])
def test_an_overlap_outside_of_the_schedule_ends_with_73(
    cluster: World, launch: Start, overlap: Overlap
) -> None:
    name = earlier(cluster, launch)
    cluster.own_job("by-hand", tick="")  # kubectl create job --from=cronjob/nightly
    with pytest.raises(StudyBusy, match=name) as busy:
        launch(Wanted(overlap=overlap), "by-hand").end()
    assert "--overlap queue" in busy.value.hint


# -- with the operator ------------------------------------------------------------------------------


def test_the_rendered_sweep_runs_under_the_operator_through_retries_to_success(
    cluster: World, launch: Start
) -> None:
    cluster.store.check = crd_checks()
    cluster.own_job()
    with cluster.operator.at_work():
        launcher = launch()
        ray = cluster.operator.ray
        until(lambda: len(ray.submitted) == 1)
        ray.end("FAILED", "Job entrypoint command failed with exit code 75, last available logs")
        cluster.operator.advance(1)
        until(lambda: len(ray.submitted) == 2)
        until(lambda: any("attempt 2 of 3" in line for line in launcher.said))
        ray.end("SUCCEEDED")
        cluster.operator.advance(1)
        assert launcher.end().code == 0


def test_a_sweep_that_fails_each_time_ends_with_its_drivers_code(cluster: World, launch: Start) -> None:
    cluster.own_job()
    launcher = launch(retries=1)
    watched(cluster)
    for _ in range(2):
        cluster.operator.settle()
        cluster.operator.ray.end(
            "FAILED", "Job entrypoint command failed with exit code 4, last available logs"
        )
    cluster.operator.settle()
    assert launcher.end().code == 4


def until(happened: Callable[[], bool], within: float = 60.0) -> None:
    """Wait for what no event tells."""
    deadline = time.monotonic() + within
    while not happened():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)
