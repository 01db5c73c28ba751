"""Ray's Jobs API as a submitter and a laptop use it, against a dashboard that fails on demand."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ray_dashboard import DUPLICATE, TOKEN, FakeRay, Job, fake_ray, frame

from hpsearch import cli
from hpsearch.errors import Interrupted, ServiceUnavailable, UsageError
from hpsearch.ship import dashboard, following, jobs, websocket
from hpsearch.ship.api import AlreadyThere, NoAnswer, Refused, Time
from hpsearch.ship.dashboard import Dashboard
from hpsearch.ship.following import Follower, LogCopy
from hpsearch.ship.jobs import Jobs, Submission

ENTRYPOINT = ("hpsearch", "run", "/etc/hpsearch/sweep.yaml", "--study", "nightly", "--resume", "auto")


@pytest.fixture(autouse=True)
def token(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in (dashboard.TOKEN_PATH, dashboard.ADDRESS, dashboard.ALLOW, "HPSEARCH_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(dashboard.TOKEN, TOKEN)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def ray() -> Iterator[FakeRay]:
    with fake_ray() as server:
        yield server


class Clock:
    """Time that passes only by sleeping."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.slept.append(seconds)

    @property
    def time(self) -> Time:
        return Time(lambda: self.now, self.sleep, lambda: 1.0)


def of(ray: FakeRay, clock: Clock | None = None, patience: float = dashboard.PATIENCE) -> Jobs:
    return Jobs(Dashboard(dashboard.place(ray.address), (clock or Clock()).time, patience))


def following_of(ray: FakeRay, clock: Clock | None = None, **options: Any) -> tuple[Follower, list[str]]:
    said: list[str] = []
    client = of(ray, clock)
    wanted = Submission("sweep-1", "true")
    return Follower(client, "sweep-1", lambda: client.submit(wanted), said.append, **options), said


class Told:
    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def hpsearch(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Told]:
    """Runs a command in this process; a submitter looks at its job without delay."""
    monkeypatch.setattr(following, "FIRST_LOOK", 0.01)

    def command(*words: str) -> Told:
        monkeypatch.setattr(sys, "argv", ["hpsearch", *words])
        with pytest.raises(SystemExit) as left:
            cli.main()
        out, err = capsys.readouterr()
        return Told(left.value.code if isinstance(left.value.code, int) else 0, out, err)

    return command


def submitter(ray: FakeRay, *more: str) -> tuple[str, ...]:
    return ("submit", "--wait", "--as-submitter", "--address", ray.address, "--submission-id", "j-1", *more)


# -- the submitter ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "exit_code"), [("SUCCEEDED", 0), ("FAILED", 75), ("FAILED", 3), ("STOPPED", None)]
)
def test_a_submitter_ends_with_0_at_each_terminal_status_and_at_no_other(
    ray: FakeRay, hpsearch: Callable[..., Told], status: str, exit_code: int | None
) -> None:
    def made(job: Job) -> None:
        job.statuses, job.exit_code = ["PENDING", "RUNNING", "RUNNING", status], exit_code
        job.log = "first\nlast without an end"

    ray.make = made
    told = hpsearch(*submitter(ray, "--", *ENTRYPOINT))
    assert told.code == 0
    assert told.out == "first\nlast without an end\n"
    assert f"job j-1 ended: {status}" in told.err
    assert ray.count("POST /api/jobs/") == 1
    assert ray.jobs["j-1"].asked["entrypoint"] == " ".join(ENTRYPOINT)
    assert ray.jobs["j-1"].statuses == [status]
    assert ray.requests[0] == "GET /api/gcs_healthz"


def test_a_submitter_attaches_to_a_job_that_is_there(ray: FakeRay, hpsearch: Callable[..., Told]) -> None:
    ray.jobs["j-1"] = Job("j-1", ["RUNNING", "FAILED"], "so far\n", 3)
    told = hpsearch(*submitter(ray, "--", *ENTRYPOINT))
    assert (told.code, told.out) == (0, "so far\n")
    assert ray.count("POST") == 0


def test_a_duplicate_that_ray_answers_with_500_is_attached_to(
    ray: FakeRay, hpsearch: Callable[..., Told]
) -> None:
    ray.jobs["j-1"] = Job("j-1", ["RUNNING", "SUCCEEDED"])
    ray.faults = [("GET /api/jobs/j-1", 404, "Job j-1 does not exist")]
    told = hpsearch(*submitter(ray, "--", *ENTRYPOINT))
    assert told.code == 0
    assert ray.count("POST") == 1
    assert "is there already" in told.err


