"""Whether a tracking server answers, asked in seconds and without MLflow: for those who insist on it."""

from __future__ import annotations

import base64
import configparser
import contextlib
import http.client
import json
import os
import socket
import sqlite3
import ssl
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

from hpsearch.errors import ServiceUnavailable
from hpsearch.redaction import redact
from hpsearch.track.uri import local_database
from hpsearch.track.verdict import CREDENTIALS

WAIT = 3.0  # seconds
QUESTION = "/api/2.0/mlflow/experiments/search?max_results=1"
PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}


def require(uri: str) -> None:
    """Raise ServiceUnavailable unless MLflow answers at an address now."""
    scheme = urlsplit(uri).scheme.partition("+")[0]
    try:
        if scheme in ("http", "https"):
            _ask(uri)
        elif database := local_database(uri):
            _open(database)
        elif host := urlsplit(uri).hostname:
            port = urlsplit(uri).port or PORTS.get(scheme, 443)
            socket.create_connection((host, port), WAIT).close()
    except urllib.error.HTTPError as error:
        error.close()  # it is the answer, too, and holds its connection
        credentials = f"; set {CREDENTIALS}" if error.code in (401, 403) else ""
        raise _away(uri, f"it answers {error.code} {error.reason}", credentials) from error
    except (OSError, ValueError, sqlite3.Error, http.client.HTTPException) as error:
        raise _away(uri, str(getattr(error, "reason", error)) or type(error).__name__) from error


def _away(uri: str, reason: str, hint: str = "") -> ServiceUnavailable:
    return ServiceUnavailable(
        redact(f"MLflow at {uri} cannot be reached: {reason}"),
        hint=f"tracking.strict insists on it; without, facts wait in the store until MLflow is back{hint}",
    )


def _ask(uri: str) -> None:
    request = urllib.request.Request(uri.rstrip("/") + QUESTION, headers=_headers())
    context = ssl.create_default_context(cafile=os.environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH"))
    if os.environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() in ("true", "1"):
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with urllib.request.urlopen(request, timeout=WAIT, context=context) as answer:
        json.loads(answer.read(1_000_000))


def _headers() -> dict[str, str]:
    """What MLflow's own client sends for the credentials in the environment or in its file."""
    file = configparser.ConfigParser(interpolation=None)
    file.read(Path("~/.mlflow/credentials").expanduser())
    given = [
        os.environ.get(name.upper()) or file.get("mlflow", name, fallback="") or ""
        for name in ("mlflow_tracking_username", "mlflow_tracking_password")
    ]
    if all(given):
        return {"Authorization": f"Basic {base64.b64encode(':'.join(given).encode()).decode()}"}
    token = os.environ.get("MLFLOW_TRACKING_TOKEN")
    return {"Authorization": f"Bearer {token}"} if token else {}


def _open(database: Path) -> None:
    """A database that is there can be written to; one that is not will be made."""
    if database.exists():
        with contextlib.closing(sqlite3.connect(database, timeout=WAIT, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
