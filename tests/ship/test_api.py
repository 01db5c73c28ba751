"""The client inside of a pod keeps its manners whatever server and network do."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from kube_kinds import RAY_JOB
from kube_server import Fault
from kube_world import ACCOUNT, SPACE, World, world

from hpsearch.errors import Interrupted, ServiceUnavailable, UsageError
from hpsearch.ship.access import Access
from hpsearch.ship.api import (
    LONGEST_PAUSE,
    PATIENCE,
    AlreadyThere,
    Client,
    Missing,
    Refused,
    Seen,
    Time,
)

RAYJOBS = f"/apis/ray.io/v1/namespaces/{SPACE}/rayjobs"


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as made:
        yield made


class Slept:
    """A clock on which sleeping takes no time, and which remembers the pauses."""

    def __init__(self, chance: float = 1.0) -> None:
        self.pauses: list[float] = []
        self._now = 0.0
        self.time = Time(lambda: self._now, self._sleep, lambda: chance)

    def _sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self._now += seconds


def named(name: str) -> dict[str, Any]:
    return {"apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": {"name": name}, "spec": {}}


def followed(client: Client, name: str = "one") -> Iterator[Seen]:
    return client.follow(RAYJOBS, name)


def label(seen: Seen) -> str:
    assert seen.found is not None
    return str(seen.found["metadata"]["labels"]["n"])


def relabel(cluster: World, value: str) -> None:
    cluster.store.patch(RAY_JOB, SPACE, "one", {"metadata": {"labels": {"n": value}}})


# -- one request ------------------------------------------------------------------------------------


def test_a_pod_without_an_account_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="KUBERNETES_SERVICE_HOST"):
        Access.in_pod({}, tmp_path)
    told = {"KUBERNETES_SERVICE_HOST": "::1", "KUBERNETES_SERVICE_PORT": "443"}
    with pytest.raises(UsageError, match="no account is mounted"):
        Access.in_pod(told, tmp_path)
    with pytest.raises(UsageError, match="'https'"):
        Access.in_pod(told | {"KUBERNETES_SERVICE_PORT": "https"}, tmp_path)


def test_what_is_created_is_checked_strictly_and_exists_once(cluster: World) -> None:
    client = cluster.client()
    assert client.create(RAYJOBS, named("one"))["metadata"]["uid"]
    assert cluster.api.asked("POST")[0].target.endswith("?fieldValidation=Strict")
    with pytest.raises(AlreadyThere):
        client.create(RAYJOBS, named("one"))
    with pytest.raises(Missing) as missing:
        client.get(f"{RAYJOBS}/two")
    assert missing.value.status == 404


@pytest.mark.parametrize("status", [400, 401, 403, 422])
def test_what_the_server_refuses_ends_at_once_with_2(cluster: World, status: int) -> None:
    slept = Slept()
    cluster.api.faults.append(Fault("GET", status=status, times=99))
    with pytest.raises(Refused) as refused:
        cluster.client(slept.time).get(RAYJOBS)
    assert refused.value.exit_code == 2
    assert refused.value.hint
    assert f"HTTP {status}" in refused.value.message
    assert slept.pauses == []


def test_no_message_of_a_server_shows_a_token(cluster: World) -> None:
    said = "no such user, token=hunter2hunter2 is not known"
    cluster.api.faults.append(Fault("GET", status=403, message=said))
    with pytest.raises(Refused, match="no such user") as refused:
        cluster.client().get(RAYJOBS)
    assert "hunter2" not in str(refused.value)


def test_a_conflict_that_is_no_name_is_temporary(cluster: World) -> None:
    cluster.api.faults.append(Fault("DELETE", status=409))
    with pytest.raises(Interrupted):
        cluster.client().delete(f"{RAYJOBS}/one")


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_busy_server_is_asked_again_with_growing_pauses(cluster: World, status: int) -> None:
    slept = Slept()
    cluster.api.faults.append(Fault("GET", status=status, times=4))
    assert cluster.client(slept.time).get(RAYJOBS)["items"] == []
    assert slept.pauses == [0.5, 1, 2, 4]


def test_pauses_differ_for_each_who_waits(cluster: World) -> None:
    pauses = []
    for chance in (0.0, 0.5):
        slept = Slept(chance)
        cluster.api.faults.append(Fault("GET", status=500))
        cluster.client(slept.time).get(RAYJOBS)
        pauses += slept.pauses
    assert pauses == [0.25, 0.375]


def test_a_server_that_says_when_is_asked_no_sooner(cluster: World) -> None:
    slept = Slept()
    cluster.api.faults.append(Fault("GET", status=429, headers={"Retry-After": "7"}))
    cluster.api.faults.append(Fault("GET", status=429, headers={"Retry-After": "9999"}))
    cluster.client(slept.time).get(RAYJOBS)
    assert slept.pauses == [7, LONGEST_PAUSE]


def test_a_silent_server_is_given_up_after_ten_minutes_with_69(cluster: World) -> None:
    slept = Slept()
    cluster.api.faults.append(Fault("GET", cut="before", times=999))
    with pytest.raises(ServiceUnavailable) as silent:
        cluster.client(slept.time).get(RAYJOBS)
    assert silent.value.exit_code == 69
    assert PATIENCE <= sum(slept.pauses) <= PATIENCE + LONGEST_PAUSE
    assert "has not answered for 6" in silent.value.message


def test_nobody_listening_is_silence_too(cluster: World) -> None:
    slept = Slept()
    client = cluster.client(slept.time)
    object.__setattr__(client.road, "port", 1)
    with pytest.raises(ServiceUnavailable, match=r"127\.0\.0\.1:1"):
        client.get(RAYJOBS)


def test_a_server_with_another_certificate_is_not_trusted(cluster: World, tmp_path: Path) -> None:
    from kube_certificate import certificate

    (tmp_path / "other").mkdir()
    other, _ = certificate(tmp_path / "other")
    slept = Slept()
    client = cluster.client(slept.time)
    (cluster.mount() / "ca.crt").write_bytes(other.read_bytes())
    with pytest.raises(ServiceUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
        client.get(RAYJOBS)
    assert cluster.api.asked() == []


def test_a_lost_answer_of_a_creation_is_found_created(cluster: World) -> None:
    cluster.api.faults.append(Fault("POST", cut="after"))
    with pytest.raises(AlreadyThere):
        cluster.client(Slept().time).create(RAYJOBS, named("one"))
    assert len(cluster.store.list(RAY_JOB)) == 1


# -- tokens -----------------------------------------------------------------------------------------


def test_the_token_is_read_anew_for_each_request(cluster: World) -> None:
    client = cluster.client()
    client.get(RAYJOBS)
    old = set(cluster.api.tokens) - {cluster.api.admin}
    cluster.renew_token()
    for token in old:
        del cluster.api.tokens[token]
    client.get(RAYJOBS)
    assert [request.code for request in cluster.api.asked()] == [200, 200]


def test_a_token_that_ran_out_is_waited_for_when_it_was_good_before(cluster: World) -> None:
    slept = Slept()
    client = cluster.client(slept.time)
    client.get(RAYJOBS)
    for token in set(cluster.api.tokens) - {cluster.api.admin}:
        del cluster.api.tokens[token]
    # The kubelet is late: it comes after the second try.
    tries: list[int] = []

    def late() -> None:
        tries.append(1)
        if len(tries) == 3:
            cluster.renew_token()

    cluster.api.faults.append(Fault("GET", do=late, times=9))
    client.get(RAYJOBS)
    assert [request.code for request in cluster.api.asked()] == [200, 401, 401, 401, 200]
    assert slept.pauses == [0.5, 1, 2]


def test_a_token_that_stays_refused_ends_with_2(cluster: World) -> None:
    slept = Slept()
    client = cluster.client(slept.time)
    client.get(RAYJOBS)
    cluster.api.tokens.clear()
    with pytest.raises(Refused) as refused:
        client.get(RAYJOBS)
    assert refused.value.status == 401
    assert 120 <= sum(slept.pauses) <= 160


# -- watching ---------------------------------------------------------------------------------------


def test_following_tells_each_state_and_the_end(cluster: World) -> None:
    seen = followed(cluster.client())
    assert next(seen) == Seen(None)
    cluster.store.create(RAY_JOB, SPACE, named("one") | {"metadata": {"name": "one", "labels": {"n": "1"}}})
    cluster.store.create(RAY_JOB, SPACE, named("other"))
    assert label(next(seen)) == "1"
    relabel(cluster, "2")
    assert label(next(seen)) == "2"
    cluster.store.delete(RAY_JOB, SPACE, "one")
    last = next(seen)
    assert (label(last), last.gone) == ("2", True)
    query = cluster.api.asked("GET", "watch=true")[0].target
    assert "timeoutSeconds=240" in query
    assert "resourceVersion=" in query
    assert "allowWatchBookmarks=true" in query


@pytest.fixture
def one(cluster: World) -> World:
    cluster.store.create(RAY_JOB, SPACE, named("one") | {"metadata": {"name": "one", "labels": {"n": "1"}}})
    return cluster


def test_a_dropped_watch_goes_on_where_it_was(one: World) -> None:
    seen = followed(one.client(Slept().time))
    assert label(next(seen)) == "1"
    for number in range(2, 6):
        relabel(one, str(number))
        assert label(next(seen)) == str(number)
        one.store.cut()
    assert len(one.api.asked("GET", "watch=true")) >= 4
    assert (
        len(one.api.asked("GET", "fieldSelector")) - len(one.api.asked("GET", "watch=true")) == 1
    )  # one list


def test_what_happens_while_there_is_no_watch_is_not_missed(one: World) -> None:
    seen = followed(one.client(Slept().time))
    next(seen)
    one.api.faults.append(Fault("GET", "watch=true", times=3, cut="before", do=lambda: relabel(one, "9")))
    assert label(next(seen)) == "9"


def test_a_server_that_has_forgotten_is_asked_for_the_list_again(one: World) -> None:
    seen = followed(one.client(Slept().time))
    next(seen)

    def forgotten() -> None:
        relabel(one, "2")
        one.store.forget()

    one.api.faults.append(Fault("GET", "watch=true", do=forgotten))
    assert label(next(seen)) == "2"
    assert len(one.api.asked("GET", "watch=true")) == 1
    one.api.faults.append(Fault("GET", "watch=true", status=410))
    one.store.cut()
    relabel(one, "3")
    assert label(next(seen)) == "3"


def test_what_was_deleted_unseen_is_told_with_its_last_state(one: World) -> None:
    seen = followed(one.client(Slept().time))
    next(seen)

    def unseen() -> None:
        one.store.delete(RAY_JOB, SPACE, "one")
        one.store.forget()

    one.api.faults.append(Fault("GET", "watch=true", do=unseen))
    last = next(seen)
    assert (label(last), last.gone) == ("1", True)
    assert next(islice(followed(one.client()), 1)) == Seen(None)


def test_a_bookmark_keeps_a_quiet_watch_from_starting_anew(one: World) -> None:
    one.api.bookmarks = 0.0
    seen = followed(one.client(Slept().time))
    next(seen)
    told = threading.Thread(target=lambda: next(seen))
    told.start()
    one.api.wait_for("GET", "watch=true")
    one.store.create(RAY_JOB, SPACE, named("other"))  # moves the version on, unseen by this watch
    version = str(one.store.version)
    one.api.faults.append(Fault("GET", f"watch=true&resourceVersion={version}", do=lambda: relabel(one, "2")))
    while not one.api.asked("GET", f"watch=true&resourceVersion={version}"):
        # Each cut lets it come again, with the version of the newest bookmark; one before that is fruitless.
        one.api.wait_for_mark(version)
        watches = len(one.api.asked("GET", "watch=true"))
        one.store.cut()
        one.api.wait_for("GET", "watch=true", watches + 1)
    told.join()


def test_watches_that_die_at_once_do_not_hurry(one: World) -> None:
    slept = Slept()
    seen = followed(one.client(slept.time))
    next(seen)
    cut = Fault("GET", "watch=true", times=6, do=one.store.cut)
    one.api.faults.append(cut)
    one.api.faults.append(Fault("GET", "watch=true", times=6, status=410))
    one.api.faults.append(Fault("GET", "watch=true", do=lambda: relabel(one, "2")))
    while label(next(seen)) != "2":
        pass
    assert max(slept.pauses) >= 4


def test_where_watches_tell_nothing_lists_do(one: World) -> None:
    slept = Slept()
    seen = followed(one.client(slept.time))
    next(seen)
    one.api.faults.append(Fault("GET", "watch=true", times=999, do=one.store.cut))
    relabel(one, "2")
    assert label(next(seen)) == "2"
    relabel(one, "3")
    while label(next(seen)) != "3":
        pass
    assert max(slept.pauses) <= LONGEST_PAUSE


def test_following_ends_at_its_time(one: World) -> None:
    import time

    client = one.client()
    began = time.monotonic()
    assert len(list(client.follow(RAYJOBS, "one", began + 0.5))) == 1
    assert 0.5 <= time.monotonic() - began < 60
    assert "timeoutSeconds=1&" in one.api.asked("GET", "watch=true")[0].target


def test_a_refused_watch_ends_with_2(one: World) -> None:
    seen = followed(one.client(Slept().time))
    next(seen)
    one.api.faults.append(Fault("GET", "watch=true", status=403))
    with pytest.raises(Refused, match="403"):
        next(seen)
    assert one.api.requests[0].user == f"system:serviceaccount:{SPACE}:{ACCOUNT}"
