"""What changed since the last tick of a schedule: the best then and now, and the noise to hold against it.

Pure: facts in, findings out. The noise between seeds is measured where the same params were tried with more
than one seed: each trial has a seed of its own, and a parameter that is called a seed is one too. Where there
is no such thing the noise is not known, and nothing is called better or worse: two numbers do not say so.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from hpsearch.spec.model import Objective, Params, Spec
from hpsearch.study.edits import classify
from hpsearch.study.front import costs
from hpsearch.study.history import History
from hpsearch.study.trial import State, Trial
from hpsearch.train import code

# A difference counts that chance alone would show in one of twenty comparisons.
CONFIDENCE = 0.95
# Fields of a Spec with which a value is another quantity.
QUESTION = ("objectives", "constraints", "selection", "max_steps")
# Parameters that change nothing but what is drawn.
SEEDS = ("seed", "random_seed", "rng_seed", "random_state")


class Verdict(StrEnum):
    """What two bests say together."""

    BETTER = "better"
    WORSE = "worse"
    SAME = "same"  # not one digit differs
    NOISE = "within noise"
    UNKNOWN = "noise unknown"
    NOTHING = "nothing to compare"


@dataclass(frozen=True, slots=True)
class Best:
    """The best safe completed trial by one objective."""

    trial: int
    value: float
    step: int
    params: Params


@dataclass(frozen=True, slots=True)
class Noise:
    """The standard deviation between seeds, pooled over the params that were tried more than once.

    `params`: how many those are, `trials` of how many trials; `degrees` of freedom are what the rest leaves.
    """

    deviation: float
    params: int
    trials: int

    @property
    def degrees(self) -> int:
        """How much is known of the deviation: two trials of the same params tell it badly."""
        return self.trials - self.params

    @property
    def band(self) -> float:
        """A difference of two single values that chance alone rarely passes (Student's t)."""
        from scipy.special import stdtrit

        quantile = float(stdtrit(self.degrees, 0.5 + CONFIDENCE / 2))
        return quantile * math.sqrt(2) * self.deviation


@dataclass(frozen=True, slots=True)
class Compared:
    """One objective of two ticks."""

    metric: str
    goal: str
    then: Best | None
    now: Best | None
    noise: Noise | None
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Repeated:
    """Trials that both ticks ran with the same params and the same seed, and how many gave another value.

    What differs there is none of chance: code, data, versions or machines do.
    """

    trials: int
    differ: int
    furthest: float


@dataclass(frozen=True, slots=True)
class Changes:
    """Two ticks of one schedule; `changed`: what their files and their code say otherwise, in words."""

    then: str
    now: str
    compared: tuple[Compared, ...]
    changed: tuple[str, ...] = ()
    repeated: Repeated | None = None

    def to_json(self) -> dict[str, Any]:
        """The findings as JSON types."""
        answer = asdict(self)
        for given, each in zip(answer["compared"], self.compared, strict=True):
            given["verdict"] = str(each.verdict)
            if each.noise:
                given["noise"] |= {"degrees": each.noise.degrees, "band": each.noise.band}
        answer["compared"] = list(answer["compared"])
        answer["changed"] = list(self.changed)
        return answer

    def lines(self) -> list[str]:
        """The findings in words, one line each."""
        said = [line for each in self.compared for line in _lines(each, self.then)]
        if self.repeated:
            said.append(_repeated(self.repeated))
        return said + [f"changed since then: {each}" for each in self.changed]


def changes(then: History, now: History) -> Changes:
    """What became of a schedule from one tick to another."""
    old, new = then.study.spec, now.study.spec
    alike = all(getattr(old, name) == getattr(new, name) for name in QUESTION)
    repeated = _again(then, now, new.objective) if alike else None
    steady = repeated is not None and not repeated.differ
    compared = tuple(_compared(each, then, now, alike, steady) for each in new.objectives)
    changed = [str(each) for each in classify(old, new).differences]
    if then.revisions and now.revisions:
        changed += code.changes(then.revisions[-1].code, now.revisions[-1].code)
    return Changes(then.study.name, now.study.name, compared, tuple(changed), repeated)


def noise_of(objective: Objective, then: History, now: History, *, steady: bool = False) -> Noise | None:
    """The noise between seeds, from trials with the same params; None where no params were tried twice.

    `steady`: what had the same seed in both gave the same values, so that trials of both are compared; else
    what changed between them would count as noise.
    """
    together = [(then, now)] if steady else [(then,), (now,)]
    groups = [group for each in together for group in _groups(each, objective) if len(group) > 1]
    if not groups:
        return None
    total = sum(len(group) for group in groups)
    squares = math.fsum((value - math.fsum(group) / len(group)) ** 2 for group in groups for value in group)
    return Noise(math.sqrt(squares / (total - len(groups))), len(groups), total)


def _groups(histories: Sequence[History], objective: Objective) -> Iterator[list[float]]:
    """The values of completed trials with the same params and last step, one for each seed."""
    found: dict[object, dict[object, float]] = defaultdict(dict)
    for history in histories:
        for trial in history.trials:
            pair = trial.outcome(objective, history.study.spec.selection)
            if trial.state is State.COMPLETED and pair:
                params = tuple(sorted(each for each in trial.params.items() if each[0] not in SEEDS))
                # A trial's seed follows from its number.
                seed = trial.number, *(trial.params.get(name) for name in SEEDS)
                found[params, trial.step][seed] = pair[1]
    for values in found.values():
        yield list(values.values())


def _compared(objective: Objective, then: History, now: History, alike: bool, steady: bool) -> Compared:
    earlier = _best(objective, then) if alike else None
    found = Compared(
        objective.metric, str(objective.goal), earlier, _best(objective, now), None, Verdict.NOTHING
    )
    if found.then is None or found.now is None:
        return found
    noise = noise_of(objective, then, now, steady=steady)
    verdict = _verdict(objective, found.then.value, found.now.value, noise)
    return Compared(found.metric, found.goal, found.then, found.now, noise, verdict)


def _verdict(objective: Objective, then: float, now: float, noise: Noise | None) -> Verdict:
    if then == now:
        return Verdict.SAME
    if noise is None:
        return Verdict.UNKNOWN
    if abs(now - then) <= noise.band:
        return Verdict.NOISE
    return Verdict.BETTER if objective.better(now, then) else Verdict.WORSE


def _best(objective: Objective, history: History) -> Best | None:
    """The best by one objective; of several the whole front has one for each."""
    spec = history.study.spec
    scored = list(_scored(objective, history.trials, spec))
    if not scored:
        return None
    _, number, trial = min(scored, key=lambda each: each[:2])
    step, value = trial.outcome(objective, spec.selection) or (0, math.nan)
    return Best(number, value, step, dict(trial.params))


def _scored(objective: Objective, trials: Iterable[Trial], spec: Spec) -> Iterator[tuple[float, int, Trial]]:
    place = spec.objectives.index(objective)
    for trial in trials:
        if found := costs(trial, spec):
            yield found[place], trial.number, trial


def _again(then: History, now: History, objective: Objective) -> Repeated | None:
    """The trials of the same number, params and seed in both: what a deterministic training repeats."""
    if then.study.spec.sampler.seed != now.study.spec.sampler.seed:
        return None
    selection = now.study.spec.selection
    before = {trial.number: trial for trial in then.trials if trial.state is State.COMPLETED}
    gaps = []
    for trial in now.trials:
        earlier = before.get(trial.number)
        if trial.state is not State.COMPLETED or earlier is None or earlier.params != trial.params:
            continue
        old, new = earlier.outcome(objective, selection), trial.outcome(objective, selection)
        if old and new:
            gaps.append(abs(old[1] - new[1]))
    return Repeated(len(gaps), sum(gap > 0 for gap in gaps), max(gaps)) if gaps else None


def _lines(found: Compared, then: str) -> Iterator[str]:
    if found.now is None:
        yield f"{found.metric}: no completed trial has it, so there is nothing to hold against {then}"
        return
    now = f"best {found.metric} {found.now.value:.6g} (trial {found.now.trial})"
    if found.then is None:
        yield f"{now}; {then} has no value that can be compared with it"
        return
    yield f"{now}, last time {found.then.value:.6g} (trial {found.then.trial} of {then}): {_words(found)}"


def _words(found: Compared) -> str:
    """What may be said of the difference, and what that rests on."""
    if found.verdict is Verdict.SAME:
        return "the same"
    if found.noise is None:
        return (
            "whether that is better or worse is not known, for no params were tried twice and the noise "
            "between seeds was not measured"
        )
    noise = found.noise
    basis = (
        f"seeds alone differ by a standard deviation of {noise.deviation:.3g}, measured on {noise.params} "
    )
    basis += f"params tried {noise.trials} times"
    if found.verdict is Verdict.NOISE:
        return f"no more than noise explains, up to {noise.band:.3g} ({basis})"
    return f"{found.verdict}, by more than the {noise.band:.3g} that noise explains ({basis})"


def _repeated(found: Repeated) -> str:
    ran = f"{found.trials} trial{'s' * (found.trials != 1)} ran in both with the same params and seed"
    if not found.differ:
        return f"{ran}: all gave the same values"
    return (
        f"{ran}: {found.differ} gave another value, by up to {found.furthest:.3g}: code, data, versions or "
        "machines differ, or the training is not deterministic"
    )
