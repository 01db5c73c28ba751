"""`submit` to each place: what is handed over, that it is handed over once, what comes back of its end."""

from __future__ import annotations

import io
import json
import os
import shutil
import stat
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kube_client import kubectl
from kube_kinds import RAY_JOB
from kube_world import IMAGE, SPACE, SWEEP, World, world
from ray_dashboard import TOKEN, FakeRay, Job, fake_ray

from hpsearch import cli
from hpsearch.errors import UsageError
from hpsearch.ship import applying, dashboard, following, local_jobs, package, records, slurm_jobs
from hpsearch.spec.model import Spec
from hpsearch.spec.reading import read

OWN = SWEEP.replace("hpsearch.trainers.linear_regression", "own_trainer")


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a sweep of its own trainer, which imports a file beside it, and a secret."""
    for name in (dashboard.TOKEN_PATH, dashboard.ADDRESS, dashboard.ALLOW, "HPSEARCH_HOME", "HPSEARCH_IMAGE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(dashboard.TOKEN, TOKEN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(following, "FIRST_LOOK", 0.01)
    (tmp_path / "sweep.yaml").write_text(OWN)
    (tmp_path / "own_trainer.py").write_text("import own_parts\n\ndef train(params, context):\n    yield\n")
    (tmp_path / "own_parts.py").write_text("SIZE = 3\n")
    (tmp_path / ".env").write_text("API_KEY=hunter2hunter2\n")
    return tmp_path


@pytest.fixture
def ray() -> Iterator[FakeRay]:
    with fake_ray() as server:
        yield server


class Told:
    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def answer(self) -> Any:
        assert self.out.count("\n") == 1, self.out
        return json.loads(self.out)


Command = Callable[..., Told]


@pytest.fixture
def hpsearch(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    def command(*words: str) -> Told:
        monkeypatch.setattr(sys, "argv", ["hpsearch", *words])
        with pytest.raises(SystemExit) as left:
            cli.main()
        out, err = capsys.readouterr()
        return Told(left.value.code if isinstance(left.value.code, int) else 0, out, err)

    return command


def spec_of(text: str, file: Path) -> Spec:
    file.write_text(text)
    spec = read(file).spec
    assert spec
    return spec


# -- a Ray that runs --------------------------------------------------------------------------------


def test_a_sweep_and_its_code_are_submitted_once_and_found_again_by_name(
    ray: FakeRay, hpsearch: Command, place: Path
) -> None:
    words = ("submit", "sweep.yaml", "--to", "jobs", "--address", ray.address)
    ray.make = lambda job: setattr(job, "statuses", ["RUNNING"])
    answer = hpsearch(*words, "--deadline", "8h", "--json").answer
    name = answer["name"]
    spec = read(Path("sweep.yaml")).spec
    assert spec
    assert name == f"sweep-{spec.sha256[:8]}"
    assert (answer["attached"], answer["study"], answer["home"]) == (False, name, str(place / "studies"))
    asked = ray.jobs[name].asked
    home = place / "studies"
    run = (
        f"hpsearch run sweep.yaml --study {name} --resume auto --home {home} --deadline 28800s --address auto"
    )
    assert asked["entrypoint"] == run
    assert asked["metadata"]["space_sha256"] == spec.sha256
    (stored,) = ray.packages
    patience = {"RAY_JOB_STOP_WAIT_TIME_S": "45"}
    assert asked["runtime_env"] == {"working_dir": f"gcs://{stored}", "env_vars": patience}
    with zipfile.ZipFile(io.BytesIO(ray.packages[stored])) as archive:
        assert archive.namelist() == ["own_parts.py", "own_trainer.py", "sweep.yaml"]
        assert archive.read("sweep.yaml").decode() == OWN
    assert TOKEN not in json.dumps(asked)
    # Again: nothing is handed over, whoever asks.
    assert hpsearch(*words, "--json").answer["attached"] is True
    assert (ray.count("POST"), ray.count("PUT")) == (1, 1)
    assert hpsearch("status", name, "--json").answer["job_status"] == "RUNNING"
    ray.jobs[name].log = "as it goes\n"
    assert hpsearch("logs", name).out == "as it goes\n"
    assert hpsearch("stop", name).code == 0
    assert ray.jobs[name].status == "STOPPED"


@pytest.mark.parametrize("code", [0, 2, 3, 4, 69, 73, 74, 75])
def test_with_wait_the_drivers_exit_code_is_that_of_the_command(
    ray: FakeRay, hpsearch: Command, code: int
) -> None:
    def made(job: Job) -> None:
        job.statuses = ["PENDING", "RUNNING", "FAILED" if code else "SUCCEEDED"]
        job.exit_code, job.log = code, "all of it\n"

    ray.make = made
    told = hpsearch("submit", "sweep.yaml", "--to", "jobs", "--address", ray.address, "--wait")
    assert told.code == code
    assert told.out.startswith("all of it\n")


def test_a_job_that_ended_before_its_study_was_done_runs_again_and_a_verdict_stands(
    ray: FakeRay, hpsearch: Command
) -> None:
    words = ("submit", "sweep.yaml", "--to", "jobs", "--address", ray.address, "--wait")
    codes = iter([75, 4, 3])

    def made(job: Job) -> None:
        job.statuses, job.exit_code = ["FAILED"], next(codes)

    ray.make = made
    assert [hpsearch(*words).code for _ in range(5)] == [75, 4, 3, 3, 3]
    assert (ray.count("POST"), ray.count("DELETE")) == (3, 2)


def test_a_new_head_gets_the_code_again_too(ray: FakeRay, hpsearch: Command) -> None:
    lost = 0

    def made(job: Job) -> None:
        nonlocal lost
        job.statuses = ["RUNNING", "SUCCEEDED"]
        if lost == 0:
            lost += 1
            ray.faults.append((f"GET /api/jobs/{job.name}", 404, "lost"))
            ray.packages.clear()
            job.statuses = ["RUNNING"]
            threading.Timer(0.0, lambda: ray.jobs.pop(job.name, None)).run()

    ray.make = made
    told = hpsearch("submit", "sweep.yaml", "--to", "jobs", "--address", ray.address, "--wait")
    assert told.code == 0, told.err
    assert (ray.count("PUT"), len(ray.packages)) == (2, 1)


def test_a_dry_run_submits_nothing(ray: FakeRay, hpsearch: Command, place: Path) -> None:
    words = ("submit", "sweep.yaml", "--to", "jobs", "--address", ray.address, "--dry-run")
    assert "entrypoint: hpsearch run sweep.yaml --study sweep-" in hpsearch(*words).out
    assert hpsearch(*words, "--json").answer["files"] == ["own_parts.py", "own_trainer.py", "sweep.yaml"]
    assert ray.requests == []
    assert not (place / "studies").exists()


def test_a_cluster_elsewhere_needs_a_place_for_its_studies(hpsearch: Command) -> None:
    words = ("submit", "sweep.yaml", "--to", "jobs", "--address", "http://192.0.2.99:8265", "--dry-run")
    told = hpsearch(*words)
    assert told.code == 2
    assert "--cluster-home /shared/studies" in told.err
    assert hpsearch(*words, "--cluster-home", "studies").code == 2
    assert "--home /shared/s " in hpsearch(*words, "--cluster-home", "/shared/s").out


def test_what_would_stand_in_a_job_for_all_to_read_is_refused(hpsearch: Command, place: Path) -> None:
    words = ("submit", "sweep.yaml", "--to", "jobs", "--dry-run")
    told = hpsearch(*words, "--tracking-uri", "https://me:hunter22@mlflow")
    assert told.code == 2
    assert "hunter22" not in told.err
    (place / "sweep.yaml").write_text(OWN + 'description: "api_key=hunter2hunter2"\n')
    (place / "sweep.yaml").write_text(
        OWN.replace("  pythonModule", "  args: [--api-key=hunter22]\n  pythonModule")
    )
    told = hpsearch(*words)
    assert (told.code, "looks like a secret" in told.err) == (2, True)
    assert "hunter22" not in told.err


def test_a_package_is_the_same_bytes_for_the_same_files(place: Path) -> None:
    spec = read(place / "sweep.yaml").spec
    assert spec
    one = package.package(spec, (str(place),))
    os.utime(place / "own_parts.py", (1, 1))
    assert package.package(spec, (str(place),)) == one
    (place / "own_parts.py").write_text("SIZE = 4\n")
    assert package.package(spec, (str(place),)).name != one.name


def test_a_whole_directory_travels_without_hidden_files_and_environments(place: Path) -> None:
    spec = read(place / "sweep.yaml").spec
    assert spec
    for name in (
        "env/pyvenv.cfg",
        "env/lib.py",
        "studies/s.db",
        "__pycache__/x.pyc",
        ".git/config",
        "data/d.csv",
    ):
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).touch()
    whole = package.package(spec, (), place)
    assert whole.files == ("data/d.csv", "own_parts.py", "own_trainer.py", "sweep.yaml")
    with pytest.raises(UsageError, match="is no directory"):
        package.package(spec, (), place / "nowhere")
    other = place / "other"
    other.mkdir()
    (other / "sweep.yaml").write_text("another")
    with pytest.raises(UsageError, match="is another file than"):
        package.package(spec, (), other)


def test_too_much_does_not_travel(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = read(place / "sweep.yaml").spec
    assert spec
    monkeypatch.setattr(package, "LARGEST", 100)
    with pytest.raises(UsageError, match="MiB or 10,000 files"):
        package.package(spec, (), place)


# -- records ----------------------------------------------------------------------------------------


def test_a_name_that_means_two_is_refused(hpsearch: Command, place: Path) -> None:
    home = place / "studies"
    record = records.Record("twice", records.Target.JOBS, "other", "/shared", address="http://127.0.0.1:9")
    records.keep(home, record)
    assert records.find(home, "twice") == record
    assert stat.S_IMODE((home / ".jobs" / "twice.job.json").stat().st_mode) == 0o600
    sys.path.insert(0, str(Path(__file__).parents[1] / "show"))
    import facts

    facts.stored(facts.study(home, "twice"), [facts.completed(0, 2.5)])
    told = hpsearch("stop", "twice")
    assert told.code == 2
    assert "'twice' is a study here, and a job of jobs\nhint: say which: --to local, or --to jobs" in told.err
    assert "nobody runs study 'twice'" in hpsearch("stop", "twice", "--to", "local").err


def test_one_place_that_does_not_answer_hides_no_other(
    ray: FakeRay, hpsearch: Command, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dashboard, "SHORT_PATIENCE", 0.0)
    for name, address in (("a", "http://127.0.0.1:9"), ("b", ray.address)):
        records.keep(
            place / "studies", records.Record(name, records.Target.JOBS, name, "/s", address=address)
        )
    ray.jobs["b"] = Job("b", ["FAILED"], "", 3)
    told = hpsearch("status", "--json")
    assert [(each["name"], each["exit_code"]) for each in told.answer["jobs"]] == [("a", None), ("b", 3)]
    assert "has not answered" in told.err


def test_an_unknown_name_is_told_what_to_do(hpsearch: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", "/nowhere")
    for command in ("status", "logs"):
        told = hpsearch(command, "never")
        assert (told.code, "no job 'never' was submitted from here" in told.err) == (2, True)
    assert "no study 'never'" in hpsearch("stop", "never").err
    assert hpsearch("status").out == "no jobs\n"


def test_a_job_that_its_place_has_forgotten_is_gone_and_no_error(
    ray: FakeRay, hpsearch: Command, place: Path
) -> None:
    records.keep(place / "studies", records.Record("a", records.Target.JOBS, "a", "/s", address=ray.address))
    told = hpsearch("status")
    assert (told.out, told.err) == (
        "a  jobs  gone: its place has forgotten it; submit it again to go on\n",
        "",
    )
    assert "knows no job 'a'" in hpsearch("status", "a").err


def test_the_store_of_this_shell_does_not_travel_and_that_is_said(
    ray: FakeRay, hpsearch: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("submit", "sweep.yaml", "--to", "jobs", "--address", ray.address)
    assert "HPSEARCH_STORE" not in hpsearch(*words).err
    monkeypatch.setenv("HPSEARCH_STORE", "postgresql://me:hunter22@db/studies")
    told = hpsearch(*words)
    assert "HPSEARCH_STORE is set here, and does not travel" in told.err
    assert "hunter22" not in told.out + told.err


@pytest.mark.parametrize("target", ["local", "slurm", "jobs"])
def test_where_trials_keep_their_files_travels(
    hpsearch: Command, place: Path, target: str, ray: FakeRay
) -> None:
    words = ["submit", "sweep.yaml", "--to", target, "--dry-run"]
    if target == "jobs":
        words += ["--address", ray.address, "--cluster-home", "/shared/studies"]
    assert "--storage s3://bucket/sweeps" in hpsearch(*words, "--storage", "s3://bucket/sweeps").out
    relative = hpsearch(*words, "--storage", "files")
    if target == "jobs":
        assert (relative.code, "is relative to a directory of this machine" in relative.err) == (2, True)
    else:
        assert f"--storage {place}/files" in relative.out
    assert hpsearch(*words, "--storage-secret", "keys").code == 2


def test_a_webhook_travels_by_the_name_of_its_variable(
    hpsearch: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TEAM_HOOK", raising=False)
    for target in ("jobs", "slurm", "local"):
        words = ("submit", "sweep.yaml", "--to", target, "--dry-run", "--webhook-env", "TEAM_HOOK")
        assert "--webhook-env TEAM_HOOK" in hpsearch(*words).out
    told = hpsearch("submit", "sweep.yaml", "--to", "local", "--webhook-env", "TEAM_HOOK")
    assert (told.code, "TEAM_HOOK, which is not set" in told.err) == (2, True)
    kuberay = ("submit", "sweep.yaml", "--to", "kuberay", "--image", IMAGE, "--dry-run")
    told = hpsearch(*kuberay, "--webhook-env", "TEAM_HOOK")
    assert (told.code, "--webhook-secret" in told.err) == (2, True)
    assert hpsearch("submit", "sweep.yaml", "--to", "local", "--webhook-secret", "hook").code == 2


# -- this machine -----------------------------------------------------------------------------------


def test_a_local_job_runs_in_the_background_once(hpsearch: Command, place: Path) -> None:
    """The driver is a program of a test's that says what a driver says, when it is let."""
    job = local_jobs.LocalJob(place / "studies", "j")
    driver = place / "driver.py"
    driver.write_text(DRIVER)
    command = [sys.executable, str(driver), str(place / "go")]
    assert job.start(command) is True
    assert job.start(command) is False
    assert job.runs
    assert local_jobs.shown(job)["final"] is False
    (place / "go").touch()
    from hpsearch.ship.api import Time

    assert job.wait(Time()) == 3
    assert "".join(job.lines(Time(), follow=True)) == "begun\nended\n"
    assert local_jobs.shown(job)["exit_code"] == 3
    assert job.start(command) is False  # its study has had its end


