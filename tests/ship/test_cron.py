"""Cron expressions: what they mean, against a brute force of all minutes, and what is refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice, takewhile
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpsearch.errors import UsageError
from hpsearch.ship import cron

BERLIN, LORD_HOWE = ZoneInfo("Europe/Berlin"), ZoneInfo("Australia/Lord_Howe")
ZONES = [ZoneInfo("UTC"), BERLIN, ZoneInfo("America/New_York"), LORD_HOWE, ZoneInfo("Asia/Kathmandu")]
MINUTE = timedelta(minutes=1)


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def upcoming(text: str, zone: ZoneInfo, after: str, count: int) -> list[str]:
    found = islice(cron.times(cron.parse(text), zone, moment(after)), count)
    return [each.astimezone(zone).strftime("%a %Y-%m-%d %H:%M") for each in found]


# -- the meaning, said a second time in another way -----------------------------------------------------


def items(low: int, high: int) -> st.SearchStrategy[tuple[str, frozenset[int]]]:
    """An item of a field that is no star, and what it means."""
    number = st.integers(low, high)

    def ranged(ends: tuple[int, int], step: int) -> tuple[str, frozenset[int]]:
        first, last = sorted(ends)
        text = f"{first}-{last}" + (f"/{step}" if step > 1 else "")
        return text, frozenset(
            n for n in range(low, high + 1) if first <= n <= last and not (n - first) % step
        )

    single = number.map(lambda n: (str(n), frozenset([n])))
    return st.one_of(single, st.builds(ranged, st.tuples(number, number), st.integers(1, high - low)))


def fields(low: int, high: int, last: int = 0) -> st.SearchStrategy[tuple[str, frozenset[int], bool]]:
    """A field, what it means, and whether it is a star; numbers go up to `last`, which every month has."""
    star = st.just(("*", frozenset(range(low, high + 1)), True))
    several = st.lists(items(low, last or high), min_size=1, max_size=3).map(
        lambda found: (",".join(text for text, _ in found), frozenset().union(*(n for _, n in found)), False)
    )
    return st.one_of(star, several)


expressions = st.tuples(fields(0, 59), fields(0, 23), fields(1, 31, 28), fields(1, 12), fields(0, 7))


def matches(parts: tuple[tuple[str, frozenset[int], bool], ...], local: datetime) -> bool:
    """Cron's own rule, for one minute of the clock on the wall."""
    minute, hour, day, month, weekday = parts
    of_month = local.day in day[1]
    of_week = (local.weekday() + 1) % 7 in {n % 7 for n in weekday[1]}
    dated = of_month or of_week if not day[2] and not weekday[2] else of_month and of_week
    return local.minute in minute[1] and local.hour in hour[1] and local.month in month[1] and dated


def brute(
    parts: tuple[tuple[str, frozenset[int], bool], ...], zone: ZoneInfo, start: datetime
) -> list[datetime]:
    """All due minutes of thirty hours, each looked at; of a time that comes twice the first."""
    found, seen = [], set()
    for ahead in range(1, 60 * 30):
        local = (start + ahead * MINUTE).astimezone(zone)
        if matches(parts, local) and local.fold == 0 and local.replace(tzinfo=None) not in seen:
            seen.add(local.replace(tzinfo=None))
            found.append(start + ahead * MINUTE)
    return found


# Beside any time, the nights on which clocks change.
starts = st.one_of(
    st.datetimes(datetime(2024, 1, 1), datetime(2028, 1, 1)).map(
        lambda t: t.replace(second=0, microsecond=0)
    ),
    st.sampled_from(
        [
            datetime(2026, 3, 28, 12),
            datetime(2026, 10, 24, 12),
            datetime(2026, 4, 4, 3),
            datetime(2026, 10, 3, 3),
            datetime(2026, 3, 7, 12),
            datetime(2026, 10, 31, 12),
        ]
    ),
)


