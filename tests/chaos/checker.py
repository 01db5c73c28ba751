"""What must hold of a simulated study after any kills: the invariants, each a line when it is broken."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import scenes
from mlflow_double import StoredRun
from simulation import FINAL, NAME, World

from hpsearch.errors import HpsearchError
from hpsearch.study.front import best_of
from hpsearch.study.history import History
from hpsearch.study.home import Home
from hpsearch.study.launching import trial_key
from hpsearch.study.pruning import make_pruner
from hpsearch.study.sampling import OptunaSampler
from hpsearch.study.search import Search
from hpsearch.study.trial import State, Trial
from hpsearch.track.rows import STATUS, STUDY_STATUS, STUDY_UID, TRIAL_UID, clean_name, is_parent


@dataclass(frozen=True, slots=True)
class Reference:
    """What an uninterrupted life leaves: its exit code, its table, and what the server says."""

    code: int
    table: str
    server: str
    trials: int


def reference_of(world: World, code: int) -> Reference:
    """The study that others must equal, itself checked, and not empty."""
    history = Home(world.home).history(NAME)
    assert len(history.trials) == world.scene.trials, "a reference of fewer trials shows nothing"
    assert sum(len(trial.measurements) for trial in history.trials) > world.scene.trials
    return Reference(code, table(history, world), projection(world), len(history.trials))


def table(history: History, world: World) -> str:
    """A study's final table as text: all of it but attempts, and but times where its clock jumps."""
    jumps = world.scene.jumps
    rows = [json.dumps(_row(trial, jumps), sort_keys=True) for trial in history.trials]
    ending = history.last_ending
    assert ending is not None
    return "\n".join([*rows, f"{ending.outcome} {ending.reason} {0 if jumps else ending.time}"])


def _row(trial: Trial, jumps: bool) -> dict[str, Any]:
    ending = trial.ending
    assert ending is not None, f"trial {trial.number} has no ending"
    return {
        "number": trial.number,
        "uid": trial.uid,
        "params": dict(trial.params),
        "created": 0 if jumps else trial.created,
        "measured": [[m.step, dict(m.metrics), 0 if jumps else m.time] for m in trial.measurements],
        "state": ending.state,
        "reason": ending.reason,
        "ended": 0 if jumps else ending.time,
    }


def projection(world: World) -> str:
    """What the server shows of each trial, and of the study, as text."""
    jumps = world.scene.jumps
    shown = {}
    for run in world.server.active():
        uid = run.tags.get(TRIAL_UID, "study")
        points = [[*point[:2], 0 if jumps else point[2], point[3]] for point in sorted(run.points)]
        tags = {name: run.tags.get(name) for name in ("state", "reason", "step", "best_trial")}
        times = None if jumps else [run.created, run.ended]
        shown[uid] = [run.name, run.status, times, sorted(run.params.items()), points, tags]
    return json.dumps(shown, sort_keys=True)


def violations(world: World, code: int, reference: Reference) -> list[str]:
    """What is wrong with a study that has come to its end, a line for each thing."""
    try:
        history = world.history or Home(world.home).history(NAME)
    except HpsearchError as error:
        return [f"I2: the store cannot be read: {error}"]
    found: list[str] = []
    for part in (_ends, _store, _tracking, _ledger, _views, _epochs, _files):
        found += part(world, history, reference)
    if code != reference.code or code not in FINAL:
        found.append(f"I9: exit code {code} where an uninterrupted study has {reference.code}")
    return found


def _ends(world: World, history: History, reference: Reference) -> Iterator[str]:
    """I1: what was acknowledged is there, and all is as if nothing had happened."""
    known = {trial.number: trial for trial in history.trials}
    for number, ending in world.witness.endings.items():
        there = known[number].ending if number in known else None
        if there != ending:
            yield f"I1: trial {number} was acknowledged as {ending}, and is {there}"
    for number, params in world.witness.suggested.items():
        if number not in known or dict(known[number].params) != params:
            yield f"I1: trial {number} was launched with {params}, which the store does not have"
    if open_ones := [trial.number for trial in history.trials if trial.ending is None]:
        yield f"I1: the trials {open_ones} have not ended"
        return
    for mine, theirs in zip(table(history, world).splitlines(), reference.table.splitlines(), strict=False):
        if mine != theirs:
            yield f"I1: the table says\n  {mine}\nwhere it should\n  {theirs}"
            return