def test_a_job_that_a_new_head_does_not_know_is_submitted_again_at_most_three_times(ray: FakeRay) -> None:
    clock = Clock()
    follower, said = following_of(ray, clock)
    follower.start()
    times = 0

    def forget(seconds: float) -> None:
        nonlocal times
        if times < 3:
            times += 1
            ray.jobs.clear()
        clock.now += seconds

    ray.make = lambda job: setattr(job, "statuses", ["RUNNING"] * (1 if times < 3 else 2) + ["SUCCEEDED"])
    ray.jobs["sweep-1"].statuses = ["RUNNING"]
    follower.jobs.dashboard.clock = follower.jobs.clock = Time(lambda: clock.now, forget, lambda: 1.0)
    assert follower.end().status == "SUCCEEDED"
    assert ray.count("POST") == 4
    assert [line for line in said if "again" in line][-1].endswith("submitted again (3 of 3)")


def test_a_job_that_is_lost_a_fourth_time_is_given_up_with_75(ray: FakeRay) -> None:
    clock = Clock()
    follower, _ = following_of(ray, clock)
    follower.start()

    def forget(seconds: float) -> None:
        ray.jobs.clear()
        clock.now += seconds

    ray.jobs["sweep-1"].statuses = ["RUNNING"]
    ray.make = lambda job: setattr(job, "statuses", ["RUNNING"])
    follower.jobs.clock = Time(lambda: clock.now, forget, lambda: 1.0)
    with pytest.raises(Interrupted, match="has lost job sweep-1 4 times") as lost:
        follower.end()
    assert lost.value.exit_code == 75
    assert ray.count("POST") == 4


@pytest.mark.parametrize("wrong", ["", "not-the-token-at-all"])
def test_a_refused_token_is_exit_code_2_and_shown_nowhere(
    ray: FakeRay, hpsearch: Callable[..., Told], monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    monkeypatch.setenv(dashboard.TOKEN, wrong)
    told = hpsearch(*submitter(ray, "--", *ENTRYPOINT))
    assert told.code == 2
    assert ("HTTP 403" if wrong else "HTTP 401") in told.err
    assert TOKEN not in told.out + told.err
    assert not wrong or wrong not in told.out + told.err


def test_a_dashboard_that_is_silent_for_ten_minutes_is_exit_code_69() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]
        clock = Clock()
        client = Jobs(Dashboard(dashboard.place(f"127.0.0.1:{port}"), clock.time))
        with pytest.raises(ServiceUnavailable, match=f"at http://127.0.0.1:{port} has not answered") as gone:
            client.wait_for_ray()
    assert gone.value.exit_code == 69
    assert 600 <= clock.now - 1000 < 600 + 30
    assert max(clock.slept) <= 30


def test_a_dashboard_that_is_back_in_time_has_lost_nothing(ray: FakeRay) -> None:
    follower, _ = following_of(ray, Clock())
    ray.make = lambda job: setattr(job, "statuses", ["RUNNING", "SUCCEEDED"])
    ray.faults = [("GET", 503, "GCS is not there")] * 8 + [("POST", 500, "No available agent")] * 3
    follower.jobs.wait_for_ray()
    follower.start()
    assert follower.end().status == "SUCCEEDED"
    assert ray.count("POST") == 4


def test_what_ray_cannot_do_is_no_reason_to_wait(ray: FakeRay) -> None:
    ray.faults = [("POST", 500, "RuntimeError: Request failed with status code 400: ValueError: no such env")]
    clock = Clock()
    with pytest.raises(Refused, match="no such env") as refused:
        of(ray, clock).submit(Submission("j-1", "true"))
    assert (refused.value.exit_code, clock.slept) == (2, [])


def test_a_submitter_looks_every_2_to_10_seconds(ray: FakeRay) -> None:
    clock = Clock()
    follower, _ = following_of(ray, clock)
    ray.make = lambda job: setattr(job, "statuses", ["RUNNING"] * 100 + ["SUCCEEDED"])
    follower.start()
    follower.end()
    assert (min(clock.slept), max(clock.slept)) == (2.0, 10.0)


