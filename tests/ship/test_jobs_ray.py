"""A real Ray head with its dashboard and a token runs a rendered job's own commands, and submitted sweeps."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from kube_world import SWEEP
from manifests import IMAGE
from ports import free_port

from hpsearch.errors import UsageError
from hpsearch.ship import dashboard, making, render
from hpsearch.ship.api import AlreadyThere, NoAnswer, Refused
from hpsearch.ship.dashboard import Dashboard
from hpsearch.ship.job import STUDIES, SWEEP_FILE
from hpsearch.ship.jobs import Jobs, RayJob, Submission
from hpsearch.spec.reading import read
from hpsearch.study.home import Home
from hpsearch.study.trial import State

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("ray"), pytest.mark.timeout(500)]
BIN = Path(sys.executable).parent
TRIES = 3
# Beside what it imports, which travels with it.
TRAINER = """
from own_errors import OwnTrouble

def train(params, context):
    raise OwnTrouble(f"lr {params['lr']:g} cannot be")
    yield
"""
PORTS = ("--port", "--ray-client-server-port", "--dashboard-port")
PORTS += ("--dashboard-agent-listen-port", "--dashboard-agent-grpc-port", "--metrics-export-port")


@dataclass
class Head:
    """A head on loopback: its dashboard, and what its clients have in their environment."""

    address: str
    environment: dict[str, str]
    folder: Path
    rayjob: Any
    studies: Path
    words: list[str]
    own: dict[str, str]
    started: list[subprocess.Popen[str]] = field(default_factory=list)
    process: subprocess.Popen[bytes] | None = None

    def begin(self) -> None:
        """Start the head, with the variables of its pod."""
        log = self.folder / "head.log"
        # Ray gives its own start 30 s, which is too little where many tests run beside it.
        for _ in range(TRIES):
            with log.open("a") as said:
                process = subprocess.Popen(
                    self.words,
                    env=self.own,
                    cwd=self.folder,
                    stdout=said,
                    stderr=said,
                    start_new_session=True,
                )
            self.process = process
            while not (there := _answers(self)) and process.poll() is None:
                time.sleep(0.1)
            if there:
                return
            self.lose()
        raise AssertionError(log.read_text())

    def lose(self) -> None:
        """Kill all of the head at once, and whatever it has started."""
        _end_all_of(f"TEST_HEAD={self.own['TEST_HEAD']}")
        if self.process:
            self.process.wait(30)

    @property
    def jobs(self) -> Jobs:
        where = dashboard.place(self.address)
        return Jobs(Dashboard(where, token=lambda: dashboard.token(self.environment)))

    def start(self, *words: str, cwd: Path | None = None, **more: str) -> subprocess.Popen[str]:
        """A command as a process of its own, with the variables that a client has."""
        process = subprocess.Popen(
            [str(BIN / "hpsearch"), *words],
            env=self.environment | more,
            cwd=cwd or self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.started.append(process)
        return process

    def run(self, *words: str, cwd: Path | None = None, **more: str) -> subprocess.CompletedProcess[str]:
        process = self.start(*words, cwd=cwd, **more)
        out, err = process.communicate(timeout=240)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def ended(self, name: str) -> RayJob:
        return self.until(name, lambda job: job.is_final)

    def until(self, name: str, wanted: Any) -> RayJob:
        deadline = time.monotonic() + 200
        while not wanted(job := self.jobs.get(name)):
            assert time.monotonic() < deadline, job
            time.sleep(0.1)
        return job


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory, mlflow_database: Path) -> Iterator[Head]:
    """One head for all tests here; its jobs stop as those of a rendered head's pod do."""
    folder = tmp_path_factory.mktemp("head")
    token = folder / "token"
    token.touch(0o600)
    token.write_text(secrets.token_hex(24))
    scratch = Path("/tmp") / f"jobs-{os.getpid()}"  # sockets have short paths
    ports: list[int] = []
    while len(ports) < len(PORTS):
        ports += {free_port()} - set(ports)
    kept = {name: os.environ[name] for name in ("LANG", "TMPDIR") if name in os.environ}
    environment = kept | {
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(folder),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    rayjob, studies = rendered(folder)
    shutil.copy(mlflow_database, studies / "mlflow.db")
    template = rayjob["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]
    own = environment | variables(template["spec"]["containers"][0])
    own["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # on loopback alone
    words = [str(BIN / "ray"), "start", "--head", "--block", "--node-ip-address=127.0.0.1", "--num-cpus=2"]
    words += ["--dashboard-host=127.0.0.1", "--object-store-memory=80000000", f"--temp-dir={scratch}"]
    words += [f"{name}={port}" for name, port in zip(PORTS, ports, strict=True)]
    own["TEST_HEAD"] = str(folder / "head.log")
    made = Head(f"http://127.0.0.1:{ports[2]}", environment, folder, rayjob, studies, words, own)
    try:
        made.begin()
        yield made
    finally:
        for each in made.started:
            if each.poll() is None:
                each.kill()
            each.communicate()
        made.lose()
        shutil.rmtree(scratch, ignore_errors=True)


def _answers(head: Head) -> bool:
    try:
        return head.jobs.dashboard.ask("GET", "/api/gcs_healthz", None, "text/plain")[0] == 200
    except NoAnswer:
        return False


def _end_all_of(mark: str) -> None:
    """End the processes in whose environment it stands, which are those of this head: no other Ray."""
    ours = True
    while ours:
        ours = False
        for directory in Path("/proc").glob("[0-9]*"):
            try:
                if mark.encode() in (directory / "environ").read_bytes():
                    os.kill(int(directory.name), signal.SIGKILL)
                    ours = True
            except OSError:
                continue
        time.sleep(0.05)


def rendered(folder: Path) -> tuple[Any, Path]:
    """A RayJob as its manifest has it, but that its pods' mounts are directories here, and MLflow a file."""
    file, studies = folder / "mounted" / "sweep.yaml", folder / "claim" / "studies"
    text = FEW.replace("loss", "rmse").replace("parameterName: lr", "parameterName: learning_rate")
    file.parent.mkdir()
    studies.mkdir(parents=True)
    file.write_text(text.replace("    params:\n", "    params:\n" + BATCH))
    spec = read(file).spec
    assert spec
    job = making.job(spec, making.Wishes(image=IMAGE, name="nightly"))
    (rayjob,) = (each for each in render.render(job) if each["kind"] == "RayJob")
    whole = json.dumps(rayjob).replace(SWEEP_FILE, str(file)).replace(STUDIES, str(studies))
    return json.loads(whole.replace("http://mlflow:5000", f"sqlite:///{studies / 'mlflow.db'}")), studies


def variables(container: Any) -> dict[str, str]:
    """The variables of a container whose values stand in the manifest."""
    return {each["name"]: each["value"] for each in container["env"] if "value" in each}


FEW = SWEEP.replace("maxTrials: 4", "maxTrials: 2").replace("maxParallelTrials: 2", "maxParallelTrials: 1")
BATCH = "      - {parameterName: batch_size, type: INTEGER, minValue: 2, maxValue: 6}\n"


def expanded(words: list[str], known: dict[str, str]) -> list[str]:
    """Words as a kubelet expands them."""
    for name, value in known.items():
        words = [word.replace(f"$({name})", value) for word in words]
    assert not any("$(" in word for word in words)
    return words


def test_a_rendered_jobs_own_commands_run_its_sweep_on_a_real_ray_once(head: Head) -> None:
    container = head.rayjob["spec"]["submitterPodTemplate"]["spec"]["containers"][0]
    assert " ".join(container["command"]).endswith("-- " + head.rayjob["spec"]["entrypoint"])
    token = dashboard.token(head.environment)
    # What the operator adds to a submitter.
    given = variables(container) | {
        "RAY_DASHBOARD_ADDRESS": head.address.removeprefix("http://"),
        "RAY_JOB_SUBMISSION_ID": "nightly-x7k2p",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": token,
    }
    program, *words = expanded(container["command"], given)
    assert program == "hpsearch"
    told = head.run(*words, **given)
    assert told.returncode == 0, told.stdout + told.stderr
    assert "study nightly completed: 2 of 2 trials completed" in told.stdout
    assert "job nightly-x7k2p ended: SUCCEEDED, exit code 0" in told.stderr
    assert token not in told.stdout + told.stderr
    history = Home(head.studies).history("nightly")
    assert history.study.tags["rayjob"] == "nightly"
    assert [trial.state for trial in history.trials] == [State.COMPLETED] * 2
    # Its Job's next pod: a submitter that was started again.
    again = head.run(*words, **given)
    assert again.returncode == 0
    assert "job nightly-x7k2p is there already (SUCCEEDED)" in again.stderr
    assert again.stdout == told.stdout
    assert [job.id for job in head.jobs.list() if job.id.startswith("nightly")] == ["nightly-x7k2p"]


def test_a_sweep_with_code_of_its_own_is_submitted_once_and_its_exit_code_comes_through(
    head: Head, tmp_path: Path, mlflow_database: Path
) -> None:
    (tmp_path / "own_trainer.py").write_text(TRAINER)
    (tmp_path / "own_errors.py").write_text("class OwnTrouble(Exception): pass\n")
    (tmp_path / "own.yaml").write_text(FEW.replace("hpsearch.trainers.linear_regression", "own_trainer"))
    (tmp_path / "studies").mkdir()
    shutil.copy(mlflow_database, tmp_path / "studies" / "mlflow.db")
    words = ("submit", "own.yaml", "--to", "jobs", "--address", head.address, "--study", "own", "--wait")
    told = head.run(*words, cwd=tmp_path)
    assert told.returncode == 3, told.stdout + told.stderr
    assert "study own failed" in told.stdout
    assert told.stdout.endswith(": failed\n")
    reasons = {
        trial.ending.reason for trial in Home(tmp_path / "studies").history("own").trials if trial.ending
    }
    assert all("OwnTrouble: lr " in reason for reason in reasons), reasons
    # The verdict stands: whoever submits it again hears the same, and nothing runs.
    again = head.run(*words, cwd=tmp_path)
    assert (again.returncode, "is there already (FAILED)" in again.stderr) == (3, True)
    status = json.loads(head.run("status", "--json", cwd=tmp_path).stdout)["jobs"]
    (job,) = status
    assert (job["outcome"], job["exit_code"], job["metadata"]["study"]) == ("failed", 3, "own")
    logged = head.run("logs", job["name"], cwd=tmp_path)
    assert logged.stdout in told.stdout
    assert "study own failed" in logged.stdout


def test_what_ray_says_of_jobs_is_what_we_read(head: Head) -> None:
    jobs = head.jobs
    entrypoints = {"ends": "exit 4", "killed": "kill -9 $$", "stays": "echo here; exec sleep 300"}
    for name, entrypoint in entrypoints.items():
        jobs.submit(Submission(name, entrypoint))
    with pytest.raises(AlreadyThere):
        jobs.submit(Submission("ends", "true"))
    assert jobs.find("never") is None
    with pytest.raises(UsageError, match="knows no job 'never'"):
        jobs.get("never")
    for token in ("", "wrong"):
        stranger = Jobs(Dashboard(jobs.dashboard.where, token=lambda token=token: token))
        with pytest.raises(Refused) as refused:
            stranger.list()
        assert refused.value.status == (403 if token else 401)
    assert (head.ended("ends").code, head.ended("ends").exit_code) == (4, 4)
    assert (head.ended("killed").status, head.ended("killed").code) == ("FAILED", 75)
    head.until("stays", lambda job: "here" in jobs.logs("stays"))
    with pytest.raises(AlreadyThere):
        jobs.forget("stays")
    assert jobs.stop("stays")
    assert (head.ended("stays").status, head.ended("stays").code) == ("STOPPED", 3)
    assert "".join(jobs.tail("stays")) == jobs.logs("stays")
    # How long a job has to end is its own word, which goes before its head's 45 s.
    jobs.submit(Submission("hasty", "echo $RAY_JOB_STOP_WAIT_TIME_S seconds", patience=7))
    assert head.ended("hasty").status == "SUCCEEDED"
    assert "\n7 seconds\n" in jobs.logs("hasty")
    jobs.forget("stays")
    assert jobs.find("stays") is None


def test_a_job_whose_head_was_lost_is_submitted_to_the_new_one(head: Head, tmp_path: Path) -> None:
    """The last one here: the head that the others share is killed."""
    lives = tmp_path / "lives"
    script = f"echo life >>{lives}; [ $(wc -l <{lives}) -gt 1 ] || exec sleep 300; echo gone on"
    words = ("--address", head.address, "--submission-id", "lost", "--", "bash", "-c", script)
    submitter = head.start("submit", "--wait", "--as-submitter", *words)
    deadline = time.monotonic() + 100
    while not lives.exists():
        assert submitter.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    head.lose()
    head.begin()
    out, err = submitter.communicate(timeout=200)
    assert submitter.returncode == 0, out + err
    assert "Ray has lost job lost: submitted again (1 of 3)" in err
    assert "job lost ended: SUCCEEDED, exit code 0" in err
    assert out.endswith("gone on\n")
    assert lives.read_text() == "life\n" * 2
