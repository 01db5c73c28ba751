"""What a study is born with: a name that is a directory's, and the code and versions that make it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

from hpsearch.errors import UsageError

PACKAGES = ("hpsearch", "torch", "ray", "optuna", "mlflow")
# Set by the image that this is installed in: what it was built from.
REVISION = "HPSEARCH_GIT_SHA"
_COMMIT = re.compile(r"[0-9a-f]{7,64}")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")


def is_name(text: str) -> bool:
    """Whether a study may be called so: it becomes a directory, and never leads out of its home."""
    return _NAME.fullmatch(text) is not None


def check_name(name: str) -> None:
    """Raise UsageError unless a study may be called so."""
    if not is_name(name):
        raise UsageError(
            f"study name {name!r} is not usable as a directory",
            hint="use letters, digits, '_', '-' and '.', at most 100; give one with --study",
        )


def free_name(taken: Iterable[str], stem: str) -> str:
    """The stem with the next number above all that are taken, so that names tell the order."""
    pattern = re.compile(re.escape(stem) + r"-(\d+)")
    used = [int(found[1]) for name in taken if (found := pattern.fullmatch(name))]
    return f"{stem}-{max(used, default=0) + 1}"


def git_sha(directory: Path) -> str | None:
    """The commit of the working tree that the file lies in, else that of the image, if they say."""
    command = ["git", "-C", str(directory), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        built = os.environ.get(REVISION, "")
        return built if _COMMIT.fullmatch(built) else None
    return done.stdout.strip()


def versions() -> dict[str, str]:
    """The versions of what a result depends on, without importing any of it."""
    found = {"python": sys.version.split()[0]}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
