"""Where manifests come from: files, folders, standard input; and what in them is no manifest."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any

from hpsearch.ship.lint.document import MAX_BYTES, Document, read
from hpsearch.ship.lint.finding import Finding, Path
from hpsearch.ship.lint.manifest import Manifest
from hpsearch.ship.lint.shape import maps, sequence, text, texts
from hpsearch.spec.node import printable

STDIN, STANDARD_INPUT = "-", "<stdin>"
SUFFIXES = (".yaml", ".yml", ".json")
KUSTOMIZATIONS = ("kustomization.yaml", "kustomization.yml", "Kustomization")
MAX_FILES = 10_000
READ = "read/"
READINGS = tuple(
    READ + name
    for name in (
        "yaml",
        "duplicate-key",
        "empty-file",
        "no-object",
        "missing-file",
        "unreadable-file",
        "folder",
        "twice",
    )
)


@dataclass(slots=True)
class Sources:
    """What was read: manifests in order, findings about reading, and how many files there were."""

    manifests: list[Manifest] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    files: list[str] = field(default_factory=list)


def gather(names: Iterable[str]) -> Sources:
    """Read all files that the names mean; what cannot be read is a finding."""
    sources = Sources()
    for name in names:
        if name == STDIN and STANDARD_INPUT in sources.files:
            said = "standard input is named twice, and can be read once"
            _refuse(sources, STANDARD_INPUT, 1, "twice", said, "write - once")
        elif name == STDIN:
            _take(STANDARD_INPUT, _standard_input(), sources)
        else:
            for file in _files(FilePath(name), sources):
                if (content := _content(file, sources)) is not None:
                    _take(str(file), content, sources)
    return sources


def _standard_input() -> bytes:
    return sys.stdin.buffer.read(MAX_BYTES * 4 + 1)


def _files(path: FilePath, sources: Sources) -> Iterator[FilePath]:
    if not path.is_dir():
        yield path
        return
    found = sorted(each for each in path.rglob("*") if each.suffix in SUFFIXES and each.is_file())
    parts = _parts_of_kustomizations(found, sources)
    found = [each for each in found if each.resolve() not in parts]
    if not found:
        _refuse(
            sources,
            str(path),
            1,
            "folder",
            "no manifests here",
            f"name a folder of {', '.join(SUFFIXES)} files",
        )
    if len(found) > MAX_FILES:
        said = f"{len(found):,} manifests, and {MAX_FILES:,} are read"
        _refuse(sources, str(path), 1, "folder", said, "name its folders one by one")
    yield from found[:MAX_FILES]


def _parts_of_kustomizations(found: list[FilePath], sources: Sources) -> set[FilePath]:
    """Files that are no manifests, but patches and settings of a kustomization beside them."""
    parts: set[FilePath] = set()
    for file in found:
        if file.name not in KUSTOMIZATIONS:
            continue
        # What cannot be read is said where it is read as a manifest.
        content = _content(file, Sources()) or b""
        documents, _ = read(content.decode("utf-8", errors="replace"))
        for document in documents:
            parts |= {(file.parent / name).resolve() for name in _listed(document.value)}
    return parts


def _listed(kustomization: Any) -> Iterator[str]:
    for field_name in ("patches", "patchesJson6902", "replacements"):
        yield from (text(each, "path") for _, each in maps(kustomization, field_name) if text(each, "path"))
    for field_name in ("configurations", "patchesStrategicMerge"):
        yield from (each for each in texts(kustomization, field_name) if "\n" not in each)
    for field_name in ("configMapGenerator", "secretGenerator"):
        for _, each in maps(kustomization, field_name):
            yield from (name.rpartition("=")[2] for name in (*texts(each, "files"), *texts(each, "envs")))


def _content(file: FilePath, sources: Sources) -> bytes | None:
    try:
        with file.open("rb") as stream:
            return stream.read(MAX_BYTES * 4 + 1)
    except FileNotFoundError:
        _refuse(sources, str(file), 1, "missing-file", "no such file", "look at the path, or run where it is")
    except OSError as error:
        why = f"cannot be read: {error.strerror}"
        _refuse(sources, str(file), 1, "unreadable-file", why, "look at its permissions")
    return None


def _take(name: str, content: bytes, sources: Sources) -> None:
    sources.files.append(name)
    try:
        source = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        _refuse(sources, name, line, "yaml", "not UTF-8 text", "save it as UTF-8")
        return
    documents, problems = read(source)
    for problem in problems:
        rule = "duplicate-key" if problem.path else "yaml"
        path, said, hint = problem.path, printable(problem.message), printable(problem.hint)
        _refuse(sources, name, problem.line, rule, said, hint, path)
    if not documents and not problems:
        _refuse(
            sources, name, 1, "empty-file", "the file holds no object", "write a manifest, or leave it out"
        )
    for document in documents:
        for value, base in _objects(document.value, ()):
            _add(sources, name, document, value, base)


def _objects(value: Any, base: Path) -> Iterator[tuple[Any, Path]]:
    """The object of a document, or those of a List, also of one in another."""
    if (
        isinstance(value, dict)
        and text(value, "kind").endswith("List")
        and isinstance(value.get("items"), list)
    ):
        for place, item in enumerate(sequence(value, "items")):
            yield from _objects(item, (*base, "items", place))
    else:
        yield value, base


def _add(sources: Sources, name: str, document: Document, value: Any, base: Path) -> None:
    line = document.at(base)
    if not isinstance(value, dict):
        shape = "a list" if isinstance(value, list) else f"the text {printable(str(value))[:60]!r}"
        hint = "separate objects by `---`; each is a map with apiVersion and kind"
        _refuse(sources, name, line, "no-object", f"{shape} stands where an object is expected", hint)
        return
    manifest = Manifest(name, document, value, base)
    missing = [key for key in ("apiVersion", "kind") if not text(value, key)]
    if missing:
        said = f"no {' and no '.join(missing)}: no Kubernetes object"
        hint = "every object begins with apiVersion and kind; a values or settings file is no manifest"
        _refuse(sources, name, line, "no-object", said, hint, (missing[0],), manifest.subject)
    else:
        sources.manifests.append(manifest)


def _refuse(
    sources: Sources,
    file: str,
    line: int,
    rule: str,
    said: str,
    hint: str,
    path: Path = (),
    subject: str = "",
) -> None:
    sources.findings.append(Finding(printable(file), line, subject, path, said, READ + rule, hint))
