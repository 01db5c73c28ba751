"""What `submit` does for each target: what would be handed over, the handing over, the wait for its end."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from hpsearch.errors import UsageError
from hpsearch.redaction import redact
from hpsearch.ship.choices import Target

if TYPE_CHECKING:
    from hpsearch.ship.jobs import RayJob
    from hpsearch.ship.making import Wishes
    from hpsearch.ship.slurm import Allocation
    from hpsearch.show.console import Console
    from hpsearch.spec.model import Spec

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked for, whatever the target: `name` is the job's, `directory` where it was asked."""

    spec: Spec
    name: str
    study: str
    home: Path
    directory: Path
    wait: bool = False
    dry_run: bool = False
    deadline: float | None = None
    start_timeout: float | None = None
    tracking_uri: str | None = None
    webhook_env: str | None = None
    storage: str | None = None

    def words(self, file: str, home: str) -> list[str]:
        """The options of the driver's command: one that starts the study, or goes on with it."""
        found = ["run", file, "--study", self.study, "--resume", "auto", "--home", home]
        for option, seconds in (("--deadline", self.deadline), ("--start-timeout", self.start_timeout)):
            found += [option, f"{round(seconds)}s"] if seconds is not None else []
        found += ["--webhook-env", self.webhook_env] if self.webhook_env else []
        found += ["--storage", self.storage] if self.storage else []
        if self.tracking_uri and "@" in self.tracking_uri.partition("://")[2].partition("/")[0]:
            raise UsageError(
                "--tracking-uri holds a user or password, which everybody could read",
                hint="give the job MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD in its environment",
            )
        return [*found, *(["--tracking-uri", self.tracking_uri] if self.tracking_uri else [])]


@dataclass(frozen=True, slots=True)
class Submitted:
    """What became of it: `answer` for --json, `said` for people, `code` to leave with."""

    answer: Json
    said: str
    code: int = 0


def to_jobs(
    asked: Asked,
    console: Console,
    address: str | None,
    cluster_home: str | None,
    working_dir: Path | None,
    write: Callable[[str], None] | None,
    *,
    insecure: bool,
) -> Submitted:
    """Hand a sweep to a Ray that runs, by its Jobs API."""
    from hpsearch.ship import jobs, package, records
    from hpsearch.ship.following import Follower, LogCopy

    client = jobs_of(address, insecure=insecure, patient=asked.wait)
    source = Path(asked.spec.source).absolute()
    roots = tuple(dict.fromkeys((str(asked.directory), str(source.parent))))
    sent = package.package(asked.spec, roots, working_dir)
    home = _cluster_home(cluster_home, asked.home, client)
    wanted = jobs.Submission(
        id=asked.name,
        entrypoint=shlex.join(["hpsearch", *asked.words(source.name, home), "--address", "auto"]),
        package=sent.name,
        metadata={
            "sweep": source.stem,
            "study": asked.study,
            "space_sha256": asked.spec.sha256,
            "hpsearch": metadata.version("hpsearch"),
        },
        patience=jobs.PATIENCE,
    )
    where = str(client.dashboard.where)
    facts = {"name": asked.name, "target": "jobs", "study": asked.study, "home": home, "address": where}
    if asked.dry_run:
        plan = {"entrypoint": wanted.entrypoint, "package": sent.name, "files": list(sent.files)}
        return Submitted(facts | plan | {"metadata": dict(wanted.metadata)}, _listed(facts | plan))
    if os.environ.get("HPSEARCH_STORE"):
        console.note("HPSEARCH_STORE is set here, and does not travel: the driver has its head's environment")

    def hand_over() -> None:
        client.upload(sent.name, sent.data)
        client.submit(wanted)

    client.wait_for_ray()
    follower = Follower(client, asked.name, hand_over, console.note, replace=True)
    found = follower.start()
    records.keep(asked.home, records.Record(asked.name, Target.JOBS, asked.study, home, address=where))
    if not asked.wait:
        return Submitted(facts | {"attached": found is not None}, _how_to_go_on(asked.name))
    ended = follower.end(LogCopy(client, asked.name, write) if write else None)
    return Submitted(facts | shown_job(ended), f"job {asked.name}: {jobs.word(ended)}", ended.code or 0)


