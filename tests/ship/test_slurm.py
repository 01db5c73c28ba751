"""The sbatch script, run by a real bash with tools that stand in for Slurm: what it starts and ends."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hpsearch.errors import UsageError
from hpsearch.ship import cron
from hpsearch.ship.choices import Overlap
from hpsearch.ship.schedule import Schedule
from hpsearch.ship.schedule_slurm import files
from hpsearch.ship.slurm import RESTARTS, Allocation, Script, script
from hpsearch.ship.tick import time_zone

HADOLINT = Path(sys.executable).with_name("hadolint")
HPSEARCH, RAY = (str(Path(sys.executable).with_name(name)) for name in ("hpsearch", "ray"))

# Each runs its command for real, here; a signal to srun is one to the command.
TOOLS = {
    "srun": """#!/bin/bash
echo "srun $*" >>"$ASKED"
while [[ $1 == --* ]]; do shift; done
exec "$@"
""",
    "scontrol": """#!/bin/bash
case $1/$2 in
  show/hostnames) echo "${3//,/$'\\n'}" ;;
  show/job) echo "JobId=$3 JobState=${JOB_STATE:-RUNNING} Reason=None" ;;
  *) echo "scontrol $*" >>"$ASKED" ;;
esac
""",
    "hostname": "#!/bin/sh\necho '127.0.0.1 10.1.2.3 '\n",
    "sbatch": '#!/bin/sh\necho "sbatch $*" >>"$ASKED"\n',
    "squeue": '#!/bin/sh\necho "squeue $*" >>"$ASKED"; echo "$RUNNING"\n',
    "scancel": '#!/bin/sh\necho "scancel $*" >>"$ASKED"\n',
}
# Listens as a head does, and stays until it is told to end.
FAKE_RAY = f"""#!{sys.executable} -S
import os, signal, socket, sys
words = dict(word.partition("=")[::2] for word in sys.argv[1:])
with open(os.environ["ASKED"], "a") as asked:
    asked.write(f"ray {{' '.join(sys.argv[1:])}}\\n")
if "--head" in words:
    mode = os.stat(os.environ["RAY_AUTH_TOKEN_PATH"]).st_mode & 0o777
    token = open(os.environ["RAY_AUTH_TOKEN_PATH"]).read()
    assert (os.environ["RAY_AUTH_MODE"], mode, len(token)) == ("token", 0o600, 64)
    os.makedirs(words["--temp-dir"])
    server = socket.create_server((words["--node-ip-address"], int(words["--port"])))
signal.pause()
"""
# Says in its status file what it is told to, and leaves with another code.
FAKE_DRIVER = f"""#!{sys.executable} -S
import json, os, signal, sys, time
words = sys.argv[1:]
status = words[words.index("--status-file") + 1]
def say(outcome, code):
    with open(status + ".new", "w") as file:
        file.write(json.dumps({{"outcome": outcome, "exit_code": code, "reason": None}}, indent=2) + "\\n")
    os.replace(status + ".new", status)
def stop(number, frame):
    say("interrupted", 75)
    sys.exit(75)
signal.signal(signal.SIGTERM, stop)
with open(os.environ["ASKED"], "a") as asked:
    asked.write(f"driver {{' '.join(words)}} {{os.environ.get('SECRET_OF_FILE')}}\\n")
while open(os.environ["ASKED"]).read().count("\\nray start") < int(os.environ["RAYS"]):
    time.sleep(0.01)
said, code = os.environ["BEHAVES"].split()
if said == "nothing":
    sys.exit(int(code))
say("running", None)
open(status + ".up", "w").write(str(os.getpid()))
if said == "waits":
    while True:
        time.sleep(0.01)
if said == "dies":
    os.kill(os.getpid(), signal.SIGKILL)
