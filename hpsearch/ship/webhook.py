"""A webhook: the end of a tick as one JSON object, posted to an address that is a secret.

Slack and what understands its form shows `text`; others find the facts beside it. The address appears
nowhere: whoever has it may post.
"""

from __future__ import annotations

import http.client
import json
import logging
import os
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from hpsearch.errors import UsageError

TRIES = 3
TIMEOUT = 10.0  # seconds for one answer
PAUSES = (1.0, 4.0)  # seconds before the second and the third
LARGEST = 30_000  # characters of text: Slack cuts at 40,000

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Webhook:
    """Where to post, and what the user called it: a variable's name or a file's."""

    url: str = field(repr=False)
    called: str

    def post(
        self,
        text: str,
        facts: Mapping[str, Any],
        *,
        tries: int = TRIES,
        timeout: float = TIMEOUT,
        pause: Callable[[float], None] = time.sleep,
    ) -> bool:
        """Post once in effect; True if it was taken. A failure is told without the address, never raised."""
        body = json.dumps({"text": text[:LARGEST], **facts}, allow_nan=False).encode()
        problem = ""
        for place in range(tries):
            if place:
                pause(PAUSES[min(place, len(PAUSES)) - 1])
            problem, again = self._once(body, timeout)
            if not problem:
                return True
            if not again:
                break
        _log.warning("the webhook of %s was not told: %s", self.called, problem)
        return False

    def _once(self, body: bytes, timeout: float) -> tuple[str, bool]:
        """What went wrong, and whether asking again may help; an empty text where nothing did."""
        headers = {"Content-Type": "application/json", "User-Agent": "hpsearch"}
        request = urllib.request.Request(self.url, body, headers, method="POST")
        try:
            with _OPENER.open(request, timeout=timeout):
                return "", False
        except urllib.error.HTTPError as error:
            with error:
                return f"it answered {error.code}", error.code == 429 or error.code >= 500
        except TimeoutError:
            return f"no answer in {timeout:g} s", True
        except urllib.error.URLError as error:
            return (f"no answer in {timeout:g} s" if _is_slow(error) else _why(error.reason)), True
        # Their messages may quote the address.
        except (OSError, ValueError, http.client.HTTPException) as error:
            return type(error).__name__, isinstance(error, OSError)


def _is_slow(error: urllib.error.URLError) -> bool:
    return isinstance(error.reason, TimeoutError)


def _why(reason: object) -> str:
    """What the system says, which never quotes an address; a library may."""
    if isinstance(reason, OSError) and not isinstance(reason, ssl.SSLError) and reason.strerror:
        return reason.strerror
    return type(reason).__name__


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A secret is not carried to wherever an answer points."""

    def redirect_request(self, *_: Any) -> None:
        return None


_OPENER = urllib.request.build_opener(_NoRedirects)


def webhook(
    variable: str | None, file: Path | None, environment: Mapping[str, str] = os.environ
) -> Webhook | None:
    """The webhook that a variable of the environment or a file holds, None where neither is named.

    Raises UsageError, which quotes nothing of it.
    """
    if variable is not None and file is not None:
        raise UsageError("--webhook-env and --webhook-file name two addresses", hint="give one of them")
    if variable is not None:
        called, url = f"--webhook-env {variable}", environment.get(variable, "").strip()
        if "://" in variable:
            raise UsageError(
                "--webhook-env takes the name of a variable, and was given an address",
                hint="put the address into a variable such as HPSEARCH_WEBHOOK, and name that",
            )
    elif file is not None:
        called = f"--webhook-file {file}"
        try:
            url = file.read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:
            raise UsageError(f"{called} cannot be read: {type(error).__name__}") from None
    else:
        return None
    if not url:
        raise UsageError(f"{called} is empty", hint="put the webhook's address there")
    if not _is_address(url):
        raise UsageError(
            f"{called} holds no address of a webhook", hint="it is to begin with https:// or http://"
        )
    return Webhook(url, called)


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return (
            parts.scheme in ("https", "http")
            and bool(parts.hostname)
            and url.isprintable()
            and " " not in url
        )
    except ValueError:
        return False
