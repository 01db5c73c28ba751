"""A webhook: told once in effect by a real server's account, never at the cost of a study or its address."""

from __future__ import annotations

import http.server
import json
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hpsearch.errors import UsageError
from hpsearch.ship.webhook import PAUSES, Webhook, webhook

SECRET = "T000/B000/xoxb-secret-path"


class Receiver:
    """A real server on loopback that answers with the next of some statuses, and keeps what it got."""

    def __init__(self) -> None:
        self.answers: list[int] = []
        self.posts: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.silent = threading.Event()
        self.released = threading.Event()
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.posts.append({"path": self.path, **json.loads(body)})
                receiver.headers.append(dict(self.headers))
                if receiver.silent.is_set():
                    receiver.released.wait(20)
                    return
                status = receiver.answers.pop(0) if receiver.answers else 200
                self.send_response(status)
                if 300 <= status < 400:
                    self.send_header("Location", f"http://127.0.0.1:1/{SECRET}")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/{SECRET}"

    def close(self) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    made = Receiver()
    yield made
    made.close()


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Callable[[], str]:
    caplog.set_level(logging.DEBUG)
    return lambda: "\n".join(record.getMessage() for record in caplog.records)


def posted(hook: Webhook, **more: Any) -> tuple[bool, list[float]]:
    pauses: list[float] = []
    taken = hook.post("study n-1 completed", {"hpsearch": {"study": "n-1"}}, pause=pauses.append, **more)
    return taken, pauses


def test_what_ended_is_posted_once_as_text_and_facts(receiver: Receiver) -> None:
    assert posted(Webhook(receiver.url, "--webhook-env X")) == (True, [])
    [post] = receiver.posts
    assert post == {"path": f"/{SECRET}", "text": "study n-1 completed", "hpsearch": {"study": "n-1"}}
    assert receiver.headers[0]["Content-Type"] == "application/json"


def test_a_server_in_trouble_is_asked_again_with_pauses(receiver: Receiver) -> None:
    receiver.answers = [500, 429]
    assert posted(Webhook(receiver.url, "--webhook-env X")) == (True, list(PAUSES))
    assert len(receiver.posts) == 3


def test_three_failures_are_told_without_the_address(receiver: Receiver, said: Callable[[], str]) -> None:
    receiver.answers = [503] * 9
    assert posted(Webhook(receiver.url, "--webhook-env X")) == (False, list(PAUSES))
    assert len(receiver.posts) == 3
    assert said() == "the webhook of --webhook-env X was not told: it answered 503"


@pytest.mark.parametrize("status", [302, 307, 400, 403, 404, 410])
def test_a_refusal_is_not_asked_again_and_no_redirect_is_followed(
    receiver: Receiver, said: Callable[[], str], status: int
) -> None:
    receiver.answers = [status]
    assert posted(Webhook(receiver.url, "--webhook-env X")) == (False, [])
    assert len(receiver.posts) == 1
    assert f"it answered {status}" in said()
    assert SECRET not in said()


def test_a_slow_server_is_given_up(receiver: Receiver, said: Callable[[], str]) -> None:
    receiver.silent.set()
    assert posted(Webhook(receiver.url, "--webhook-file F"), tries=2, timeout=0.1) == (False, [1.0])
    assert "no answer in 0.1 s" in said()
    assert SECRET not in said()


def test_nobody_there_and_no_such_host_are_told_without_the_address(said: Callable[[], str]) -> None:
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))  # bound, and nobody listens
        url = f"http://127.0.0.1:{place.getsockname()[1]}/{SECRET}"
        assert posted(Webhook(url, "--webhook-env X")) == (False, list(PAUSES))
    assert "Connection refused" in said()
    assert not posted(Webhook(f"http://nowhere.invalid/{SECRET}", "--webhook-env X"), tries=1)[0]
    assert SECRET not in said()
    assert "127.0.0.1" not in said()
    assert "nowhere" not in said()


def test_a_server_that_speaks_something_else_is_a_failure_and_no_more(said: Callable[[], str]) -> None:
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        place.listen()

        def answer() -> None:
            connection, _ = place.accept()
            connection.recv(65536)
            connection.sendall(b"SSH-2.0-" + SECRET.encode() + b"\r\n")
            connection.close()

        speaker = threading.Thread(target=answer)
        speaker.start()
        url = f"http://127.0.0.1:{place.getsockname()[1]}/{SECRET}"
        assert not posted(Webhook(url, "--webhook-env X"), tries=1)[0]
        speaker.join()
    assert "BadStatusLine" in said()
    assert SECRET not in said()


def test_the_address_comes_from_a_variable_or_a_file(tmp_path: Path) -> None:
    url = f"https://hooks.example/{SECRET}"
    (tmp_path / "url").write_text(url + "\n")
    assert webhook(None, None) is None
    for found in (webhook("HOOK", None, {"HOOK": f" {url} "}), webhook(None, tmp_path / "url", {})):
        assert found
        assert found.url == url
        assert SECRET not in repr(found)


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("HOOK", None, "--webhook-env HOOK is empty"),
        ("HOOK", f"ftp://hooks.example/{SECRET}", "holds no address"),
        ("HOOK", SECRET, "holds no address"),
        ("HOOK", f"https://hooks.example/{SECRET} x", "holds no address"),
        ("HOOK", f"https://[::1/{SECRET}", "holds no address"),
        (f"https://hooks.example/{SECRET}", None, "takes the name of a variable"),
    ],
)
def test_what_is_no_address_is_refused_without_being_shown(
    variable: str, value: str | None, message: str
) -> None:
    with pytest.raises(UsageError) as refused:
        webhook(variable, None, {"HOOK": value} if value else {})
    assert message in refused.value.message
    assert SECRET not in str(refused.value)


def test_a_file_that_cannot_be_read_and_two_addresses_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read: FileNotFoundError"):
        webhook(None, tmp_path / "nowhere")
    with pytest.raises(UsageError, match="two addresses"):
        webhook("HOOK", tmp_path / "url")