say("ended", int(said))
sys.exit(int(code))
"""


class Job:
    """One job of a Slurm that is not there: its script, its environment, what its tools were asked."""

    def __init__(
        self, place: Path, *, nodes: str = "n0,n1", ray: str = "", command: tuple[str, ...] = ()
    ) -> None:
        self.place, self.asked_file, self.state = place, place / "asked", place / "state"
        tools = place / "tools"
        tools.mkdir()
        for name, text in {**TOOLS, "ray": FAKE_RAY, "driver": FAKE_DRIVER}.items():
            (tools / name).write_text(text)
            (tools / name).chmod(0o755)
        (place / "env").write_text("SECRET_OF_FILE='of a file'\n")
        self.number = _number()
        count = len(nodes.split(","))
        self.script = place / "job.sbatch"
        self.script.write_text(
            script(
                Script(
                    name="hpsearch-nightly",
                    command=command
                    or (str(tools / "driver"), "run", "it's $HOME.yaml", "--scheduled-time", "$tick"),
                    ray=ray or str(tools / "ray"),
                    directory=place,
                    state=self.state,
                    allocation=Allocation(nodes=count, cpus=1),
                    environment=place / "env",
                    argument="tick",
                )
            )
        )
        self.environment = {
            "PATH": f"{tools}:/usr/bin:/bin",
            "HOME": str(place),
            "ASKED": str(self.asked_file),
            "SLURM_JOB_ID": str(self.number),
            "SLURM_JOB_NODELIST": nodes,
            "SLURM_CPUS_PER_TASK": "1",
            "BEHAVES": "0 0",
            "RAYS": str(count),
        }
        self.status = self.state / f"{self.number}.status.json"

    def start(self, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["/bin/bash", str(self.script), "20261125T011700Z"],
            env=self.environment | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, **environment: str) -> int:
        job = self.start(**environment)
        self.said, _ = job.communicate(timeout=60)
        return job.returncode

    @property
    def asked(self) -> list[str]:
        return self.asked_file.read_text().splitlines()

    @property
    def requeued(self) -> bool:
        return f"scontrol requeue {self.number}" in self.asked

    def cleared(self) -> bool:
        """Whether nothing of it is left soon: neither the token, nor Ray's directory, nor processes."""
        files = (self.state / f"{self.number}.token", Path(f"/tmp/hpsearch-{self.number}"))
        until = time.monotonic() + 20  # some that lost their Ray notice it only then
        while any(file.exists() for file in files) or self._runs():
            if time.monotonic() > until:
                return False
            time.sleep(0.05)
        return True

    def _runs(self) -> list[int]:
        """Processes that know this job's number from their environment."""
        mark, found = f"SLURM_JOB_ID={self.number}\0".encode(), []
        for each in Path("/proc").glob("[0-9]*/environ"):
            try:
                if mark in each.read_bytes():
                    found.append(int(each.parent.name))
            except OSError:
                continue
        return found


def _port(number: int) -> int:
    """The first of the ports of a job's Ray; by itself Ray gives workers those from 10002 to 19999."""
    return 20_000 + number % 1000 * 10


def _number() -> int:
    """A job number of which nothing is left from before, and whose ports are free."""
    while True:
        number = random.randrange(10**7, 10**9)
        ports = [_port(number) + offset for offset in range(5)]
        try:
            for port in ports:
                socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        return number


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(tmp_path)


