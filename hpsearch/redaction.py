"""Texts without secrets: what is stored as a reason, logged, sent to MLflow or shown passes through here.

A secret is known by what names it in the text, or by its value: that of an environment variable whose name
says so, or the password in an address that a variable holds.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterator, Mapping
from urllib.parse import quote, unquote

_USER_INFO = re.compile(r"://[^/\s'\"]*@")
# Only as the last part of a name: `hf_token` and `WANDB_API_KEY`, but neither `token_dim` nor `max_tokens`.
_WORD = r"(?:pass(?:word|wd|phrase)|token|secret|credentials?|(?:api|access|private|secret)[_-]?key)"
_NAME = rf"(?<![A-Za-z0-9]){_WORD}"
# All repeats are bounded, so that no text takes long.
_GAP = r"\s{0,40}"
_VALUE = r"(?:\"(?:[^\"\\]|\\.){0,9999}\"|'(?:[^'\\]|\\.){0,9999}'|[^\s,&'\"\]})]{1,9999})"
_SECRETS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        # name=value, --name=value, and the same in a connection string
        rf"({_NAME}=){_VALUE}",
        # name: value, "name": "value"
        rf"({_NAME}(?:[\"']?{_GAP}:\s{_GAP}|\"{_GAP}:{_GAP})){_VALUE}",
        # an entry of env: {name: WANDB_API_KEY, value: ...}, on one line or two
        rf"({_NAME}[\"']?{_GAP},?{_GAP}[\"']?value[\"']?{_GAP}:{_GAP}){_VALUE}",
        # --name value, ["--name", "value"], and the same on lines of a list
        rf"(--(?:[\w-]{{0,60}}[_-])?{_WORD}[\"']?(?:{_GAP},{_GAP}|\s{_GAP}(?:-\s)?))(?![\"']?-){_VALUE}",
    )
)


# A shorter value is a word that stands in many texts.
SHORTEST = 6  # characters
_PASSWORD = re.compile(r"://[^/\s:@]*:([^/\s@]+)@")
# CREDENTIALS name a file in many environments, and a path is no secret.
_SECRET_NAME = re.compile(
    r"(?:^|[_-]|PG|MYSQL_)(?:pass(?:word|wd|phrase)?|token|secret|(?:api|access|private|secret)[_-]?key)$",
    re.IGNORECASE,
)


def redact(text: str, environment: Mapping[str, str] = os.environ) -> str:
    """The text without user names, passwords, tokens and keys; what names them stays."""
    for value in sorted(known(environment), key=len, reverse=True):
        text = text.replace(value, "***")
    text = _USER_INFO.sub("://", text)
    for secret in _SECRETS:
        text = secret.sub(_masked, text)
    return text


def known(environment: Mapping[str, str]) -> set[str]:
    """The values of an environment that no text may show, also as they stand in addresses."""
    secrets: set[str] = set()
    for name, value in environment.items():
        if _names_a_secret(name):
            secrets |= {value, value.strip(), quote(value, safe="")}
        if "://" in value:
            secrets |= set(_passwords(value))
    return {secret for secret in secrets if len(secret) >= SHORTEST}


def _passwords(address: str) -> Iterator[str]:
    for password in _PASSWORD.findall(address):
        yield password
        yield unquote(password)


@functools.lru_cache(maxsize=4096)
def _names_a_secret(name: str) -> bool:
    """Whether the last part of a name says so: WANDB_API_KEY and PGPASSWORD, not MAX_TOKENS."""
    return _SECRET_NAME.search(name) is not None


def _masked(found: re.Match[str]) -> str:
    """What names the secret, and stars in the quotes of its value: a JSON text stays one."""
    value = found[0][len(found[1]) :]
    bare = '"' if found[1].rstrip().endswith('":') else ""
    quote = value[0] if value[0] in "\"'" else bare
    return f"{found[1]}{quote}***{quote}"
