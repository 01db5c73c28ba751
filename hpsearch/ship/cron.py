"""Cron expressions: five fields, read strictly, and the times at which they are due in a time zone.

What the crons of this world read differently is refused, so that one text means the same wherever it goes:
crontab(5) of Debian and of cronie, Kubernetes' CronJob (robfig/cron) and Slurm's scrontab.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

from hpsearch.errors import UsageError

LONGEST = 200  # characters
# Within so many days each possible date comes: February 29 leaves out 2100.
HORIZON = 366 * 9
DAY = timedelta(days=1)
MINUTE = timedelta(minutes=1)
MACROS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")


@dataclass(frozen=True, slots=True)
class Field:
    """One of the five: what may stand in it; `names` are those of the values from `low` on."""

    name: str
    low: int
    high: int
    names: tuple[str, ...] = ()


MINUTES, HOURS = Field("minute", 0, 59), Field("hour", 0, 23)
DAYS, MONTH = Field("day of month", 1, 31), Field("month", 1, 12, MONTHS)
DAY_OF_WEEK = Field("day of week", 0, 7, WEEKDAYS)  # 7 is Sunday too
FIELDS = (MINUTES, HOURS, DAYS, MONTH, DAY_OF_WEEK)


@dataclass(frozen=True, slots=True)
class Part:
    """What one field means: its values, its text in the form that every cron reads, whether it is `*`."""

    values: tuple[int, ...]
    text: str
    any: bool


@dataclass(frozen=True, slots=True)
class Cron:
    """A cron expression; weekdays count from Sunday, 0. `str` is the form that every cron reads alike."""

    minute: Part
    hour: Part
    day: Part
    month: Part
    weekday: Part

    def __str__(self) -> str:
        parts = (self.minute, self.hour, self.day, self.month, self.weekday)
        return " ".join(part.text for part in parts)

    @property
    def either(self) -> bool:
        """Whether a date that fits one kind of day is due: cron's rule where both are restricted."""
        return not self.day.any and not self.weekday.any

    def is_due_on(self, day: date) -> bool:
        """Whether a date fits."""
        if day.month not in self.month.values:
            return False
        fits = day.day in self.day.values, day.isoweekday() % 7 in self.weekday.values
        return any(fits) if self.either else all(fits)


def parse(text: str) -> Cron:
    """Read a cron expression. Raises UsageError that names the field."""
    given = text.strip()
    if len(given) > LONGEST:
        raise _wrong(f"{given[:40]}...", f"is {len(given)} characters long, at most {LONGEST} are read")
    if given.startswith("@"):
        given = _macro(given)
    if re.match(r"(CRON_)?TZ=", given):
        raise _wrong(text, "holds a time zone", "name the zone with --tz")
    fields = given.split()
    if len(fields) != len(FIELDS):
        more = ": seconds and years are not known to cron" if len(fields) > len(FIELDS) else ""
        raise _wrong(
            text,
            f"has {len(fields)} field{'s' * (len(fields) != 1)} where cron has 5{more}",
            'write "MINUTE HOUR DAY-OF-MONTH MONTH DAY-OF-WEEK", such as "17 2 * * *", in quotes',
        )
    cron = Cron(*(_part(field, one) for field, one in zip(FIELDS, fields, strict=True)))
    _be_clear(cron, fields)
    if not any(cron.is_due_on(date(2024, 1, 1) + DAY * ahead) for ahead in range(HORIZON)):
        raise _wrong(text, "is never due: no month of these has such a day", "choose a day that exists")
    return cron


def times(cron: Cron, zone: ZoneInfo, after: datetime) -> Iterator[datetime]:
    """The times after a moment at which it is due, in UTC, without end.

    A time that a change of the clocks skips is not due; one that comes twice is due at the first, as systemd
    has it.
    """
    first = after.astimezone(zone).date() - DAY
    for ahead in range((date.max - first).days - 1):
        for moment in _times_of(cron, zone, first + DAY * ahead):
            if moment > after:
                yield moment


def due(cron: Cron, zone: ZoneInfo, at: datetime) -> datetime:
    """The newest time at or before a moment at which it was due, in UTC."""
    last = at.astimezone(zone).date() + DAY
    for back in range(HORIZON):
        for moment in reversed(_times_of(cron, zone, last - DAY * back)):
            if moment <= at:
                return moment
    raise AssertionError(f"{cron} was never due")  # the parser has refused it


def shortest_gap(cron: Cron, zone: ZoneInfo, after: datetime, count: int = 500) -> timedelta:
    """The shortest time between two of the next times."""
    gaps: list[timedelta] = []
    before = None
    for moment in times(cron, zone, after):
        if before is not None:
            gaps.append(moment - before)
        before = moment
        # Years of a yearly one would be days by the hundred thousand.
        if len(gaps) >= count or moment - after > timedelta(days=HORIZON):
            break
    return min(gaps)


def clock_changes(zone: ZoneInfo, after: datetime, days: int = 730) -> list[date]:
    """The dates within some days on which the clocks of a zone change."""
    noon = datetime.combine(after.date(), datetime.min.time(), UTC) + timedelta(hours=12)
    offsets = [(noon + DAY * ahead).astimezone(zone) for ahead in range(days)]
    return [then.date() for before, then in pairwise(offsets) if before.utcoffset() != then.utcoffset()]


