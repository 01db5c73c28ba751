"""The command `submit`: a sweep handed to another place, once; and the submitter's pod of a RayJob."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from hpsearch.cli import options, shipping, submit_targets
from hpsearch.cli import schedule_words as slurm_words
from hpsearch.cli import submit_words as words
from hpsearch.cli.interrupting import interruptible
from hpsearch.cli.options import HOME, AsJson, Deadline, Local, Place, StartTimeout, TrackingUri
from hpsearch.errors import UsageError
from hpsearch.redaction import redact
from hpsearch.ship.choices import Target

if TYPE_CHECKING:
    from hpsearch.show.console import Console


@options.spread
def submit(
    *,
    sweep: words.Words = None,
    to: words.To = None,
    address: words.DashboardAddress = None,
    wait: words.Waiting = False,
    dry_run: words.DryRun = False,
    as_submitter: words.AsSubmitter = False,
    submission_id: words.SubmissionId = None,
    insecure: words.Insecure = False,
    study: shipping.StudyName = None,
    home: Place = HOME,
    cluster_home: words.ClusterHome = None,
    working_dir: words.WorkingDir = None,
    local: Local = False,
    tracking_uri: TrackingUri = None,
    deadline: Deadline = None,
    start_timeout: StartTimeout = None,
    webhook_env: words.WebhookEnv = None,
    env_file: words.EnvFile = None,
    machines: slurm_words.Machines,
    image: words.Image = None,
    context: words.Context = None,
    namespace: words.KubeNamespace = None,
    platform: shipping.Platform,
    webhook_secret: shipping.WebhookSecret = None,
    as_json: AsJson = False,
) -> None:
    """Hand a sweep to a Ray cluster, Kubernetes, Slurm or the background of this machine, once.

    The job is named by the sweep and a hash of its file: asked again, the command finds it and goes on with
    it; one that ended before its study was done runs again, and its study goes on.

    Exit codes with --wait: 0 succeeded; 2 refused or invalid; 3 failed or stopped; 4 a deadline; 69 nobody
    answers; 75 interrupted, or lost before its end; a failed driver's own code where that is one of these.
    """
    with options.console(as_json, patient=False) as console:
        if as_submitter:
            if as_json:
                raise UsageError("--json is not for a submitter, whose stdout is the driver's log")
            _as_submitter(console, address, submission_id, sweep or [], insecure=insecure)
            return
        if to is None:
            raise UsageError("--to is missing", hint=f"where to: --to {'|'.join(Target)}")
        _refuse_strangers(
            to,
            {
                Target.JOBS: {
                    "--address": address,
                    "--cluster-home": cluster_home,
                    "--working-dir": working_dir,
                    "--insecure": insecure,
                },
                Target.LOCAL: {"--local": local},
                Target.SLURM: {
                    "--env-file": env_file,
                    "--partition": machines.partition,
                    "--account": machines.account,
                    "--sbatch": machines.sbatch,
                },
                Target.KUBERAY: {
                    "--context": context,
                    "--namespace": namespace,
                    "--kueue": platform.kueue,
                    "--kueue-priority": platform.kueue_priority,
                    "--group": platform.group,
                    "--store-secret": platform.store_secret,
                    "--mlflow-secret": platform.mlflow_secret,
                    "--webhook-secret": webhook_secret,
                    "--storage-secret": platform.storage_secret,
                },
            },
        )
        if to is Target.KUBERAY and start_timeout is not None:
            raise UsageError("--start-timeout is not for a RayJob, whose pods have half an hour to come")
        if to is Target.KUBERAY and webhook_env is not None:
            raise UsageError("--webhook-env is not for a RayJob", hint="leave it out for --webhook-secret")
        asked = replace(
            _asked(sweep or [], study, home),
            wait=wait,
            dry_run=dry_run,
            deadline=deadline,
            start_timeout=start_timeout,
            tracking_uri=tracking_uri,
            webhook_env=webhook_env,
            storage=_storage(to, platform.storage),
        )
        write = None if as_json else Lines(console)
        with interruptible("what was submitted goes on"):
            match to:
                case Target.JOBS:
                    done = submit_targets.to_jobs(
                        asked, console, address, cluster_home, working_dir, write, insecure=insecure
                    )
                case Target.KUBERAY:
                    wishes = platform.wishes(
                        image,
                        namespace=namespace or "",
                        webhook_secret=webhook_secret,
                        tracking_uri=tracking_uri,
                        deadline=deadline,
                    )
                    done = submit_targets.to_kuberay(asked, console, wishes, context)
                case Target.SLURM:
                    done = submit_targets.to_slurm(asked, console, machines.allocation(), env_file)
                case Target.LOCAL:
                    done = submit_targets.to_local(asked, console, write, without_ray=local)
        _tell(console, done, write, dry_run=dry_run, as_json=as_json)
    raise typer.Exit(done.code)


def _storage(to: Target, given: str | None) -> str | None:
    """Where trials keep their files, as the target's machines read it."""
    from hpsearch.study import storage

    if not given:
        return None
    return storage.parse(given) if to in (Target.LOCAL, Target.SLURM) else storage.parse_elsewhere(given)