def waited(job: subprocess.Popen[str], file: Path) -> int:
    """The number of the driver, once it is up."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        assert job.poll() is None, job.communicate()
        if file.exists() and (text := file.read_text()):
            return int(text)
        time.sleep(0.02)
    raise AssertionError("the driver never came up")


def test_the_result_is_the_status_files_whatever_the_driver_leaves_with(job: Job) -> None:
    assert job.run(BEHAVES="0 1") == 0, job.said
    assert not job.requeued
    assert job.cleared()
    head, worker = (line for line in job.asked if line.startswith("ray start"))
    port = _port(job.number)
    for word in (f"--port={port}", "--head", "--block", "--dashboard-host=127.0.0.1", "--num-cpus=1"):
        assert word in head.split()
    for word in (f"--address=127.0.0.1:{port}", "--node-ip-address=127.0.0.1", "--block"):
        assert word in worker.split()
    for word in ("--min-worker-port=0", "--max-worker-port=0"):
        assert word in head.split()
        assert word in worker.split()
    [driver] = (line for line in job.asked if line.startswith("driver"))
    expected = f"driver run it's $HOME.yaml --scheduled-time 20261125T011700Z --address 127.0.0.1:{port} "
    assert driver == f"{expected}--status-file {job.status} of a file"
    [others] = (line for line in job.asked if line.startswith("srun") and "--exclude" in line)
    assert "--nodes=1 --ntasks=1 --ntasks-per-node=1 --exclude=n0" in others


def test_one_node_needs_no_workers(tmp_path: Path) -> None:
    job = Job(tmp_path, nodes="n0")
    assert job.run() == 0, job.said
    assert sum(line.startswith("ray start") for line in job.asked) == 1


@pytest.mark.parametrize("code", [69, 73, 75])
def test_what_is_not_done_is_queued_again_after_everything_has_ended(job: Job, code: int) -> None:
    assert job.run(BEHAVES=f"{code} {code}") == code, job.said
    assert job.requeued
    assert job.cleared()
    # Ray's directory is removed, and only then the job goes back.
    assert job.asked[-2:] == [
        f"srun --overlap --ntasks-per-node=1 rm -rf /tmp/hpsearch-{job.number}",
        f"scontrol requeue {job.number}",
    ]


@pytest.mark.parametrize("code", [0, 1, 2, 3, 4, 74])
def test_a_verdict_ends_the_job(job: Job, code: int) -> None:
    assert job.run(BEHAVES=f"{code} {code}") == code, job.said
    assert not job.requeued
    assert job.cleared()


def test_a_signal_before_the_end_of_the_time_is_handed_to_the_driver(job: Job) -> None:
    running = job.start(BEHAVES="waits 0")
    waited(running, Path(f"{job.status}.up"))
    running.send_signal(signal.SIGTERM)
    said, _ = running.communicate(timeout=30)
    assert running.returncode == 75, said
    assert json.loads(job.status.read_text())["outcome"] == "interrupted"
    assert job.requeued
    assert job.cleared()


@pytest.mark.parametrize("behaves", ["dies 0", "nothing 137"])
def test_a_driver_that_was_killed_goes_on_later(job: Job, behaves: str) -> None:
    assert job.run(BEHAVES=behaves) == 75, job.said
    assert job.requeued
    assert job.cleared()


def test_a_driver_that_never_got_to_its_file_is_believed(job: Job) -> None:
    assert job.run(BEHAVES="nothing 2") == 2, job.said
    assert not job.requeued


def test_success_without_a_word_in_the_file_is_none(job: Job) -> None:
    assert job.run(BEHAVES="nothing 0") == 75, job.said


def test_what_an_earlier_run_of_the_job_said_is_not_taken_for_this_ones(job: Job) -> None:
    job.state.mkdir()
    job.status.write_text('{\n  "exit_code": 0,\n  "reason": null\n}\n')
    assert job.run(BEHAVES="nothing 2", SLURM_RESTART_COUNT="1") == 2, job.said


def test_a_cancelled_job_does_not_come_back(job: Job) -> None:
    assert job.run(BEHAVES="75 75", JOB_STATE="CANCELLED") == 75, job.said
    assert not job.requeued
    assert job.cleared()


def test_a_job_does_not_come_back_for_ever(job: Job) -> None:
    assert job.run(BEHAVES="75 75", SLURM_RESTART_COUNT=str(RESTARTS)) == 75
    assert "that is enough" in job.said
    assert not job.requeued


def test_a_ray_that_does_not_start_is_a_temporary_failure(tmp_path: Path) -> None:
    job = Job(tmp_path, ray="/bin/false")
    assert job.run() == 69, job.said
    assert job.requeued
    assert not any(line.startswith("driver") for line in job.asked)


def test_a_script_without_its_tick_does_nothing(job: Job) -> None:
    done = subprocess.run(["/bin/bash", str(job.script)], env=job.environment, capture_output=True, text=True)
    assert done.returncode not in (0, 75)
    assert "the tick is missing" in done.stderr
    assert not job.asked_file.exists()


# -- the text ----------------------------------------------------------------------------------------


def shellcheck(path: Path, shell: str) -> list[str]:
    """What shellcheck says, which hadolint has inside: a script is what a build would run."""
    lines = [f"FROM scratch@sha256:{'a' * 64}", f'SHELL ["/bin/{shell}", "-o", "pipefail", "-c"]']
    lines += ['RUN <<"END_OF_SCRIPT"', path.read_text(), "END_OF_SCRIPT", ""]
    dockerfile = path.with_suffix(".Dockerfile")
    dockerfile.write_text("\n".join(lines))
    done = subprocess.run(
        [HADOLINT, "--no-color", "--format", "json", dockerfile], capture_output=True, text=True, check=False
    )
    return [
        f"{each['code']} {each['message']}"
        for each in json.loads(done.stdout)
        if each["code"].startswith("SC")
    ]


def nightly(place: Path, overlap: Overlap = Overlap.SKIP) -> Schedule:
    return Schedule(
        name="nightly",
        sweep=place / "it's.yaml",
        cron=cron.parse("17 2 * * *"),
        zone=time_zone("Europe/Berlin"),
        overlap=overlap,
        home=place / "studies",
        directory=place,
        program=(str(place / "tools" / "due"),),
    )


@pytest.mark.parametrize("overlap", Overlap)
def test_every_script_is_sound_for_bash_and_shellcheck(tmp_path: Path, overlap: Overlap) -> None:
    for file in files(nightly(tmp_path, overlap), Allocation(nodes=3, gpus=2), "/opt/ray", tmp_path)[:2]:
        path = tmp_path / file.name
        path.write_text(file.text)
        shell = "bash" if file.text.startswith("#!/bin/bash") else "sh"
        subprocess.run([shell, "-n", path], check=True)
        assert shellcheck(path, shell) == []


def test_shellcheck_would_say_something(tmp_path: Path) -> None:
    (tmp_path / "bad").write_text("#!/bin/bash\nfile=$1\nrm $file\n")
    assert [said.split()[0] for said in shellcheck(tmp_path / "bad", "bash")] == ["SC2086"]


def test_slurm_is_told_to_warn_and_to_requeue(tmp_path: Path) -> None:
    wanted = Allocation(2, 8, 1, "64G", "12:00:00", "gpu", "team", ("--qos=long",))
    text = files(nightly(tmp_path), wanted, "/opt/ray", tmp_path)[0].text
    directives = [line.removeprefix("#SBATCH ") for line in text.splitlines() if line.startswith("#SBATCH")]
    assert directives == [
        *("--job-name=hpsearch-nightly", "--nodes=2", "--ntasks-per-node=1", "--cpus-per-task=8"),
        *("--gpus-per-node=1", "--mem=64G", "--time=12:00:00", "--partition=gpu", "--account=team"),
        *("--requeue", "--open-mode=append", "--signal=B:TERM@120"),
        *(f"--output={tmp_path}/studies/.slurm/%x-%j.log", "--qos=long"),
    ]
    # Directives count up to the first command only.
    assert text.index("#SBATCH --qos") < text.index("set -u")
    for word in ("ray stop", "pkill", "killall", "symmetric-run"):
        assert word not in text


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"partition": "a b"}, "--partition 'a b'"),
        ({"time": "forever"}, "--time-limit 'forever'"),
        ({"memory": "8Gi"}, "--memory '8Gi'"),
        ({"options": ("--qos=a\n#SBATCH",)}, "is no option"),
        ({"nodes": 0}, "needs a node"),
    ],
)
def test_what_no_directive_can_hold_is_refused(
    tmp_path: Path, changed: dict[str, object], message: str
) -> None:
    with pytest.raises(UsageError) as refused:
        files(nightly(tmp_path), Allocation(**changed), "/opt/ray", tmp_path)  # type: ignore[arg-type]
    assert message in refused.value.message


def test_a_place_with_spaces_cannot_stand_in_a_directive(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot stand in a directive"):
        files(nightly(tmp_path / "my place"), Allocation(), "/opt/ray", tmp_path)


# -- what Slurm's cron calls -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overlap", "running", "asked"),
    [
        ("skip", "", ["squeue", "sbatch"]),
        ("skip", "4711", ["squeue"]),
        ("queue", "4711", ["sbatch"]),
        ("replace", "4711", ["scancel", "sbatch"]),
    ],
)
def test_a_tick_is_submitted_with_its_time(job: Job, overlap: str, running: str, asked: list[str]) -> None:
    due = job.place / "tools" / "due"
    due.write_text("#!/bin/sh\necho 20261125T011700Z\n")
    due.chmod(0o755)
    submitting = files(nightly(job.place, Overlap(overlap)), Allocation(), "/opt/ray", job.place)[1]
    done = subprocess.run(
        ["/bin/sh", "-c", submitting.text],
        env=job.environment | {"RUNNING": running},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in job.asked] == asked
    if "sbatch" in asked:
        expected = f"sbatch --dependency=singleton {job.place}/hpsearch-nightly.sbatch 20261125T011700Z"
        assert job.asked[-1] == expected
    else:
        assert "20261125T011700Z is left out, job 4711 runs or waits" in done.stdout


# -- for real ----------------------------------------------------------------------------------------

TRAINER = """
from hpsearch.train.learner import Measurement

