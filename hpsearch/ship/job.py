"""The one typed job: a sweep and the cluster that shall run it, as every target renders it.

A Job is plain frozen data: no clock, no environment, no network. Sizes are bytes, times are seconds.
"""

from __future__ import annotations

import hashlib
import math
import re
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from hpsearch.ship.choices import Overlap, Profile, Submitter
from hpsearch.study.birth import is_name

__all__ = ["Overlap", "Profile", "Submitter"]

Mi, Gi = 1 << 20, 1 << 30
# KubeRay appends five characters and a dash to a RayJob's name for its cluster, whose services have 63.
LONGEST_RAYJOB, LONGEST_RAYCLUSTER, LONGEST_RAYCRONJOB = 47, 53, 36
# A CronJob appends eleven characters at most, and the launcher two: 36 + 9 + 2 = 47.
LONGEST_CRONJOB = 36
# Kueue counts 18 pod sets at most, the head's and the submitter's among them.
MOST_GROUPS = 16
# The API server takes objects of about 1.5 MiB, and a ConfigMap 1 MiB of data.
LARGEST_SWEEP = 1 * Mi
# Above the deadline of the sweep itself, so that this one never comes first (seconds).
DEADLINE_SLACK = 300
LEAST_HEAD = 4 * Gi
_LABEL = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_GROUP = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_DIGEST = re.compile(r"[^\s@]+@sha256:[0-9a-f]{64}")
_PLAIN_TEXT = re.compile(r"[A-Za-z0-9_./:@=,+-]*")


def label_name(text: str, longest: int = 63) -> str:
    """The text, if it is a DNS-1035 name: lower case, digits and dashes, a letter first; or ValueError."""
    if len(text) > longest or not _LABEL.fullmatch(text):
        raise ValueError(
            f"{text!r} is no name for this: at most {longest} of a-z, 0-9 and '-', a letter first, "
            "no '-' at the end"
        )
    return text


def _namespace(text: str) -> str:
    if len(text) > 63 or not _GROUP.fullmatch(text):
        raise ValueError(f"{text!r} is no namespace: at most 63 of a-z, 0-9 and '-'")
    return text


def _subdomain(text: str) -> str:
    if len(text) > 253 or not all(_GROUP.fullmatch(part) for part in text.split(".")):
        raise ValueError(f"{text!r} is no name of an object: a-z, 0-9, '-' and '.', at most 253")
    return text


def _image(text: str) -> str:
    if not _DIGEST.fullmatch(text):
        raise ValueError(
            f"image {text!r} names no digest, and a tag may mean another image for each pod: "
            "write NAME@sha256:DIGEST"
        )
    return text


def _study(text: str) -> str:
    if not is_name(text):
        raise ValueError(f"study name {text!r} is not usable: letters, digits, '_', '-', '.', at most 100")
    return text


ObjectName = Annotated[str, AfterValidator(_subdomain)]


class Plain(BaseModel):
    """Frozen data with known keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class SecretKey(Plain):
    """Where a secret is to be found; never the secret itself."""

    name: ObjectName
    key: str = Field(pattern=r"^[-._a-zA-Z0-9]+$", max_length=253)

    @classmethod
    def parse(cls, text: str, key: str) -> Self:
        """NAME or NAME:KEY; `key` is what stands for the second where there is none."""
        name, _, given = text.partition(":")
        return cls(name=name, key=given or key)


class Sweep(Plain):
    """The search-space file, to the byte: what is hashed is what the driver reads."""

    text: str = Field(repr=False)

    @property
    def sha256(self) -> str:
        """That of the text, as the Spec has it."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if (size := len(self.text.encode())) > LARGEST_SWEEP:
            raise ValueError(
                f"the sweep's file has {size:,} bytes, and a ConfigMap takes {LARGEST_SWEEP:,}: shorten it"
            )
        return self


class Toleration(Plain):
    """A taint that pods of a group put up with; an empty value: whatever it is."""

    key: str = Field(min_length=1, max_length=317)
    value: str = ""
    effect: str = Field(default="NoSchedule", pattern="^(NoSchedule|PreferNoSchedule|NoExecute)$")


class Head(Plain):
    """The pod of Ray's head and of the driver; no trial runs there."""

    cpus: float = Field(default=2.0, gt=0)
    memory: int = Field(default=8 * Gi)
    ephemeral_storage: int = Field(default=10 * Gi, gt=0)

    @model_validator(mode="after")
    def _large_enough(self) -> Self:
        if self.memory < LEAST_HEAD:
            raise ValueError(
                f"the head has {self.memory / Gi:.3g}Gi of memory, and Ray's services and the driver need "
                f"{LEAST_HEAD / Gi:.3g}Gi at least, 8Gi for long sweeps"
            )
        return self


