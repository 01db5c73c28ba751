"""Which Ray may be joined: nobody's code runs on our behalf where strangers may start it."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpsearch.errors import ServiceUnavailable, UsageError
from hpsearch.run import access


@pytest.fixture
def port() -> Iterator[int]:
    """Somebody who listens on loopback."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.mark.parametrize("address", ["203.0.113.7:6379", "[2001:db8::7]:6379"])
def test_a_remote_ray_is_refused_unless_a_token_is_asked_for(address: str) -> None:
    with pytest.raises(UsageError, match="must not be joined without authentication") as caught:
        access.check(address, {})
    assert caught.value.exit_code == 2
    assert access.ALLOW in caught.value.hint
    assert access.MODE in caught.value.hint


def test_the_switch_lets_a_remote_ray_be_tried(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    monkeypatch.setattr(access, "is_here", lambda host, loopback=False: False)
    access.check(f"127.0.0.1:{port}", {access.ALLOW: "1"})


def test_loopback_under_any_name_needs_no_token(port: int, caplog: pytest.LogCaptureFixture) -> None:
    for host in ("127.0.0.1", "localhost", "127.8.9.10"):
        if host != "127.8.9.10":
            access.check(f"{host}:{port}", {})
        assert access.is_here(host, loopback=True)
    assert not caplog.records


def test_another_address_of_this_machine_is_warned_of(
    monkeypatch: pytest.MonkeyPatch, port: int, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(access, "is_here", lambda host, loopback=False: not loopback)
    with caplog.at_level(logging.WARNING):
        access.check(f"127.0.0.1:{port}", {})
    assert "asks nobody for a token" in caplog.text


def test_our_own_token_makes_no_open_ray_safe(ray_address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "is_here", lambda host, loopback=False: False)
    with pytest.raises(UsageError, match="it answers without a token"):
        access.check(ray_address, {access.MODE: "token", "PATH": "/usr/bin:/bin"})


def test_nobody_at_an_address_is_told_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        free = server.getsockname()[1]
    with pytest.raises(ServiceUnavailable, match=f"no Ray at 127.0.0.1:{free}"):
        access.check(f"127.0.0.1:{free}", {})
    with pytest.raises(UsageError, match="Ray client address"):
        access.check("ray://127.0.0.1:1", {})


def test_a_token_that_others_can_read_is_closed(tmp_path: Path) -> None:
    token = tmp_path / ".ray" / "auth_token"
    token.parent.mkdir()
    token.write_text("secret")
    token.chmod(0o644)
    access.close_token(tmp_path)
    assert token.stat().st_mode & 0o777 == 0o600
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("x")
    elsewhere.chmod(0o644)
    token.unlink()
    token.symlink_to(elsewhere)
    access.close_token(tmp_path)
    assert elsewhere.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize(("answer", "wanted"), [(access.CLOSED, True), (access.OPEN, False)])
def test_a_ray_here_that_asks_for_the_token_that_lies_here_gets_it(
    answer: str, wanted: bool, port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`ray start --head` asks for one where ~/.ray/auth_token is; who joins by address presents none."""
    access._asks.cache_clear()
    monkeypatch.setattr(access, "_probe", lambda address, environment: answer)
    home = {"HOME": str(tmp_path)}
    assert not access.check(f"127.0.0.1:{port}", home), "there is no token to present"
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("secret")
    assert access.check(f"127.0.0.1:{port}", home) is wanted
    assert not access.check(f"127.0.0.1:{port}", home | {access.MODE: "disabled"}), "the user has decided"


def test_who_is_kept_out_of_a_ray_that_listens_hears_of_tokens() -> None:
    assert "does it ask for a token? export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=FILE" in access.likely({})
    assert "is the token the cluster's?" in access.likely({access.MODE: "token"})
