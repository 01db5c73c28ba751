"""The command k8s render: what it prints and writes, its exit codes, and what is committed of it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
import yaml
from manifests import IMAGE, ROOT, SWEEP, sweep, wishes

from hpsearch import cli
from hpsearch.ship import cron, render, schedule_kubernetes
from hpsearch.ship.choices import Overlap
from hpsearch.ship.schedule import Schedule

K8S = ROOT / "k8s"
COMMITTED = ["--image", IMAGE, "--mlflow-secret", "hpsearch-mlflow"]
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def hpsearch(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Runs `hpsearch k8s render` in this process: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HPSEARCH_IMAGE", raising=False)

    def command(*words: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["hpsearch", "k8s", "render", *map(str, words)])
        with pytest.raises(SystemExit) as left:
            cli.main()
        assert isinstance(left.value.code, int)
        return left.value.code, *capsys.readouterr()

    return command


def test_the_committed_sweep_is_what_the_command_writes(hpsearch: Run, tmp_path: Path) -> None:
    code, out, err = hpsearch(SWEEP, *COMMITTED, "--output", tmp_path / "made")
    assert (code, out, err) == (0, "", "")
    made = {file.name: file.read_bytes() for file in (tmp_path / "made").iterdir()}
    assert made == {file.name: file.read_bytes() for file in (K8S / "sweep").iterdir()}


def test_the_committed_raycronjob_is_what_schedule_makes_and_suspended() -> None:
    words = ("hpsearch",)
    moment, zone = cron.parse("17 4 * * *"), ZoneInfo("Etc/UTC")
    nowhere = Path("/nowhere")
    schedule = Schedule("hpsearch-nightly-ray", nowhere, moment, zone, Overlap.SKIP, nowhere, nowhere, words)
    objects = schedule_kubernetes.ray_cron_job(schedule, sweep(), wishes(mlflow_secret="hpsearch-mlflow"))
    [made] = [each for each in objects if each["kind"] == "RayCronJob"]
    made["spec"] = {"suspend": True} | made["spec"]
    assert (K8S / "components/raycronjob/raycronjob.yaml").read_text() == render.dump(objects)


def test_what_is_printed_is_what_is_written(hpsearch: Run, tmp_path: Path) -> None:
    code, out, _ = hpsearch(SWEEP, *COMMITTED)
    assert code == 0
    files = [K8S / "sweep" / name for name in ("configmap.yaml", "rayjob.yaml", "poddisruptionbudget.yaml")]
    assert out == "".join(file.read_text() for file in files)


def test_flags_reach_the_objects(hpsearch: Run) -> None:
    flags = "--name nightly --study night_1 --namespace ml --profile retain --submitter none --claim c"
    flags += " --store-secret s:k --tracking-uri https://mlflow.example --deadline 8h --retries 0"
    flags += " --head-cpus 4 --head-memory 16Gi --group w:max=2,min=1"
    code, out, _ = hpsearch(SWEEP, "--image", IMAGE, *flags.split())
    assert code == 0
    _, rayjob, budget = yaml.safe_load_all(out)
    assert rayjob["metadata"]["name"] == "nightly"
    assert rayjob["metadata"]["annotations"]["hpsearch/study"] == "night_1"
    assert {rayjob["metadata"]["namespace"], budget["metadata"]["namespace"]} == {"ml"}
    assert rayjob["spec"]["submissionMode"] == "HTTPMode"
    assert rayjob["spec"]["backoffLimit"] == 0
    assert "--deadline 28800s" in rayjob["spec"]["entrypoint"]
    head = rayjob["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0]
    assert head["resources"]["limits"] == {"cpu": "4", "memory": "16Gi", "ephemeral-storage": "10Gi"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "--image"),
        (["--image", "hpsearch:latest"], "names no digest"),
        (["--image", IMAGE, "--profile", "keep"], "keep"),
        (["--image", IMAGE, "--deadline", "soon"], "'soon' is no length of time"),
        (["--image", IMAGE, "--kueue", "q", "--profile", "retain"], "profile retain"),
        (["--image", IMAGE, "--group", "w:cpus=0.5,max=1"], "all workers hold 1 trials"),
        (["--image", IMAGE, "--output", "/proc/nothing"], "cannot write"),
    ],
)
def test_what_cannot_be_rendered_is_2_with_the_reason_on_stderr(
    hpsearch: Run, words: list[str], said: str
) -> None:
    code, out, err = hpsearch(SWEEP, *words)
    assert (code, out) == (2, "")
    assert said in err


def test_every_mistake_of_an_invalid_file_is_told_and_nothing_is_rendered(
    hpsearch: Run, tmp_path: Path
) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(
        SWEEP.read_text().replace("goal: MINIMIZE", "goal: LESS").replace("maxTrials: 40", "maxTrials: 0")
    )
    code, out, err = hpsearch(file, "--image", IMAGE)
    assert (code, out) == (2, "")
    assert "bad.yaml:10:" in err and "bad.yaml:12:" in err
    assert "2 errors" in err


def test_a_file_called_otherwise_is_another_job(hpsearch: Run, tmp_path: Path) -> None:
    file = tmp_path / "My Sweep.yaml"
    file.write_bytes(SWEEP.read_bytes())
    code, out, _ = hpsearch(file, "--image", IMAGE)
    assert code == 0
    config_map, rayjob, budget = yaml.safe_load_all(out)
    assert [each["metadata"]["name"] for each in (config_map, rayjob, budget)] == [
        "my-sweep-sweep",
        "my-sweep",
        "my-sweep-head",
    ]
    assert rayjob["spec"]["metadata"]["sweep"] == "My-Sweep"


def test_a_reader_that_goes_away_is_no_bug() -> None:
    program = [str(Path(sys.executable).with_name("hpsearch")), "k8s", "render", str(SWEEP), *COMMITTED]
    done = subprocess.run(
        ["bash", "-c", '"$@" >/dev/full; echo $?', "bash", *program],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.strip() == "75", done.stderr
    assert "could not be written" in done.stderr
