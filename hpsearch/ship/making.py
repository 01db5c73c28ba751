"""From a sweep's Spec and what was asked for to a Job; what could never run there is refused here."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import ValidationError

from hpsearch.errors import UsageError
from hpsearch.redaction import redact
from hpsearch.ship import fit
from hpsearch.ship.job import (
    LONGEST_RAYJOB,
    STUDIES,
    Claim,
    Gi,
    Group,
    Head,
    Job,
    Mi,
    Platform,
    Profile,
    Schedule,
    SecretKey,
    Submitter,
    Sweep,
    Toleration,
)
from hpsearch.spec.model import Spec
from hpsearch.study.storage import is_url, parse_elsewhere

# Of a sweep whose file names no studyTimeout (seconds).
DEADLINE = 24 * 3600
MLFLOW = "http://mlflow:5000"
_AMOUNT = re.compile(r"(\d+(?:\.\d+)?)(Mi|Gi|Ti)")
_UNITS = {"Mi": Mi, "Gi": Gi, "Ti": 1024 * Gi}
# What fields are called in a text.
_WORDS = {"min_replicas": "min", "max_replicas": "max", "ephemeral_storage": "storage", "groups": "--group"}
_KEYS = "cpus, memory, gpus, storage, min, max, priority, spot, node.LABEL, taint.KEY"


@dataclass(frozen=True, slots=True)
class Wishes:
    """What may be asked for beside the sweep's file, as texts and numbers of a command line.

    `groups`: NAME:cpus=4,memory=8Gi,gpus=1,min=0,max=4,spot; none: workers made to measure. `deadline` and
    the other times are seconds, None: the file's studyTimeout, or a day. `sweep`: the sweep's name, where its
    file is called otherwise.
    """

    image: str
    name: str | None = None
    study: str | None = None
    namespace: str = "hpsearch"
    profile: Profile = Profile.SHUTDOWN
    submitter: Submitter = Submitter.JOB
    queue: str | None = None
    queue_priority: str | None = None
    groups: tuple[str, ...] = ()
    head_cpus: float = 2.0
    head_memory: str = "8Gi"
    claim: str = "hpsearch-studies"
    store_secret: str | None = None
    webhook_secret: str | None = None
    mlflow_secret: str | None = None
    storage: str | None = None
    storage_secret: str | None = None
    tracking_uri: str | None = None
    deadline: float | None = None
    retries: int = 2
    git_sha: str | None = None
    sweep: str | None = None


def job(spec: Spec, wishes: Wishes, schedule: Schedule | None = None) -> Job:
    """The Job of a sweep. Raises UsageError for what is asked for and cannot be, or cannot run."""
    refuse_secrets(spec)
    refuse_places_of_one_pod(spec, wishes.tracking_uri or spec.tracking.uri)
    sweep = wishes.sweep or Path(spec.source).stem
    try:
        platform = _platform(spec, wishes)
        name = wishes.name or name_of(sweep)
        made = Job(
            name=name,
            study=wishes.study or name,
            sweep=Sweep(text=spec.text),
            sweep_name=re.sub(r"[^A-Za-z0-9_.-]", "-", sweep),
            platform=platform,
            deadline=round(wishes.deadline or spec.limits.study_timeout or DEADLINE),
            ray_version=metadata.version("ray"),
            tracking_uri=wishes.tracking_uri or (None if spec.tracking.uri else MLFLOW),
            storage=_storage(wishes),
            git_sha=wishes.git_sha,
            schedule=schedule,
        )
    except ValidationError as error:
        raise _refused(error) from None
    fit.check(spec, platform.groups)
    return made


def name_of(text: str) -> str:
    """A text as the name of a RayJob: auto_mpg becomes auto-mpg; UsageError if nothing of it is left."""
    name = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:LONGEST_RAYJOB].strip("-")
    if not name:
        raise UsageError(f"no name for a job can be made of {text!r}", hint="give one with --name")
    return name if name[0].isalpha() else f"s-{name}"[:LONGEST_RAYJOB].strip("-")


def refuse_secrets(spec: Spec) -> None:
    """Raise UsageError for a file that holds what looks like a secret: a ConfigMap is everybody's to read."""
    if redact(spec.text, {}) == spec.text:
        return
    lines = zip(spec.text.splitlines(), redact(spec.text, {}).splitlines(), strict=False)
    number = next((n for n, (is_, was) in enumerate(lines, 1) if is_ != was), 1)
    raise UsageError(
        f"{spec.source}:{number} holds what looks like a secret, and the file is stored for all to read",
        hint="take it out of the file, and give it to the pods by a Secret",
    )