@settings(max_examples=60, deadline=None)
@given(expressions, st.sampled_from(ZONES), starts)
def test_the_next_times_are_those_that_a_look_at_each_minute_finds(
    parts: tuple[tuple[str, frozenset[int], bool], ...], zone: ZoneInfo, start: datetime
) -> None:
    start = start.replace(tzinfo=UTC)
    read = cron.parse(" ".join(text for text, _, _ in parts))
    expected = brute(parts, zone, start)
    end = start + timedelta(minutes=60 * 30 - 1)
    assert list(takewhile(lambda t: t <= end, cron.times(read, zone, start))) == expected
    if expected:
        assert cron.due(read, zone, end) == expected[-1]
    # What is written for other crons means the same, and is the same when read again.
    assert str(cron.parse(str(read))) == str(read)
    again = cron.times(cron.parse(str(read)), zone, start)
    assert list(takewhile(lambda t: t <= end, again)) == expected


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="0123456789*/-,@?LW#jan sunmon\t\x00é", max_size=30))
def test_any_text_is_read_or_refused_in_words(text: str) -> None:
    try:
        read = cron.parse(text)
    except UsageError as error:
        assert error.exit_code == 2
        assert "--cron" in error.message
    else:
        assert next(cron.times(read, BERLIN, moment("2026-01-01T00:00+00:00")))


# -- words, macros, days ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("17 2 * * *", "17 2 * * *"),
        ("  17\t2  * * * ", "17 2 * * *"),
        ("*/15 9-17/2 1,15 jan-mar mon-fri", "*/15 9,11,13,15,17 1,15 1-3 1-5"),
        ("0 0 * * 7", "0 0 * * 0"),
        ("0 0 * * 5-7", "0 0 * * 0,5,6"),
        ("0 0 * * FRI-sun", "0 0 * * 0,5,6"),
        ("0 0 * * Sun-Tue", "0 0 * * 0-2"),
        ("0-59 */1 *,3 * *", "0-59 * * * *"),
        ("5,4,3,4 0 * DEC *", "3-5 0 * 12 *"),
        ("@daily", "0 0 * * *"),
        ("@Weekly", "0 0 * * 0"),
        ("@annually", "0 0 1 1 *"),
        ("@hourly", "0 * * * *"),
    ],
)
def test_what_is_written_for_others_is_plain_numbers(text: str, plain: str) -> None:
    assert str(cron.parse(text)) == plain


def test_two_kinds_of_day_mean_either_and_one_means_that_one() -> None:
    either = upcoming("0 12 13 * fri", ZoneInfo("UTC"), "2026-11-06T13:00+00:00", 4)
    assert either == [
        "Fri 2026-11-13 12:00",
        "Fri 2026-11-20 12:00",
        "Fri 2026-11-27 12:00",
        "Fri 2026-12-04 12:00",
    ]
    assert upcoming("0 12 13 * *", ZoneInfo("UTC"), "2026-11-06T13:00+00:00", 2) == [
        "Fri 2026-11-13 12:00",
        "Sun 2026-12-13 12:00",
    ]
    # All days of the month, said with numbers, are a kind of day too.
    assert len(set(upcoming("0 12 1-31 * fri", ZoneInfo("UTC"), "2026-11-06T13:00+00:00", 7))) == 7


def test_a_leap_day_is_found_also_over_a_century_without_one() -> None:
    assert upcoming("5 4 29 2 *", ZoneInfo("UTC"), "2096-03-01T00:00+00:00", 1) == ["Fri 2104-02-29 04:05"]
    assert cron.due(cron.parse("5 4 29 2 *"), BERLIN, moment("2027-01-01T00:00+00:00")).year == 2024


def test_a_night_in_which_clocks_change_skips_a_time_or_has_it_once() -> None:
    assert upcoming("17 2 * * *", BERLIN, "2026-03-28T00:00+00:00", 2) == [
        "Sat 2026-03-28 02:17",
        "Mon 2026-03-30 02:17",
    ]
    twice = list(islice(cron.times(cron.parse("17 2 * * *"), BERLIN, moment("2026-10-24T12:00+00:00")), 2))
    assert [each.isoformat() for each in twice] == ["2026-10-25T00:17:00+00:00", "2026-10-26T01:17:00+00:00"]


