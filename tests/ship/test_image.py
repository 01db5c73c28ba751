"""The image: what KubeRay asks of it, what the manifests assume of it, and nothing more in it."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from manifests import ROOT

from hpsearch.ship import pods
from hpsearch.study import birth

DOCKERFILE = ROOT / "Dockerfile"
HADOLINT = Path(sys.executable).with_name("hadolint")


def stages() -> list[list[tuple[str, str]]]:
    """The instructions of each stage, what stands before the first one first."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    found: list[list[tuple[str, str]]] = [[]]
    for line in filter(None, text.splitlines()):
        word, _, rest = line.partition(" ")
        if word == "FROM":
            found.append([])
        found[-1].append((word, rest.strip()))
    return found


def given(word: str) -> list[str]:
    """The arguments of an instruction in the last stage."""
    return [rest for name, rest in stages()[-1] if name == word]


def test_hadolint_finds_nothing() -> None:
    if not HADOLINT.exists():
        pytest.skip(f"no hadolint at {HADOLINT}: the Dockerfile was NOT linted")
    done = subprocess.run([HADOLINT, DOCKERFILE], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_both_stages_begin_with_one_base_that_is_pinned() -> None:
    before, build, final = stages()
    [base] = [rest for word, rest in before if word == "ARG" and rest.startswith("BASE=")]
    assert re.fullmatch(r"BASE=python:3\.11-slim@sha256:[0-9a-f]{64}", base)
    assert build[0][1] == "${BASE} AS build"
    assert final[0][1] == "${BASE}"


def test_it_runs_as_the_user_that_pods_name_and_by_number() -> None:
    assert given("USER") == [f"{pods.USER}:{pods.USER}"]
    users = [rest for rest in given("RUN") if "useradd" in rest]
    assert f"--uid {pods.USER}" in users[0]
    assert f"--home-dir {pods.HOME}" in users[0]
    assert f"HOME={pods.HOME}" in given("ENV")[0]


def test_its_words_are_hpsearchs_and_its_path_has_python_and_ray_first() -> None:
    assert given("ENTRYPOINT") == ['["hpsearch"]']
    assert given("CMD") == []
    [environment] = given("ENV")
    assert environment.startswith("PATH=/opt/hpsearch/bin:$PATH")
    # A login shell of Debian begins with a PATH of its own.
    assert any("/etc/profile.d/" in rest for rest in given("RUN"))


def test_nothing_is_installed_in_the_last_stage_and_nothing_can_be_later() -> None:
    for rest in given("RUN"):
        assert not re.search(r"\b(apt|apt-get|curl|wget)\b|pip install|build-essential|gcc", rest)
    assert any("pip uninstall" in rest for rest in given("RUN"))
    build = [rest for word, rest in stages()[1] if word == "RUN"]
    assert "pip uninstall" in build[-1]
    assert given("COPY") == ["--from=build /opt/hpsearch /opt/hpsearch"]


def test_all_that_is_installed_is_held_by_the_lock() -> None:
    installs = [rest for word, rest in stages()[1] if word == "RUN" and "pip install" in rest]
    assert len(installs) == 2
    for rest in installs:
        assert "--constraint constraints.txt" in rest
        assert "--no-cache-dir" in rest
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    [extras] = re.findall(r'"\.\[([a-z0-9,]+)\]"', installs[-1])
    assert set(extras.split(",")) <= set(project["optional-dependencies"])
    cluster = project["optional-dependencies"]["cluster"]
    assert "cluster" in extras and cluster[0].startswith("ray[default]"), "its agent serves probes and jobs"
    server = project["optional-dependencies"]["server"]
    assert "server" in extras and server[0].startswith("mlflow[auth]"), "mlflow-dev has a login"
    locked = (ROOT / "constraints.txt").read_text()
    for name in ("ray", "torch", "mlflow", "Flask-WTF"):
        assert re.search(f"^{name}==", locked, re.MULTILINE), f"{name} is not pinned"


def test_it_says_what_it_is() -> None:
    [labels] = given("LABEL")
    # Studies say which commit ran them; an image holds no working tree.
    assert f"{birth.REVISION}=${{REVISION}}" in given("ENV")[0]
    for name in ("title", "description", "licenses", "version", "revision"):
        assert f"org.opencontainers.image.{name}=" in labels
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert given("ARG")[0] == f"VERSION={project['version']}"


def test_a_study_in_an_image_knows_the_commit_that_it_was_built_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    for built, known in (("0123abc", "0123abc"), ("unknown", None), ("", None)):
        monkeypatch.setenv(birth.REVISION, built)
        assert birth.git_sha(tmp_path) == known


def test_only_what_it_is_made_of_reaches_the_build() -> None:
    lines = [
        line
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    assert lines[0] == "*", "a secret in the working directory would be sent along"
    copied = {name for word, rest in stages()[1] if word == "COPY" for name in rest.split()[:-1]}
    assert {line[1:] for line in lines if line.startswith("!")} == copied
    for name in copied:
        assert (ROOT / name).exists()
