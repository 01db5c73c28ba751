"""How the fake API server answers one connection: paths, rights, lists, watches, faults."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import time
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

from kube_access import User, Wish, allowed
from kube_kinds import JOB, KINDS, POD, Kind, discovery
from kube_selectors import Choice
from kube_store import Rejected

if TYPE_CHECKING:
    from kube_server import Api

Json = dict[str, Any]
VERBS = {"GET": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
HEARTBEAT = 0.2  # seconds between two looks of a watch at whether it shall end
_PATH = re.compile(
    r"(?:/api/(?P<core>v1)|/apis/(?P<group>[^/]+)/(?P<version>[^/]+))"
    r"(?:/namespaces/(?P<namespace>[^/]+)(?=/[^/]+))?/(?P<plural>[^/]+)(?:/(?P<name>[^/]+)(?:/(?P<part>[^/]+))?)?/?"
)
REASONS = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    409: "Conflict",
    410: "Expired",
    422: "Invalid",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
    504: "Timeout",
}


class Lost(Exception):
    """The connection ends here, by a fault."""


class Handler(BaseHTTPRequestHandler):
    """Answers the requests of one connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Api

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._serve()

    do_POST = do_PUT = do_PATCH = do_DELETE = do_GET  # noqa: N815

    def _serve(self) -> None:
        raw = self._body()
        self._told, self._epoch = False, self.server.store.epoch
        self._log = self.server.log(self.command, self.path)
        try:
            self._strike("before")
            self._log.body = self._read(raw)
            self._answer(self._log.body)
        except Rejected as rejected:
            self._send(rejected.code, rejected.status)
        except Lost:
            self.close_connection = True
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts: list[bytes] = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _read(self, raw: bytes) -> Json | None:
        if "protobuf" in self.headers.get("Content-Type", ""):
            raise Rejected(415, "UnsupportedMediaType", "only JSON is known here, no protobuf")
        try:
            body = json.loads(raw) if raw else None
        except ValueError as error:
            raise Rejected(400, "BadRequest", f"the body is no JSON: {error}") from error
        if body is not None and not isinstance(body, dict):
            raise Rejected(400, "BadRequest", "the body is no object")
        return body

    def _strike(self, when: str) -> None:
        """Let happen what shall go wrong with this request, before it is done or after."""
        for fault in self.server.faults:
            if when != ("after" if fault.cut == "after" else "before"):
                continue
            if not fault.fits(self.command, self.path):
                continue
            fault.struck += 1
            if fault.do:
                fault.do()
            time.sleep(fault.delay)
            if fault.cut:
                raise Lost
            if fault.status:
                self._extra = fault.headers
                raise Rejected(fault.status, REASONS.get(fault.status, "Unknown"), fault.message)

    def _answer(self, body: Json | None) -> None:
        self._user = self._known()
        self._log.user = str(self._user)
        parts = urlsplit(self.path)
        self._query = dict(parse_qsl(parts.query))
        if self.command == "GET" and (told := discovery(parts.path, self.server.address)) is not None:
            return self._send(200, told)
        found = _PATH.fullmatch(parts.path)
        kind = next((k for k in KINDS if found and _named(k, found)), None)
        if found is None or kind is None:
            raise Rejected(404, "NotFound", "the server could not find the requested resource")
        namespace, name, part = (found[each] or "" for each in ("namespace", "name", "part"))
        choice = Choice(self._query.get("labelSelector", ""), self._query.get("fieldSelector", ""))
        self._may(kind, namespace, name, part, choice)
        try:
            return self._do(kind, namespace, name, part, choice, body)
        except ValueError as error:
            raise Rejected(400, "BadRequest", str(error)) from error

    def _do(
        self, kind: Kind, namespace: str, name: str, part: str, choice: Choice, body: Json | None
    ) -> None:
        store, dry = self.server.store, self._query.get("dryRun") == "All"
        if self.command == "GET" and (kind, part) == (POD, "log"):
            store.get(kind, namespace, name)
            return self._print(namespace, name)
        if self.command == "GET" and name:
            return self._send(200, store.get(kind, namespace, name))
        if self.command == "GET" and self._query.get("watch") in ("1", "true"):
            return self._watch(kind, namespace, choice)
        if self.command == "GET":
            return self._list(kind, namespace, choice)
        if self.command == "POST":
            self._be_able_to_block(body or {}, namespace)
            strict = self._query.get("fieldValidation") == "Strict"
            return self._send(201, store.create(kind, namespace, body or {}, strict=strict, dry=dry))
        if self.command == "PUT":
            return self._send(200, store.replace(kind, namespace, name, body or {}, part, dry=dry))
        if self.command == "PATCH":
            wanted = ("application/merge-patch+json", "application/strategic-merge-patch+json")
            if self.headers["Content-Type"] not in wanted:
                raise Rejected(415, "UnsupportedMediaType", f"only {wanted[0]} is known here")
            return self._send(200, store.patch(kind, namespace, name, body or {}, part, dry=dry))
        options = body or {}
        policy = options.get("propagationPolicy") or self._query.get("propagationPolicy") or "Background"
        uid = (options.get("preconditions") or {}).get("uid", "")
        if dry or "All" in options.get("dryRun", ()):
            return self._send(200, store.get(kind, namespace, name))
        return self._send(200, store.delete(kind, namespace, name, policy, uid))

    # -- who ----------------------------------------------------------------------------------------

    def _known(self) -> User:
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        user = self.server.tokens.get(token) if scheme == "Bearer" else None
        if user is None:
            raise Rejected(401, "Unauthorized", "Unauthorized")
        return user

    def _may(self, kind: Kind, namespace: str, name: str, part: str, choice: Choice) -> None:
        verb = VERBS[self.command]
        if verb == "get" and not name:
            verb = "watch" if self._query.get("watch") in ("1", "true") else "list"
        resource = f"{kind.plural}/{part}" if part else kind.plural
        self._must(Wish(verb, kind.group, resource, namespace, name or choice.name))

    def _must(self, wish: Wish) -> None:
        if not allowed(self.server.store, self._user, wish):
            what = f'{wish.resource}.{wish.group} "{wish.name}"'
            raise Rejected(
                403,
                "Forbidden",
                f'{what} is forbidden: User "{self._user}" cannot {wish.verb} resource "{wish.resource}" in '
                f'API group "{wish.group}" in the namespace "{wish.namespace}"',
            )

    def _be_able_to_block(self, body: Json, namespace: str) -> None:
        """Who makes an owner's deletion wait must be allowed to change that one's finalizers."""
        for owner in (body.get("metadata") or {}).get("ownerReferences", ()):
            if owner.get("blockOwnerDeletion"):
                kind = next((k for k in KINDS if k.name == owner["kind"]), JOB)
                self._must(Wish("update", kind.group, f"{kind.plural}/finalizers", namespace, owner["name"]))

    # -- answers ------------------------------------------------------------------------------------

    def _list(self, kind: Kind, namespace: str, choice: Choice) -> None:
        store = self.server.store
        with store.changed:
            items, version = store.list(kind, namespace, choice), store.version
        meta = {"resourceVersion": str(version)}
        self._send(
            200,
            {"apiVersion": kind.api_version, "kind": f"{kind.name}List", "metadata": meta, "items": items},
        )

    def _watch(self, kind: Kind, namespace: str, choice: Choice) -> None:
        if "sendInitialEvents" in self._query:
            raise Rejected(
                422, "Invalid", "sendInitialEvents is forbidden for watch unless WatchList is enabled"
            )
        store, since = self.server.store, self._query.get("resourceVersion", "")
        with store.changed:
            known = [] if since not in ("", "0") else store.list(kind, namespace, choice)
            start = store.version if since in ("", "0") else int(since)
        self._begin("application/json")
        try:
            for each in known:
                self._chunk({"type": "ADDED", "object": each})
            self._stream(kind, namespace, choice, start)
        except Rejected as rejected:
            self._chunk({"type": "ERROR", "object": rejected.status})
        self.wfile.write(b"0\r\n\r\n")

    def _stream(self, kind: Kind, namespace: str, choice: Choice, start: int) -> None:
        began = marked = time.monotonic()
        limit = float(self._query.get("timeoutSeconds") or 3600)
        for told in self.server.store.watch(kind, namespace, choice, start, self._epoch, HEARTBEAT):
            now = time.monotonic()
            if told:
                self._chunk({"type": told[0], "object": told[1]})
            elif now - marked >= self.server.bookmarks and self._query.get("allowWatchBookmarks") == "true":
                marked, version = now, {"resourceVersion": str(self.server.store.version)}
                mark = {"kind": kind.name, "apiVersion": kind.api_version, "metadata": version}
                self._chunk({"type": "BOOKMARK", "object": mark})
                self.server.mark(version["resourceVersion"])
            if now - began >= limit:
                return
        raise Lost  # all watches were cut

    def _print(self, namespace: str, pod: str) -> None:
        """A pod's log, from a second on; with `follow` until the pod has ended."""
        store, told = self.server.store, 0
        since = self._query.get("sinceTime", "")[:19]
        self._begin("text/plain")
        while True:
            with store.changed:
                lines = list(self.server.logs.get(pod, ()))
                phase = (store.find(POD, namespace, pod) or {}).get("status", {}).get("phase", "Failed")
            for line in (each for each in lines[told:] if each[:19] >= since):
                text = line if self._query.get("timestamps") == "true" else line.partition(" ")[2]
                self._raw_chunk(text.encode() + b"\n")
            told = len(lines)
            if self._query.get("follow") != "true" or phase in ("Succeeded", "Failed"):
                self.wfile.write(b"0\r\n\r\n")
                return
            with store.changed:
                store.changed.wait(HEARTBEAT)
            if store.epoch != self._epoch:
                raise Lost

    def _begin(self, kind: str) -> None:
        """An answer of unknown length."""
        self._log.code = 200
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self._told = True

    def _chunk(self, event: Json) -> None:
        self._raw_chunk(json.dumps(event).encode() + b"\n")

    def _raw_chunk(self, line: bytes) -> None:
        self.wfile.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")
        self.wfile.flush()

    def _send(self, code: int, body: Json) -> None:
        self._send_raw(code, json.dumps(body).encode(), "application/json")

    _extra: dict[str, str] = {}  # noqa: RUF012

    def _send_raw(self, code: int, raw: bytes, kind: str) -> None:
        if not self._told and code < 400:
            self._strike("after")
        self._log.code = code
        self.send_response(code)
        for name, value in ({"Content-Type": kind, "Content-Length": str(len(raw))} | self._extra).items():
            self.send_header(name, value)
        self._extra = {}
        self.end_headers()
        self.wfile.write(raw)


def _named(kind: Kind, found: re.Match[str]) -> bool:
    which = (found["group"] or "", found["version"] or found["core"], found["plural"])
    return (kind.group, kind.version, kind.plural) == which