def to_kuberay(asked: Asked, console: Console, wishes: Wishes, context: str | None) -> Submitted:
    """Make a RayJob with a Ray of its own, by the user's kubectl."""
    from hpsearch.ship import applying, making, records, render
    from hpsearch.ship.job import STUDIES

    if not wishes.image:
        raise UsageError("--image is missing", hint="the image of all pods, as NAME@sha256:DIGEST")
    named = replace(wishes, name=_label(asked.name), study=asked.study)
    if asked.dry_run:
        job = making.job(asked.spec, replace(named, namespace=named.namespace or "hpsearch"))
        text = render.dump(render.render(job))
        return Submitted({"name": job.name, "target": "kuberay", "study": job.study, "manifests": text}, text)
    client = client_of(wishes.namespace, context)
    job = making.job(asked.spec, replace(named, namespace=client.road.namespace))
    facts = {"name": job.name, "target": "kuberay", "study": job.study, "namespace": job.platform.namespace}
    rayjob = applying.apply(client, job, console.note)
    record = records.Record(
        job.name,
        Target.KUBERAY,
        job.study,
        STUDIES,
        namespace=job.platform.namespace,
        context=client.road.place,
    )
    records.keep(asked.home, record)
    if not asked.wait:
        return Submitted(facts | {"uid": rayjob["metadata"]["uid"]}, _how_to_go_on(job.name))
    console.note(f"its log: `hpsearch logs {job.name} --follow`")
    ended = applying.followed(client, rayjob, console.note)
    told = {
        "outcome": ended.word,
        "exit_code": ended.code,
        "reason": ended.reason,
        "message": ended.message,
    }
    why = f" ({ended.reason})" if ended.reason else ""
    return Submitted(facts | told, f"RayJob {job.name}: {ended.word}{why}", ended.code)


def to_slurm(asked: Asked, console: Console, nodes: Allocation, environment: Path | None) -> Submitted:
    """Queue a batch job that starts a Ray over its nodes."""
    from hpsearch.ship import records, slurm
    from hpsearch.ship.slurm_jobs import DIRECTORY, SlurmJob

    job = SlurmJob(asked.name, asked.home / DIRECTORY)
    source = str(Path(asked.spec.source).absolute())
    script = slurm.script(
        slurm.Script(
            name=asked.name,
            command=(*program(), *asked.words(source, str(asked.home))),
            ray=str(Path(sys.executable).with_name("ray")),
            directory=asked.directory,
            state=job.state,
            allocation=nodes,
            environment=_private(environment),
        )
    )
    facts: Json = {"name": asked.name, "target": "slurm", "study": asked.study, "home": str(asked.home)}
    if asked.dry_run:
        return Submitted(facts | {"script": script}, script)
    before = job.numbers()
    number = min(before, default="") or job.submit(script)
    console.note(f"Slurm's job {number} " + ("is there already" if before else "submitted"))
    record = records.Record(asked.name, Target.SLURM, asked.study, str(asked.home), job=number)
    records.keep(asked.home, record)
    facts |= {"job": number, "attached": bool(before)}
    if not asked.wait:
        return Submitted(facts, _how_to_go_on(asked.name))
    code = job.wait(number)
    told = job.facts(number) or {}
    facts |= {"outcome": told.get("outcome"), "exit_code": code}
    return Submitted(facts, f"job {number}: {told.get('outcome')}", code)


