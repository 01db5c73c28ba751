"""Addresses are shown without what must not be seen."""

from __future__ import annotations

import pytest

from hpsearch.track.uri import redact


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000"),
        ("https://ann:s3cret@mlflow.example/path", "https://mlflow.example/path"),
        ("postgresql+psycopg://ann:p%40ss@db:5432/mlflow", "postgresql+psycopg://db:5432/mlflow"),
        ("https://ann:p@ss@host/x", "https://host/x"),
        ("https://ghp_token@host", "https://host"),
        ("postgresql://db/x?password=s3cret&user=ann", "postgresql://db/x?password=***&user=ann"),
        ("sqlite:////home/ann/mlflow.db", "sqlite:////home/ann/mlflow.db"),
        (
            "request to 'http://a:b@c/d' failed, see http://e:f@g",
            "request to 'http://c/d' failed, see http://g",
        ),
        ("mail ann@example.org", "mail ann@example.org"),
    ],
)
def test_an_address_is_shown_without_user_password_and_token(text: str, shown: str) -> None:
    assert redact(text) == shown