class Group(Plain):
    """Workers of one kind. `priority`: which group grows first, the highest. `node_selector`: by label."""

    name: str = Field(max_length=63, pattern=_GROUP.pattern)
    cpus: float = Field(default=4.0, gt=0)
    memory: int = Field(default=8 * Gi, ge=1 * Gi)
    gpus: int = Field(default=0, ge=0)
    ephemeral_storage: int = Field(default=20 * Gi, gt=0)
    min_replicas: int = Field(default=0, ge=0)
    max_replicas: int = Field(ge=1, le=10_000)
    spot: bool = False
    priority: int = Field(default=0, ge=0, le=1000)
    tolerations: tuple[Toleration, ...] = ()
    node_selector: tuple[tuple[str, str], ...] = ()

    @property
    def ray_cpus(self) -> int:
        """What Ray calls its CPUs: the limit, rounded up."""
        return math.ceil(self.cpus)

    @property
    def object_store(self) -> int:
        """For Ray's shared memory, which counts against the limit; trials hand over next to nothing."""
        return min(self.memory // 8, 512 * Mi)

    @property
    def ray_memory(self) -> int:
        """What trials may ask for: the limit without the object store and Ray's own processes."""
        return self.memory - self.object_store - min(self.memory // 8, Gi)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.name == "head" or not _GROUP.fullmatch(self.name):
            raise ValueError(f"a worker group cannot be called {self.name!r}")
        if self.min_replicas > self.max_replicas:
            raise ValueError(
                f"group {self.name}: {self.min_replicas} replicas at least are more than "
                f"{self.max_replicas} at most"
            )
        return self


class Claim(Plain):
    """A PersistentVolumeClaim that holds the studies; it outlives every cluster."""

    name: ObjectName = "hpsearch-studies"


class Schedule(Plain):
    """Which schedule a job is a tick of, and the moment that the tick stands for (RFC 3339)."""

    name: str
    scheduled_time: str = Field(pattern=r"^\d{4}-\d\d-\d\dT[0-9:.]+(Z|[+-]\d\d:\d\d)$")


class Platform(Plain):
    """What a job takes from its cluster, whatever its sweep is.

    `retries`: new clusters after a failure. `pre_running`: until head and submitter are there. `ttl`: of an
    ended job in profile shutdown. `retained`: of a failed cluster in profile retain. `elastic`: workers come
    and go with the trials.
    """

    image: Annotated[str, AfterValidator(_image)]
    namespace: Annotated[str, AfterValidator(_namespace)] = "hpsearch"
    head: Head = Head()
    groups: tuple[Group, ...] = Field(min_length=1, max_length=MOST_GROUPS)
    claim: Claim = Claim()
    store: SecretKey | None = None
    webhook: SecretKey | None = None
    mlflow_user: SecretKey | None = None
    mlflow_password: SecretKey | None = None
    storage_secret: ObjectName | None = None
    profile: Profile = Profile.SHUTDOWN
    queue: ObjectName | None = None
    queue_priority: ObjectName | None = None
    submitter: Submitter = Submitter.JOB
    elastic: bool = True
    pre_running: int = Field(default=1800, gt=0)
    ttl: int = Field(default=300, gt=0)
    retained: int = Field(default=1800, gt=0)
    retries: int = Field(default=2, ge=0, le=100)
    submitter_retries: int = Field(default=3, ge=0, le=100)

    @property
    def digest(self) -> str:
        """The image's digest, sha256:..."""
        return self.image.partition("@")[2]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [group.name for group in self.groups]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two worker groups are called {twice[0]!r}")
        if self.queue is not None and self.profile is Profile.RETAIN:
            raise ValueError("a queue suspends jobs, which profile retain excludes: use profile shutdown")
        if self.queue is not None and self.elastic:
            raise ValueError("under a queue the number of workers is fixed: leave elastic off")
        return self


class Job(Plain):
    """One sweep on one platform, under the name of its RayJob; `study` is the same for every attempt.

    `deadline`: when the driver ends by itself, counted from its start; what follows is resumable.
    """

    name: str
    study: Annotated[str, AfterValidator(_study)]
    sweep: Sweep
    sweep_name: str = Field(min_length=1)
    platform: Platform
    deadline: int = Field(gt=0)
    ray_version: str = Field(pattern=r"^\d+\.\d+\.\d+$")
    tracking_uri: str | None = None
    storage: str | None = None
    git_sha: str | None = Field(default=None, pattern=r"^[0-9a-f]{7,64}$")
    schedule: Schedule | None = None

    @model_validator(mode="after")
    def _named(self) -> Self:
        label_name(self.name, LONGEST_RAYJOB)
        if self.tracking_uri and "@" in self.tracking_uri:
            raise ValueError("the MLflow address holds a user or password: give them by a Secret's name")
        named = (
            ("name of the sweep", self.sweep_name),
            ("name of the schedule", self.schedule and self.schedule.name),
            ("MLflow address", self.tracking_uri),
            ("place of trials' files", self.storage),
        )
        for what, text in named:
            if text and not _PLAIN_TEXT.fullmatch(text):
                raise ValueError(f"the {what}, {text!r}, has characters on which a shell may act")
        return self

    @property
    def config_map(self) -> str:
        """The name of the ConfigMap with the sweep's file."""
        return f"{self.name}-sweep"

    @property
    def entrypoint(self) -> str:
        """The driver's command, which starts the study or goes on with it."""
        words = f"hpsearch run {SWEEP_FILE} --study {self.study} --resume auto --address auto"
        words += f" --deadline {self.deadline}s --start-timeout {self.platform.pre_running}s"
        words += f" --storage {self.storage}" if self.storage else ""
        return f"{words} --tracking-uri {self.tracking_uri}" if self.tracking_uri else words

    @property
    def in_bucket(self) -> bool:
        """Whether trials keep their files in an object store, and workers need no claim."""
        return "://" in (self.storage or "")


# Where pods find the sweep's file and the studies.
SWEEP_FILE = "/etc/hpsearch/sweep.yaml"
STUDIES = "/var/lib/hpsearch/studies"