def train(params, context):
    for step in (100, 200):
        yield Measurement(step, {"loss": params["x"] + 1 / step})
"""
YAML = """\
trainingInput:
  pythonModule: toy
  hyperparameters:
    goal: MINIMIZE
    hyperparameterMetricTag: loss
    maxTrials: 2
    maxParallelTrials: 2
    params:
      - {parameterName: x, type: DOUBLE, minValue: 0, maxValue: 1}
hpsearch: {maxSteps: 200, measureEvery: 100, sampler: {type: RANDOM}}
"""


@pytest.mark.slow
@pytest.mark.xdist_group("ray")
@pytest.mark.timeout(240)
def test_a_real_ray_of_two_nodes_runs_a_sweep_to_its_end(tmp_path: Path, mlflow_database: Path) -> None:
    (tmp_path / "studies").mkdir()
    shutil.copy(mlflow_database, tmp_path / "studies")
    (tmp_path / "toy.py").write_text(TRAINER)
    (tmp_path / "toy.yaml").write_text(YAML)
    words = ("run", "toy.yaml", "--schedule", "nightly", "--scheduled-time", "$tick", "--resume", "auto")
    job = Job(tmp_path, ray=RAY, command=(HPSEARCH, *words))
    running = job.start(PATH=f"{tmp_path / 'tools'}:{os.environ['PATH']}", PYTHONWARNINGS="ignore")
    said, _ = running.communicate(timeout=200)
    assert running.returncode == 0, said
    facts = json.loads(job.status.read_text())
    assert (facts["study"], facts["outcome"]) == ("nightly-20261125T011700Z", "completed")
    assert facts["counts"]["completed"] == 2
    assert job.cleared()
    assert not job.requeued
