"""What must not be seen is not shown, and what is harmless stays."""

from __future__ import annotations

import json

import pytest

from hpsearch.redaction import known, redact


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
        (
            "cannot connect to postgresql://bob:hunter2@db/x (password=hunter2)",
            "cannot connect to postgresql://db/x (password=***)",
        ),
        (
            'args: ["--api-key=abc", --wandb_api_key=def, x]',
            'args: ["--api-key=***", --wandb_api_key=***, x]',
        ),
        ('["--hf-token", "abc", "--epochs", "3"]', '["--hf-token", "***", "--epochs", "3"]'),
        ("--password hunter2 --epochs 3", "--password *** --epochs 3"),
        ("env: [{name: WANDB_API_KEY, value: abc}]", "env: [{name: WANDB_API_KEY, value: ***}]"),
        (
            "- name: AWS_SECRET_ACCESS_KEY\n  value: 'a b'\n",
            "- name: AWS_SECRET_ACCESS_KEY\n  value: '***'\n",
        ),
        ("API_KEY: x1\nepochs: 3", "API_KEY: ***\nepochs: 3"),
        ("- --token\n- abc\n- --epochs", "- --token\n- ***\n- --epochs"),
        # Names that only look like it.
        ("--max_tokens=512 --token_dim=64 tokens: 5", "--max_tokens=512 --token_dim=64 tokens: 5"),
        ("parameterName: token_dropout", "parameterName: token_dropout"),
        ("monkey: 5, key=3, keyboard=4", "monkey: 5, key=3, keyboard=4"),
    ],
)
def test_a_text_is_shown_without_secrets(text: str, shown: str) -> None:
    assert redact(text) == shown
    assert redact(shown) == shown


def test_a_json_text_stays_one() -> None:
    given = {
        "args": ["--api_key=a", "--token", "b", "--flag"],
        "env": [{"name": "MY_SECRET", "value": 'q"uo\\te'}, {"name": "HOME", "value": "/h"}],
        "password": "c",
        "nested": {"access_token": None, "api-key": 5},
    }
    found = json.loads(redact(json.dumps(given)))
    assert found["args"] == ["--api_key=***", "--token", "***", "--flag"]
    assert found["env"] == [{"name": "MY_SECRET", "value": "***"}, {"name": "HOME", "value": "/h"}]
    assert found["password"] == "***"


def test_a_long_text_takes_no_time() -> None:
    redact("a-b_" * 50_000 + "--" * 50_000 + 'name: "' * 20_000)


@pytest.mark.parametrize(
    ("environment", "secrets"),
    [
        ({"WANDB_API_KEY": "canary-1"}, {"canary-1"}),
        ({"PGPASSWORD": "p@ss word"}, {"p@ss word", "p%40ss%20word"}),
        ({"HPSEARCH_STORE": "postgresql://ann:h%40nter2@db/x"}, {"h%40nter2", "h@nter2"}),
        ({"MLFLOW_TRACKING_TOKEN": "abc"}, set()),  # so short a text stands everywhere
        ({"MAX_TOKENS": "canary-2", "HOME": "/home/ann", "KEY": "canary-3"}, set()),
        ({"GOOGLE_APPLICATION_CREDENTIALS": "/home/ann/key.json"}, set()),
    ],
)
def test_the_secrets_of_an_environment_are_known_by_their_names(
    environment: dict[str, str], secrets: set[str]
) -> None:
    assert known(environment) == secrets
    for secret in secrets:
        assert redact(f"it said {secret!r}, twice {secret}", environment) == "it said '***', twice ***"


def test_a_secret_that_holds_another_is_masked_whole() -> None:
    assert (
        redact("x canary-1-long y canary-1", {"A_TOKEN": "canary-1", "B_TOKEN": "canary-1-long"})
        == "x *** y ***"
    )
