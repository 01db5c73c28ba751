"""Where MLflow is: the embedded default, and what an address says."""

from __future__ import annotations

from pathlib import Path


def default_uri(home: Path) -> str:
    """The address of the embedded tracking database in a home directory."""
    return f"sqlite:///{home.absolute() / 'mlflow.db'}"


def local_database(uri: str) -> Path | None:
    """The file of an SQLite address, None for any other address."""
    scheme, _, path = uri.partition(":///")
    return Path(path) if scheme == "sqlite" and path else None
