"""The command `schedule`: what it prints, what --apply does to crontabs, units and clusters, and what not."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes_validate import validate

from hpsearch import cli
from hpsearch.errors import UsageError
from hpsearch.ship.marks import replaced

sys.path.insert(0, str(Path(__file__).parents[1] / "show"))
import facts

CRDS = Path(__file__).parents[3] / "shared" / "kuberay_crds" / "v1.7.0"
IMAGE = f"registry.example/hpsearch@sha256:{'ab' * 32}"
CRON = ("--cron", "17 2 * * *", "--tz", "Europe/Berlin")
FOREIGN = "# mine\nMAILTO=me\n5 4 * * * /usr/bin/backup 100\\%\n"

# A crontab of its own for each test, in a file; `-V` tells cronie from others.
CRONTAB = """#!/bin/sh
case $1 in
  -V) if [ -n "$CRONIE" ]; then echo 'cronie 1.7.0'; else echo 'invalid option' >&2; exit 1; fi ;;
  -l) if [ -e "$TABLE" ]; then cat "$TABLE"; else echo 'no crontab for me' >&2; exit 1; fi ;;
  -) cat >"$TABLE" ;;
  *) cat "$1" >"$TABLE" ;;
esac
"""
# Notes what it is asked, and what it is given.
NOTING = """#!/bin/sh
echo "${0##*/} $*" >>"$ASKED"
if [ ! -t 0 ]; then cat >>"$ASKED"; fi
if [ -n "$FAILS" ]; then echo 'error: forbidden, password=hunter2' >&2; exit 1; fi
"""


class Told:
    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def answer(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Told]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a sweep, tools that change nothing outside of it, and a user whose home it is."""
    for name in ("HPSEARCH_HOME", "HPSEARCH_STORE", "HPSEARCH_IMAGE", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("crontab", "scrontab"):
        (tools / name).write_text(CRONTAB)
    for name in ("systemctl", "kubectl", "hpsearch-noting"):
        (tools / name).write_text(NOTING)
    for tool in tools.iterdir():
        tool.chmod(0o755)
    (tmp_path / "nightly.yaml").write_text(facts.YAML)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    monkeypatch.setenv("TABLE", str(tmp_path / "table"))
    monkeypatch.setenv("ASKED", str(tmp_path / "asked"))
    monkeypatch.setenv("CRONIE", "1")
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def schedule(place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    def run(*words: str) -> Told:
        monkeypatch.setattr(sys, "argv", ["hpsearch", "schedule", "nightly.yaml", *words])
        with pytest.raises(SystemExit) as left:
            cli.main()
        return Told(int(left.value.code or 0), *capsys.readouterr())

    return run


# -- the command -------------------------------------------------------------------------------------


def test_nothing_is_applied_without_being_asked(schedule: Run, place: Path) -> None:
    for target in ("systemd", "crontab", "slurm", "cronjob", "raycronjob"):
        told = schedule(*CRON, "--as", target, "--image", IMAGE)
        assert told.code == 0, told.err
        assert told.err.splitlines()[-1] == "nothing was applied: --apply does"
        assert "next: " in told.err
    assert sorted(path.name for path in place.iterdir()) == ["nightly.yaml", "tools"]


def test_json_is_one_object_with_files_times_and_warnings(schedule: Run) -> None:
    told = schedule(*CRON, "--as", "systemd", "--json")
    answer = told.answer
    assert (answer["schedule"], answer["cron"], answer["time_zone"]) == (
        "nightly",
        "17 2 * * *",
        "Europe/Berlin",
    )
    assert [file["name"] for file in answer["files"]] == [
        "hpsearch-nightly.timer",
        "hpsearch-nightly.service",
    ]
    assert len(answer["next"]) == 3
    assert all(" 02:17 CE" in each for each in answer["next"])
    assert any("clocks change in Europe/Berlin" in each for each in answer["warnings"])
    assert answer["applied"] == []


def test_the_newest_due_time_is_printed_alone_for_scripts(schedule: Run) -> None:
    told = schedule(*CRON, "--due")
    assert (told.code, told.err) == (0, "")
    assert re.fullmatch(r"\d{8}T\d{6}Z\n", told.out)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--cron", "17 25 * * *", "--tz", "UTC", "--as", "systemd"], "the hour '25'"),
        ([*CRON[:2], "--tz", "Mars/Base", "--as", "systemd"], "no time zone 'Mars/Base'"),
        ([*CRON], "--as is missing"),
        ([*CRON, "--as", "cronjob"], "--image is missing"),
        ([*CRON, "--as", "cronjob", "--image", "hpsearch:latest"], "names no digest"),
        ([*CRON, "--as", "cronjob", "--image", IMAGE, "--local"], "for machines, not for Kubernetes"),
        ([*CRON, "--as", "cronjob", "--image", IMAGE, "--name", "x" * 37], "leave room for 36"),
        ([*CRON, "--as", "slurm", "--address", "head:6379"], "start a Ray of their own"),
        ([*CRON, "--as", "slurm", "--time-limit", "soon"], "'soon' is nothing that sbatch takes"),
        ([*CRON, "--as", "slurm", "--sbatch=--qos=a b"], "is no option"),
        ([*CRON, "--as", "crontab", "--env-file", "nowhere"], "No such file"),
        ([*CRON, "--as", "crontab", "--tracking-uri", "http://me:pw@mlflow"], "holds a user or password"),
        ([*CRON, "--as", "crontab", "--name", "a b"], "'a b' is not usable"),
    ],
)
def test_what_cannot_be_is_refused_with_2(schedule: Run, words: list[str], message: str) -> None:
    told = schedule(*words)
    assert told.code == 2
    assert message in told.err
    assert "hint: " in told.err
    assert told.out == ""


