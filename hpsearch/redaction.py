"""Texts without secrets: what is stored as a reason, logged, sent to MLflow or shown passes through here."""

from __future__ import annotations

import re

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


def redact(text: str) -> str:
    """The text without user names, passwords, tokens and keys; what names them stays."""
    text = _USER_INFO.sub("://", text)
    for secret in _SECRETS:
        text = secret.sub(_masked, text)
    return text


def _masked(found: re.Match[str]) -> str:
    """What names the secret, and stars in the quotes of its value: a JSON text stays one."""
    value = found[0][len(found[1]) :]
    bare = '"' if found[1].rstrip().endswith('":') else ""
    quote = value[0] if value[0] in "\"'" else bare
    return f"{found[1]}{quote}***{quote}"