def _refuse_strangers(to: Target, given: Mapping[Target, Mapping[str, object]]) -> None:
    """Raise UsageError for an option that means something for another target only."""
    for target, options_of in given.items():
        for option, value in options_of.items():
            if value and target is not to:
                raise UsageError(f"{option} is for --to {target}, and this is --to {to}", hint="leave it out")


def _tell(
    console: Console, done: submit_targets.Submitted, write: Lines | None, *, dry_run: bool, as_json: bool
) -> None:
    if write:
        write.close()
    if as_json:
        console.json(done.answer)
    elif dry_run:
        options.write_out(done.said if done.said.endswith("\n") else f"{done.said}\n", "it")
    else:
        console.told(done.said)


class Lines:
    """Prints a driver's log as it comes, line by line, without secrets."""

    def __init__(self, console: Console) -> None:
        self._console, self._rest = console, ""

    def __call__(self, text: str) -> None:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._console.told(redact(line.expandtabs()))

    def close(self) -> None:
        """Print a last line that has no end."""
        if self._rest:
            self("\n")


def _asked(sweep: list[str], study: str | None, home: Path) -> submit_targets.Asked:
    from hpsearch.ship.records import job_name
    from hpsearch.study.birth import check_name

    if len(sweep) != 1:
        raise UsageError(
            f"submit takes one search-space file, and was given {len(sweep)} words",
            hint="`hpsearch submit FILE --to jobs`; with --as-submitter: `-- COMMAND OF THE DRIVER`",
        )
    spec = shipping.valid(Path(sweep[0]))
    name = job_name(spec, study)
    check_name(study or name)
    return submit_targets.Asked(
        spec=spec,
        name=name,
        study=study or name,
        home=home.absolute(),
        directory=Path.cwd(),
    )


def _as_submitter(
    console: Console, address: str | None, name: str | None, command: list[str], *, insecure: bool
) -> None:
    """Hand a RayJob's entrypoint to its Ray and wait for its end, which is no error however it is."""
    from hpsearch.ship import jobs
    from hpsearch.ship.following import Follower, LogCopy

    if not (address and name and command):
        raise UsageError(
            "a submitter needs --address, --submission-id and the driver's command",
            hint="submit --wait --as-submitter --address URL --submission-id ID -- hpsearch run FILE ...",
        )
    wanted = jobs.Submission(name, shlex.join(command))
    with interruptible(f"job {name} goes on"):
        client = submit_targets.jobs_of(address, insecure=insecure, patient=True)
        client.wait_for_ray()
        follower = Follower(client, name, lambda: client.submit(wanted), console.note)
        follower.start()
        write = Lines(console)
        ended = follower.end(LogCopy(client, name, write))
        write.close()
    code = "" if ended.exit_code is None else f", exit code {ended.exit_code}"
    console.note(f"job {name} ended: {ended.status}{code}")