def test_secrets_for_all_to_read_are_refused(schedule: Run, place: Path) -> None:
    (place / "env").write_text("HPSEARCH_STORE=postgresql://me:hunter2@db/x\n")
    (place / "env").chmod(0o644)
    told = schedule(*CRON, "--as", "systemd", "--env-file", "env")
    assert told.code == 2
    assert "can be read by others (mode 644)" in told.err
    (place / "env").chmod(0o600)
    told = schedule(*CRON, "--as", "systemd", "--env-file", "env")
    assert f"EnvironmentFile={place / 'env'}" in told.out
    assert "hunter2" not in told.out + told.err


def test_a_store_that_only_this_shell_knows_is_warned_of(
    schedule: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HPSEARCH_STORE", "postgresql://me:hunter2@db/x")
    told = schedule(*CRON, "--as", "systemd")
    assert "HPSEARCH_STORE is set here and will not be at a tick" in told.err
    assert "hunter2" not in told.out + told.err


# -- crontab -----------------------------------------------------------------------------------------


def test_a_crontab_keeps_foreign_lines_and_has_the_block_once(schedule: Run, place: Path) -> None:
    table = place / "table"
    table.write_text(FOREIGN)
    told = schedule(*CRON, "--as", "crontab", "--apply")
    assert told.code == 0, told.err
    first = table.read_text()
    assert first.startswith(FOREIGN)
    assert "the crontab has it now" in told.err
    assert "already" in schedule(*CRON, "--as", "crontab", "--apply").err
    assert table.read_text() == first
    # Another time is another block in the same place, and what stands below it afterwards comes before it.
    table.write_text(first + "9 9 * * * /usr/bin/other\n")
    schedule("--cron", "23 3 * * *", "--tz", "Europe/Berlin", "--as", "crontab", "--apply")
    second = table.read_text()
    assert second.startswith(FOREIGN + "9 9 * * * /usr/bin/other\n# begin hpsearch schedule nightly\n")
    assert second.count("# begin hpsearch schedule") == 1
    assert "\n23 3 * * * umask" in second
    assert "17 2" not in second
    # Another schedule has a block of its own.
    schedule(*CRON, "--as", "crontab", "--apply", "--name", "other")
    assert table.read_text().startswith(second)
    assert table.read_text().count("# begin hpsearch schedule") == 2


def test_a_user_without_a_crontab_gets_one(schedule: Run, place: Path) -> None:
    assert schedule(*CRON, "--as", "crontab", "--apply").code == 0
    assert (place / "table").read_text().startswith("# begin hpsearch schedule nightly\n")


def test_a_block_with_one_mark_is_left_to_its_owner(schedule: Run, place: Path) -> None:
    broken = FOREIGN + "# begin hpsearch schedule nightly\n1 1 * * * /usr/bin/mine\n"
    (place / "table").write_text(broken)
    told = schedule(*CRON, "--as", "crontab", "--apply")
    assert told.code == 2
    assert "not between one pair of marks" in told.err
    assert (place / "table").read_text() == broken
    with pytest.raises(UsageError):
        replaced("# end hpsearch schedule a\n# begin hpsearch schedule a\n", "a", "x\n")


def test_a_last_line_without_an_end_stays_a_line_of_its_own() -> None:
    assert replaced("1 1 * * * a", "n", "block\n") == "1 1 * * * a\nblock\n"


def test_a_cron_that_knows_no_zones_is_given_no_other_zone(
    schedule: Run, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Debian's cron would run it at another hour, silently."""
    monkeypatch.setenv("CRONIE", "")
    told = schedule("--cron", "17 5 * * *", "--tz", "Asia/Kathmandu", "--as", "crontab", "--apply")
    assert told.code == 2
    assert "reads times in the machine's own zone, which Asia/Kathmandu is not" in told.err
    assert not (place / "table").exists()


def line_of(text: str) -> str:
    """The command of a crontab's block as cron hands it to the shell."""
    [line] = [line for line in text.splitlines() if line.startswith("17 2 ")]
    return line.split(" ", 5)[5].replace("\\%", "%")


def tick(place: Path, command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, check=False, timeout=30)


def noting(place: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The same line with a program that notes what it is asked."""
    program = str(Path(sys.executable).with_name("hpsearch"))
    assert program in text
    return text.replace(program, str(place / "tools" / "hpsearch-noting"))


def test_the_line_of_a_crontab_runs_the_tick_of_its_minute(
    schedule: Run, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = place / "it's 100% $HOME"
    odd.mkdir()
    (odd / "env").write_text("GREETING='good night'\n")
    (odd / "env").chmod(0o600)
    told = schedule(
        *CRON, "--as", "crontab", "--home", str(odd / "studies"), "--env-file", str(odd / "env"), "--local"
    )
    line = noting(place, line_of(told.out), monkeypatch)
    assert "\\%" in told.out
    done = tick(place, f"{line}; echo $?; echo $GREETING")
    assert done.stdout.splitlines() == ["0", "good night"], done.stderr
    asked = (place / "asked").read_text()
    found = re.fullmatch(
        rf"hpsearch-noting run {re.escape(str(place / 'nightly.yaml'))} --schedule nightly "
        r"--scheduled-time (\d{4}-\d\d-\d\dT\d\d:\d\d:00Z) --resume auto "
        rf"--home {re.escape(str(odd / 'studies'))} --status-file .*/\.nightly\.status\.json --local\n",
        asked,
    )
    assert found, asked
    assert (odd / "studies" / ".nightly.log").exists()


@pytest.mark.parametrize("overlap", ["skip", "queue", "replace"])
def test_a_tick_that_overlaps_is_left_out_waits_or_stops_the_other(
    schedule: Run, place: Path, overlap: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = schedule(*CRON, "--as", "crontab", "--overlap", overlap)
    line = noting(place, line_of(told.out), monkeypatch)
    (place / "studies").mkdir()
    with (place / "studies" / ".nightly.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if overlap == "skip":
            assert tick(place, line).returncode == 0
            assert not (place / "asked").exists()
            return
        waiting = subprocess.Popen(["/bin/sh", "-c", line], stdin=subprocess.DEVNULL)
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.wait(0.4)
        before = (place / "asked").read_text() if (place / "asked").exists() else ""
        stop = f"hpsearch-noting stop --schedule nightly --home {place / 'studies'} --within 60\n"
        assert before == (stop if overlap == "replace" else "")
        fcntl.flock(lock, fcntl.LOCK_UN)
    assert waiting.wait(20) == 0
    assert (place / "asked").read_text().splitlines()[-1].startswith("hpsearch-noting run ")


def test_a_line_that_cron_would_cut_is_refused(schedule: Run, place: Path) -> None:
    told = schedule(*CRON, "--as", "crontab", "--home", str(place / ("x" * 990)))
    assert told.code == 2
    assert "characters, and cron takes 990" in told.err


# -- systemd -----------------------------------------------------------------------------------------


def test_units_are_written_and_the_timer_is_started_once(schedule: Run, place: Path) -> None:
    told = schedule(*CRON, "--as", "systemd", "--overlap", "queue", "--apply")
    assert told.code == 0, told.err
    units = place / "me" / ".config" / "systemd" / "user"
    names = ["hpsearch-nightly.service", "hpsearch-nightly.timer", "hpsearch-nightly@.service"]
    assert sorted(path.name for path in units.iterdir()) == names
    asked = (place / "asked").read_text()
    enable = "systemctl --user enable hpsearch-nightly.timer\n"
    reload = "systemctl --user daemon-reload\n"
    assert asked == f"{reload}{enable}systemctl --user restart hpsearch-nightly.timer\n"
    # A second time changes nothing, and a timer that runs is not disturbed.
    (place / "asked").unlink()
    told = schedule(*CRON, "--as", "systemd", "--overlap", "queue", "--apply")
    assert "unchanged" in told.err
    assert (place / "asked").read_text() == f"{reload}{enable}systemctl --user start hpsearch-nightly.timer\n"
    # Another overlap leaves no template behind; what is not ours stays.
    (units / "hpsearch-other@.service").write_text("[Service]\n")
    schedule(*CRON, "--as", "systemd", "--apply")
    assert sorted(path.name for path in units.iterdir()) == [*names[:2], "hpsearch-other@.service"]


def test_what_a_tool_refuses_is_told_without_secrets(schedule: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAILS", "1")
    told = schedule(*CRON, "--as", "systemd", "--apply")
    assert told.code == 2
    assert "`systemctl --user daemon-reload` failed with 1: error: forbidden" in told.err
    assert "hunter2" not in told.err


def test_a_tool_that_is_not_here_is_named(
    schedule: Run, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(place / "tools")
    monkeypatch.setenv("PATH", str(place))
    told = schedule(*CRON, "--as", "slurm", "--apply", "--output", str(place / "jobs"))
    assert told.code == 2
    assert "there is no scrontab here" in told.err


# -- Slurm -------------------------------------------------------------------------------------------


def test_scripts_are_written_and_the_scrontab_has_the_block_once(schedule: Run, place: Path) -> None:
    (place / "table").write_text(FOREIGN)
    words = (*CRON, "--as", "slurm", "--nodes", "3", "--output", str(place / "jobs"), "--apply")
    told = schedule(*words)
    assert told.code == 0, told.err
    jobs = place / "jobs"
    assert {path.name: path.stat().st_mode & 0o777 for path in jobs.iterdir()} == {
        "hpsearch-nightly.sbatch": 0o700,
        "hpsearch-nightly.sh": 0o700,
        "hpsearch-nightly.scrontab": 0o600,
    }
    table = (place / "table").read_text()
    assert table.startswith(FOREIGN)
    assert f"17 2 * * * {jobs / 'hpsearch-nightly.sh'}\n" in table
    assert "CRON_TZ" not in table
    assert (place / "studies" / ".slurm").stat().st_mode & 0o777 == 0o700
    schedule(*words)
    assert (place / "table").read_text() == table


# -- Kubernetes --------------------------------------------------------------------------------------


def objects(text: str) -> dict[str, Any]:
    return {each["kind"]: each for each in yaml.safe_load_all(text)}


@pytest.mark.parametrize(
    ("overlap", "policy", "window"),
    [("skip", "Forbid", 300), ("queue", "Forbid", 6 * 3600), ("replace", "Replace", 300)],
)
def test_a_cronjob_launches_each_tick(schedule: Run, overlap: str, policy: str, window: int) -> None:
    words = (
        "--cron",
        "17 */6 * * 7",
        "--tz",
        "UTC",
        "--as",
        "cronjob",
        "--image",
        IMAGE,
        "--overlap",
        overlap,
    )
    found = objects(schedule(*words, "--webhook-secret", "hook", "--deadline", "4h").out)
    cronjob, config = found["CronJob"], found["ConfigMap"]
    for each in found.values():
        for version in ("1.28", "1.37"):
            validate(each, version, strict=True)
    spec = cronjob["spec"]
    # Kubernetes knows no weekday 7.
    assert (spec["schedule"], spec["timeZone"], spec["concurrencyPolicy"]) == ("17 */6 * * 0", "UTC", policy)
    assert spec["startingDeadlineSeconds"] == window
    [container] = spec["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    assert container["args"][:4] == ["launch", "/etc/hpsearch/sweep.yaml", "--job-name", "$(JOB_NAME)"]
    assert container["args"][-4:] == ["--webhook-secret", "hook", "--deadline", "14400"]
    volumes = {each["name"]: each for each in spec["jobTemplate"]["spec"]["template"]["spec"]["volumes"]}
    assert volumes["sweep"]["configMap"]["name"] == config["metadata"]["name"]
    assert config["data"]["sweep.yaml"] == facts.YAML
    assert config["immutable"] is True


@pytest.mark.parametrize("target", ["cronjob", "raycronjob"])
def test_what_is_rendered_passes_our_own_lint_and_the_real_definitions(
    schedule: Run,
    place: Path,
    target: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if not CRDS.is_dir():
        pytest.skip(f"NO CUSTOM RESOURCE DEFINITIONS in {CRDS}: a RayCronJob was not checked by them")
    told = schedule("--cron", "17 4 * * *", "--tz", "UTC", "--as", target, "--image", IMAGE)
    (place / "made.yaml").write_text(told.out)
    words = ["hpsearch", "k8s", "validate", "made.yaml", "--crds", str(CRDS), "--json"]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as left:
        cli.main()
    answer = json.loads(capsys.readouterr().out)
    assert (left.value.code or 0) == 0, answer
    # The one warning is the one that the command printed too: a gate that is off.
    found = [each["rule"] for each in answer["findings"] if each["level"] != "note"]
    assert found == (["cron/ray-cron"] if target == "raycronjob" else [])


def test_an_edited_sweep_is_another_config_map(schedule: Run, place: Path) -> None:
    words = (*CRON, "--as", "cronjob", "--image", IMAGE)
    first = objects(schedule(*words).out)["ConfigMap"]["metadata"]["name"]
    (place / "nightly.yaml").write_text(facts.YAML.replace("maxTrials: 20", "maxTrials: 21"))
    second = objects(schedule(*words).out)["ConfigMap"]["metadata"]["name"]
    assert first != second


def test_manifests_are_applied_by_kubectl(schedule: Run, place: Path) -> None:
    printed = schedule(*CRON, "--as", "cronjob", "--image", IMAGE).out
    told = schedule(*CRON, "--as", "cronjob", "--image", IMAGE, "--apply")
    assert told.code == 0, told.err
    assert (place / "asked").read_text() == "kubectl apply -f -\n" + printed


def test_a_raycronjob_that_is_to_be_queued_is_refused(schedule: Run) -> None:
    told = schedule(*CRON, "--as", "raycronjob", "--image", IMAGE, "--kueue", "gpus")
    assert (told.code, told.out) == (2, "")
    assert "Kueue never sees them" in told.err
    assert "--as cronjob" in told.err


def test_a_raycronjob_is_warned_of_and_its_driver_finds_the_tick_itself(schedule: Run) -> None:
    told = schedule(*CRON, "--as", "raycronjob", "--image", IMAGE, "--webhook-secret", "hook")
    assert "a RayCronJob is alpha" in told.err
    assert "missed are made up one by one" in told.err
    found = objects(told.out)
    ray = found["RayCronJob"]
    assert (ray["spec"]["schedule"], ray["spec"]["timeZone"]) == ("17 2 * * *", "Europe/Berlin")
    template = ray["spec"]["jobTemplate"]
    # A study of a fixed name would make one study of all ticks.
    assert "--study" not in template["entrypoint"]
    command = template["submitterPodTemplate"]["spec"]["containers"][0]["command"]
    assert " ".join(command).endswith(f"-- {template['entrypoint']}")
    assert {"study", "rayjob"}.isdisjoint(template["metadata"])
    head = template["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    env = {each["name"]: each.get("value") for each in head["containers"][0]["env"]}
    assert env["HPSEARCH_SCHEDULE"] == "nightly"
    assert env["HPSEARCH_SCHEDULED_TIME"] == "17 2 * * * Europe/Berlin"
    hook = next(each for each in head["containers"][0]["env"] if each["name"] == "HPSEARCH_WEBHOOK")
    assert hook["valueFrom"] == {"secretKeyRef": {"name": "hook", "key": "url"}}
    maps = [each["configMap"]["name"] for each in head["volumes"] if "configMap" in each]
    assert maps == [found["ConfigMap"]["metadata"]["name"]]


def test_the_help_names_every_target_and_overlap(schedule: Run, capsys: pytest.CaptureFixture[str]) -> None:
    text = schedule("--help").out
    for word in (
        "cronjob",
        "raycronjob",
        "systemd",
        "crontab",
        "slurm",
        "skip",
        "queue",
        "replace",
        "--apply",
    ):
        assert word in text