DRIVER = """
import json, sys, time
from pathlib import Path
status = Path(sys.argv[sys.argv.index("--status-file") + 1])
facts = dict(outcome="running", exit_code=None, renewed="", lease_seconds=60, host="h", pid=1, owner="")
status.write_text(json.dumps(facts))
print("begun", flush=True)
while not Path(sys.argv[1]).exists():
    time.sleep(0.01)
print("ended", flush=True)
status.write_text(json.dumps({**facts, "outcome": "failed", "exit_code": 3}))
"""


@pytest.mark.slow
def test_a_sweep_in_the_background_is_waited_for_with_its_exit_code(
    hpsearch: Command, place: Path, mlflow_database: Path
) -> None:
    (place / "own_trainer.py").write_text("def train(params, context):\n    raise OSError('no')\n    yield\n")
    (place / "studies").mkdir()
    shutil.copy(mlflow_database, place / "studies" / "mlflow.db")
    words = ("submit", "sweep.yaml", "--to", "local", "--local", "--study", "mine", "--wait")
    told = hpsearch(*words)
    assert told.code == 3, told.out + told.err
    assert "study mine failed" in told.out
    again = hpsearch(*words, "--json")
    assert (again.code, again.answer["outcome"]) == (3, "failed")
    assert "is there already (failed)" in again.err
    (job,) = hpsearch("status", "--json").answer["jobs"]
    assert (job["target"], job["exit_code"]) == ("local", 3)
    assert "study mine failed" in hpsearch("logs", job["name"]).out


