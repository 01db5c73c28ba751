"""What an unmodified program of the services is told: its command line, environment and directories.

Sources: the services' REST references and samples; where they are silent, the simplest that trainers take.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from hpsearch.run import ranks
from hpsearch.spec.model import Program
from hpsearch.spec.texts import text_of
from hpsearch.study.trial import Launch

INTERPRETERS = frozenset({"python", "python3"})
OUTPUTS = {
    "AIP_MODEL_DIR": "model",
    "AIP_CHECKPOINT_DIR": "checkpoints",
    "AIP_TENSORBOARD_LOG_DIR": "logs",
}
# The umask of whoever started hpsearch, as octal digits: its own files are for their owner only, a program's
# are as that user wants them.
UMASK = "HPSEARCH_UMASK"
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
    others = launch.program.command[1:] if launch.program.command else ("-m", launch.module)
    return [_first_word(launch.program), *others, *arguments(launch)]


def find_command(program: Program, directory: Path | None, base: Mapping[str, str]) -> str | None:
    """The file that a program's command runs, where its environment is that of `base`; None if there is none.

    A path with a slash is one from the directory where the program starts. Without `directory`, that is a new
    one for each trial: nothing is in it, and what a path that leads out of it means is not known yet.
    """
    word = _first_word(program)
    if os.sep not in word or Path(word).is_absolute():
        return shutil.which(word, path=_path({**base, **dict(program.env)}))
    if directory is not None:
        return shutil.which(str(directory / word))
    return word if os.path.normpath(word).startswith(os.pardir) else None


def _first_word(program: Program) -> str:
    word = program.command[0] if program.command else "python"
    return sys.executable if word in INTERPRETERS else word


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
    return shared_directory(launch.program, launch.python_path) or launch.context.directory


def shared_directory(program: Program, python_path: Sequence[str]) -> Path | None:
    """Where all trials of a program start; None if each starts in its own directory."""
    if program.own_directory:
        return None
    driver = Path(python_path[0]) if python_path else Path.cwd()
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
        **ranks.environment(launch.team),
    }
    if launch.program.region:
        found["CLOUD_ML_REGION"] = launch.program.region
    found["PYTHONPATH"] = os.pathsep.join([*launch.python_path, *filter(None, [found.get("PYTHONPATH")])])
    found["PATH"] = _path(found)
    # Of a job that hpsearch itself runs in, whose trial it names; of hpsearch itself.
    for name in ("CLUSTER_SPEC", UMASK):
        found.pop(name, None)
    return found


def _tf_config(launch: Launch) -> str:
    """The cluster, which is empty, the job and the trial; without a job that is too long for a variable."""
    task = {"cluster": {}, "environment": "cloud", "task": {"index": 0, "trial": trial_id(launch)}}
    whole = json.dumps({**task, "job": json.loads(launch.program.job)})
    return whole if len(whole) < LONGEST_VARIABLE else json.dumps({**task, "job": {}})


def _path(environment: Mapping[str, str]) -> str:
    """PATH with this interpreter's commands first, so that `torchrun` is the one of this environment."""
    inherited = environment.get("PATH", os.defpath)
    own = str(Path(sys.executable).parent)
    return inherited if inherited.split(os.pathsep)[0] == own else f"{own}{os.pathsep}{inherited}"