def test_the_newest_due_time_is_the_moment_itself_or_before_it() -> None:
    daily = cron.parse("17 2 * * *")
    assert cron.due(daily, BERLIN, moment("2026-11-25T01:17+00:00")) == moment("2026-11-25T01:17+00:00")
    assert cron.due(daily, BERLIN, moment("2026-11-25T01:16:59+00:00")) == moment("2026-11-24T01:17+00:00")


def test_the_shortest_gap_is_found_beside_longer_ones() -> None:
    at = moment("2026-11-25T00:00+00:00")
    assert cron.shortest_gap(cron.parse("0 9,10,20 * * *"), BERLIN, at) == timedelta(hours=1)
    assert cron.shortest_gap(cron.parse("17 5 * * *"), BERLIN, at) == timedelta(hours=23)  # in March
    assert cron.shortest_gap(cron.parse("17 2 29 2 *"), BERLIN, at) >= timedelta(days=365)


def test_the_days_on_which_clocks_change_are_known() -> None:
    at = moment("2026-11-25T00:00+00:00")
    assert [str(day) for day in cron.clock_changes(BERLIN, at, 400)] == ["2027-03-28", "2027-10-31"]
    assert cron.clock_changes(ZoneInfo("Asia/Kathmandu"), at) == []


# -- refusals --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("", "has 0 fields where cron has 5", "MINUTE HOUR"),
        ("17 2 * *", "has 4 fields", "MINUTE HOUR"),
        ("0 17 2 * * *", "has 6 fields where cron has 5: seconds", "MINUTE"),
        ("60 2 * * *", "the minute '60': '60' cannot be", "from 0 to 59"),
        ("17 24 * * *", "the hour '24'", "from 0 to 23"),
        ("17 2 0 * *", "the day of month '0'", "from 1 to 31"),
        ("17 2 * 13 *", "the month '13'", "1 to 12, or jan to dec"),
        ("17 2 * * 8", "the day of week '8'", "0 to 7, or sun to sat"),
        ("17 2 * * montag", "the day of week 'montag'", "sun to sat"),
        ("-1 2 * * *", "the minute '-1'", "missing beside"),
        ("1,,2 2 * * *", "the minute '1,,2'", "missing beside"),
        ("17 22-2 * * *", "the range '22-2' runs backwards", "22-23,0-2"),
        ("*/0 * * * *", "the step '0'", "from 1 to 59"),
        ("*/90 * * * *", "the step '90'", "counting anew with each hour"),
        ("5/15 * * * *", "a step without a range", "write 5-59/15"),
        ("17 2 ? * *", "the day of month '?'", "write * for any"),
        ("17 2 L * *", "the day of month 'L'", "no ?, L, W and #"),
        ("17 2 * * 5#2", "the day of week '5#2'", "#"),
        ("17 2 30 2 *", "is never due", "a day that exists"),
        ("17 2 31 4,6,9,11 *", "is never due", ""),
        ("17 2 */2 * 1-5", "the day of month '*/2'", "write 1-31/2 for either"),
        ("17 2 1 * */2", "the day of week '*/2'", "write 0-6/2"),
        ("@every 1h", "counts from whenever", "*/20"),
        ("@reboot", "is no time", ""),
        ("@fortnightly", "is not known", "@weekly"),
        ("TZ=Europe/Berlin 17 2 * * *", "holds a time zone", "--tz"),
        ("1" * 300, "is 300 characters long", ""),
        ("١٧ 2 * * *", "the minute '١٧'", "from 0 to 59"),
    ],
)
def test_what_cannot_be_is_refused_with_the_field_and_a_hint(text: str, message: str, hint: str) -> None:
    with pytest.raises(UsageError) as refused:
        cron.parse(text)
    assert message in refused.value.message
    assert hint in refused.value.hint
