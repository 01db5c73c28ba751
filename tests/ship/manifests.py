"""Jobs and manifests for tests: the README's sweep, and what Kubernetes' own schemas say of objects."""

from __future__ import annotations

import copy
import functools
import json
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import kubernetes_validate
import typer.main
import yaml

from hpsearch import cli
from hpsearch.ship import making, render
from hpsearch.ship.cronjob import FLAGS
from hpsearch.ship.job import Job
from hpsearch.spec.model import Resources, Spec
from hpsearch.spec.reading import read

ROOT = Path(__file__).parents[2]
SWEEP = ROOT / "search_spaces/auto_mpg.yaml"
DIGEST = "sha256:" + "0" * 64
IMAGE = f"registry.example/hpsearch@{DIGEST}"
VERSIONS = ("1.28", "1.37")
# Kinds that Kubernetes itself does not have.
FOREIGN = ("ray.io/", "kueue.x-k8s.io/", "external-secrets.io/")
Object = dict[str, Any]


@functools.cache
def sweep() -> Spec:
    """The README's sweep; its name is that of the file alone, wherever tests run."""
    spec = read(SWEEP).spec
    assert spec
    return replace(spec, source="search_spaces/auto_mpg.yaml")


def asking(parallel: int = 2, **resources: Any) -> Spec:
    """The same with other resources for a trial."""
    return replace(sweep(), max_parallel_trials=parallel, resources=Resources(**resources))


def wishes(**given: Any) -> making.Wishes:
    return making.Wishes(**{"image": IMAGE, **given})


def job(spec: Spec | None = None, **given: Any) -> Job:
    return making.job(spec or sweep(), wishes(**given))


def rendered(spec: Spec | None = None, **given: Any) -> dict[str, Object]:
    """The objects of a job by kind."""
    return {each["kind"]: each for each in render.render(job(spec, **given))}


def built(place: Path) -> list[Object]:
    """What kustomize makes of a directory."""
    done = subprocess.run(
        ["kubectl", "kustomize", str(place)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return [each for each in yaml.load_all(done.stdout, Loader=yaml.CSafeLoader) if each]


def conform(objects: Iterable[Object]) -> int:
    """Hold objects of Kubernetes' own kinds against its schemas, strictly; how many there were."""
    count = 0
    for each in objects:
        if each["apiVersion"].startswith(FOREIGN):
            continue
        _conforms(json.dumps(each))
        count += 1
    return count


@functools.cache
def _conforms(text: str) -> None:
    """Overlays share most of their objects, and a schema is slow to ask."""
    for version in VERSIONS:
        kubernetes_validate.validate(json.loads(text), version, strict=True)


def texts(value: Any) -> Iterator[str]:
    """All texts in an object, keys too."""
    if isinstance(value, dict):
        for key, each in value.items():
            yield key
            yield from texts(each)
    elif isinstance(value, list):
        for each in value:
            yield from texts(each)
    elif isinstance(value, str):
        yield value


def templates(rayjob: Object) -> dict[str, Object]:
    """The pod templates of a RayJob by what they are for."""
    spec = rayjob["spec"]
    cluster = spec["rayClusterSpec"]
    found = {"head": cluster["headGroupSpec"]["template"]}
    found |= {group["groupName"]: group["template"] for group in cluster["workerGroupSpecs"]}
    return found | ({"submitter": found_} if (found_ := spec.get("submitterPodTemplate")) else {})


def effective(rayjob: Object) -> dict[str, Object]:
    """The pods of a RayJob as KubeRay 1.7 makes them: templates, and what its operator adds to them."""
    cluster = rayjob["spec"]["rayClusterSpec"]
    found: dict[str, Object] = {}
    for name, template in copy.deepcopy(templates(rayjob)).items():
        pod = template["spec"]
        first = pod["containers"][0]
        if name != "submitter":
            pod["volumes"].append({"name": "shared-mem", "emptyDir": {"medium": "Memory"}})
            first["volumeMounts"].append({"name": "shared-mem", "mountPath": "/dev/shm"})
            first["env"] += [{"name": "RAY_AUTH_MODE", "value": "token"}]
        if name == "head" and cluster["enableInTreeAutoscaling"]:
            pod["volumes"].append({"name": "ray-logs", "emptyDir": {}})
            logs = {"name": "ray-logs", "mountPath": "/tmp/ray"}
            first["volumeMounts"].append(logs)
            options = cluster["autoscalerOptions"]
            # Without resources of our own: 500m and 512Mi; without a security context: none.
            autoscaler = {"name": "autoscaler", "image": options.get("image", first["image"])}
            for key in ("imagePullPolicy", "resources", "securityContext"):
                autoscaler[key] = options[key]
            autoscaler["volumeMounts"] = [*options.get("volumeMounts", []), logs]
            pod["containers"].append(autoscaler)
        if name not in ("head", "submitter"):
            copied = ("image", "imagePullPolicy", "securityContext", "env", "volumeMounts")
            wait = {key: first[key] for key in copied} | {"name": "wait-gcs-ready"}
            wait["resources"] = {"limits": {"cpu": "200m", "memory": "256Mi"}}
            pod["containers"].append(wait)
        found[name] = pod
    return found


def asked(words: list[str]) -> making.Wishes:
    """What the flags of a launcher ask for."""
    names = {flag: name for name, flag in FLAGS.items()}
    found: dict[str, Any] = {}
    given = iter(words)
    for word in given:
        flag, equals, value = word.partition("=")
        if flag not in names:
            continue
        value = value if equals else next(given)
        name = names[flag]
        found[name] = (*found.get(name, ()), value) if name == "groups" else value
    return wishes(**found)


def parsed(words: list[str]) -> click.Context:
    """The context of a command of ours as its own door reads it; raises for a word that it does not know."""
    command: Any = typer.main.get_command(cli.app)
    context = click.Context(command)
    while hasattr(command, "get_command"):
        name, command, words = command.resolve_command(context, words)
        context = click.Context(command, parent=context, info_name=name)
    return command.make_context(context.info_name, list(words))
