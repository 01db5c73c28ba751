"""Commands about what was submitted: status, logs; and the end of a job elsewhere, for `stop`."""

from __future__ import annotations

import difflib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpsearch.cli import options, submit_targets
from hpsearch.cli import submit_words as words
from hpsearch.cli.interrupting import interruptible
from hpsearch.cli.options import HOME, AsJson, Place
from hpsearch.cli.submitting import Lines
from hpsearch.errors import HpsearchError, Interrupted, UsageError
from hpsearch.redaction import redact
from hpsearch.ship.choices import Target

if TYPE_CHECKING:
    from hpsearch.ship.records import Record
    from hpsearch.study.home import Home

Json = dict[str, Any]
# All in seconds. Between two looks at a job that shall end, and how long it has for that.
LOOK, WITHIN = 0.5, 300.0


@dataclass(frozen=True, slots=True)
class Where:
    """The options of where a job is looked for, for `options.spread`."""

    to: words.To = None
    address: words.DashboardAddress = None
    context: words.Context = None
    namespace: words.KubeNamespace = None
    insecure: words.Insecure = False
    home: Place = HOME

    @property
    def target(self) -> Target | None:
        """What was said, also by an option that only one target has."""
        if self.to is not None:
            return self.to
        if self.address is not None:
            return Target.JOBS
        return Target.KUBERAY if self.namespace or self.context else None

    def of(self, name: str) -> Record | None:
        """The job of that name, by what was said, else by what `submit` has kept; None: nothing is known."""
        from hpsearch.ship import records

        kept = records.find(self.home, name)
        if kept is not None and self.target in (None, kept.target):
            return records.Record(
                name,
                kept.target,
                kept.study,
                kept.home,
                address=self.address or kept.address,
                namespace=self.namespace or kept.namespace,
                context=self.context or kept.context,
                job=kept.job,
            )
        if self.target in (Target.JOBS, Target.KUBERAY):
            place = (self.address or "", self.namespace or "", self.context or "")
            return records.Record(name, self.target, "", "", *place)
        if self.target is not None:
            raise UsageError(
                f"no job {name!r} was submitted to {self.target} from {self.home}",
                hint="`hpsearch status` lists those that were; see --home",
            )
        return None

    def to_stop(self, name: str, studies: Home) -> Record | None:
        """The same for what shall end; None: a study here. Raises UsageError where a name means two."""
        from hpsearch.ship import records

        kept = records.find(self.home, name)
        if self.target is Target.LOCAL and (kept is None or kept.target is not Target.LOCAL):
            return None
        record = self.of(name)
        if record is None or self.target is not None or record.target is Target.LOCAL:
            return record
        same = record.study == name and record.home == str(self.home.absolute())
        if studies.holds(name) and not same:
            raise UsageError(
                f"{name!r} is a study here, and a job of {record.target}",
                hint=f"say which: --to local, or --to {record.target}",
            )
        return record

    def jobs(self, record: Record) -> Any:
        """The Ray of a job."""
        return submit_targets.jobs_of(record.address or None, insecure=self.insecure, patient=False)

    def client(self, record: Record) -> Any:
        """The cluster of a RayJob."""
        return submit_targets.client_of(record.namespace or None, record.context or None)


@options.spread
def status(*, name: words.JobMaybe = None, where: Where, as_json: AsJson = False) -> None:
    """Show how a job is that was submitted, or all of them: those of this home, of a Ray or a namespace.

    A name that nothing was kept of is looked for among the RayJobs of kubectl's cluster.
    """
    from hpsearch.show import jobs

    with options.console(as_json) as console:
        if name is not None:
            answer = _status(where, where.of(name) or _rayjob(where, name))
            if as_json:
                console.json(answer)
            else:
                for line in jobs.facts(answer):
                    console.told(line)
            return
        answers, errors = _all(where)
        for error in errors:
            console.error(error)
        if as_json:
            console.json({"home": str(where.home.absolute()), "jobs": answers})
            return
        for line in jobs.table(answers) or ["no jobs"]:
            console.told(line)


@options.spread
def logs(*, name: words.JobName, follow: words.Follow = False, where: Where) -> None:
    """Print what the driver of a job has printed; a stream that drops is opened again where it was."""
    with options.console(False) as console, interruptible("the job goes on"):
        write = Lines(console)
        for text in _logs(where, where.of(name) or _rayjob(where, name), follow):
            write(text)
        write.close()


def stopped(where: Where, record: Record, within: float) -> Json:
    """End a job elsewhere, and wait until it has ended. Raises Interrupted if that takes too long."""
    from hpsearch.ship.slurm_jobs import SlurmJob

    began = time.monotonic()
    if record.target is Target.KUBERAY:
        from hpsearch.ship import rayjobs

        gone = rayjobs.stop(where.client(record), record.name, within)
        return {"name": gone.name, "target": "kuberay", "cluster": gone.cluster, "seconds": gone.seconds}
    if record.target is Target.JOBS:
        jobs = where.jobs(record)
        found = jobs.get(record.name)
        if not found.is_final:
            jobs.stop(record.name)
        _until(lambda: jobs.get(record.name).is_final, record.name, began + within)
    else:
        job = SlurmJob(record.name, Path(record.home) / ".slurm")
        for number in job.numbers():
            job.cancel(number)
        _until(lambda: not job.numbers(), record.name, began + within)
    return _status(where, record) | {"seconds": round(time.monotonic() - began, 3)}