def _store(world: World, history: History, reference: Reference) -> Iterator[str]:
    """I2: as many trials as there should be, each once; numbers without gaps and checksums, by reading it."""
    if len(history.trials) != reference.trials:
        yield f"I2: {len(history.trials)} trials where {reference.trials} were asked for"
    if len({trial.uid for trial in history.trials}) != len(history.trials):
        yield "I2: two trials have one uid"
    with closing(sqlite3.connect(world.directory / "study.db")) as connection:
        verdict = connection.execute("PRAGMA integrity_check").fetchone()[0]
        if verdict != "ok":
            yield f"I2: SQLite says {verdict}"


def _tracking(world: World, history: History, reference: Reference) -> Iterator[str]:
    """I3: one parent, one run for each trial with its very series, nothing that still runs."""
    runs = world.server.active()
    parents = [run for run in runs if is_parent(run.tags)]
    children: dict[str, list[StoredRun]] = {}
    for run in runs:
        if TRIAL_UID in run.tags:
            children.setdefault(run.tags[TRIAL_UID], []).append(run)
    if len(parents) != 1 or parents[0].tags.get(STUDY_UID) != history.study.uid:
        yield f"I3: {len(parents)} parent runs"
        return
    yield from _told(parents[0], STUDY_STATUS[history.last_ending.outcome] if history.last_ending else "")
    for trial in history.trials:
        found = children.pop(trial.uid, [])
        if len(found) != 1:
            yield f"I3: {len(found)} runs of trial {trial.number}"
            continue
        yield from _told(found[0], STATUS[trial.state])
        wanted = {
            (clean_name(name), m.step, m.time, repr(value))
            for m in trial.measurements
            for name, value in m.metrics.items()
        }
        if set(found[0].points) != wanted:
            apart = sorted(set(found[0].points) ^ wanted)[:3]
            yield f"I3: the series of trial {trial.number} is not the store's: {apart}"
    if children:
        yield f"I3: runs of nobody: {sorted(children)}"
    if projection(world) != reference.server:
        yield "I3: the server does not say what it says of an uninterrupted study"


def _told(run: StoredRun, status: str) -> Iterator[str]:
    if run.status != status:
        yield f"I3: run {run.name} is {run.status}, not {status}"
    doubles = [key for key, n in Counter((name, step) for name, step, *_ in run.points).items() if n > 1]
    if doubles:
        yield f"I3: run {run.name} has several points for {doubles[:3]}"


def _ledger(world: World, history: History, reference: Reference) -> Iterator[str]:
    """I4: an attempt trains at most one interval again, and what was measured was trained."""
    trained: dict[int, set[int]] = {}
    again: Counter[tuple[int, int]] = Counter()
    for line in (world.root / "ledger").read_text().splitlines():
        number, attempt, step = map(int, line.split())
        again[number, attempt] += step in trained.setdefault(number, set())
        trained[number].add(step)
    for (number, attempt), steps in again.items():
        if steps > 1 + world.witness.refused:
            yield f"I4: attempt {attempt} of trial {number} trained {steps} steps again"
    lives = len(world.witness.exits) + world.witness.kills - 1
    if again.total() > (lives + world.witness.refused) * world.scene.parallel:
        yield f"I4: {again.total()} steps were trained again after {lives} lives"
    for trial in history.trials:
        missing = [m.step for m in trial.measurements if m.step not in trained.get(trial.number, set())]
        if missing:
            yield f"I4: trial {trial.number} measured the steps {missing}, which nobody trained"


