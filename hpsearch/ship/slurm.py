"""An sbatch script: Ray over the nodes of a job, the driver on the first of them, requeued until it is done.

Pure: it makes a text. The result is taken from the driver's own status file, because what Ray's launchers
exit with says nothing (`ray symmetric-run` on three hosts exited 1 after success).
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from hpsearch.errors import UsageError

# Before its time is over a job hears of it (seconds); a driver needs 22 of them.
WARNING = 120
RESTARTS = 20
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
_TIME = re.compile(r"(\d+-)?\d{1,3}(:\d\d){0,2}")
_MEMORY = re.compile(r"\d+[KMGT]?")
_OPTION = re.compile(r"--[a-z][a-z-]*(=[^\s'\"]+)?")


@dataclass(frozen=True, slots=True)
class Allocation:
    """What a job asks for; `memory` and `time` as sbatch writes them, `options`: sbatch's --KEY=VALUE."""

    nodes: int = 1
    cpus: int = 4
    gpus: int = 0
    memory: str = "16G"
    time: str = "1-00:00:00"
    partition: str | None = None
    account: str | None = None
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Script:
    """One sbatch script. `command` are the words of the driver, but for where Ray and the status file are.

    `argument`: a variable that is the script's first argument; a word of the command may be `$argument`.
    `state`: a directory that all nodes share. `environment`: a file of NAME=VALUE lines, also there.
    """

    name: str
    command: tuple[str, ...]
    ray: str
    directory: Path
    state: Path
    allocation: Allocation = Allocation()
    environment: Path | None = None
    argument: str | None = None


def script(asked: Script) -> str:
    """The text of the script. Raises UsageError for what no directive can hold."""
    _check(asked)
    command = " ".join(
        f'"${asked.argument}"' if asked.argument and word == f"${asked.argument}" else shlex.quote(word)
        for word in asked.command
    )
    argument, environment = "", ""
    if asked.argument:
        argument = f'{asked.argument}=${{1:?"the {asked.argument} is missing: sbatch SCRIPT TIME"}}\n'
    if asked.environment:
        environment = f"set -a\n. {shlex.quote(str(asked.environment))}\nset +a\n"
    values = {
        "DIRECTIVES": "\n".join(f"#SBATCH {each}" for each in _directives(asked)),
        "ARGUMENT": argument,
        "ENVIRONMENT": environment,
        "DIRECTORY": shlex.quote(str(asked.directory)),
        "STATE": shlex.quote(str(asked.state)),
        "RAY": shlex.quote(asked.ray),
        "GPUS": str(asked.allocation.gpus),
        "RESTARTS": str(RESTARTS),
        "COMMAND": command,
    }
    return re.sub(r"@([A-Z]+)@", lambda found: values[found[1]], _SCRIPT)


def _directives(asked: Script) -> list[str]:
    wanted = asked.allocation
    found = [
        f"--job-name={asked.name}",
        f"--nodes={wanted.nodes}",
        "--ntasks-per-node=1",
        f"--cpus-per-task={wanted.cpus}",
        *([f"--gpus-per-node={wanted.gpus}"] if wanted.gpus else []),
        f"--mem={wanted.memory}",
        f"--time={wanted.time}",
        *([f"--partition={wanted.partition}"] if wanted.partition else []),
        *([f"--account={wanted.account}"] if wanted.account else []),
        "--requeue",
        "--open-mode=append",
        f"--signal=B:TERM@{WARNING}",
        f"--output={asked.state}/%x-%j.log",
    ]
    return [*found, *wanted.options]


def _check(asked: Script) -> None:
    wanted = asked.allocation
    if not _NAME.fullmatch(asked.name):
        raise UsageError(f"no job can be called {asked.name!r}", hint="letters, digits, '_', '-' and '.'")
    for value, form, option in (
        (wanted.time, _TIME, "--time-limit"),
        (wanted.memory, _MEMORY, "--memory"),
        (wanted.partition, _NAME, "--partition"),
        (wanted.account, _NAME, "--account"),
    ):
        if value is not None and not form.fullmatch(value):
            raise UsageError(f"{option} {value!r} is nothing that sbatch takes", hint="see `man sbatch`")
    for option in wanted.options:
        if not _OPTION.fullmatch(option):
            raise UsageError(f"--sbatch {option!r} is no option", hint="such as --sbatch=--qos=long")
    if wanted.nodes < 1 or wanted.cpus < 1 or wanted.gpus < 0:
        raise UsageError("a job needs a node and a CPU at least", hint="see --nodes and --cpus")
    # A directive is cut at a space, and has no quoting that all versions know.
    if not re.fullmatch(r"[^\s'\"%\\]+", str(asked.state)):
        raise UsageError(f"{asked.state} cannot stand in a directive", hint="use a path without spaces and %")