# -- Slurm ------------------------------------------------------------------------------------------


@pytest.fixture
def slurm(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Commands of a Slurm whose queue is a directory: a file for each job, its state in it."""
    programs, queue = place / "bin", place / "queue"
    programs.mkdir()
    queue.mkdir()
    texts = {
        "sbatch": f'cp "$2" {queue}/script && echo PENDING >{queue}/41 && echo "41;cluster"',
        "squeue": f'cd {queue}; for n in [0-9]*; do [ -f "$n" ] && echo "$n $(cat $n)"; done; true',
        "scancel": f'rm {queue}/"$1"',
    }
    for name, text in texts.items():
        (programs / name).write_text(f"#!/bin/sh\necho {name} $* >>{place}/calls\n{text}\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(slurm_jobs, "LOOK", 0.05)
    return queue


def test_a_slurm_job_is_queued_once_and_judged_by_our_status_file(
    slurm: Path, hpsearch: Command, place: Path
) -> None:
    words = ("submit", "sweep.yaml", "--to", "slurm", "--nodes", "3")
    answer = hpsearch(*words, "--json").answer
    assert (answer["job"], answer["attached"]) == ("41", False)
    script = (slurm / "script").read_text()
    assert "#SBATCH --nodes=3" in script
    subprocess.run(["bash", "-n", str(slurm / "script")], check=True)
    assert hpsearch(*words, "--json").answer["attached"] is True
    assert (place / "calls").read_text().count("sbatch ") == 1
    name = answer["name"]
    assert hpsearch("status", name, "--json").answer["job_status"] == "PENDING"
    state = place / "studies" / ".slurm"
    facts = {"outcome": "deadline", "exit_code": 4, "renewed": "", "lease_seconds": 1, "host": "", "pid": 1}

    def end() -> None:
        deadline = time.monotonic() + 20
        while (place / "calls").read_text().count("squeue") < 6 and time.monotonic() < deadline:
            time.sleep(0.01)
        (state / "41.status.json").write_text(json.dumps({**facts, "owner": ""}))
        (state / f"{name}-41.log").write_text("as it went\n")
        (slurm / "41").unlink()

    ending = threading.Thread(target=end)
    ending.start()
    told = hpsearch(*words, "--wait")
    ending.join()
    assert (told.code, told.out) == (4, "job 41: deadline\n")
    assert hpsearch("status", name, "--json").answer["exit_code"] == 4
    assert hpsearch("logs", name).out == "as it went\n"


def test_a_slurm_job_is_cancelled_by_its_number(slurm: Path, hpsearch: Command, place: Path) -> None:
    name = hpsearch("submit", "sweep.yaml", "--to", "slurm", "--json").answer["name"]
    assert hpsearch("stop", name).code == 0
    assert "scancel 41\n" in (place / "calls").read_text()


def test_without_slurm_nothing_is_submitted(hpsearch: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    told = hpsearch("submit", "sweep.yaml", "--to", "slurm")
    assert (told.code, "there is no squeue here" in told.err) == (2, True)


# -- Kubernetes -------------------------------------------------------------------------------------


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    (tmp_path / "cluster-files").mkdir()
    with world(tmp_path / "cluster-files") as made:
        client = kubectl(tmp_path / "laptop", made.api, SPACE)
        monkeypatch.setenv("KUBECONFIG", str(client.config))
        yield made


def ending(cluster: World, name: str, status: str, message: str = "") -> threading.Thread:
    """Have a RayJob end, once somebody follows it."""

    def end() -> None:
        deadline = time.monotonic() + 60
        while not any("watch=true" in str(each) for each in cluster.api.requests):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        phase = "Complete" if status in ("SUCCEEDED", "STOPPED") else "Failed"
        said = {"jobDeploymentStatus": phase, "jobStatus": status, "reason": "AppFailed" if message else ""}
        cluster.set_status({**said, "message": message}, name)

    thread = threading.Thread(target=end, daemon=True)
    thread.start()
    return thread


def test_a_rayjob_is_made_once_from_a_laptop_and_followed_to_its_code(
    cluster: World, hpsearch: Command, place: Path
) -> None:
    (place / "sweep.yaml").write_text(SWEEP)
    words = ("submit", "sweep.yaml", "--to", "kuberay", "--image", IMAGE, "--json")
    answer = hpsearch(*words).answer
    name = answer["name"]
    rayjob = cluster.rayjob(name)
    assert answer["namespace"] == SPACE
    assert rayjob["metadata"]["labels"]["app.kubernetes.io/name"] == "hpsearch"
    owned = hpsearch(*words)
    assert f"RayJob {name} is there already" in owned.err
    assert len(cluster.store.list(RAY_JOB)) == 1
    assert hpsearch("status", name, "--json").answer["target"] == "kuberay"
    thread = ending(cluster, name, "FAILED", "Job entrypoint command failed with exit code 4, last logs")
    told = hpsearch(*words, "--wait")
    thread.join()
    assert (told.code, told.answer["outcome"], told.answer["exit_code"]) == (4, "failed", 4)
    # Its study is not done: the same command makes it anew.
    uid = rayjob["metadata"]["uid"]
    assert hpsearch(*words).answer["uid"] != uid
    stopped = hpsearch("stop", name, "--to", "kuberay", "--json")
    assert (stopped.code, cluster.store.list(RAY_JOB)) == (0, [])


def test_a_dry_run_prints_manifests_and_asks_no_cluster(
    hpsearch: Command, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", "/nowhere")
    (place / "sweep.yaml").write_text(SWEEP)
    words = ("submit", "sweep.yaml", "--to", "kuberay", "--image", IMAGE, "--dry-run")
    assert "key: address" in hpsearch(*words, "--webhook-secret", "hook:address").out
    told = hpsearch(*words)
    kinds = [each["kind"] for each in yaml.safe_load_all(told.out)]
    assert (told.code, sorted(kinds)) == (0, ["ConfigMap", "PodDisruptionBudget", "RayJob"])
    assert hpsearch("submit", "sweep.yaml", "--to", "kuberay", "--dry-run").code == 2


def test_long_names_keep_the_hash_at_their_end(place: Path) -> None:
    from hpsearch.cli.submit_targets import _label

    spec = spec_of(SWEEP, place / ("A_very_long_name_of_a_sweep_" * 4 + ".yaml"))
    name = _label(records.job_name(spec, None))
    assert len(name) <= 47
    assert name.endswith(f"-{spec.sha256[:8]}")
    assert applying.CLEARED_WITHIN > 0


def test_submit_wants_a_target_and_one_file(hpsearch: Command) -> None:
    assert "--to jobs|kuberay|slurm|local" in hpsearch("submit", "sweep.yaml").err
    assert hpsearch("submit", "--to", "local").code == 2
    assert hpsearch("submit", "sweep.yaml", "b.yaml", "--to", "local").code == 2


def test_options_of_other_targets_are_refused(hpsearch: Command) -> None:
    for to, words in (
        ("kuberay", ("--address", "http://127.0.0.1:1")),
        ("jobs", ("--namespace", "n")),
        ("local", ("--sbatch", "--qos=long")),
        ("slurm", ("--local",)),
    ):
        told = hpsearch("submit", "sweep.yaml", "--to", to, *words)
        assert (told.code, f"{words[0]} is for --to" in told.err) == (2, True)


HEAVY = ("ray", "torch", "mlflow", "optuna", "sqlalchemy", "aiohttp")


def test_a_submitter_loads_no_ray() -> None:
    code = "import sys; from hpsearch.cli import submitting; from hpsearch.ship import following, jobs\n"
    code += f"print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "[]\n"
