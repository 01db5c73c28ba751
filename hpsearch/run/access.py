"""Who may join which Ray: a cluster that asks nobody for a token runs the code of anybody who reaches it."""

from __future__ import annotations

import logging
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from ipaddress import ip_address
from pathlib import Path

from hpsearch.errors import ServiceUnavailable, UsageError

# The switch for a cluster whose network keeps strangers out.
ALLOW = "HPSEARCH_ALLOW_UNAUTHENTICATED_RAY"
MODE = "RAY_AUTH_MODE"
PROBE_TIMEOUT = 60.0  # seconds
KNOCK = 5.0
log = logging.getLogger(__name__)
OPEN, CLOSED = "open", "closed"
# Asked in a process of its own, because Ray reads once, at its import, how to present itself.
_PROBE = f"""
import sys
from ray._raylet import GcsClient
try:
    GcsClient(address=sys.argv[1]).internal_kv_keys(b"hpsearch", None)
    print("{OPEN}")
except Exception as error:
    print("{CLOSED}" if type(error).__name__ == "AuthenticationError" else repr(error))
"""


def host_and_port(address: str) -> tuple[str, int] | None:
    """The two parts of HOST:PORT; None for another form. Raises UsageError for a Ray client address."""
    if address.startswith("ray://"):
        raise UsageError(
            f"--address {address!r} is a Ray client address, which moves the driver's objects to the head",
            hint="give the cluster's own HOST:PORT, from a machine that is part of it",
        )
    host, colon, port = address.rpartition(":")
    return (host.strip("[]"), int(port)) if colon and port.isdigit() else None


def is_here(host: str, *, loopback: bool = False) -> bool:
    """Whether a host is this machine, which nobody can call remote, or only its loopback."""
    try:
        found = {str(info[4][0]) for info in socket.getaddrinfo(host, None)}
    except OSError:
        return False
    return bool(found) and all(_is_own(each, loopback) for each in found)


def _is_own(address: str, loopback: bool) -> bool:
    if loopback:
        return ip_address(address).is_loopback
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as own:
        try:
            own.bind((address, 0))
        except OSError:
            return False
    return True


def check(address: str, environment: Mapping[str, str] = os.environ) -> bool:
    """Raise UsageError for a cluster beyond this machine that lets anybody in; one here is warned of.

    True if it wants a token that nobody has said to present: a Ray started where a token lies asks for it.

    Neither our own token nor our asking for one makes a cluster safe: it is asked itself, without any.
    Raises ServiceUnavailable if nobody listens there: Ray itself would try for minutes.
    """
    place = host_and_port(address)
    if place is None:
        return False  # "auto" and the like are Ray's to find
    allowed = environment.get(ALLOW) == "1" or is_here(place[0], loopback=True)
    token = environment.get(MODE, "").lower() == "token"
    if not allowed and not token and not is_here(place[0]):
        raise _refused(address, f"{MODE} is not set to token here")
    _knock(address, place)
    if token:
        if not allowed and _probe(address, environment) == OPEN:
            raise _refused(address, "it answers without a token")
        return False
    if MODE not in environment and _has_token(environment) and _asks(address):
        return True
    if not allowed:
        log.warning("the Ray at %s asks nobody for a token: whoever reaches it runs code here", address)
    return False


@cache
def _asks(address: str) -> bool:
    return _probe(address, os.environ) == CLOSED


def _has_token(environment: Mapping[str, str]) -> bool:
    """Whether Ray would find a token here."""
    named = "RAY_AUTH_TOKEN" in environment or "RAY_AUTH_TOKEN_PATH" in environment
    home = environment.get("HOME")
    return named or (home is not None and (Path(home) / ".ray" / "auth_token").is_file())


def likely(environment: Mapping[str, str] = os.environ) -> str:
    """What mostly keeps a driver out of a Ray that listens, which does not tell."""
    if environment.get(MODE, "").lower() == "token":
        return (
            "is the token the cluster's? RAY_AUTH_TOKEN_PATH names the file that its nodes were started with"
        )
    return f"does it ask for a token? export {MODE}=token RAY_AUTH_TOKEN_PATH=FILE, as on its nodes"


def _refused(address: str, why: str) -> UsageError:
    return UsageError(
        f"the Ray at {address} must not be joined without authentication: {why}",
        hint=f"start it with {MODE}=token and set that here, too; {ALLOW}=1 where the network is closed",
    )


def _knock(address: str, place: tuple[str, int]) -> None:
    try:
        socket.create_connection(place, timeout=KNOCK).close()
    except (OSError, OverflowError) as error:
        raise ServiceUnavailable(
            f"no Ray at {address}: {error}",
            hint="start one there with `ray start --head`, or leave out --address",
        ) from error


def _probe(address: str, environment: Mapping[str, str]) -> str:
    """How a cluster answers somebody without a token: "open", "closed", or what went wrong."""
    bare = {name: value for name, value in environment.items() if not name.startswith("RAY_AUTH_")}
    command = [sys.executable, "-c", _PROBE, address]
    try:
        found = subprocess.run(
            command,
            env=bare | {MODE: "disabled"},
            capture_output=True,
            text=True,
            timeout=PROBE_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"no answer within {PROBE_TIMEOUT:g} s"
    return (found.stdout.split("\n") or [""])[0]


def close_token(home: Path) -> None:
    """Take Ray's token file from everybody but its owner: older versions wrote it for all to read."""
    path = home / ".ray" / "auth_token"
    try:
        mode = path.stat(follow_symlinks=False)
    except OSError:
        return
    if stat.S_ISREG(mode.st_mode) and mode.st_uid == os.getuid() and mode.st_mode & 0o077:
        path.chmod(0o600)
