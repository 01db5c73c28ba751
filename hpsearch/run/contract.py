"""What an unmodified program of the services is told: its command line, environment and directories.

Sources: the services' REST references and samples; where they are silent, the simplest that trainers take.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from hpsearch.spec.texts import text_of
from hpsearch.study.trial import Launch

INTERPRETERS = frozenset({"python", "python3"})
OUTPUTS = {
    "AIP_MODEL_DIR": "model",
    "AIP_CHECKPOINT_DIR": "checkpoints",
    "AIP_TENSORBOARD_LOG_DIR": "logs",
}
LONGEST_VARIABLE = 120_000  # bytes; Linux takes 128 KiB with the name
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def trial_id(launch: Launch) -> str:
    """The services count trials from 1."""
    return str(launch.context.number + 1)


def arguments(launch: Launch) -> list[str]:
    """The user's, then `--job-dir`, then the tuned ones: of two equal names, parsers take the last."""
    directory = job_directory(launch)
    tuned = [f"--{name}={text_of(value)}" for name, value in launch.params.items()]
    return [*launch.args, *(["--job-dir", directory] if directory else []), *tuned]


def command(launch: Launch) -> list[str]:
    """The whole command line; `python` is the interpreter that runs this."""
    words = list(launch.program.command) or ["python", "-m", launch.module]
    if words[0] in INTERPRETERS:
        words[0] = sys.executable
    return words + arguments(launch)


def job_directory(launch: Launch) -> str | None:
    """The trial's own below `--job-dir`; None where none is set."""
    base = launch.program.job_dir
    return f"{base.rstrip('/')}/{trial_id(launch)}" if base else None


def output_directory(launch: Launch) -> str:
    """Where the AIP_* directories of the trial lie."""
    base = launch.program.output
    return f"{base.rstrip('/')}/{trial_id(launch)}" if base else str(launch.context.directory)


def local(directory: str) -> Path | None:
    """The path of a directory on this machine, None for one in a bucket (`gs://...`)."""
    return None if "://" in directory else Path(directory)


def working_directory(launch: Launch) -> Path:
    """The driver's, so that relative paths of data keep working, or the trial's own if that was asked for."""
    if launch.program.own_directory:
        return launch.context.directory
    driver = Path(launch.python_path[0]) if launch.python_path else Path.cwd()
    return driver if driver.is_dir() else Path.cwd()


def environment(launch: Launch, metric_file: Path, base: Mapping[str, str]) -> dict[str, str]:
    """The variables of a trial's program over those of `base`; the file's own win, but for the protocol's."""
    output, trial = output_directory(launch), trial_id(launch)
    cpus = str(max(1, int(launch.context.resources.cpu)))
    found = {
        **base,
        **dict.fromkeys(THREADS, cpus),
        # What a program prints must not die with it in a buffer.
        "PYTHONUNBUFFERED": "1",
        **{name: f"{output}/{below}/" for name, below in OUTPUTS.items()},
        **dict(launch.program.env),
        "CLOUD_ML_TRIAL_ID": trial,
        "CLOUD_ML_HP_METRIC_FILE": str(metric_file),
        "CLOUD_ML_HP_METRIC_TAG": launch.metric,
        "CLOUD_ML_JOB_ID": launch.study,
        "TF_CONFIG": _tf_config(launch),
    }
    if launch.program.region:
        found["CLOUD_ML_REGION"] = launch.program.region
    found["PYTHONPATH"] = os.pathsep.join([*launch.python_path, *filter(None, [found.get("PYTHONPATH")])])
    found["PATH"] = _path(found.get("PATH", os.defpath))
    # Of a job that hpsearch itself runs in: it names that job's trial.
    found.pop("CLUSTER_SPEC", None)
    return found


def _tf_config(launch: Launch) -> str:
    """The cluster, which is empty, the job and the trial; without a job that is too long for a variable."""
    task = {"cluster": {}, "environment": "cloud", "task": {"index": 0, "trial": trial_id(launch)}}
    whole = json.dumps({**task, "job": json.loads(launch.program.job)})
    return whole if len(whole) < LONGEST_VARIABLE else json.dumps({**task, "job": {}})


def _path(inherited: str) -> str:
    """PATH with this interpreter's commands first, so that `torchrun` is the one of this environment."""
    own = str(Path(sys.executable).parent)
    return inherited if inherited.split(os.pathsep)[0] == own else f"{own}{os.pathsep}{inherited}"
