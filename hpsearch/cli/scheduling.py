"""The command `schedule`: files for whatever keeps the time of a sweep; --apply applies them."""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from hpsearch.cli import options, schedule_targets, shipping
from hpsearch.cli import schedule_words as words
from hpsearch.cli.options import HOME, Address, AsJson, File, Local, Place
from hpsearch.cli.schedule_words import Target
from hpsearch.errors import UsageError
from hpsearch.ship.choices import Overlap

if TYPE_CHECKING:
    from hpsearch.ship.schedule import File as Written
    from hpsearch.ship.schedule import Schedule

_log = logging.getLogger(__name__)


@options.spread
def schedule(
    *,
    file: File,
    cron: words.Expression,
    tz: words.Zone,
    target: words.As = None,
    overlap: words.Overlaps = Overlap.SKIP,
    name: words.ScheduleName = None,
    apply: words.Apply = False,
    output: words.Output = None,
    due: words.Due = False,
    home: Place = HOME,
    local: Local = False,
    address: Address = None,
    tracking_uri: shipping.MlflowUri = None,
    webhook_env: words.WebhookEnv = None,
    env_file: words.Environment = None,
    delay: words.Delay = 60,
    system: words.System = False,
    machines: words.Machines,
    image: words.SweepImage = None,
    namespace: shipping.Namespace = "hpsearch",
    platform: shipping.Platform,
    webhook_secret: shipping.WebhookSecret = None,
    deadline: shipping.JobDeadline = None,
    as_json: AsJson = False,
) -> None:
    """Run a sweep again and again by itself: print the files that do so; nothing is applied without --apply.

    Each tick is a new study, named by the schedule and its time; started again, it goes on.
    """
    from hpsearch.ship import cron as crons
    from hpsearch.ship import tick
    from hpsearch.ship.schedule import Schedule

    expression, zone = crons.parse(cron), tick.time_zone(tz)
    if due:
        options.write_out(f"{crons.due(expression, zone, datetime.now(UTC)):%Y%m%dT%H%M%SZ}\n", "the time")
        return
    if target is None:
        raise UsageError("--as is missing", hint=f"what keeps the time: --as {'|'.join(Target)}")
    spec = shipping.valid(file)
    made = Schedule(
        name=tick.schedule_name(name or re.sub(r"[^A-Za-z0-9_.-]+", "-", file.stem)),
        sweep=file.absolute(),
        cron=expression,
        zone=zone,
        overlap=overlap,
        home=home.absolute(),
        directory=Path.cwd(),
        program=_program(),
        environment=env_file.absolute() if env_file else None,
        delay=delay,
        options=_run_options(local, address, tracking_uri, webhook_env, platform.storage),
    )
    wishes = platform.wishes(
        image,
        namespace=namespace,
        webhook_secret=webhook_secret,
        tracking_uri=tracking_uri,
        deadline=deadline,
    )
    place = (output or Path.cwd()).absolute()
    rendered = schedule_targets.rendered(
        target, made, spec, wishes, machines.allocation(), place, user=not system
    )
    _tell(target, made, rendered, output, apply=apply, as_json=as_json)


def _tell(
    target: Target,
    made: Schedule,
    rendered: schedule_targets.Rendered,
    output: Path | None,
    *,
    apply: bool,
    as_json: bool,
) -> None:
    """Print or write the files, and what should be known on stderr; then apply them if that is wanted."""
    from hpsearch.ship import schedule as schedules
    from hpsearch.ship import schedule_apply

    now = datetime.now(UTC)
    notes = [*schedules.notes(made, now), *rendered.notes]
    if os.environ.get("HPSEARCH_STORE") and target not in (Target.CRONJOB, Target.RAYCRONJOB):
        notes.append("HPSEARCH_STORE is set here and will not be at a tick: put it into an --env-file")
    times = schedules.next_times(made, now)
    with options.console(as_json) as console:
        for note in notes:
            _log.warning("%s", note)
        if output is not None:
            for file in rendered.files:
                schedule_apply.write(output, file)
        elif not as_json:
            options.write_out(_shown(rendered.files), "the schedule")
        said = rendered.apply() if apply else []
        if as_json:
            console.json(_answer(target, made, rendered, [*notes], times, said))
            return
    for line in (f"next: {', '.join(times)}", *said):
        sys.stderr.write(f"{line}\n")
    if not apply:
        sys.stderr.write("nothing was applied: --apply does\n")


def _answer(
    target: Target,
    made: Schedule,
    rendered: schedule_targets.Rendered,
    notes: list[str],
    times: list[str],
    said: list[str],
) -> dict[str, object]:
    """The object of `schedule --json`."""
    return {
        "schedule": made.name,
        "as": str(target),
        "cron": str(made.cron),
        "time_zone": made.zone.key,
        "overlap": str(made.overlap),
        "next": times,
        "files": [
            {"name": file.name, "mode": f"{file.mode:o}", "text": file.text} for file in rendered.files
        ],
        "warnings": notes,
        "applied": said,
    }


def _shown(files: Sequence[Written]) -> str:
    """One file as it is; several with their names between them, as comments."""
    if len(files) == 1:
        return files[0].text
    return "\n".join(f"# --- {file.name}\n{file.text}" for file in files)


def _run_options(
    local: bool,
    address: str | None,
    tracking_uri: str | None,
    webhook_env: str | None,
    storage: str | None,
) -> tuple[str, ...]:
    from hpsearch.study.storage import parse

    found: list[str] = ["--storage", parse(storage)] if storage else []
    if local:
        found.append("--local")
    if address:
        found += ["--address", address]
    if tracking_uri:
        if "@" in tracking_uri.partition("://")[2].partition("/")[0]:
            raise UsageError(
                "--tracking-uri holds a user or password, which would stand in a file",
                hint="put MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD into an --env-file",
            )
        found += ["--tracking-uri", tracking_uri]
    if webhook_env:
        found += ["--webhook-env", webhook_env]
    return tuple(found)


def _program() -> tuple[str, ...]:
    """The words that start this hpsearch, whatever PATH there is."""
    beside = Path(sys.executable).with_name("hpsearch")
    return (str(beside),) if beside.is_file() else (sys.executable, "-m", "hpsearch")
