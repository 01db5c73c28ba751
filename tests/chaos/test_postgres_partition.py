"""Two drivers on two hosts, as two network namespaces are, and the link between one and PostgreSQL is cut."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from postgres_driver import measure
from postgres_proxy import Proxy
from test_postgres_leases import driver, said, steps, take_over, tell

from hpsearch.study.home import Home

Fired = Callable[..., None]


@dataclass
class Link:
    """A namespace, and the cable between it and this one."""

    namespace: str
    here: str
    there: str
    address: str

    def ip(self, *words: str) -> None:
        done = subprocess.run(["ip", *words], capture_output=True, text=True, timeout=20)
        assert done.returncode == 0, f"ip {' '.join(words)}: {done.stderr}"

    def lay(self) -> None:
        network, inside = self.address.rpartition(".")[0], ("-n", self.namespace)
        self.ip("netns", "add", self.namespace)
        self.ip("link", "add", self.here, "type", "veth", "peer", "name", self.there, "netns", self.namespace)
        self.ip("address", "add", f"{self.address}/30", "dev", self.here)
        self.ip(*inside, "address", "add", f"{network}.2/30", "dev", self.there)
        self.ip(*inside, "link", "set", self.there, "up")
        self.up()

    def up(self) -> None:
        self.ip("link", "set", self.here, "up")

    def cut(self) -> None:
        self.ip("link", "set", self.here, "down")

    def is_cut(self) -> bool:
        return (
            "state DOWN"
            in subprocess.run(
                ["ip", "link", "show", self.here], capture_output=True, text=True, check=True
            ).stdout
        )


@pytest.fixture
def link() -> Iterator[Link]:
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("NOT TESTED: network namespaces need root and iproute2; run as root to cut a real link")
    number = os.getpid() % 60000
    name = f"hps{number}"
    cable = Link(name, f"{name}a", f"{name}b", f"10.231.{number % 250}.1")
    try:
        cable.lay()
    except AssertionError as error:
        if "Operation not permitted" not in str(error):
            raise
        pytest.skip(f"NOT TESTED: this container may not make network namespaces: {error}")
    try:
        yield cable
    finally:
        with contextlib.suppress(AssertionError):
            cable.ip("netns", "delete", cable.namespace)


@pytest.mark.fault("F13")
def test_a_driver_behind_a_cut_link_writes_nothing_once_another_has_taken_over(
    postgres: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, link: Link, fired: Fired
) -> None:
    monkeypatch.setenv("HPSEARCH_LEASE", "1")
    direct = postgres.make_database()
    # The server itself listens on loopback only; the proxy is its end of the cable.
    with Proxy(postgres.port, link.address) as proxy:
        far = direct.replace(f"127.0.0.1:{postgres.port}", f"{link.address}:{proxy.port}")
        near = Home(tmp_path, direct)
        enter = ("ip", "netns", "exec", link.namespace)
        with driver(Home(tmp_path, far), enter) as child:
            tell(child, 1)
            assert said(child) == "wrote 1"
            link.cut()
            tell(child, 2)  # neither an answer nor an error comes back
            rival = take_over(near)
            measure(rival, 7)
            fired(link.is_cut() and child.poll() is None)
            link.up()
            assert "taken over by another driver" in said(child)
            assert child.wait(30) == 73
        measure(rival, 8)
        rival.close()
    assert steps(near) == [1, 7, 8]
