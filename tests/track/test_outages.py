"""Outages of every kind between the outbox and a real MLflow server: nothing lost, nothing doubled."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow_facts import Facts, Tracking, assert_delivered, expected_points, wait_for
from tcp_proxy import Proxy, Trouble, http_answer

from hpsearch.study.trial import State
from hpsearch.track.outbox import Outbox

Fired = Callable[..., None]
LOG_BATCH, CREATE_RUN = "/runs/log-batch", "/runs/create"


def at(place: str, trouble: Trouble, times: int = 10**9) -> Callable[[str], Trouble | None]:
    """The rule that the first requests to a place get into trouble."""
    left = [times]

    def rule(path: str) -> Trouble | None:
        if place not in path or left[0] == 0:
            return None
        left[0] -= 1
        return trouble

    return rule


def some_trials(facts: Facts, numbers: range) -> None:
    for number in numbers:
        facts.trial(number, loss=number + 0.5)


def caught_up(outbox: Outbox, facts: Facts) -> Callable[[], bool]:
    return lambda: outbox.offset == len(facts.changes)


def test_the_proxy_passes_what_nobody_asks_it_to_spoil(remote: Facts, served: Tracking, proxy: Proxy) -> None:
    some_trials(remote, range(2))
    remote.finish()
    assert remote.deliver(artifact_root=None).problem is None
    assert_delivered(remote, served, 2)
    assert proxy.seen["runs/log-batch"] == 3


@pytest.mark.fault("F50")
def test_an_hour_without_mlflow_costs_nothing_but_time(
    remote: Facts, served: Tracking, proxy: Proxy, fired: Fired, monkeypatch: pytest.MonkeyPatch
) -> None:
    some_trials(remote, range(2))
    outbox = remote.outbox(artifact_root=None)
    outbox.start()
    wait_for(caught_up(outbox, remote))
    pauses: list[float] = []
    monkeypatch.setattr("hpsearch.track.patience.LONGEST_PAUSE", 30.0)
    monkeypatch.setattr("hpsearch.track.patience.FIRST_PAUSE", 0.5)
    monkeypatch.setattr(outbox._patience.closing, "wait", lambda pause: pauses.append(pause))
    proxy.down()
    told = outbox.offset
    some_trials(remote, range(2, 5))
    wait_for(lambda: sum(pauses) > 3_600)
    fired(outbox.offset == told and outbox.problem)
    assert "refused" in str(outbox.problem)
    assert len(pauses) < 400, "asked more often than every half minute or so"
    proxy.up()
    wait_for(caught_up(outbox, remote))
    assert outbox.close(20)
    assert_delivered(remote, served, 5)


@pytest.mark.fault("F51")
def test_a_server_that_accepts_and_says_nothing_is_asked_again_one_request_at_a_time(
    remote: Facts,
    served: Tracking,
    proxy: Proxy,
    fired: Fired,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    some_trials(remote, range(2))
    trouble = Trouble(mute=True)
    proxy.rule = at(LOG_BATCH, trouble, 1)
    outbox = remote.outbox(artifact_root=None)
    outbox.start()
    wait_for(lambda: outbox.problem)
    fired(trouble.happened)
    assert "timed out" in str(outbox.problem)
    assert outbox.close(20), outbox.problem
    assert_delivered(remote, served, 2)
    # The artifact's own thread asks beside it; the mute connection is still open.
    assert proxy.most_in_flight <= 3


@pytest.mark.fault("F51")
def test_a_slow_server_is_given_more_time_until_its_answers_arrive(
    remote: Facts, served: Tracking, proxy: Proxy, fired: Fired, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_TIMEOUT", raising=False)
    monkeypatch.setattr("hpsearch.track.runs.FIRST_TIMEOUT", 1)
    monkeypatch.setattr("hpsearch.track.patience.SLOW", 0.5)
    remote.deliver(artifact_root=None)  # what an earlier outbox set is not taken for the user's
    some_trials(remote, range(1))
    slow = Trouble(delay=1.4)
    proxy.rule = at(LOG_BATCH, slow)
    outbox = remote.outbox(artifact_root=None)
    outbox.start()
    wait_for(lambda: "no answer for" in str(outbox.problem))
    wait_for(caught_up(outbox, remote))
    fired(slow.happened.total() >= 2)
    assert outbox.close(20), outbox.problem
    assert_delivered(remote, served, 1)


PAGE = "<html><body>Sign in</body></html>"
ANSWERS = {
    "500": http_answer("500 Internal Server Error", "boom"),
    "503": http_answer("503 Service Unavailable", Retry_After="120"),
    "429": http_answer("429 Too Many Requests", '{"message": "slow down"}', "application/json"),
    "a page of another service": http_answer("200 OK", PAGE),
    "a 400 of a balancer": http_answer("400 Bad Request", PAGE),
    "a 404 of a balancer": http_answer("404 Not Found", "default backend - 404"),
    "a 413 of a balancer": http_answer("413 Request Entity Too Large", PAGE),
    "no HTTP": b"\x16\x03\x01 nothing that a browser could read\r\n\r\n",
    "a broken JSON": http_answer("200 OK", '{"run": ', "application/json"),
    "nothing": http_answer("200 OK", ""),
    "an empty object where a run is due": http_answer("200 OK", "{}", "application/json"),
    "a redirect to a login": http_answer("302 Found", Location="/login"),
    "a redirect that keeps the method": http_answer("307 Temporary Redirect", Location="/login"),
}


@pytest.mark.fault("F52")
@pytest.mark.parametrize("kind", ANSWERS)
def test_answers_that_are_not_mlflows_are_waited_out_and_nothing_is_set_aside(
    remote: Facts,
    served: Tracking,
    proxy: Proxy,
    fired: Fired,
    kind: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    trouble, login = Trouble(answer=ANSWERS[kind]), Trouble(answer=http_answer("200 OK", PAGE))
    spoiled = (LOG_BATCH, CREATE_RUN) if kind not in BLIND else (CREATE_RUN,)
    left = dict.fromkeys(spoiled, 2)

    def rule(path: str) -> Trouble | None:
        if path == "/login":
            return login
        for place in spoiled:
            if place in path and left[place]:
                left[place] -= 1
                return trouble
        return None

    some_trials(remote, range(2))
    proxy.rule = rule
    outbox = remote.outbox(artifact_root=None)
    outbox.start()
    wait_for(caught_up(outbox, remote))
    assert outbox.close(20), outbox.problem
    fired(not any(left.values()) and trouble.happened.total() == 2 * len(spoiled))
    assert outbox.set_aside == 0
    assert_delivered(remote, served, 2)
    warnings = [r.message for r in caplog.records if r.name.endswith("patience") and r.levelno > logging.INFO]
    assert len(warnings) == len(spoiled) and all("the facts wait in the store" in text for text in warnings)


@pytest.mark.fault("F52")
def test_rows_that_mlflow_refuses_are_halved_out_set_aside_and_counted(
    remote: Facts, served: Tracking, proxy: Proxy, fired: Fired, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote.suggest(0)
    for step in range(10, 330, 10):
        remote.measure(0, step, **{"loss": 1.0, "poison!": 2.0} if step in (70, 210) else {"loss": 1.0})
    remote.end(0)
    monkeypatch.setattr("hpsearch.track.ledger.clean_name", lambda name: name)
    outbox = remote.deliver(artifact_root=None)
    fired(outbox.set_aside)
    assert outbox.set_aside == 2
    kept = [point for point in expected_points(remote, 0) if point[0] == "loss"]
    assert served.points(served.run_ids()["trial-0"]) == kept
    assert proxy.seen["runs/log-batch"] < 30


@pytest.mark.fault("F53")
@pytest.mark.parametrize("status", ["401 Unauthorized", "403 Forbidden"])
def test_refused_credentials_pause_the_outbox_warn_once_and_new_ones_go_on(
    remote: Facts,
    served: Tracking,
    proxy: Proxy,
    fired: Fired,
    status: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "old-s3cret")
    outbox = remote.outbox(artifact_root=None)
    outbox.start()
    some_trials(remote, range(1))
    wait_for(caught_up(outbox, remote))

    refusal = Trouble(answer=http_answer(status, "You are not authenticated."))
    proxy.rule = lambda path: refusal if proxy.authorisations[-1] == "Bearer old-s3cret" else None
    some_trials(remote, range(1, 3))
    wait_for(lambda: refusal.happened.total() > 5)
    fired(outbox.problem)
    assert "the credentials are refused" in str(outbox.problem)
    warnings = [r.message for r in caplog.records if r.levelname == "WARNING"]
    assert len(warnings) == 1 and "~/.mlflow/credentials" in warnings[0]
    assert "s3cret" not in caplog.text

    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "new-s3cret")
    wait_for(caught_up(outbox, remote))
    assert outbox.close(20)
    assert_delivered(remote, served, 3)
    assert {"Bearer old-s3cret", "Bearer new-s3cret"} <= set(proxy.authorisations)


def test_mlflow_reads_credentials_at_each_request_from_the_environment_and_from_a_file(
    remote: Facts, proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What lets a running driver get new ones; nobody can change its environment from outside."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("TOKEN", "USERNAME", "PASSWORD"):
        monkeypatch.delenv(f"MLFLOW_TRACKING_{name}", raising=False)
    outbox = remote.outbox(artifact_root=None)
    outbox.start()
    wait_for(lambda: outbox.parent_run_id)
    assert set(proxy.authorisations) == {""}
    (tmp_path / ".mlflow").mkdir()
    (tmp_path / ".mlflow/credentials").write_text(
        "[mlflow]\nmlflow_tracking_username=ann\nmlflow_tracking_password=one\n"
    )
    some_trials(remote, range(1))
    wait_for(caught_up(outbox, remote))
    assert proxy.authorisations[-1] == "Basic YW5uOm9uZQ=="
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "bob")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "two")
    some_trials(remote, range(1, 2))
    wait_for(caught_up(outbox, remote))
    assert outbox.close(20)
    assert proxy.authorisations[-1] == "Basic Ym9iOnR3bw=="


@pytest.mark.fault("F54")
@pytest.mark.parametrize("place", [CREATE_RUN, LOG_BATCH, "/runs/update", "/experiments/create"])
def test_a_reply_lost_after_the_server_committed_makes_nothing_twice(
    remote: Facts, served: Tracking, proxy: Proxy, fired: Fired, place: str
) -> None:
    lost = Trouble(drop=True)
    proxy.rule = at(place, lost, 3 if place != "/experiments/create" else 1)
    some_trials(remote, range(3))
    remote.finish()
    outbox = remote.outbox(artifact_root=None)
    outbox.start()
    wait_for(caught_up(outbox, remote))
    assert outbox.close(20), outbox.problem
    fired(lost.happened)
    assert outbox.set_aside == 0
    assert_delivered(remote, served, 3)
    states = [status for (status,) in served.rows("select status from runs where lifecycle_stage = 'active'")]
    assert states == ["FINISHED"] * 4
    assert served.rows("select count(*) from experiments where name = 'lessons'") == [(1,)]


@pytest.mark.fault("F55")
def test_a_locked_tracking_database_is_waited_for(
    facts: Facts,
    tracking: Tracking,
    fired: Fired,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """MLflow waits 20 s for a lock and is asked again; here 50 ms, so that twenty such waits are short."""
    import sqlite3
    from contextlib import closing

    from sqlalchemy import event

    monkeypatch.setattr("hpsearch.track.patience.FIRST_PAUSE", 0.01)
    monkeypatch.setattr("hpsearch.track.patience.LONGEST_PAUSE", 0.05)
    outbox = facts.outbox()
    outbox.start()
    wait_for(lambda: outbox.parent_run_id)
    engine = outbox._runs._client._tracking_client.store.engine
    waits: list[str] = []

    @event.listens_for(engine, "before_cursor_execute", retval=True)
    def shorter(_c: object, _u: object, statement: str, parameters: object, *_: object) -> tuple[str, object]:
        waits.extend([statement] * ("busy_timeout = 20000" in statement))
        return statement.replace("20000", "50"), parameters

    with closing(sqlite3.connect(tracking.path)) as other:
        other.execute("begin exclusive")
        some_trials(facts, range(2))
        wait_for(lambda: outbox.problem and len(waits) > 20)
        assert "locked" in str(outbox.problem)
        fired(outbox.offset == 0)
        other.rollback()
    wait_for(caught_up(outbox, facts))
    assert outbox.close(25)
    assert_delivered(facts, tracking, 2)
    assert capfd.readouterr() == ("", "")


@pytest.mark.fault("F56")
def test_a_user_may_delete_runs_and_the_experiment_while_trials_go_on(
    remote: Facts, served: Tracking, proxy: Proxy, fired: Fired, caplog: pytest.LogCaptureFixture
) -> None:
    from mlflow.tracking import MlflowClient

    for number in range(3):
        remote.suggest(number)
    outbox = remote.outbox(artifact_root=None)
    outbox.start()
    wait_for(caught_up(outbox, remote))
    client, runs = MlflowClient(remote.uri), served.run_ids()
    client.delete_run(runs["trial-0"])
    for number in range(3):
        remote.measure(number, 10, loss=1.0)
    wait_for(caught_up(outbox, remote))
    assert outbox.problem is None
    client.delete_experiment(client.get_experiment_by_name("lessons").experiment_id)
    fired(served.run_ids() == {})
    for number in range(3):
        remote.measure(number, 20, loss=0.5)
        remote.end(number)
    some_trials(remote, range(3, 5))
    remote.finish()
    assert outbox.close(20), outbox.problem
    assert outbox.set_aside == 0
    for number in range(1, 5):
        run_id = served.run_ids()[f"trial-{number}"]
        assert served.points(run_id) == expected_points(remote, number)
        assert served.run(run_id)[0] == "FINISHED"
    # With the experiment MLflow gives back all its runs; nothing more was told to the one deleted before.
    assert served.points(runs["trial-0"]) == []
    assert served.rows("select lifecycle_stage from experiments where name = 'lessons'") == [("active",)]
    assert any("the experiment was deleted" in record.message for record in caplog.records)


@pytest.mark.fault("F56")
def test_a_server_that_forgot_the_study_in_the_middle_is_told_all_of_it(
    remote: Facts, served: Tracking, proxy: Proxy, fired: Fired, caplog: pytest.LogCaptureFixture
) -> None:
    some_trials(remote, range(2))
    remote.suggest(2)
    outbox = remote.outbox(artifact_root=None)
    outbox.start()
    wait_for(caught_up(outbox, remote))
    served.wipe()
    fired(served.parents() == [])
    remote.measure(2, 10, loss=1.0)
    remote.end(2, State.PRUNED, "worse")
    some_trials(remote, range(3, 4))
    remote.finish()
    assert outbox.close(20), outbox.problem
    assert_delivered(remote, served, 4)
    assert outbox.parent_run_id == served.parents()[0]
    assert any("has forgotten study" in record.message for record in caplog.records)


# A server in front that answers log_batch so cannot be told from MLflow by its client.
BLIND = ("nothing", "an empty object where a run is due")
