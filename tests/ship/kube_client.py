"""Real kubectl against the fake API server."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kube_server import Api

NO_KUBECTL = "no kubectl here: install one of 1.30 or newer to test against it"


@dataclass(frozen=True)
class Kubectl:
    """A kubectl with a configuration of its own."""

    config: Path

    @property
    def environment(self) -> dict[str, str]:
        home = str(self.config.parent)
        kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
        return kept | {"HOME": home, "KUBECONFIG": str(self.config)}

    def run(self, *words: str, text: str = "", code: int | None = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            ["kubectl", *words],
            input=text,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert code is None or done.returncode == code, f"kubectl {words}: {done.stdout}{done.stderr}"
        return done

    def json(self, *words: str) -> Any:
        return json.loads(self.run(*words, "-o", "json").stdout)


def kubectl(folder: Path, api: Api, namespace: str, token: str = "") -> Kubectl:
    """One that talks to the server, as an administrator or as the token says."""
    if shutil.which("kubectl") is None:
        import pytest

        pytest.skip(NO_KUBECTL)
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "fake",
        "clusters": [
            {"name": "fake", "cluster": {"server": api.address, "certificate-authority": str(api.ca)}}
        ],
        "users": [{"name": "me", "user": {"token": token or api.admin}}],
        "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "me", "namespace": namespace}}],
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "kubeconfig"
    path.touch(0o600)
    path.write_text(json.dumps(config))
    return Kubectl(path)
