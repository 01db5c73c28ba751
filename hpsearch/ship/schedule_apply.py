"""Applies a schedule: kubectl, systemctl, crontab and scrontab, called with lists of words, never by a shell.

Each may be called again with the same schedule, and changes nothing then.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

from hpsearch.errors import ServiceUnavailable, UsageError
from hpsearch.redaction import redact
from hpsearch.ship.schedule import File

PATIENCE = 120.0  # seconds for one command
MADE_BY = "# Made by `hpsearch schedule`"
SYSTEM_UNITS = Path("/etc/systemd/system")


def kubernetes(manifests: str) -> list[str]:
    """Apply manifests to the cluster that kubectl means; what it said, line by line."""
    return _asked(["kubectl", "apply", "-f", "-"], manifests).splitlines()


def systemd(files: Sequence[File], unit: str, *, user: bool, directory: Path | None = None) -> list[str]:
    """Write units, and let the timer run from now on and after each boot."""
    place = directory or (_user_units() if user else SYSTEM_UNITS)
    systemctl = ["systemctl", *(["--user"] if user else [])]
    written = {file.name: write(place, file) for file in files}
    # Of an earlier schedule of this name, which had another --overlap.
    stale = [place / f"{unit}@.service"] if f"{unit}@.service" not in written else []
    gone = [path for path in stale if path.is_file() and path.read_text().startswith(MADE_BY)]
    for path in gone:
        path.unlink()
    timer = f"{unit}.timer"
    _asked([*systemctl, "daemon-reload"])
    _asked([*systemctl, "enable", timer])
    # A timer that runs already would keep its old times.
    _asked([*systemctl, "restart" if any(written.values()) or gone else "start", timer])
    said = [f"{place / name}: {'written' if changed else 'unchanged'}" for name, changed in written.items()]
    return [*said, *(f"{path}: removed" for path in gone), f"{timer} runs"]


def crontab(merged: Callable[[str], str], zone: ZoneInfo) -> list[str]:
    """Put a block into the user's crontab. Raises UsageError where cron would read it in another zone."""
    if not _is_cronie() and not _is_local(zone, datetime.now(UTC)):
        raise UsageError(
            f"this machine's cron reads times in the machine's own zone, which {zone.key} is not",
            hint="--as systemd keeps the zone; or give --tz the machine's",
        )
    before = _listed("crontab")
    after = merged(before)
    if after == before:
        return ["the crontab has it already"]
    _asked(["crontab", "-"], after)
    return ["the crontab has it now"]


def slurm(files: Sequence[File], place: Path, merged: Callable[[str], str]) -> list[str]:
    """Write the scripts where the nodes find them, and put a block into the user's scrontab."""
    said = [
        f"{place / file.name}: {'written' if write(place, file) else 'unchanged'}"
        for file in files
        if not file.name.endswith(".scrontab")
    ]
    before = _listed("scrontab")
    after = merged(before)
    if after == before:
        return [*said, "the scrontab has it already"]
    with tempfile.NamedTemporaryFile("w", suffix=".scrontab", encoding="utf-8") as file:
        file.write(after)
        file.flush()
        _asked(["scrontab", file.name])
    return [*said, "the scrontab has it now"]


def write(directory: Path, file: File) -> bool:
    """Write a file as a whole, with its mode; False if it is there already. Raises UsageError."""
    path = directory / file.name
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if path.is_file() and path.read_text(encoding="utf-8") == file.text:
            path.chmod(file.mode)
            return False
        descriptor, name = tempfile.mkstemp(prefix=f".{file.name}.", dir=directory)
        with os.fdopen(descriptor, "w", encoding="utf-8") as new:
            new.write(file.text)
        Path(name).chmod(file.mode)
        Path(name).replace(path)
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it holds something else"
        raise UsageError(f"cannot write {path}: {why}", hint="see to its permissions") from error
    return True


def _listed(command: str) -> str:
    """What a crontab holds; nothing where the user has none."""
    done = _run([command, "-l"])
    if done.returncode == 0:
        return done.stdout
    if "no crontab" in done.stderr.lower():
        return ""
    raise _refused([command, "-l"], done)


def _is_cronie() -> bool:
    """Whether CRON_TZ means something: only cronie says its name when asked."""
    try:
        done = subprocess.run(
            ["crontab", "-V"],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return False
    return "cronie" in (done.stdout + done.stderr).lower()


def _is_local(zone: ZoneInfo, now: datetime) -> bool:
    """Whether a zone's clocks go as the machine's, over a year."""
    days = (now + timedelta(days=ahead) for ahead in range(366))
    return all(day.astimezone(zone).utcoffset() == day.astimezone().utcoffset() for day in days)


def _user_units() -> Path:
    config = os.environ.get("XDG_CONFIG_HOME")
    return (Path(config) if config else Path.home() / ".config") / "systemd" / "user"


def _asked(words: Sequence[str], text: str | None = None) -> str:
    done = _run(words, text)
    if done.returncode:
        raise _refused(words, done)
    return done.stdout


def _run(words: Sequence[str], text: str | None = None) -> subprocess.CompletedProcess[str]:
    try:
        given: dict[str, object] = {"input": text} if text is not None else {"stdin": subprocess.DEVNULL}
        return subprocess.run(  # type: ignore[call-overload, no-any-return]
            list(words), capture_output=True, text=True, timeout=PATIENCE, check=False, **given
        )
    except FileNotFoundError:
        raise UsageError(
            f"there is no {words[0]} here", hint="leave out --apply, and apply it elsewhere"
        ) from None
    except subprocess.TimeoutExpired:
        raise ServiceUnavailable(
            f"{words[0]} has not answered in {PATIENCE:g} s", hint="what it was to do may be done or not"
        ) from None


def _refused(words: Sequence[str], done: subprocess.CompletedProcess[str]) -> UsageError:
    said = redact((done.stderr.strip() or done.stdout.strip() or "no reason given")[:1000])
    return UsageError(
        f"`{' '.join(words)}` failed with {done.returncode}: {said}", hint="nothing after it was done"
    )
