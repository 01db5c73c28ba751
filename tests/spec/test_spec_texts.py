"""Numbers as the services write them: digits that trainers and scripts have seen for years."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpsearch.spec.texts import text_of


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.1, "0.1"),
        (512.0, "512"),
        (-0.05, "-0.05"),
        (1e-06, "1e-06"),
        (1e22, "1e+22"),
        (0.605894661634192, "0.605894661634192"),  # 15 digits read back equal
        (0.60589466163419292, "0.60589466163419292"),  # recorded in a public job's output: needs 17
        (0.1 + 0.2, "0.30000000000000004"),
        (39, "39"),
        (1024, "1024"),
        (24.5, "24.5"),
        ("64 32 16", "64 32 16"),
        ("0.10", "0.10"),
    ],
)
def test_a_value_has_the_text_of_the_services(value: float | int | str, text: str) -> None:
    assert text_of(value) == text


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_reads_back_equal_in_at_most_17_digits(value: float) -> None:
    text = text_of(value)
    assert float(text) == value
    assert sum(c.isdigit() for c in text.partition("e")[0].lstrip("-0.")) <= 17
