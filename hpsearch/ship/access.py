"""The road of a pod to its API server: HTTPS, with the account that is mounted into it."""

from __future__ import annotations

import http.client
import os
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hpsearch.errors import UsageError
from hpsearch.ship.api import ANSWER_WITHIN

MOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
# A peer that vanished without a word is missed after a minute (seconds, and tries).
KEEPALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}
LARGEST_LINE = 8 << 20  # bytes of one event; etcd takes objects of 1.5 MiB


@dataclass(frozen=True, slots=True)
class Access:
    """Where the server is, and what to show there; token and CA are read anew for each request."""

    host: str
    port: int
    namespace: str
    token: Path
    ca: Path

    @classmethod
    def in_pod(cls, environment: Mapping[str, str] = os.environ, mount: Path = MOUNT) -> Access:
        """The account that is mounted here. Raises UsageError outside of a cluster."""
        host, port = environment.get("KUBERNETES_SERVICE_HOST"), environment.get("KUBERNETES_SERVICE_PORT")
        hint = "this command is for pods of a cluster; give the pod an account whose token is mounted"
        if not host or not port:
            raise UsageError("no cluster here: KUBERNETES_SERVICE_HOST and _PORT are not set", hint=hint)
        if not port.isdigit():
            raise UsageError(f"KUBERNETES_SERVICE_PORT is {port!r}, not a number", hint=hint)
        try:
            namespace = (mount / "namespace").read_text().strip()
        except OSError as error:
            raise UsageError(f"no account is mounted in {mount}: {error.strerror}", hint=hint) from error
        return cls(host, int(port), namespace, mount / "token", mount / "ca.crt")

    @property
    def place(self) -> str:
        """HOST:PORT."""
        return f"{self.host}:{self.port}"

    def ask(self, method: str, target: str, body: bytes | None, limit: float) -> HttpReply:
        """One request on a connection of its own. Raises OSError, HTTPException; UsageError without token."""
        headers = {"Authorization": f"Bearer {self._token()}", "Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        trust = ssl.create_default_context(cafile=str(self.ca))
        connection = http.client.HTTPSConnection(
            self.host, self.port, timeout=min(limit, ANSWER_WITHIN), context=trust
        )
        try:
            connection.connect()
            _keep_alive(connection.sock)
            connection.sock.settimeout(limit)
            connection.request(method, target, body, headers)
            return HttpReply(connection, connection.getresponse())
        except BaseException:
            connection.close()
            raise

    def _token(self) -> str:
        try:
            return self.token.read_text().strip()
        except OSError as error:
            raise UsageError(
                f"the account's token {self.token} cannot be read: {error.strerror}",
                hint="the pod needs automountServiceAccountToken: true",
            ) from error


class HttpReply:
    """An answer over HTTPS."""

    def __init__(self, connection: http.client.HTTPSConnection, answer: http.client.HTTPResponse) -> None:
        self._connection, self._answer = connection, answer
        self.status, self.reason = answer.status, answer.reason
        self.retry_after = answer.headers.get("Retry-After", "")

    def read(self) -> bytes:
        """All of it."""
        return self._answer.read()

    def readline(self) -> bytes:
        """The next line; nothing at the end."""
        return self._answer.readline(LARGEST_LINE)

    def close(self) -> None:
        """Be done with it, and with its connection."""
        self._connection.close()


def _keep_alive(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, seconds in KEEPALIVE.items():
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), seconds)
