"""The trainer's own code on its way to nodes that do not see it: what is sent, and where it is found there.

It travels as the working directory of the driver's Ray job: a folder for each place where trainers are
looked for.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hpsearch.errors import UsageError
from hpsearch.run.sight import named
from hpsearch.spec.model import Spec
from hpsearch.study.trial import Launch, Study
from hpsearch.train.code import Code
from hpsearch.train.form import find

# Tells a node's worker which folder of its working directory stands for which directory of the driver's.
VARIABLE = "HPSEARCH_PARCEL"
# It goes through the memory of the cluster's head (bytes). Code is smaller; more is data.
LARGEST = 32 << 20
MOST_FILES = 10_000
NAMED = 5  # files in a message
# Directories that hold no code of one's own. Hidden files are never sent: some of them are secrets.
LEFT_OUT = frozenset(
    {
        *("venv", "env", "node_modules", "__pycache__", "site-packages", "build", "dist"),
        *("studies", "mlruns", "mlartifacts", "data", "datasets", "wandb", "outputs", "checkpoints"),
    }
)


@dataclass(frozen=True, slots=True)
class Parcel:
    """A directory to be sent, and which folder in it stands for which directory here."""

    directory: Path
    folders: Mapping[str, str]

    @property
    def runtime_env(self) -> dict[str, object]:
        """What Ray is told."""
        told = {VARIABLE: json.dumps(dict(self.folders))}
        return {"working_dir": str(self.directory), "env_vars": told}


def pack(study: Study, python_path: Sequence[str], lacking: Sequence[str], into: Path) -> Parcel:
    """Copy what trials need of the driver's own code into a directory of its own.

    That is the directory of the trainer's module, without what Git ignores, data, environments and studies,
    and whatever else it imports from where trainers are looked for. `lacking` are the nodes that need it.
    Raises UsageError for a trainer that is installed here, and for too much.
    """
    needed = Code(study.spec.module, study.spec.program.command, python_path).files()
    home = _home_of(study.spec, python_path)
    if home is None:
        raise UsageError(
            f"{_what(study.spec)} is installed here, but not the same on {named(list(lacking))}",
            hint="install it on all nodes, or keep it beside the file: then it is sent to them",
        )
    files: dict[str, set[Path]] = {home: set(_own(Path(home), study.directory.parent))}
    for path in needed.values():
        root = next((each for each in python_path if path.is_relative_to(each)), None)
        if root is not None:
            files.setdefault(root, set()).add(path)
    _require_small(home, [path for each in files.values() for path in each])
    folders = {root: str(number) for number, root in enumerate(files)}
    for root, paths in files.items():
        for path in paths:
            there = into / folders[root] / path.relative_to(root)
            there.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, there)
    return Parcel(into, folders)


def landed(launch: Launch, told: str | None) -> Launch:
    """A launch as it runs on a node: with the folders that were sent in place of the driver's directories.

    They are in the working directory of this process.
    """
    if not told:
        return launch
    folders, working_directory = json.loads(told), Path.cwd()
    path = (
        str(working_directory / folders[root]) if root in folders else root for root in launch.python_path
    )
    return replace(launch, python_path=tuple(path))


def _what(spec: Spec) -> str:
    return (
        f"pythonModule {spec.module!r}"
        if not spec.program.command
        else f"command {spec.program.command[0]!r}"
    )


def _home_of(spec: Spec, python_path: Sequence[str]) -> str | None:
    """Where of the places in which trainers are looked for this one lies; None for an installed one."""
    if spec.program.command:
        return python_path[0] if python_path else None
    found = find(spec.module, python_path)
    if found is None:
        return None
    places = [found.origin] if found.origin else list(found.submodule_search_locations or ())
    inside = [root for root in python_path if places and Path(places[0]).is_relative_to(root)]
    # The innermost: one of them may lie in another, and an environment in both.
    home = max(inside, key=len, default=None)
    if home is None or _leads_out(Path(places[0]).relative_to(home)):
        return None
    return home


def _leads_out(path: Path) -> bool:
    """Whether what lies there is installed in an environment that itself lies there."""
    return any(part == "site-packages" or part.startswith(".") for part in path.parts)


def _own(root: Path, studies: Path) -> Iterator[Path]:
    """The files of a directory that may be code, and what lies small beside it."""
    for path in _known_to_git(root) or _walked(root):
        inside = path.relative_to(root).parts
        hidden = any(part.startswith(".") for part in inside)
        if hidden or not LEFT_OUT.isdisjoint(inside[:-1]) or path.suffix == ".pyc":
            continue
        if path.is_relative_to(studies) or not path.is_file():
            continue
        yield path


def _known_to_git(root: Path) -> list[Path]:
    """What Git does not ignore there; nothing where it is not asked or knows nothing."""
    command = ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        done = subprocess.run(command, capture_output=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [root / os.fsdecode(name) for name in done.stdout.split(b"\0") if name]


def _walked(root: Path) -> Iterator[Path]:
    for directory, below, files in os.walk(root):
        here = Path(directory)
        below[:] = [
            name
            for name in below
            if name not in LEFT_OUT and not name.startswith(".") and not (here / name / "pyvenv.cfg").exists()
        ]
        for name in files:
            yield here / name


def _require_small(home: str, files: Sequence[Path]) -> None:
    sizes = {path: path.stat().st_size for path in files}
    total = sum(sizes.values())
    if total <= LARGEST and len(files) <= MOST_FILES:
        return
    largest = sorted(files, key=lambda path: -sizes[path])[:NAMED]
    told = ", ".join(f"{path.name} ({sizes[path] >> 20} MiB)" for path in largest)
    raise UsageError(
        f"the trainer's code must be sent to the nodes, but its directory {home} has {len(files)} files of"
        f" {total >> 20} MiB together, and {LARGEST >> 20} MiB go: the largest are {told}",
        hint="name what is not code in a .gitignore there, give the trainer a directory of its own,"
        " or put it on all nodes in the same place",
    )