def _times_of(cron: Cron, zone: ZoneInfo, day: date) -> list[datetime]:
    """The times of one local date in UTC, in order."""
    if not cron.is_due_on(day):
        return []
    found = []
    for hour in cron.hour.values:
        for minute in cron.minute.values:
            local = datetime(day.year, day.month, day.day, hour, minute, tzinfo=zone)
            moment = local.astimezone(UTC)
            back = moment.astimezone(zone)
            if (back.day, back.hour, back.minute) == (day.day, hour, minute):
                found.append(moment)
    return found


def _macro(text: str) -> str:
    name = text.split()[0].lower()
    if name == "@every":
        raise _wrong(text, "counts from whenever a cron was started", 'write fields, such as "*/20 * * * *"')
    if name == "@reboot":
        raise _wrong(text, "is no time", "a timer of the system starts what must start with the machine")
    if text.lower() not in MACROS:
        raise _wrong(text, "is not known", f"there are {', '.join(MACROS)}")
    return MACROS[text.lower()]


def _part(field: Field, text: str) -> Part:
    values: set[int] = set()
    for item in text.split(","):
        values |= _values(field, text, item)
    if field is DAY_OF_WEEK:
        values = {value % 7 for value in values}
    numbers = tuple(sorted(values))
    anything = "*" in text.split(",") or "*/1" in text.split(",")
    if anything:
        return Part(numbers, "*", True)
    if re.fullmatch(r"\*/\d+", text):
        return Part(numbers, f"*/{int(text[2:])}", False)
    return Part(numbers, ranges(numbers, "-"), False)


def ranges(numbers: tuple[int, ...], to: str) -> str:
    """Numbers in order as a list of ranges, written with `to` between their ends: 1-5,9."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    texts = [[f"{run[0]}{to}{run[-1]}"] if len(run) > 2 else [str(number) for number in run] for run in runs]
    return ",".join(text for several in texts for text in several)


def _values(field: Field, text: str, item: str) -> set[int]:
    """The values of one item of a list: `*`, a value, a range, or the first and the last with a step."""
    span, slash, step_text = item.partition("/")
    first, dash, last = span.partition("-")
    if span == "*":
        low, high = field.low, min(field.high, 6) if field is DAY_OF_WEEK else field.high
    elif dash:
        low, high = _value(field, text, first), _value(field, text, last)
        if field is DAY_OF_WEEK and last.lower() == "sun":
            high = 7
        if low > high:
            ends = f"{low}-{field.high},{field.low}-{high}"
            raise _bad(field, text, f"the range {span!r} runs backwards", f"write {ends}")
    else:
        low = high = _value(field, text, span)
    if not slash:
        return set(range(low, high + 1))
    if span != "*" and not dash:
        hint = f"write {span}-{field.high}/{step_text}"
        raise _bad(field, text, f"{item!r} has a step without a range, which crons read differently", hint)
    return set(range(low, high + 1, _step(field, text, step_text)))


def _step(field: Field, text: str, given: str) -> int:
    most = field.high - field.low
    if not (given.isascii() and given.isdigit()) or not 1 <= int(given) <= most:
        hint = f"a step is a number from 1 to {most}"
        if given.isascii() and given.isdigit() and int(given) > most:
            hint += ": cron starts counting anew with each " + _AROUND[field.name]
        raise _bad(field, text, f"the step {given!r} cannot be", hint)
    return int(given)


_AROUND = {
    "minute": "hour",
    "hour": "day",
    "day of month": "month",
    "month": "year",
    "day of week": "week",
}


def _value(field: Field, text: str, given: str) -> int:
    if given.lower() in field.names:
        return field.names.index(given.lower()) + field.low
    if given.isascii() and given.isdigit() and field.low <= int(given) <= field.high:
        return int(given)
    also = f", or {field.names[0]} to {field.names[-1]}" if field.names else ""
    hint = f"a {field.name} is a number from {field.low} to {field.high}{also}"
    if given in ("?", "L", "W") or "#" in given or given.endswith(("L", "W")):
        hint = "cron knows no ?, L, W and #; write * for any"
    if given == "":
        hint = "something is missing beside a comma, a dash or a slash"
    raise _bad(field, text, f"{given!r} cannot be", hint)


def _be_clear(cron: Cron, fields: list[str]) -> None:
    """Refuse steps from `*` beside a second kind of day: `and` for Linux' crons, `or` for Kubernetes."""
    for field, text, other in (
        (DAYS, fields[2], cron.weekday),
        (DAY_OF_WEEK, fields[4], cron.day),
    ):
        if re.search(r"\*/(?!1(?:,|$))", text) and not other.any:
            last = 6 if field is DAY_OF_WEEK else field.high
            hint = f"write {text.replace('*/', f'{field.low}-{last}/')} for either, or * for the other day"
            what = "beside another kind of day it means both to some crons and either to others"
            raise _bad(field, text, what, hint)


def _bad(field: Field, text: str, what: str, hint: str) -> UsageError:
    return UsageError(f"--cron: the {field.name} {text!r}: {what}", hint=hint)


def _wrong(text: str, what: str, hint: str = "") -> UsageError:
    return UsageError(f"--cron {text!r} {what}", hint=hint)
