"""Names and texts that MLflow accepts, and the tags that tell a study and its trials."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpsearch.track.rows import (
    NAME_LIMIT,
    PARAM_LIMIT,
    TAG_LIMIT,
    Point,
    artifact_name,
    clean_name,
    clean_text,
    tags_of,
    value_text,
)


@pytest.mark.parametrize(
    ("name", "clean"),
    [
        ("val/loss", "val/loss"),
        ("top 5: a-b_c.d", "top 5: a-b_c.d"),
        ("acc@5", "acc_405"),
        ("weight%", "weight_25"),
        ("a\nb", "a_0ab"),
        ("Präzision", "Präzision"),
        ("/loss", "_2floss"),
        ("loss/", "loss_2f"),
        ("a//b", "a/_2fb"),
        ("../loss", "_2e_2e/loss"),
        (".", "_2e"),
        ("..a", "_2e_2ea"),
        ("", "_"),
    ],
)
def test_a_name_keeps_what_mlflow_accepts_and_escapes_the_rest(name: str, clean: str) -> None:
    assert clean_name(name) == clean


@pytest.mark.filterwarnings(r"ignore::DeprecationWarning:mlflow\.")
@settings(max_examples=300, deadline=None)
@given(st.text(st.sampled_from("ab./ :-_%@\n\t\0é") | st.characters(), max_size=20) | st.text(min_size=251))
def test_mlflow_accepts_every_cleaned_name(name: str) -> None:
    from mlflow.utils.validation import _validate_metric, _validate_param, _validate_tag

    clean = clean_name(name)
    _validate_metric(clean, 1.0, 0, 0)
    _validate_param(clean, "1")
    _validate_tag(clean, "1")
    assert clean_name(clean) == clean


def test_long_names_that_begin_alike_stay_different() -> None:
    one, two = clean_name("n" * 300 + "1"), clean_name("n" * 300 + "2")
    assert one != two
    assert len(one) == len(two) == NAME_LIMIT


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (3, "3"),
        (0.1, "0.1"),
        (1e-05, "1e-05"),
        (64.0, "64.0"),
        ("adam", "adam"),
        (np.float64(0.25), "0.25"),
        (np.int64(7), "7"),
    ],
)
def test_numbers_are_written_as_plain_digits(value: float | str, text: str) -> None:
    assert value_text(value) == text


def test_a_text_is_cut_and_freed_of_what_databases_refuse() -> None:
    assert len(value_text("x" * 7_000)) == PARAM_LIMIT
    assert clean_text("a\0b\ud800c", 10) == "a\ufffdb?c"
    tags = tags_of({"reason": "x" * 9_000, "empty": "", "none": None})
    assert list(tags) == ["reason"]
    assert len(tags["reason"]) == TAG_LIMIT


@pytest.mark.parametrize(
    ("time", "step", "sound"),
    [(0, 0, True), (1, -1, True), (-1, 0, False), (0, 2**63, False), (2**63, 0, False)],
)
def test_a_point_that_no_store_can_hold_is_known_beforehand(time: int, step: int, sound: bool) -> None:
    assert Point("loss", 1.0, time, step).sound is sound


@pytest.mark.parametrize(
    ("source", "name"),
    [("spaces/auto_mpg.yaml", "auto_mpg.yaml"), ("<stdin>", "spec.yaml"), ("", "spec.yaml")],
)
def test_the_artifact_has_the_name_of_the_file(source: str, name: str) -> None:
    assert artifact_name(source) == name
