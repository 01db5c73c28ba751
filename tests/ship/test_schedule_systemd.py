"""systemd units of a schedule, judged by systemd itself: it reads them, and counts the same times."""

from __future__ import annotations

import re
import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpsearch.errors import UsageError
from hpsearch.ship import cron
from hpsearch.ship.choices import Overlap
from hpsearch.ship.schedule import Schedule, notes
from hpsearch.ship.schedule_systemd import calendar, units

if shutil.which("systemd-analyze") is None:
    pytest.skip("NO systemd-analyze HERE: units are not checked by systemd", allow_module_level=True)

AT = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)


def schedule(place: Path, text: str = "17 2 * * *", zone: str = "Europe/Berlin", **more: object) -> Schedule:
    settings = {
        "name": "nightly",
        "sweep": place / "my sweep.yaml",
        "cron": cron.parse(text),
        "zone": ZoneInfo(zone),
        "overlap": Overlap.SKIP,
        "home": place / "studies",
        "directory": place,
        "program": ("/bin/echo",),
    }
    return Schedule(**(settings | more))  # type: ignore[arg-type]


def next_by_systemd(expressions: list[str], after: datetime, count: int) -> list[datetime]:
    """When systemd would elapse, over all expressions of a timer."""
    command = ["systemd-analyze", "calendar", f"--base-time={after:%Y-%m-%d %H:%M:%S} UTC"]
    command += [f"--iterations={count}", *expressions]
    env = {"PATH": "/usr/bin:/bin", "TZ": "UTC", "LC_ALL": "C", "SYSTEMD_COLORS": "0"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
    found = re.findall(
        r"(?:Next elapse|\(in UTC\)|Iter\. #\d+): \w+ (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) UTC", done.stdout
    )
    moments = {datetime.fromisoformat(each).replace(tzinfo=UTC) for each in found}
    return sorted(moments)[:count]


def ours(text: str, zone: str, after: datetime, count: int) -> list[datetime]:
    return list(islice(cron.times(cron.parse(text), ZoneInfo(zone), after), count))


@pytest.mark.parametrize(
    ("text", "expressions"),
    [
        ("17 2 * * *", ["*-*-* 2:17:00 UTC"]),
        ("*/15 9-17 * * mon-fri", ["Mon..Fri *-*-* 9..17:0,15,30,45:00 UTC"]),
        ("0 0 * * 0", ["Sun *-*-* 0:0:00 UTC"]),
        ("0 0 * * 5-7", ["Fri..Sun *-*-* 0:0:00 UTC"]),
        ("0 0 * * 6,0,1", ["Mon,Sat,Sun *-*-* 0:0:00 UTC"]),
        ("5 4 1,15 1-3,6 *", ["*-1..3,6-1,15 4:5:00 UTC"]),
        ("0 12 13 * fri", ["*-*-13 12:0:00 UTC", "Fri *-*-* 12:0:00 UTC"]),
        ("0 12 1-31 * fri", ["*-*-1..31 12:0:00 UTC", "Fri *-*-* 12:0:00 UTC"]),
        ("0 12 */2 * *", ["*-*-1,3,5,7,9,11,13,15,17,19,21,23,25,27,29,31 12:0:00 UTC"]),
    ],
)
def test_cron_becomes_calendar_expressions_of_systemd(text: str, expressions: list[str]) -> None:
    assert calendar(cron.parse(text), "UTC") == expressions
    assert next_by_systemd(expressions, AT, 4) == ours(text, "UTC", AT, 4)


def numbers(low: int, high: int) -> st.SearchStrategy[str]:
    listed = st.lists(st.integers(low, high), min_size=1, max_size=4).map(
        lambda found: ",".join(map(str, found))
    )
    ranged = st.tuples(st.integers(low, high), st.integers(low, high)).map(lambda e: f"{min(e)}-{max(e)}")
    return st.one_of(st.just("*"), listed, ranged)


@settings(max_examples=25, deadline=None)
@given(
    st.tuples(numbers(0, 59), numbers(0, 23), numbers(1, 28), numbers(1, 12), numbers(0, 7)).map(" ".join),
    st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu"]),
    st.datetimes(datetime(2025, 1, 1), datetime(2027, 1, 1)),
)
def test_systemd_counts_the_same_times(text: str, zone: str, start: datetime) -> None:
    start = start.replace(microsecond=0, tzinfo=UTC)
    found = next_by_systemd(calendar(cron.parse(text), zone), start, 5)
    expected = ours(text, zone, start, 5)
    # Of several expressions each gives five; those that fall within five of all are what a timer does.
    assert found == expected


def test_a_night_in_which_clocks_change_is_the_same_for_systemd() -> None:
    for start in (datetime(2026, 3, 27, 12, tzinfo=UTC), datetime(2026, 10, 23, 12, tzinfo=UTC)):
        for text in ("17 2 * * *", "17 1-3 * * *"):
            found = next_by_systemd(calendar(cron.parse(text), "Europe/Berlin"), start, 4)
            assert found == ours(text, "Europe/Berlin", start, 4)


def verified(files: list[Path]) -> subprocess.CompletedProcess[str]:
    command = ["systemd-analyze", "--man=no", "verify", *map(str, files)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("overlap", Overlap)
@pytest.mark.parametrize("account", [None, "daemon"])
def test_systemd_reads_every_unit_without_a_word(
    tmp_path: Path, overlap: Overlap, account: str | None
) -> None:
    place = tmp_path / "it's $HOME 100% \\o/"
    (place / "studies").mkdir(parents=True)
    (place / "secrets.env").write_text("A=b\n")
    made = schedule(
        place,
        overlap=overlap,
        environment=place / "secrets.env",
        options=("--tracking-uri", 'http://mlflow:5000/"x"?a=%20$b'),
    )
    written = []
    for file in units(made, account=account):
        (tmp_path / file.name).write_text(file.text)
        # A template is read as one of its instances.
        written.append(tmp_path / file.name.replace("@.", "@20261125T011700Z."))
        if "@." in file.name:
            (tmp_path / written[-1].name).write_text(file.text)
    done = verified(written)
    said = [
        line
        for line in (done.stdout + done.stderr).splitlines()
        if str(tmp_path) in line or "hpsearch" in line
    ]
    assert (done.returncode, said) == (0, [])


def test_systemd_objects_to_what_is_wrong(tmp_path: Path) -> None:
    """The check above would notice: a misspelt setting and an impossible time are complained of."""
    timer = (
        units(schedule(tmp_path), account=None)[0]
        .text.replace("2:17:00", "2:77:00")
        .replace("Persistent", "Persist")
    )
    (tmp_path / "hpsearch-nightly.timer").write_text(timer)
    (tmp_path / "hpsearch-nightly.service").write_text("[Service]\nType=oneshot\nExecStart=/bin/true\n")
    said = verified([tmp_path / "hpsearch-nightly.timer"]).stderr
    assert "Failed to parse calendar specification" in said
    assert "Persist" in said


def run_line(text: str) -> str:
    """What systemd itself makes of an ExecStart= line: it is asked to run it, without a manager."""
    return next(
        line.removeprefix("ExecStart=") for line in text.splitlines() if line.startswith("ExecStart=")
    )


def unquoted(line: str) -> list[str]:
    """The words of a command line by systemd.service(5): quotes, backslashes, %% and $$."""
    words: list[str] = []
    for quoted, plain in re.findall(r'"((?:[^"\\]|\\.)*)"|(\S+)', line):
        text = re.sub(r"\\(.)", r"\1", quoted or plain)
        assert not re.search(r"(?<!%)(?:%%)*%(?![%i])", text), f"a specifier is left in {text}"
        words.append(text.replace("%%", "%").replace("$$", "$"))
    return words


def test_a_tick_is_run_with_the_words_as_they_are(tmp_path: Path) -> None:
    place = tmp_path / 'it\'s "$HOME" 100% \\o/'
    made = schedule(place, options=("--tracking-uri", "http://m/%20$b"))
    assert unquoted(run_line(units(made, account=None)[1].text)) == [
        "/bin/echo",
        *("run", str(place / "my sweep.yaml"), "--schedule", "nightly"),
        *(
            "--scheduled-time",
            "17 2 * * * Europe/Berlin",
            "--resume",
            "auto",
            "--home",
            str(place / "studies"),
        ),
        *("--status-file", str(place / "studies" / ".nightly.status.json")),
        *("--tracking-uri", "http://m/%20$b"),
    ]


def test_skip_is_one_service_that_cannot_run_twice(tmp_path: Path) -> None:
    timer, service = units(schedule(tmp_path, delay=300), account=None)
    assert (timer.name, service.name) == ("hpsearch-nightly.timer", "hpsearch-nightly.service")
    for line in ("OnCalendar=*-*-* 2:17:00 Europe/Berlin", "Persistent=true", "RandomizedDelaySec=300"):
        assert line in timer.text.splitlines()
    for line in ("Type=oneshot", "KillMode=mixed", "TimeoutStartSec=infinity", "Restart=on-failure"):
        assert line in service.text.splitlines()
    # A verdict is not tried again: 69, 73 and 75 are.
    assert "RestartPreventExitStatus=1 2 3 4 74 130" in service.text.splitlines()


@pytest.mark.parametrize("overlap", [Overlap.QUEUE, Overlap.REPLACE])
def test_queue_and_replace_start_an_instance_that_is_named_by_its_tick(
    tmp_path: Path, overlap: Overlap
) -> None:
    """The dispatcher's own words are run, with a systemctl that notes what it is asked."""
    tools, log = tmp_path / "tools", tmp_path / "asked"
    tools.mkdir()
    (tools / "systemctl").write_text(f'#!/bin/sh\necho "$@" >>{log}\n')
    (tools / "due").write_text('#!/bin/sh\necho 20261125T011700Z; echo "$@" >&2\n')
    for tool in tools.iterdir():
        tool.chmod(0o755)
    made = schedule(tmp_path, overlap=overlap, program=(str(tools / "due"),))
    _, dispatcher, instance = units(made, account=None)
    words = unquoted(run_line(dispatcher.text))
    done = subprocess.run(
        words, capture_output=True, text=True, env={"PATH": f"{tools}:/usr/bin:/bin"}, check=True
    )
    assert (
        done.stderr.strip()
        == f"schedule {tmp_path / 'my sweep.yaml'} --cron 17 2 * * * --tz Europe/Berlin --due"
    )
    start = "--user start --no-block hpsearch-nightly@20261125T011700Z.service"
    stop = ["--user stop hpsearch-nightly@*.service"] if overlap is Overlap.REPLACE else []
    assert log.read_text().splitlines() == [*stop, start]
    assert instance.name == "hpsearch-nightly@.service"
    run = unquoted(run_line(instance.text))
    assert run[:3] == ["/usr/bin/flock", "--no-fork", str(tmp_path / "studies" / ".nightly.lock")]
    assert run[run.index("--scheduled-time") + 1] == "%i"


def test_units_of_the_machine_run_ticks_as_whoever_asked(tmp_path: Path) -> None:
    for overlap in Overlap:
        made = schedule(tmp_path, overlap=overlap)
        assert "User=me" in units(made, account="me")[-1].text.splitlines()
        assert not any("User=" in file.text for file in units(made, account=None))


def test_a_name_that_no_unit_can_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no unit can be called"):
        units(schedule(tmp_path, name="_x"), account=None)


# -- what is said of times ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "zone", "words"),
    [
        ("17 2 * * *", "Europe/Berlin", ["may be skipped or come twice", "next on 2027-03-28"]),
        ("17 1-5 * * *", "America/New_York", ["may be skipped or come twice", "next on 2027-03-14"]),
        ("17 4 * * *", "Europe/Berlin", []),
        ("17 2 * * *", "UTC", []),
        ("17 2 * * *", "Asia/Kathmandu", []),
        ("0 5 * * *", "UTC", ["minutes 0 and 30"]),
        ("0,30 5 * * *", "UTC", ["minutes 0 and 30"]),
        ("*/45 5 * * *", "UTC", ["60 is no multiple of 45"]),
        ("* 5 * * *", "UTC", ["--delay is too long"]),
    ],
)
def test_times_that_ask_for_trouble_are_warned_of(
    tmp_path: Path, text: str, zone: str, words: list[str]
) -> None:
    delay = 90 if text.startswith("* ") else 60
    said = " ".join(notes(schedule(tmp_path, text, zone, delay=delay), AT))
    assert bool(said) == bool(words)
    for word in words:
        assert word in said


def test_the_shortest_gap_of_a_weekly_one_is_a_week(tmp_path: Path) -> None:
    assert cron.shortest_gap(schedule(tmp_path, "17 5 * * 0").cron, ZoneInfo("UTC"), AT) == timedelta(days=7)