def test_a_submitter_that_is_ended_leaves_its_job_alone(ray: FakeRay, tmp_path: Path) -> None:
    ray.make = lambda job: setattr(job, "statuses", ["RUNNING"])
    words = [sys.executable, "-m", "hpsearch", *submitter(ray, "--", *ENTRYPOINT)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    deadline = time.monotonic() + 60
    while ray.count("GET /api/jobs/j-1") < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 75, out + err
    assert "interrupted by SIGTERM; job j-1 goes on" in err
    assert ray.jobs["j-1"].status == "RUNNING"
    assert ray.count("stop") == ray.count("DELETE") == 0


@pytest.mark.parametrize("words", [[], ["--", *ENTRYPOINT]])
def test_a_submitter_wants_its_words(ray: FakeRay, hpsearch: Callable[..., Told], words: list[str]) -> None:
    told = hpsearch("submit", "--wait", "--as-submitter", *words)
    assert told.code == 2
    assert "--submission-id" in told.err


def test_a_job_that_somebody_else_has_run_again_meanwhile_is_attached_to(ray: FakeRay) -> None:
    ray.jobs["sweep-1"] = Job("sweep-1", ["FAILED", "RUNNING"], exit_code=75)
    clock = Clock()
    follower, said = following_of(ray, clock, replace=True)

    def forget(name: str) -> None:
        ray.jobs[name] = Job(name, ["RUNNING", "SUCCEEDED"])
        Jobs.forget(follower.jobs, name)

    follower.jobs.forget = forget  # type: ignore[method-assign]
    found = follower.start()
    assert found
    assert (found.status, ray.count("POST"), clock.slept) == ("RUNNING", 0, [])
    assert said[-1] == "job sweep-1 is there already (RUNNING)"
    assert follower.end().status == "SUCCEEDED"


# -- logs -------------------------------------------------------------------------------------------


def test_a_dropped_stream_is_opened_again_where_it_was_and_ends_nothing(
    ray: FakeRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "FIRST_PAUSE", 0.01)
    log = "".join(f"line {n} of a driver\n" for n in range(200))
    ray.cuts = [0, 17, 40, 41, 1000, 1000, 3000]
    follower, _ = following_of(ray)
    looked = threading.Event()
    ray.make = lambda job: (setattr(job, "log", log), setattr(job, "statuses", ["RUNNING"]))[0]
    written: list[str] = []
    follower.start()
    real = follower.jobs.clock

    def sleep(seconds: float) -> None:
        # The job goes on however often its stream has dropped.
        if ray.streams > 7:
            ray.jobs["sweep-1"].statuses = ["SUCCEEDED"]
        looked.wait(0.01)

    follower.jobs.clock = Time(real.now, sleep, real.chance)
    copy = LogCopy(follower.jobs, "sweep-1", written.append)
    assert follower.end(copy).status == "SUCCEEDED"
    assert "".join(written) == log
    assert ray.streams >= 8


def test_a_log_that_cannot_be_read_is_no_end_and_no_error(ray: FakeRay) -> None:
    ray.jobs["sweep-1"] = Job("sweep-1", ["RUNNING", "RUNNING", "SUCCEEDED"])
    ray.faults = [("tail", 500, "UnicodeDecodeError: invalid start byte")] * 50
    follower, _ = following_of(ray)
    follower.start()
    written: list[str] = []
    copy = LogCopy(follower.jobs, "sweep-1", written.append)
    assert follower.end(copy).status == "SUCCEEDED"
    assert written == []


def test_the_log_of_a_job_that_was_submitted_again_is_copied_from_its_start(ray: FakeRay) -> None:
    ray.jobs["j"] = Job("j", ["RUNNING"], "old head\n")
    written: list[str] = []
    streamed = threading.Event()
    copy = LogCopy(of(ray), "j", lambda text: (written.append(text), streamed.set())[0])
    copy.start()
    assert streamed.wait(10)
    ray.jobs["j"].log = "new head, longer\n"
    copy.begin_again()
    copy.finish()
    assert "".join(written) == "old head\nnew head, longer\n"


def test_logs_are_followed_over_dropped_streams_without_secrets(
    ray: FakeRay, hpsearch: Callable[..., Told], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "FIRST_PAUSE", 0.01)
    log = "".join(f"line {n}\n" for n in range(30)) + f"password=hunter2\n{TOKEN}\n"
    ray.jobs["j"] = Job("j", ["RUNNING"] * 3 + ["FAILED"], log, 3)
    ray.cuts = [100, 200]
    told = hpsearch("logs", "j", "--follow", "--address", ray.address)
    lines = told.out.splitlines()
    assert (told.code, lines[:30]) == (0, [f"line {n}" for n in range(30)])
    assert lines[30:] == ["password=***", "***"]
    assert hpsearch("logs", "j", "--to", "jobs", "--address", ray.address).out == told.out


# -- who asks, and where ----------------------------------------------------------------------------


def test_ray_elsewhere_is_not_asked_without_a_token() -> None:
    where = dashboard.place("http://ray.example:8265")
    with pytest.raises(UsageError, match="no token for the Ray at http://ray") as refused:
        dashboard.check(where, {})
    assert "--insecure" in refused.value.hint
    dashboard.check(where, {}, insecure=True)
    dashboard.check(where, {dashboard.TOKEN: "t"})
    dashboard.check(where, {dashboard.ALLOW: "1"})
    for here in ("127.0.0.1:8265", "http://localhost:1", "https://[::1]:8265", "127.8.8.8"):
        dashboard.check(dashboard.place(here), {})


def test_ray_elsewhere_is_refused_by_the_command_before_anything_is_sent(
    hpsearch: Callable[..., Told], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(dashboard.TOKEN)
    told = hpsearch("status", "--address", "http://192.0.2.99:8265")
    assert told.code == 2
    assert "there is no token for the Ray at http://192.0.2.99:8265" in told.err


def test_the_token_comes_from_where_ray_takes_it(tmp_path: Path) -> None:
    home, named = tmp_path / "home", tmp_path / "named"
    (home / ".ray").mkdir(parents=True)
    (home / ".ray" / "auth_token").write_text("of-home\n")
    named.write_text("of-file\n")
    where = {"HOME": str(home)}
    assert dashboard.token({}) == ""
    assert dashboard.token(where) == "of-home"
    assert dashboard.token(where | {dashboard.TOKEN_PATH: str(named)}) == "of-file"
    assert dashboard.token(where | {dashboard.TOKEN_PATH: str(named), dashboard.TOKEN: "own"}) == "own"
    with pytest.raises(UsageError, match="RAY_AUTH_TOKEN_PATH names /nowhere, which cannot be read"):
        dashboard.token({dashboard.TOKEN_PATH: "/nowhere"})


def test_a_token_that_changes_is_read_anew_for_each_request(
    ray: FakeRay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN)
    monkeypatch.delenv(dashboard.TOKEN)
    monkeypatch.setenv(dashboard.TOKEN_PATH, str(file))
    client = of(ray)
    assert client.find("j") is None
    ray.token = "another-token-of-ray"
    file.write_text(ray.token)
    assert client.find("j") is None


@pytest.mark.parametrize(
    "address", ["ray://h:10001", "http://", "http://h:port", "http://h:1/path", "ftp://h", "http://h/?q=1"]
)
def test_what_is_no_dashboards_address_is_refused(address: str) -> None:
    with pytest.raises(UsageError, match="is no"):
        dashboard.place(address)


def test_an_address_with_a_password_is_refused_without_it() -> None:
    with pytest.raises(UsageError) as refused:
        dashboard.place("http://me:hunter22@ray:8265")
    assert "hunter22" not in str(refused.value)


# -- what an end means ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "exit_code", "error_type", "code", "done"),
    [
        ("SUCCEEDED", 0, "", 0, True),
        *(
            ("FAILED", code, "JOB_ENTRYPOINT_COMMAND_ERROR", code, code == 3)
            for code in (2, 3, 4, 69, 73, 74)
        ),
        ("FAILED", 75, "JOB_ENTRYPOINT_COMMAND_ERROR", 75, False),
        ("FAILED", 1, "JOB_ENTRYPOINT_COMMAND_ERROR", 3, False),
        ("FAILED", -9, "JOB_ENTRYPOINT_COMMAND_ERROR", 75, False),
        ("FAILED", 137, "JOB_ENTRYPOINT_COMMAND_ERROR", 75, False),
        ("FAILED", None, "JOB_SUPERVISOR_ACTOR_DIED", 75, False),
        ("FAILED", None, "RUNTIME_ENV_SETUP_FAILURE", 3, False),
        ("STOPPED", None, "", 3, False),
        ("RUNNING", None, "", None, False),
        ("PENDING", None, "", None, False),
    ],
)
def test_the_end_of_a_job_is_its_drivers_exit_code(
    status: str, exit_code: int | None, error_type: str, code: int | None, done: bool
) -> None:
    job = jobs.RayJob("j", status, "", error_type, exit_code, "", None, None, {})
    assert (job.code, job.is_done) == (code, done)


def test_status_shows_a_job_and_lists_those_that_were_submitted(
    ray: FakeRay, hpsearch: Callable[..., Told]
) -> None:
    ray.jobs["b"] = Job("b", ["FAILED"], "", 4)
    ray.jobs["a"] = Job("a", ["RUNNING"])
    import json

    told = json.loads(hpsearch("status", "b", "--json", "--address", ray.address).out)
    assert (told["job_status"], told["outcome"], told["exit_code"]) == ("FAILED", "deadline", 4)
    assert (told["seconds"], told["final"], told["driver_exit_code"]) == (60.0, True, 4)
    listed = json.loads(hpsearch("status", "--json", "--address", ray.address).out)["jobs"]
    assert [(each["name"], each["outcome"]) for each in listed] == [("a", None), ("b", "deadline")]
    missing = hpsearch("status", "c", "--address", ray.address)
    assert missing.code == 2
    assert "knows no job 'c'\nhint: there: a, b\n" in missing.err


def test_stop_asks_ray_and_waits_for_the_end(ray: FakeRay, hpsearch: Callable[..., Told]) -> None:
    ray.jobs["j"] = Job("j", ["RUNNING"] * 9)
    told = hpsearch("stop", "j", "--to", "jobs", "--address", ray.address)
    assert (told.code, ray.jobs["j"].status) == (0, "STOPPED")
    assert told.out.startswith("job j: ended after ")
    assert hpsearch("stop", "--to", "jobs").code == 2


# -- the stream itself ------------------------------------------------------------------------------


def streamed(data: bytes) -> Iterator[str]:
    """What is read of a WebSocket that sends this after it has opened."""
    import base64
    import hashlib

    ours, theirs = socket.socketpair()

    def serve() -> None:
        with theirs, theirs.makefile("rb") as asked:
            key = b""
            while line := asked.readline().strip():
                if line.lower().startswith(b"sec-websocket-key:"):
                    key = line.split()[1]
            accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
            theirs.sendall(b"HTTP/1.1 101 Switching\r\nSec-WebSocket-Accept: " + accept + b"\r\n\r\n" + data)
            theirs.shutdown(socket.SHUT_WR)
            asked.read()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield from websocket.texts(ours, "http://h:1", "/t", {})
    thread.join(5)


def test_a_stream_is_texts_of_any_length_in_any_pieces() -> None:
    long, longer = "x" * 300, "é" * 40_000
    sent = frame(b"on", last=False) + frame(b"", 9) + frame(b"e\n", 0) + frame(long.encode())
    sent += frame(longer.encode()) + frame(b"\x03\xe8", 8)
    assert list(streamed(sent)) == ["one\n", long, longer]


@pytest.mark.parametrize("cut", [b"", frame(b"text")[:3], frame(b"x" * 300)[:200]])
def test_a_stream_that_ends_without_a_farewell_was_cut(cut: bytes) -> None:
    with pytest.raises(ConnectionError, match="cut"):
        list(streamed(frame(b"text") + cut))


def test_what_no_server_of_ray_sends_is_no_text() -> None:
    for strange in (b"\xc1\x01x", b"\x81\x7f" + b"\xff" * 8, b"\x81\x81abcdx"):
        with pytest.raises(ValueError, match="no server of Ray"):
            list(streamed(strange))


def test_a_duplicate_is_known_by_its_text_alone(ray: FakeRay) -> None:
    ray.faults = [("POST", 500, DUPLICATE.format(name="j"))]
    with pytest.raises(AlreadyThere):
        of(ray).submit(Submission("j", "true"))
    ray.faults = [("GET", 500, DUPLICATE.format(name="j"))] * 200
    with pytest.raises(ServiceUnavailable, match="ValueError: Job with submission_id j already exists"):
        of(ray).find("j")


def test_a_stream_that_is_refused_is_told_as_its_answer(ray: FakeRay) -> None:
    ray.faults = [("tail", 500, "no agent")]
    ray.jobs["j"] = Job("j")
    with pytest.raises(NoAnswer, match="HTTP 500 to GET /api/jobs/j/logs/tail"):
        list(of(ray).tail("j"))
    assert os.environ[dashboard.TOKEN] == TOKEN