def _views(world: World, history: History, reference: Reference) -> Iterator[str]:
    """I6, I7: what the sampler and the pruner of the last life hold is what the store tells a new one."""
    if world.search is None or not world.search.trials:
        return  # its last life found everything done
    spec = scenes.spec_of(world.scene)
    sampler, pruner = OptunaSampler(spec), make_pruner(spec)
    fresh = Search(history.study, sampler, pruner, _Nothing())
    fresh.restore(history.trials, history.attributes)
    if _optuna(sampler) != _optuna(world.sampler):
        yield "I6: the sampler holds what a sampler made from the store does not"
    if _state(pruner) != _state(world.pruner):
        yield "I7: the pruner holds what a pruner made from the store does not"
    if fresh.counts() != world.search.counts():
        yield f"I6: the search counts {world.search.counts()}, the store says {fresh.counts()}"


class _Nothing:
    def commit(self, entries: object) -> None:
        raise AssertionError("a fold commits nothing")


def _optuna(sampler: Any) -> list[object]:
    return [
        (t.number, t.state, repr(t.values), t.params, repr(sorted(t.intermediate_values.items())))
        for t in sampler._study.get_trials(deepcopy=False)
    ]


def _state(pruner: Any) -> str:
    """All that a rule remembers, in the order of its keys."""
    if isinstance(pruner, dict):
        return repr(sorted((repr(key), _state(value)) for key, value in pruner.items()))
    if isinstance(pruner, list | tuple):
        return repr([_state(value) for value in pruner])
    slots = [name for kind in type(pruner).__mro__ for name in getattr(kind, "__slots__", ())]
    kept = getattr(pruner, "__dict__", None) or {name: getattr(pruner, name) for name in slots}
    if type(pruner).__module__.startswith("hpsearch.study") and kept:
        # Medians that were looked up are no facts; the order of endings says nothing to a median.
        return repr(
            sorted((name, _sorted(name, value)) for name, value in kept.items() if name != "_medians")
        )
    return repr(pruner)


def _sorted(name: str, value: Any) -> str:
    return repr(sorted(map(_state, value))) if name == "_completed" else _state(value)


def _epochs(world: World, history: History, reference: Reference) -> Iterator[str]:
    """I8: attempts carry epochs that only grow, none above that of the lease."""
    with closing(sqlite3.connect(world.directory / "study.db")) as connection:
        rows = connection.execute("SELECT trial, number, epoch, lsn FROM attempt ORDER BY lsn").fetchall()
    if not rows:
        yield "I8: no attempts"
    last = 0
    for trial, number, epoch, lsn in rows:
        if not last <= epoch <= history.epoch:
            yield f"I8: attempt {number} of trial {trial} (lsn {lsn}) has epoch {epoch} after {last}"
        last = max(last, epoch)


def _files(world: World, history: History, reference: Reference) -> Iterator[str]:
    """F03, I11: each checkpoint has its row, the best trial has one; nothing lies outside of the study."""
    around = {path.name for place in (world.root, world.home) for path in place.iterdir()}
    if around != {"ledger", "studies", NAME}:
        yield f"I11: beside the study there are {sorted(around)}"
    best = best_of(history.trials, history.study)
    for trial in history.trials:
        directory = world.directory / trial_key(trial.number)
        names = {f"checkpoints/{path.name}" for path in (directory / "checkpoints").glob("*")}
        known = {each.name: each.sha256 for each in trial.checkpoints}
        # One that a trial wrote while it was being pruned is swept at the next start, which may never come.
        late = f"checkpoints/step-{trial.step or 0:08d}-attempt-{len(trial.attempts)}.pt"
        allowed = {late} if world.together and trial.state is State.PRUNED else set()
        if strays := sorted(names - known.keys() - allowed):
            yield f"F03: trial {trial.number} has the files {strays} without rows"
        for name in names & known.keys():
            if hashlib.sha256((directory / name).read_bytes()).hexdigest() != known[name]:
                yield f"F42: {name} of trial {trial.number} is not what its row says"
        if trial is best and known and not names and not world.witness.refused:
            yield f"R21: the best trial, {trial.number}, has no checkpoint left"
