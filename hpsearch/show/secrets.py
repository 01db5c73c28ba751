"""What a file says of its program, without the secrets in it."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

from hpsearch.redaction import redact

_NAME = re.compile(r"[\w.-]+")
_STARS = "***"


def masked(part: Any) -> Any:
    """A JSON value whose secrets are stars: those of flags, of variables in `env`, of maps and in texts.

    It goes by the parts of the value and not by its text, in which a quote or a blank would end a secret.
    """
    if isinstance(part, dict):
        variable = _is_secret(part.get("name"))
        return {
            key: _STARS if value and (_is_secret(key) or (variable and key == "value")) else masked(value)
            for key, value in part.items()
        }
    if isinstance(part, list):
        return [
            _STARS if _is_flag(before) and _is_secret(before) and not _is_flag(item) else masked(item)
            for before, item in pairwise([None, *part])
        ]
    if isinstance(part, str):
        name, sign, _ = part.partition("=")
        return f"{name}={_STARS}" if sign and _is_secret(name) else redact(part)
    return part


def _is_flag(item: Any) -> bool:
    return isinstance(item, str) and item.startswith("-")


def _is_secret(name: Any) -> bool:
    """Whether a name says that its value is a secret; which names do is known to `redact` alone."""
    return isinstance(name, str) and bool(_NAME.fullmatch(name)) and redact(f"{name}=x") != f"{name}=x"