def _until(ended: Callable[[], bool], name: str, deadline: float) -> None:
    while not ended():
        if time.monotonic() >= deadline:
            raise Interrupted(
                f"job {name} has not ended in time, though it was asked to",
                hint="ask again with a longer --within; what it has committed is safe whatever ends it",
            )
        time.sleep(LOOK)


def _status(where: Where, record: Record) -> Json:
    """The object of `status --json`, with the study, and its home where that is known."""
    its = {"study": record.study or None, "home": record.home or None}
    match record.target:
        case Target.JOBS:
            return its | _known(submit_targets.shown_job(where.jobs(record).get(record.name)))
        case Target.KUBERAY:
            from hpsearch.ship import rayjobs

            (life,) = rayjobs.status(where.client(record), record.name)
            return its | _known(_life(life))
        case Target.SLURM:
            from hpsearch.ship import slurm_jobs

            job = slurm_jobs.SlurmJob(record.name, Path(record.home) / slurm_jobs.DIRECTORY)
            return its | slurm_jobs.shown(job, record.job)
        case _:
            from hpsearch.ship import local_jobs

            return its | local_jobs.shown(local_jobs.LocalJob(Path(record.home), record.name))


def _known(answer: Json) -> Json:
    """An answer that hides nothing of what is known otherwise: a job that others made may name no study."""
    return {key: value for key, value in answer.items() if key != "study" or value}


def _all(where: Where) -> tuple[list[Json], list[HpsearchError]]:
    """All jobs of the place that was named, else all that were submitted from here; who did not answer."""
    from hpsearch.ship import rayjobs, records
    from hpsearch.ship.api import Gone

    if where.target is Target.KUBERAY:
        client = submit_targets.client_of(where.namespace, where.context)
        return [_life(life) for life in rayjobs.status(client)], []
    if where.target is Target.JOBS:
        jobs = submit_targets.jobs_of(where.address, insecure=where.insecure, patient=False)
        return [submit_targets.shown_job(job) for job in jobs.list()], []
    answers, errors = [], []
    for record in records.kept(where.home):
        if where.target in (None, record.target):
            try:
                answers.append(_status(where, record))
            except Gone:
                # Deleted, as `stop` does, or its time after its end is over: nothing to worry about.
                answers.append(
                    _unknown(record, "GONE", "its place has forgotten it; submit it again to go on")
                )
            except HpsearchError as error:
                errors.append(error)
                answers.append(_unknown(record, "UNKNOWN", redact(error.message)))
    return answers, errors


def _unknown(record: Record, state: str, reason: str) -> Json:
    told = {"name": record.name, "target": str(record.target), "study": record.study, "home": record.home}
    return told | {"job_status": state, "reason": reason, "final": None, "outcome": None, "exit_code": None}


def _logs(where: Where, record: Record, follow: bool) -> Iterator[str]:
    match record.target:
        case Target.JOBS:
            from hpsearch.ship.following import reread

            jobs = where.jobs(record)
            jobs.get(record.name)
            return reread(jobs, record.name) if follow else iter([jobs.logs(record.name)])
        case Target.KUBERAY:
            from hpsearch.ship import rayjobs

            lines = rayjobs.logs(where.client(record), record.name, follow=follow)
            return (f"{line}\n" for line in lines)
        case Target.SLURM:
            from hpsearch.ship import slurm_jobs

            job = slurm_jobs.SlurmJob(record.name, Path(record.home) / slurm_jobs.DIRECTORY)
            return job.lines(record.job, follow=follow)
        case _:
            from hpsearch.ship import local_jobs
            from hpsearch.ship.api import Time

            return local_jobs.LocalJob(Path(record.home), record.name).lines(Time(), follow=follow)


def _rayjob(where: Where, name: str) -> Record:
    """A RayJob of kubectl's own context; other jobs have a record, or their place is named."""
    from hpsearch.ship.kubectl import Kubectl
    from hpsearch.ship.records import Record, kept

    try:
        here = Kubectl.here()
    except UsageError as error:
        names = [each.name for each in kept(where.home)]
        near = difflib.get_close_matches(name, names, 1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise UsageError(
            f"no job {name!r} was submitted from here, and there is no cluster to ask for a RayJob",
            hint=f"{hint}name its place: --address URL, --namespace NAME, or the --home that it was "
            "submitted from; a study is shown by `hpsearch show`",
        ) from error
    return Record(name, Target.KUBERAY, "", "", namespace=here.namespace)


def _life(life: Any) -> Json:
    from hpsearch.ship import rayjobs

    return {**rayjobs.shown(life, datetime.now(UTC)), "target": "kuberay"}


def tell_stopped(console: Any, answer: Json, as_json: bool) -> None:
    """Say that a job has ended."""
    if as_json:
        console.json(answer)
    else:
        console.told(f"job {answer['name']}: ended after {answer['seconds']:.1f} s")
