"""What an error out of MLflow means: asking again may help, new credentials may, or nothing ever will."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TypeVar

from hpsearch.errors import HpsearchError, ServiceUnavailable
from hpsearch.redaction import redact

CREDENTIALS = (
    "MLFLOW_TRACKING_TOKEN, MLFLOW_TRACKING_USERNAME with MLFLOW_TRACKING_PASSWORD, "
    "or ~/.mlflow/credentials, which is read at each request"
)
_UNAUTHORISED = ("UNAUTHENTICATED", "PERMISSION_DENIED", "CUSTOMER_UNAUTHORIZED")

Answer = TypeVar("Answer")


class Refused(HpsearchError):
    """MLflow will never take this request; `missing` if what it names is not there."""

    def __init__(self, message: str, *, missing: bool = False) -> None:
        super().__init__(message)
        self.missing = missing


class TimedOut(ServiceUnavailable):
    """No answer within the time of one request, which may have been carried out."""


class Unauthorised(ServiceUnavailable):
    """MLflow does not take these credentials."""


def asked(request: Callable[[], Answer]) -> Answer:
    """The answer to a request, its errors told apart."""
    try:
        return request()
    except HpsearchError:
        raise
    # A foreign service, its client, a database driver, a proxy's garbage: anything may come out of it.
    except Exception as error:
        raise verdict(error) from error


def verdict(error: Exception) -> HpsearchError:
    """What to raise in place of an error of MLflow's client."""
    code = getattr(error, "error_code", "")
    message = first_line(error)
    if code == "RESOURCE_DOES_NOT_EXIST":
        return Refused(message, missing=True)
    if code in _UNAUTHORISED:
        return Unauthorised(f"the credentials are refused ({message})", hint=f"set {CREDENTIALS}")
    if code == "BAD_REQUEST" and error.__cause__ is not None:
        # MLflow gives this code to whatever the database says, a lost connection included.
        refused = type(error.__cause__).__name__ in ("DataError", "IntegrityError")
    elif code == "BAD_REQUEST":
        # A server in front of MLflow answers 400 with a page; MLflow itself names its reasons in JSON.
        refused = hasattr(error, "json")
    elif isinstance(error, ValueError | TypeError | OverflowError):
        # protobuf refuses a value; broken JSON is a proxy's answer instead.
        refused = not isinstance(error, json.JSONDecodeError)
    else:
        refused = code in ("INVALID_PARAMETER_VALUE", "MALFORMED_REQUEST")
    if refused:
        return Refused(message)
    # Without retries of its own the client wraps this, too, as too many of them.
    return TimedOut(message) if "timed out" in str(error) else ServiceUnavailable(message)


def first_line(error: Exception) -> str:
    """The first line of an error, without secrets and of a length to be shown."""
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    text = redact(text)
    # Wrapped errors name the service first and the cause last.
    return text if len(text) <= 300 else f"{text[:160]} … {text[-130:]}"
