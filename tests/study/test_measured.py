"""The fast proof of measurements accepts what the slow one accepts, and nothing else."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hpsearch.errors import StoreDamaged
from hpsearch.study import measured
from hpsearch.study.schema import checksum
from hpsearch.study.trial import Measurement, Trial

ROW = {"attempt": 1, "lsn": 5, "metric": "loss", "step": 10, "time": 7, "trial": 0, "value": 1.5}
WHOLE = st.integers(0, 2**62)
ROWS = st.fixed_dictionaries(
    {
        "attempt": WHOLE,
        "lsn": WHOLE,
        "metric": st.text(),
        "step": WHOLE,
        "time": WHOLE,
        "trial": st.just(0),
        "value": st.none() | st.floats(allow_nan=False),
    }
)


def fold(row: dict[str, Any], proof: str, study: str = "s") -> list[Measurement]:
    trial = Trial(0, "u", {}, 1)
    record: Any = (*(row[name] for name in measured.COLUMNS[:-1]), proof)
    assert measured.fold(study, [record], {0: trial}) == [row["lsn"]]
    return trial.measurements


@given(ROWS, st.text())
@example({**ROW, "value": math.inf}, "s")
@example({**ROW, "value": -math.inf, "metric": 'a"b\\c\n\x00é\U0001f4a9'}, 'ü"')
@settings(max_examples=300, deadline=None)
def test_every_row_that_was_written_is_proven_fast(row: dict[str, Any], study: str) -> None:
    slow: list[object] = []
    original = measured.verify
    measured.verify = lambda *rest: slow.append(rest)
    try:
        [found] = fold(row, checksum({**row, "study": study}), study)
    finally:
        measured.verify = original
    assert not slow
    value = found.metrics[row["metric"]]
    assert value == row["value"] or (math.isnan(value) and row["value"] is None)
    assert (found.step, found.time) == (row["step"], row["time"])


@pytest.mark.parametrize("column", ROW)
def test_another_value_or_another_type_of_any_column_is_damage(column: str) -> None:
    proof = checksum({**ROW, "study": "s"})
    fold(ROW, proof)
    known: Any = ROW[column]
    others: list[Any] = [str(known), [known], None, f"{known}x", b"1.5", 0 if known else 1, -1, 1.25, "null"]
    others += [float(known)] if isinstance(known, int) else [int(1e9)]
    for other in others:
        if column == "metric" and (other == known or not isinstance(other, str)):
            continue
        with pytest.raises(StoreDamaged, match="table measurement"):
            fold({**ROW, column: other}, proof)
    with pytest.raises(StoreDamaged):
        fold(ROW, proof, "t")


def test_metrics_of_one_step_become_one_measurement_also_if_others_came_in_between() -> None:
    trials = {number: Trial(number, "u", {}, 1) for number in range(2)}
    seen = [(0, 1, "a", 1.0), (1, 1, "a", 2.0), (0, 1, "b", 3.0), (0, 2, "a", 4.0), (2, 1, "a", 9.0)]
    records: list[Any] = []
    row: dict[str, Any]
    for lsn, (trial, step, metric, value) in enumerate(seen):
        row = {"attempt": 1, "lsn": lsn, "metric": metric, "step": step, "time": 7}
        row |= {"trial": trial, "value": value}
        records.append((*row.values(), checksum({**row, "study": "s"})))
    assert measured.fold("s", records, trials) == [0, 1, 2, 3, 4], "that of a missing trial, too"
    assert trials[0].measurements == [Measurement(1, {"a": 1.0, "b": 3.0}, 7), Measurement(2, {"a": 4.0}, 7)]
    assert trials[1].measurements == [Measurement(1, {"a": 2.0}, 7)]
