"""The road of a laptop to its cluster: the user's kubectl, so that every way to log in works.

A program with a list of arguments, never a shell; it gets paths of the API and hands back the server's text.
"""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO

from hpsearch.errors import UsageError
from hpsearch.redaction import redact
from hpsearch.ship.api import NoAnswer, refusal

PROGRAM = "kubectl"
# Where our objects are unless somebody says otherwise.
NAMESPACE = "hpsearch"
# Whom a laptop's user does not want to wait for longer (seconds).
PATIENCE = 60.0
LOGIN_WITHIN = 120.0  # a login may ask its user something
_REASON = re.compile(r"^Error from server \((\w+)\): ", re.MULTILINE)
# What it says without naming the reason, and what it says when there was no answer.
_SAYINGS = {"You must be logged in": "Unauthorized", " is invalid: ": "Invalid"}
_SILENT = re.compile(
    r"unable to connect|refused|time.?out|deadline exceeded|cancell?ed|EOF|TLS|no such host"
    r"|reset by|broken pipe|stream error",
    re.IGNORECASE,
)
_STATUS = {
    "BadRequest": 400,
    "Unauthorized": 401,
    "Forbidden": 403,
    "NotFound": 404,
    "MethodNotAllowed": 405,
    "AlreadyExists": 409,
    "Conflict": 409,
    "Expired": 410,
    "Gone": 410,
    "Invalid": 422,
    "TooManyRequests": 429,
    "InternalError": 500,
    "ServiceUnavailable": 503,
    "Timeout": 504,
}
_VERBS = {"GET": "get", "POST": "create", "DELETE": "delete"}


@dataclass(frozen=True, slots=True)
class Kubectl:
    """A context of the user's configuration, and a namespace; `place` is what people call the server."""

    namespace: str
    place: str
    options: tuple[str, ...] = ()
    program: str = PROGRAM

    @classmethod
    def here(
        cls, namespace: str | None = None, context: str | None = None, program: str = PROGRAM
    ) -> Kubectl:
        """The configuration's own context and namespace, where none is named.

        Raises UsageError if there is no kubectl, or no such context.
        """
        options = ("--context", context) if context else ()
        words = [program, *options, "config", "view", "--minify", "--output", "json"]
        found = json.loads(_run(words))
        current = context or str(found.get("current-context") or "the current context")
        contexts = found.get("contexts") or [{}]
        own = (contexts[0].get("context") or {}).get("namespace")
        return cls(namespace or own or NAMESPACE, current, options, program)

    def ask(self, method: str, target: str, body: bytes | None, limit: float) -> KubectlReply:
        """One request by a process of its own. Raises UsageError if there is no kubectl."""
        words = [self.program, *self.options, _VERBS[method], f"--raw={target}"]
        words += [f"--request-timeout={max(1, round(limit))}s"] if method == "GET" else []
        words += ["--filename=-"] if body is not None else []
        errors = tempfile.TemporaryFile()  # noqa: SIM115 - the reply closes it
        try:
            process = subprocess.Popen(
                words,
                stdin=subprocess.PIPE if body is not None else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
            )
        except OSError as error:
            errors.close()
            raise _no_program(self.program, error) from error
        if body is not None and process.stdin:
            with contextlib.suppress(BrokenPipeError), process.stdin:
                process.stdin.write(body)
        return KubectlReply(process, errors, f"{method} {target.partition('?')[0]}")


@dataclass(slots=True)
class KubectlReply:
    """What a kubectl prints. It is an answer as soon as something comes; a failure is known at the end."""

    process: subprocess.Popen[bytes]
    errors: IO[bytes]
    request: str
    status: int = 200
    reason: str = ""
    retry_after: str = ""

    def read(self) -> bytes:
        """All of it. Raises what the failure of kubectl means."""
        assert self.process.stdout
        text = self.process.stdout.read()
        self._must_have_worked()
        return text

    def readline(self) -> bytes:
        """The next line; nothing at the end. Raises what the failure of kubectl means."""
        assert self.process.stdout
        if line := self.process.stdout.readline():
            return line
        self._must_have_worked()
        return b""

    def close(self) -> None:
        """End the process, if it has not ended, and forget what it said."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for stream in (self.process.stdout, self.errors):
            if stream:
                stream.close()

    def _must_have_worked(self) -> None:
        if self.process.wait() == 0:
            return
        self.errors.seek(0)
        said = self.errors.read().decode(errors="replace").strip()
        last = (said.splitlines() or [f"it ended with {self.process.returncode}"])[-1]
        found = _REASON.search(said)
        guess = next((reason for text, reason in _SAYINGS.items() if text in said), "")
        self.reason = found[1] if found else guess
        if self.reason not in _STATUS:
            if _SILENT.search(said) or self.process.returncode < 0:
                raise NoAnswer(last)
            raise UsageError(f"kubectl: {redact(last)[:300]}", hint="try `kubectl get rayjobs` by hand")
        self.status = _STATUS[self.reason]
        raise refusal(self.request, self, json.dumps({"message": said, "reason": self.reason}).encode())


def _run(words: Sequence[str]) -> str:
    """What a kubectl prints that asks no server. Raises UsageError."""
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, timeout=LOGIN_WITHIN, check=False, stdin=subprocess.DEVNULL
        )
    except OSError as error:
        raise _no_program(words[0], error) from error
    except subprocess.TimeoutExpired as error:
        raise UsageError(f"{' '.join(words)} has not ended", hint="try it by hand") from error
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise UsageError(
            f"kubectl has no cluster here: {said[:300]}", hint="see `kubectl config get-contexts`"
        )
    return done.stdout


def _no_program(program: str, error: OSError) -> UsageError:
    return UsageError(
        f"{program} cannot be run: {error.strerror}",
        hint="install kubectl 1.30 or newer, and log in to a cluster",
    )
