"""A study's measurements, proven and folded many times faster than row by row: there may be a million.

The text that a proof is over is written here in one go, and equals that of `schema.checksum` for every value
of its column's type. Whatever else there is gives another text, and is looked at by the slow way.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping

from hpsearch.study.schema import Row, compact, measurement_table, verify
from hpsearch.study.trial import Measurement, Trial

COLUMNS = ("attempt", "lsn", "metric", "step", "time", "trial", "value", "checksum")
# How JSON writes what `repr` writes otherwise.
_NAMES = {"None": "null", "inf": "Infinity", "-inf": "-Infinity"}

Record = tuple[int, int, str, int, int, int, float | None, str]


def fold(study: str, records: Iterable[Record], trials: Mapping[int, Trial]) -> list[int]:
    """Add measurements, in the order of their lsn, to the trials that they are of; the lsns.

    The metrics of one step become one measurement. Raises StoreDamaged for a row that is not proven.
    """
    blake2b = hashlib.blake2b
    named = compact(study)
    texts: dict[str, str] = {}
    latest: dict[int, Measurement] = {}
    lsns: list[int] = []
    for attempt, lsn, metric, step, time, trial, value, proof in records:
        text = texts.get(metric)
        if text is None:
            text = texts[metric] = compact(metric)
        number = repr(value)
        number = _NAMES.get(number, number)
        content = f"[{attempt!r},{lsn!r},{text},{step!r},{named},{time!r},{trial!r},{number}]"
        if blake2b(content.encode(), digest_size=8).hexdigest() != proof:
            record = (attempt, lsn, metric, step, time, trial, value, proof)
            verify(measurement_table, _row(study, record))
        lsns.append(lsn)
        if value is None:
            value = math.nan
        last = latest.get(trial)
        if last is not None and last.step == step:
            last.metrics[metric] = value  # type: ignore[index]  # a dict, made below
        elif (owner := trials.get(trial)) is not None:
            latest[trial] = last = Measurement(step, {metric: value}, time)
            owner.measurements.append(last)
    return lsns


def _row(study: str, record: Record) -> Row:
    return {"study": study, **dict(zip(COLUMNS, record, strict=True))}