def refuse_places_of_one_pod(spec: Spec, tracking_uri: str | None) -> None:
    """Raise UsageError for what is kept where only one pod sees it: each retry is a new cluster."""
    if tracking_uri and not tracking_uri.startswith(("http://", "https://")):
        raise UsageError(
            f"MLflow at {redact(tracking_uri, {})!r} is a place of one pod, and goes with it",
            hint=f"name a server with --tracking-uri, such as {MLFLOW}",
        )
    for what, place in (("jobDir", spec.program.job_dir), ("the output", spec.program.output)):
        if place and "://" not in place and not PurePosixPath(place).is_relative_to(STUDIES):
            raise UsageError(
                f"{what} {place!r} is a directory of one pod, and goes with it",
                hint=f"name one below {STUDIES}, which all pods share and which stays",
            )


def group(text: str) -> Group:
    """Workers from NAME:KEY=VALUE,... as `--group` takes them. Raises UsageError."""
    name, _, rest = text.partition(":")
    given: dict[str, Any] = {"name": name}
    nodes: list[tuple[str, str]] = []
    taints: list[Toleration] = []
    try:
        for word in filter(None, rest.split(",")):
            key, equals, value = word.partition("=")
            if key.startswith("node."):
                nodes.append((key.removeprefix("node."), value))
            elif key.startswith("taint."):
                taints.append(Toleration(key=key.removeprefix("taint."), value=value))
            elif key == "spot" and not equals:
                given |= {"spot": True, "priority": given.get("priority", 10)}
            else:
                given |= _setting(key, value, text)
        return Group(**given, node_selector=tuple(nodes), tolerations=tuple(taints))
    except ValidationError as error:
        raise _refused(error, f"--group {text!r}: ") from None


def amount(text: str, what: str) -> int:
    """Bytes from 512Mi, 8Gi, 1.5Gi. Raises UsageError."""
    found = _AMOUNT.fullmatch(text)
    if not found:
        raise UsageError(f"{what} is {text!r}, not a size", hint="write it like 8Gi or 512Mi")
    return round(float(found[1]) * _UNITS[found[2]])


def _setting(key: str, value: str, text: str) -> dict[str, Any]:
    """A setting of a group as its field; numbers are pydantic's to read."""
    fields = {"cpus": "cpus", "gpus": "gpus", "min": "min_replicas", "max": "max_replicas"}
    fields |= {"priority": "priority"}
    if key in ("memory", "storage"):
        field = "memory" if key == "memory" else "ephemeral_storage"
        return {field: amount(value, f"{key} of --group {text!r}")}
    if key not in fields:
        raise UsageError(f"--group {text!r} has no setting {key!r}", hint=f"there are {_KEYS}")
    return {fields[key]: value}


def _storage(wishes: Wishes) -> str | None:
    """Where trials keep their files, if not on the claim. Raises UsageError for a directory of one pod."""
    place = parse_elsewhere(wishes.storage) if wishes.storage else None
    if place and not is_url(place) and not PurePosixPath(place).is_relative_to(STUDIES):
        raise UsageError(
            f"--storage {place!r} is a directory of one pod, and goes with it",
            hint=f"name an object store, such as s3://bucket/folder, or a directory below {STUDIES}",
        )
    if wishes.storage_secret and not (place or "").startswith("s3://"):
        raise UsageError(
            f"--storage-secret {wishes.storage_secret!r} is for --storage s3://...",
            hint="other object stores go by the identity of the pods' account",
        )
    return place


def _platform(spec: Spec, wishes: Wishes) -> Platform:
    if "://" in wishes.claim:
        raise UsageError(
            f"--claim is {wishes.claim!r}, and studies cannot lie in an object store",
            hint="name a PersistentVolumeClaim that all nodes mount (ReadWriteMany)",
        )
    elastic = wishes.queue is None
    given = tuple(map(group, wishes.groups))
    mlflow = wishes.mlflow_secret
    return Platform(
        image=wishes.image,
        namespace=wishes.namespace,
        head=Head(cpus=wishes.head_cpus, memory=amount(wishes.head_memory, "--head-memory")),
        groups=given or fit.made_to_measure(spec, elastic=elastic),
        claim=Claim(name=wishes.claim),
        store=SecretKey.parse(wishes.store_secret, "url") if wishes.store_secret else None,
        webhook=SecretKey.parse(wishes.webhook_secret, "url") if wishes.webhook_secret else None,
        mlflow_user=SecretKey.parse(mlflow, "username") if mlflow else None,
        mlflow_password=SecretKey(name=mlflow, key="password") if mlflow else None,
        storage_secret=wishes.storage_secret,
        profile=wishes.profile,
        queue=wishes.queue,
        queue_priority=wishes.queue_priority,
        submitter=wishes.submitter,
        elastic=elastic,
        retries=wishes.retries,
    )


def _refused(error: ValidationError, before: str = "") -> UsageError:
    """What pydantic refused, in one line, with the value and where it stands."""
    first = error.errors(include_url=False)[0]
    words = [_WORDS.get(str(part), str(part)) for part in first["loc"]]
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "missing":
        message = f"{' '.join(words)}= is missing"
    elif first["type"] != "value_error":
        message = f"{' '.join(words)}: {message}, got {redact(repr(first['input']), {})}"
    return UsageError(before + message, hint="see `hpsearch k8s render --help`")
