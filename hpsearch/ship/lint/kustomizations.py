"""Kustomizations: what kustomize does to custom resources without saying so."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path as FilePath

from hpsearch.ship.lint.document import Document, read
from hpsearch.ship.lint.finding import Fault, Level, Path
from hpsearch.ship.lint.manifest import RAY_GROUP, Manifest
from hpsearch.ship.lint.rulebook import Rulebook
from hpsearch.ship.lint.scene import Placed, Scene
from hpsearch.ship.lint.shape import dig, maps, sequence, text, texts, walked

GROUP = "kustomize.config.k8s.io"
KUSTOMIZATIONS: Rulebook[Manifest, Fault] = Rulebook("kustomize", "kustomize 5, measured")
RENAMING = ("namePrefix", "nameSuffix", "configMapGenerator", "secretGenerator")


def is_kustomization(manifest: Manifest) -> bool:
    """Whether kustomize reads it, not Kubernetes."""
    return manifest.group == GROUP


@KUSTOMIZATIONS.rule(
    "merge-patch",
    "A strategic merge patch replaces whole lists of a custom resource: containers and groups that it "
    "does not repeat "
    "are gone.",
    "write a JSON 6902 patch: a list of {op, path, value} with a target",
    source="trap: patches of custom resources",
)
def merge_patch(manifest: Manifest) -> Iterator[Fault]:
    for path, document in _patches(manifest):
        value = document.value
        if not isinstance(value, dict) or text(value, "apiVersion").partition("/")[0] != RAY_GROUP:
            continue
        lists = [below for below, part in walked(value) if isinstance(part, list)]
        if lists:
            yield Fault(path, f"a merge patch of a {text(value, 'kind')} replaces its list {lists[0][-1]}")


def _patches(manifest: Manifest) -> Iterator[tuple[Path, Document]]:
    folder = FilePath(manifest.file).parent
    for place, patch in maps(manifest.value, "patches"):
        given = text(patch, "patch") or _file(folder, text(patch, "path"))
        kind = text(patch, "target", "group")
        for document in read(given)[0]:
            if kind in ("", RAY_GROUP):
                yield ("patches", place), document
    for place, given in enumerate(texts(manifest.value, "patchesStrategicMerge")):
        for document in read(given if "\n" in given else _file(folder, given))[0]:
            yield ("patchesStrategicMerge", place), document


def _file(folder: FilePath, name: str) -> str:
    try:
        return (folder / name).read_text(encoding="utf-8") if name else ""
    except (OSError, UnicodeDecodeError):
        return ""


@KUSTOMIZATIONS.rule(
    "deprecated",
    "Fields that kustomize has given up are not used.",
    "use patches, labels and replacements",
    level=Level.WARNING,
)
def deprecated(manifest: Manifest) -> Iterator[Fault]:
    for name in ("patchesStrategicMerge", "patchesJson6902", "bases", "commonLabels", "vars"):
        if dig(manifest.value, name) is not None:
            yield Fault((name,), f"{name} is deprecated")


TREES: Rulebook[Scene, Placed] = Rulebook("kustomize", "kustomize 5, measured")


@TREES.rule(
    "names",
    "kustomize rewrites no names of ConfigMaps, Secrets, claims and accounts inside of a RayJob, unless "
    "told where "
    "they stand.",
    "list them in `configurations: [kuberay-refs.yaml]`, with nameReference fieldSpecs for head, workers "
    "and submitter",
    source="trap: names in RayJobs",
)
def names(scene: Scene) -> Iterator[Placed]:
    trees = [each for each in scene.manifests if is_kustomization(each)]
    configured = any(sequence(each.value, "configurations") for each in trees)
    if configured or not any(job.manifest.kind in ("RayJob", "RayCronJob") for job in scene.jobs):
        return
    for each in trees:
        for name in RENAMING:
            if dig(each.value, name):
                yield Placed(each, (name,), f"{name} renames what RayJobs name, and not their names for it")


def unbuilt(manifest: Manifest) -> str:
    """What to say of a kustomization that is checked as a file."""
    folder = FilePath(manifest.file).parent
    return f"not built: kubectl kustomize {folder} | hpsearch k8s validate -"