def to_local(
    asked: Asked, console: Console, write: Callable[[str], None] | None, *, without_ray: bool
) -> Submitted:
    """Run a driver in the background of this machine."""
    from hpsearch.ship import records
    from hpsearch.ship.api import Time
    from hpsearch.ship.local_jobs import LocalJob, shown

    job = LocalJob(asked.home, asked.name)
    source = str(Path(asked.spec.source).absolute())
    command = [*program(), *asked.words(source, str(asked.home)), *(["--local"] if without_ray else [])]
    facts: Json = {"name": asked.name, "target": "local", "study": asked.study, "home": str(asked.home)}
    facts |= {"log": str(job.log), "status_file": str(job.status_file)}
    if asked.dry_run:
        return Submitted(facts | {"command": command}, shlex.join(command))
    if asked.webhook_env and not os.environ.get(asked.webhook_env):
        raise UsageError(
            f"--webhook-env names {asked.webhook_env}, which is not set", hint="export it with the address"
        )
    record = records.Record(asked.name, Target.LOCAL, asked.study, str(asked.home))
    records.keep(asked.home, record)
    started = job.start(command)
    if started:
        console.note(f"job {asked.name} started")
    else:
        there = shown(job)
        console.note(f"job {asked.name} is there already ({there['outcome'] or there['job_status']})")
    if not asked.wait:
        return Submitted(facts | {"attached": not started}, _how_to_go_on(asked.name))
    if write and (job.log.exists()):
        for text in job.lines(Time(), follow=True):
            write(text)
    code = job.wait(Time())
    answer = shown(job)
    return Submitted(facts | answer, f"job {asked.name}: {answer['outcome']}", code)


def jobs_of(address: str | None, *, insecure: bool, patient: bool) -> Any:
    """The jobs of the Ray at an address, or of the one that the environment names. Raises UsageError."""
    from hpsearch.ship import dashboard, jobs

    where = dashboard.place(address or os.environ.get(dashboard.ADDRESS) or dashboard.DEFAULT)
    dashboard.check(where, insecure=insecure)
    patience = dashboard.PATIENCE if patient else dashboard.SHORT_PATIENCE
    return jobs.Jobs(dashboard.Dashboard(where, patience=patience))


def client_of(namespace: str | None, context: str | None) -> Any:
    """A client by the user's kubectl. Raises UsageError where that has no cluster."""
    from hpsearch.ship.api import Client
    from hpsearch.ship.kubectl import PATIENCE, Kubectl

    return Client(Kubectl.here(namespace, context), patience=PATIENCE)


def shown_job(job: RayJob) -> Json:
    """A job of Ray's as `status --json` shows it."""
    import time

    from hpsearch.ship import jobs

    return jobs.shown(job, time.time())


def program() -> tuple[str, ...]:
    """The words that start this hpsearch, whatever PATH there is."""
    beside = Path(sys.executable).with_name("hpsearch")
    return (str(beside),) if beside.is_file() else (sys.executable, "-m", "hpsearch")


def _cluster_home(given: str | None, home: Path, client: Any) -> str:
    """Where the driver keeps studies: the package that it starts in goes with its job."""
    if given is not None:
        if not PurePosixPath(given).is_absolute():
            raise UsageError(f"--cluster-home {given!r} is no absolute path", hint="such as /shared/studies")
        return given
    if client.dashboard.where.is_here:
        return str(home)
    raise UsageError(
        f"where does the cluster at {client.dashboard.where} keep its studies?",
        hint="name a directory that outlives the job and that all nodes see: --cluster-home /shared/studies",
    )


def _label(name: str) -> str:
    """A job's name as that of a RayJob; its hash stays at its end."""
    from hpsearch.ship.job import LONGEST_RAYJOB
    from hpsearch.ship.making import name_of
    from hpsearch.ship.records import HASH

    begun, digest = name[: -HASH - 1], name[-HASH:]
    return f"{name_of(begun)[: LONGEST_RAYJOB - HASH - 1].rstrip('-')}-{digest}"


def _private(environment: Path | None) -> Path | None:
    if environment is None:
        return None
    try:
        mode = environment.stat().st_mode
    except OSError as error:
        raise UsageError(f"--env-file {environment}: {error.strerror}") from error
    if mode & 0o077:
        raise UsageError(
            f"--env-file {environment} can be read by others (mode {mode & 0o777:o})",
            hint=f"chmod 600 {environment}",
        )
    return environment.absolute()


def _how_to_go_on(name: str) -> str:
    return f"{name}: see `hpsearch status {name}` and `hpsearch logs {name} --follow`"


def _listed(facts: Json) -> str:
    return "\n".join(f"{name}: {redact(str(value))}" for name, value in facts.items())