# Every line is for bash 4 and later; Slurm 20.11 and later.
_SCRIPT = r"""#!/bin/bash
@DIRECTIVES@
# Made by hpsearch. Requeued, it goes on in the same study: what ended is kept, the rest from checkpoints.
set -u -o pipefail
umask 077
@ARGUMENT@@ENVIRONMENT@cd @DIRECTORY@ || exit 2

job=$SLURM_JOB_ID
state=@STATE@
mkdir -p "$state" || exit 2
status=$state/$job.status.json
token=$state/$job.token
scratch=/tmp/hpsearch-$job
ray=@RAY@
restarts=${SLURM_RESTART_COUNT:-0}
# What an earlier run of this job said must not be taken for this one's.
rm -f "$status"

# Without a token whoever reaches Ray's ports runs code here.
head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n' >"$token" || exit 75
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$token RAY_USAGE_STATS_ENABLED=0
# Since Slurm 22.05 steps no longer take this over by themselves.
export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK

driver='' head_step='' worker_step='' told=''
# shellcheck disable=SC2329  # by the trap
on_term() {
  told=yes
  if [ -n "$driver" ]; then kill -TERM "$driver" 2>/dev/null; fi
}
trap on_term TERM

# Waits for a process of ours, also when a signal comes between.
finished() {
  local code=0
  wait "$1" || code=$?
  while kill -0 "$1" 2>/dev/null; do code=0; wait "$1" || code=$?; done
  return "$code"
}

# Ends what we started, by its number: no other Ray of this node is touched.
ended() {
  local step
  for step in "$worker_step" "$head_step"; do
    if [ -n "$step" ]; then kill -TERM "$step" 2>/dev/null; fi
  done
  for _ in {1..100}; do
    jobs -r -p | grep -q . || break
    sleep 0.1
  done
  for step in "$worker_step" "$head_step"; do
    if [ -n "$step" ]; then kill -KILL "$step" 2>/dev/null; fi
  done
  rm -f "$token"
  srun --overlap --ntasks-per-node=1 rm -rf "$scratch"
}
trap ended EXIT

again() {
  echo "hpsearch: job $job ends with $1 and is queued again (restart $restarts)"
  # Whoever cancels a job wants it gone.
  if scontrol show job "$job" | grep -q JobState=CANCELLED; then exit "$1"; fi
  if [ "$restarts" -ge @RESTARTS@ ]; then
    echo "hpsearch: job $job was started again $restarts times, that is enough" >&2
    exit "$1"
  fi
  ended
  trap - EXIT
  scontrol requeue "$job"
  exit "$1"
}

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
first=${nodes[0]:?no nodes}
# The first address that is not loopback; names may mean 127.0.1.1.
address=$(srun --overlap --nodes=1 --ntasks=1 --nodelist="$first" hostname -I | awk '{print $1; exit}')
[ -n "$address" ] || again 75
# Two jobs on one node must not meet: below 20000 are the workers of other Rays, from 32768 on what the
# system gives away, also to our workers. Ray does not start where its workers' range holds a port of its own.
port=$((20000 + job % 1000 * 10))

limits=(--num-cpus="$SLURM_CPUS_PER_TASK" --num-gpus=@GPUS@ --object-store-memory=268435456)
limits+=(--min-worker-port=0 --max-worker-port=0)
srun --overlap --nodes=1 --ntasks=1 --nodelist="$first" \
  "$ray" start --head --block --node-ip-address="$address" --port="$port" --temp-dir="$scratch" \
  --dashboard-host=127.0.0.1 --dashboard-port=$((port + 1)) --ray-client-server-port=$((port + 2)) \
  --dashboard-agent-listen-port=$((port + 3)) "${limits[@]}" &
head_step=$!
for _ in {1..1500}; do
  if (exec 3<>"/dev/tcp/$address/$port") 2>/dev/null; then break; fi
  kill -0 "$head_step" 2>/dev/null || again 69
  [ -z "$told" ] || again 75
  sleep 0.2
done

if [ "${#nodes[@]}" -gt 1 ]; then
  others=$((${#nodes[@]} - 1))
  # shellcheck disable=SC2016  # the address is each node's own
  srun --overlap --nodes=$others --ntasks=$others --ntasks-per-node=1 --exclude="$first" \
    bash -c 'exec "$@" --node-ip-address="$(hostname -I | awk "{print \$1; exit}")"' node \
    "$ray" start --block --address="$address:$port" --dashboard-agent-listen-port=$((port + 4)) \
    "${limits[@]}" &
  worker_step=$!
fi

[ -z "$told" ] || again 75
@COMMAND@ --address "$address:$port" --status-file "$status" &
driver=$!
finished "$driver"
code=$?
driver=''

# The driver's own word counts. One that was killed has said nothing but that it runs.
result=$(sed -n 's/^  "exit_code": \([0-9][0-9]*\),$/\1/p' "$status" 2>/dev/null)
if [ -z "$result" ]; then
  if [ -e "$status" ] || [ "$code" -eq 0 ] || [ "$code" -gt 128 ]; then result=75; else result=$code; fi
fi
case $result in
  69 | 73 | 75) again "$result" ;;
esac
exit "$result"
"""
