"""Where MLflow is: the embedded default, and addresses fit to be shown."""

from __future__ import annotations

import re
from pathlib import Path

_USER_INFO = re.compile(r"://[^/\s'\"]*@")
_SECRET_FIELD = re.compile(r"(?i)\b(password|passwd|token|secret|api_?key)=[^&\s'\"]+")


def default_uri(home: Path) -> str:
    """The address of the embedded tracking database in a home directory."""
    return f"sqlite:///{home.absolute() / 'mlflow.db'}"


def redact(text: str) -> str:
    """An address, or a text with addresses in it, without user names, passwords and tokens."""
    return _SECRET_FIELD.sub(r"\1=***", _USER_INFO.sub("://", text))


def local_database(uri: str) -> Path | None:
    """The file of an SQLite address, None for any other address."""
    scheme, _, path = uri.partition(":///")
    return Path(path) if scheme == "sqlite" and path else None
