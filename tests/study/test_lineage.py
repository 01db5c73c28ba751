"""What a study takes over from an earlier one, and when it refuses to."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from hpsearch.errors import UsageError
from hpsearch.spec.model import (
    Algorithm,
    Categorical,
    Condition,
    Discrete,
    Double,
    Goal,
    Integer,
    Objective,
    Parameter,
    SamplerSpec,
    Scale,
    SearchSpace,
    Spec,
)
from hpsearch.study.history import History
from hpsearch.study.lineage import inherit
from hpsearch.study.trial import Ending, Known, Measurement, State, Study, Trial

SPACE: tuple[Parameter, ...] = (
    Double("rate", 0.001, 0.1, Scale.LOG),
    Integer("units", 1, 64),
    Categorical("optimizer", ("sgd", "adam")),
    Discrete("momentum", (0, 0.9), condition=Condition("optimizer", ("sgd",))),
)
SPEC = Spec(
    source="x.yaml",
    text="",
    sha256="",
    dialect="cloud_ml_engine",
    module="m",
    args=(),
    space=SearchSpace(SPACE),
    objectives=(Objective("loss", Goal.MINIMIZE),),
)


def trial(number: int, state: State | None) -> Trial:
    found = Trial(number, f"u-{number}", {"rate": 0.01, "units": number, "optimizer": "adam"}, 1)
    found.measurements.append(Measurement(10, {"loss": 1.0}, 2))
    found.ending = Ending(state, "so", 3) if state else None
    return found


def history(spec: Spec = SPEC, known: tuple[Known, ...] = ()) -> History:
    trials = [trial(4, State.COMPLETED), trial(5, None), trial(6, State.PRUNED), trial(7, State.FAILED)]
    kept = {"internal": {"rate": 0.01}, "trial": {"g": 1}, "study": {"p": [1]}, "optimizer": {"_g": 1}}
    study = Study("old", "u", 1, spec, Path("/nowhere/old"))
    return History(study, "uri", trials, {t.number: dict(kept) for t in trials}, None, 1, 0, None, known)


def test_every_ended_trial_is_taken_over_as_it_was_and_unfinished_ones_are_left_out() -> None:
    earlier = history(known=(Known(trial(0, State.COMPLETED)),))
    found = inherit(SPEC, earlier)
    assert [each.trial.number for each in found] == [0, 4, 6, 7]
    assert [each.trial for each in found[1:]] == [t for t in earlier.trials if t.ending]


def test_what_a_sampler_keeps_goes_on_only_to_a_sampler_of_its_kind() -> None:
    other = replace(SPEC, sampler=SamplerSpec(Algorithm.QMC))
    assert inherit(SPEC, history())[0].attributes.keys() == {"internal", "trial", "study", "optimizer"}
    assert inherit(other, history())[0].attributes.keys() == {"internal"}


@pytest.mark.parametrize(
    ("space", "said"),
    [
        (SPACE[:3], "parameter momentum is not here"),
        ((*SPACE, Integer("new", 1, 2)), "parameter new is new"),
        (
            (Double("rate", 0.001, 0.2, Scale.LOG), *SPACE[1:]),
            "rate was DOUBLE 0.001..0.1 on a log scale, here it is DOUBLE 0.001..0.2 on a log scale",
        ),
        (
            (*SPACE[:2], Categorical("optimizer", ("sgd", "adam", "lbfgs")), SPACE[3]),
            "parameter optimizer was CATEGORICAL [sgd, adam], here it is CATEGORICAL [sgd, adam, lbfgs]",
        ),
        ((SPACE[1], SPACE[0], *SPACE[2:]), "the order of the parameters was [rate, units, "),
    ],
)
def test_a_changed_space_is_refused_with_the_differences(space: tuple[Parameter, ...], said: str) -> None:
    with pytest.raises(UsageError, match="study 'old' cannot be continued") as caught:
        inherit(replace(SPEC, space=SearchSpace(space)), history())
    assert said in caught.value.message
    assert "resumePreviousJobId" in caught.value.hint


def test_another_objective_is_refused() -> None:
    with pytest.raises(UsageError, match="its objective was MINIMIZE loss, here it is MAXIMIZE loss"):
        inherit(replace(SPEC, objectives=(Objective("loss", Goal.MAXIMIZE),)), history())
