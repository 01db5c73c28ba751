"""Sweeps as Slurm's batch jobs: submitted once by name, followed by squeue, judged by our own status file."""

from __future__ import annotations

import getpass
import re
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hpsearch.errors import Interrupted, ServiceUnavailable, UsageError
from hpsearch.redaction import redact
from hpsearch.ship import schedule_apply, status_file
from hpsearch.ship.api import NoAnswer, Time
from hpsearch.ship.schedule import File

Json = dict[str, Any]
DIRECTORY = ".slurm"
# All in seconds. Between two looks; how long Slurm's controller may be silent; for one command.
LOOK, PATIENCE, ANSWER_WITHIN = 10.0, 600.0, 60.0
CHUNK = 1 << 16  # characters
_SILENT = re.compile(r"[Uu]nable to contact|timed out|[Cc]onnection refused|[Tt]ry again|Socket")


@dataclass(frozen=True, slots=True)
class SlurmJob:
    """A job by its name, of which Slurm may have many; `state` is a directory that all nodes share."""

    name: str
    state: Path
    clock: Time = field(default_factory=Time)

    def numbers(self) -> dict[str, str]:
        """The states of those that wait or run, by their numbers."""
        user = getpass.getuser()
        words = ["squeue", "--noheader", f"--user={user}", f"--name={self.name}", "--format=%A %T"]
        found = (line.split() for line in self._asked(words).splitlines())
        return {line[0]: line[1] for line in found if len(line) == 2}

    def submit(self, script: str) -> str:
        """Hand a script to Slurm; the number of its job."""
        self.state.mkdir(mode=0o700, parents=True, exist_ok=True)  # sbatch makes no directory
        file = File(f"{self.name}.sbatch", script, 0o700)
        schedule_apply.write(self.state, file)
        said = self._asked(["sbatch", "--parsable", str(self.state / file.name)])
        # A federation's cluster stands behind it.
        number = said.strip().splitlines()[-1].partition(";")[0] if said.strip() else ""
        if not number.isdigit():
            raise UsageError(f"sbatch said {redact(said.strip())[:200]!r} in place of a number")
        return number

    def facts(self, number: str) -> Json | None:
        """What the driver of a job says of itself; None before it says anything."""
        return status_file.read(self.state / f"{number}.status.json")

    def wait(self, number: str) -> int:
        """The exit code of a job's driver, once the job is gone from the queue; a requeued one is not."""
        while number in self.numbers():
            self.clock.sleep(LOOK)
        facts = self.facts(number)
        code = facts["exit_code"] if facts else None
        if isinstance(code, int):
            return code
        raise Interrupted(
            f"Slurm's job {number} is gone, and its driver has not said how it ended",
            hint=f"`sacct -j {number}` and {self.log(number)} say why; the same command goes on",
        )

    def cancel(self, number: str) -> None:
        """End a job; its study stays, and the same submission goes on with it."""
        self._asked(["scancel", number])

    def log(self, number: str) -> Path:
        """What a job prints."""
        return self.state / f"{self.name}-{number}.log"

    def lines(self, number: str, *, follow: bool) -> Iterator[str]:
        """What a job has printed, piece by piece; with `follow` also what it will print, to its end."""
        while not self.log(number).is_file():
            if not follow or number not in self.numbers():
                raise UsageError(f"Slurm's job {number} has printed nothing to {self.log(number)}")
            self.clock.sleep(LOOK)
        with self.log(number).open(encoding="utf-8", errors="replace") as file:
            while True:
                alive = follow and number in self.numbers()
                while text := file.read(CHUNK):
                    yield text
                if not alive:
                    return
                self.clock.sleep(LOOK)

    def _asked(self, words: Sequence[str]) -> str:
        """What a command of Slurm's says; a controller that is silent is asked again for a while."""
        began = self.clock.now()
        while True:
            try:
                return _run(words)
            except NoAnswer as error:
                if self.clock.now() - began >= PATIENCE:
                    raise ServiceUnavailable(
                        f"Slurm has not answered for {PATIENCE:g} s: {error}", hint="run it again later"
                    ) from error
                self.clock.sleep(LOOK)


def shown(job: SlurmJob, number: str) -> Json:
    """The object of `status --json`."""
    state, facts = job.numbers().get(number), job.facts(number) or {}
    ended = state is None
    return {
        "name": job.name,
        "target": "slurm",
        "job": number,
        "job_status": state or "ENDED",
        "reason": facts.get("reason"),
        "counts": facts.get("counts"),
        "final": ended,
        "outcome": (facts.get("outcome") or "unknown") if ended else None,
        "exit_code": facts.get("exit_code") if ended else None,
    }


def _run(words: Sequence[str]) -> str:
    try:
        done = subprocess.run(
            list(words),
            capture_output=True,
            text=True,
            timeout=ANSWER_WITHIN,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except FileNotFoundError:
        raise UsageError(
            f"there is no {words[0]} here", hint="submit from a machine that has Slurm's commands"
        ) from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoAnswer(f"{words[0]}: {error}") from error
    if done.returncode:
        said = redact((done.stderr.strip() or done.stdout.strip() or "no reason given")[:500])
        if _SILENT.search(said):
            raise NoAnswer(said)
        raise UsageError(f"`{words[0]}` failed with {done.returncode}: {said}")
    return done.stdout
