"""A long study: TPE compares the newest trials and the best of all, and a resumed one the same."""

from __future__ import annotations

import pytest

from hpsearch.spec.model import Spec
from hpsearch.spec.reading import parse
from hpsearch.study import sampling
from hpsearch.study.sampling import OptunaSampler
from hpsearch.study.trial import Ending, Measurement, State, Trial

TEXT = """\
trainingInput:
  pythonModule: trainer
  hyperparameters:
    goal: {goal}
    hyperparameterMetricTag: loss
    maxTrials: 100
    params:
      - {{parameterName: x, type: DOUBLE, minValue: 0, maxValue: 1}}
hpsearch:
  sampler: {{type: TPE, seed: 7}}
"""


def spec_of(goal: str = "MINIMIZE") -> Spec:
    spec = parse(TEXT.format(goal=goal), "x.yaml").spec
    assert spec is not None
    return spec


def finished(sampler: OptunaSampler, number: int) -> Trial:
    suggestion = sampler.ask(number)
    assert suggestion is not None
    trial = Trial(number, f"u-{number}", suggestion.params, number)
    value = abs(float(suggestion.params["x"]) - 0.3)
    trial.measurements.append(Measurement(1, {"loss": value}, number))
    trial.ending = Ending(State.PRUNED if number % 4 == 1 else State.COMPLETED, "done", number)
    sampler.measured(number, 1, value)
    sampler.ended(trial)
    return trial


def test_a_resumed_study_beyond_the_window_proposes_what_an_uninterrupted_one_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sampling, "WINDOW", 20)
    monkeypatch.setattr(sampling, "BEST", 5)
    sampler = OptunaSampler(spec_of())
    trials = [finished(sampler, number) for number in range(60)]
    for since in (21, 26, 40, 59):
        rebuilt = OptunaSampler(spec_of())
        rebuilt.restore((trial, {}) for trial in trials[:since])
        suggestion = rebuilt.ask(since)
        assert suggestion is not None
        assert suggestion.params == trials[since].params


@pytest.mark.parametrize("goal", ["MINIMIZE", "MAXIMIZE"])
def test_the_best_trials_stay_in_view_however_old_they_are(
    goal: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "WINDOW", 20)
    monkeypatch.setattr(sampling, "BEST", 5)
    sampler = OptunaSampler(spec_of(goal))
    trials = [finished(sampler, number) for number in range(60)]
    seen = sampler._study.get_trials(deepcopy=False)
    complete = [trial for trial in trials[:40] if trial.state is State.COMPLETED]
    complete.sort(key=lambda t: t.measurements[0].metrics["loss"], reverse=goal == "MAXIMIZE")
    assert len(seen) == 25
    assert [trial.number for trial in seen[5:]] == list(range(40, 60))
    assert [trial.number for trial in seen[:5]] == sorted(trial.number for trial in complete[:5])
