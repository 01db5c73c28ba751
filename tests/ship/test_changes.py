"""What changed since the last tick: what may be said of two bests, and what may not."""

from __future__ import annotations

import json
import math
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from hpsearch.ship.changes import Verdict, changes, noise_of
from hpsearch.spec.model import Goal, Objective, Value
from hpsearch.study.history import History
from hpsearch.study.trial import Revision, State, Trial

sys.path.insert(0, str(Path(__file__).parents[1] / "show"))
import facts

LOSS = Objective("loss", Goal.MINIMIZE)
A: Mapping[str, Value] = {"lr": 0.01}
B: Mapping[str, Value] = {"lr": 0.02}


def tried(*values: tuple[Mapping[str, Value], float], state: State = State.COMPLETED) -> list[Trial]:
    """Trials with params and a loss at step 200, numbered in order."""
    found = []
    for number, (params, value) in enumerate(values):
        made = facts.trial(number, [math.nan, value], state, "reached step 200")
        found.append(
            Trial(
                made.number,
                made.uid,
                params,
                made.created,
                measurements=made.measurements,
                ending=made.ending,
            )
        )
    return found


def tick(name: str, trials: Sequence[Trial], tmp_path: Path, *, yaml: str = facts.YAML) -> History:
    return facts.history(facts.study(tmp_path, name, yaml), trials)


def test_without_repeats_the_noise_is_not_known_and_nothing_is_called_better(tmp_path: Path) -> None:
    then = tick("n-1", tried((A, 2.0)), tmp_path)
    found = changes(then, tick("n-2", tried((B, 0.001)), tmp_path))
    assert [each.verdict for each in found.compared] == [Verdict.UNKNOWN]
    [line] = found.lines()
    assert line.startswith(
        "best loss 0.001 (trial 0), last time 2 (trial 0 of n-1): whether that is better or worse"
    )
    assert "not known" in line and "not measured" in line


@pytest.mark.parametrize(
    ("now", "verdict"),
    [
        (1.0, Verdict.BETTER),
        (3.0, Verdict.WORSE),
        (1.95, Verdict.NOISE),
        (2.05, Verdict.NOISE),
        (2.0, Verdict.SAME),
    ],
)
def test_a_difference_counts_where_it_is_beyond_what_seeds_alone_make(
    tmp_path: Path, now: float, verdict: Verdict
) -> None:
    repeats = [(B, 5.0), (B, 5.02), (B, 4.98), (B, 5.01)]
    then = tick("n-1", tried((A, 2.0), *repeats), tmp_path)
    found = changes(then, tick("n-2", tried((A, now), *repeats), tmp_path))
    [compared] = found.compared
    assert compared.verdict is verdict
    assert compared.noise is not None
    # Groups of four: the deviation within them, and a band from Student's t with their degrees of freedom.
    expected = statistics.stdev([5.0, 5.02, 4.98, 5.01])
    assert compared.noise.deviation == pytest.approx(expected)
    # Nights in which the same seeds give the same values are one sample, not two.
    quantile = 3.182446 if verdict is Verdict.SAME else 2.446912
    assert compared.noise.degrees == (3 if verdict is Verdict.SAME else 6)
    assert compared.noise.band == pytest.approx(quantile * math.sqrt(2) * expected, rel=1e-5)
    json.dumps(found.to_json(), allow_nan=False)


def test_maximized_metrics_are_better_the_other_way_round(tmp_path: Path) -> None:
    yaml = facts.YAML.replace("MINIMIZE", "MAXIMIZE")
    then = tick("n-1", tried((A, 2.0), (B, 1.0), (B, 1.001)), tmp_path, yaml=yaml)
    found = changes(then, tick("n-2", tried((A, 9.0), (B, 1.0), (B, 1.001)), tmp_path, yaml=yaml))
    assert found.compared[0].verdict is Verdict.BETTER


def test_few_repeats_say_little_so_that_the_band_is_wide(tmp_path: Path) -> None:
    """Two values that happen to be close make no difference of two others a finding."""
    then = tick("n-1", tried((A, 2.0), (B, 5.0), (B, 5.1)), tmp_path)
    found = changes(then, tick("n-2", tried((A, 1.2)), tmp_path))
    assert found.compared[0].noise is not None
    assert found.compared[0].noise.degrees == 1
    assert found.compared[0].verdict is Verdict.NOISE


def test_repeats_that_never_differ_are_a_noise_of_nothing(tmp_path: Path) -> None:
    then = tick("n-1", tried((A, 2.0), (B, 5.0), (B, 5.0)), tmp_path)
    found = changes(then, tick("n-2", tried((A, 2.0001)), tmp_path))
    assert found.compared[0].verdict is Verdict.WORSE


def test_only_completed_trials_of_one_study_at_one_step_are_repeats(tmp_path: Path) -> None:
    pruned = [replace_state(each) for each in tried((A, 1.0), (A, 9.0))]
    short = facts.trial(5, [9.0], State.COMPLETED, "reached step 100")
    short = Trial(5, "u-5", A, 0, measurements=short.measurements, ending=short.ending)
    study = tick("n-1", [*pruned, *tried((A, 1.0))[:1], short], tmp_path)
    other = tick("n-2", tried((A, 3.0)), tmp_path)
    assert noise_of(LOSS, study, other) is None


def test_a_parameter_called_seed_makes_no_other_params(tmp_path: Path) -> None:
    then = tick("n-1", tried(({**A, "seed": 1}, 2.0), ({**A, "seed": 2}, 2.2)), tmp_path)
    found = changes(then, tick("n-2", tried(({**A, "seed": 1}, 2.1)), tmp_path))
    assert found.compared[0].noise is not None
    assert found.compared[0].noise.deviation == pytest.approx(statistics.stdev([2.0, 2.2]))
    assert found.compared[0].verdict is Verdict.NOISE


def test_two_ticks_are_one_sample_only_while_the_same_seeds_give_the_same_values(tmp_path: Path) -> None:
    """Trial 0 has one seed in both and agrees; B ran under other numbers, and so with other seeds."""
    then = tick("n-1", tried((A, 2.0), (B, 3.0)), tmp_path)
    now = tick("n-2", tried((A, 2.0), ({"lr": 0.5}, 9.0), (B, 3.2)), tmp_path)
    found = changes(then, now)
    assert found.compared[0].noise is not None
    assert (found.compared[0].noise.params, found.compared[0].noise.trials) == (1, 2)
    moved = tick("n-2", tried((A, 2.4), ({"lr": 0.5}, 9.0), (B, 3.2)), tmp_path)
    assert changes(then, moved).compared[0].noise is None


def replace_state(trial: Trial) -> Trial:
    assert trial.ending
    trial.ending = replace(trial.ending, state=State.PRUNED, reason="worse")
    return trial


def test_another_question_is_not_compared_and_the_file_says_why(tmp_path: Path) -> None:
    then = tick("n-1", tried((A, 2.0)), tmp_path)
    for old, new, said in (
        ("MINIMIZE", "MAXIMIZE", "its objective was MINIMIZE loss, here it is MAXIMIZE loss"),
        ("maxSteps: 200", "maxSteps: 400", "maxSteps was 200, here it is 400"),
    ):
        found = changes(then, tick("n-2", tried((A, 1.0)), tmp_path, yaml=facts.YAML.replace(old, new)))
        assert found.compared[0].verdict is Verdict.NOTHING
        assert found.compared[0].then is None
        assert found.changed == (said,)
        assert "no value that can be compared" in found.lines()[0]
        assert found.lines()[-1] == f"changed since then: {said}"


def test_another_space_is_compared_and_told(tmp_path: Path) -> None:
    then = tick("n-1", tried((A, 2.0)), tmp_path)
    wider = facts.YAML.replace("maxValue: 0.1,", "maxValue: 0.5,")
    found = changes(then, tick("n-2", tried((A, 1.0)), tmp_path, yaml=wider))
    assert found.compared[0].verdict is Verdict.UNKNOWN
    [said] = found.changed
    assert said.startswith("parameter lr was DOUBLE 0.0001..0.1")


def test_code_that_changed_is_told_file_by_file(tmp_path: Path) -> None:
    def revised(history: History, proof: str) -> History:
        return replace(history, revisions=(Revision(1, 0, "x", None, code={"toy.py": proof}),))

    then = revised(tick("n-1", tried((A, 2.0)), tmp_path), "aa" * 32)
    found = changes(then, revised(tick("n-2", tried((A, 2.0)), tmp_path), "bb" * 32))
    assert found.changed == ("toy.py changed (sha256 aaaaaaaaaaaa, now bbbbbbbbbbbb)",)


def test_a_tick_without_a_best_has_nothing_to_compare(tmp_path: Path) -> None:
    then = tick("n-1", tried((A, 2.0)), tmp_path)
    found = changes(then, tick("n-2", [facts.failed(0)], tmp_path))
    assert found.compared[0].verdict is Verdict.NOTHING
    assert found.lines() == ["loss: no completed trial has it, so there is nothing to hold against n-1"]


def test_trials_of_the_same_seed_are_no_noise_but_tell_whether_anything_else_changed(tmp_path: Path) -> None:
    """The second tick repeats the seeds of the first: equal values say nothing of the noise between seeds."""
    then = tick("n-1", tried((A, 2.0), (B, 3.0)), tmp_path)
    same = changes(then, tick("n-2", tried((A, 2.0), (B, 3.0)), tmp_path))
    assert same.compared[0].noise is None
    assert same.compared[0].verdict is Verdict.SAME
    assert same.lines()[1] == "2 trials ran in both with the same params and seed: all gave the same values"
    moved = changes(then, tick("n-2", tried((A, 2.5), (B, 3.0)), tmp_path))
    assert moved.repeated is not None
    assert (moved.repeated.trials, moved.repeated.differ, moved.repeated.furthest) == (2, 1, 0.5)
    assert "1 gave another value, by up to 0.5" in moved.lines()[1]
    other = changes(
        then,
        tick(
            "n-2",
            tried((A, 2.0)),
            tmp_path,
            yaml=facts.YAML.replace("maxSteps", "sampler: {seed: 7}, maxSteps"),
        ),
    )
    assert other.repeated is None


def test_of_several_objectives_each_is_compared_by_itself(tmp_path: Path) -> None:
    study = facts.several(tmp_path)
    then = facts.history(
        study, [facts.scored(0, 1.0, 0.5), facts.scored(1, 1.1, 0.9), facts.scored(2, 1.02, 0.52)]
    )
    now = facts.history(study, [facts.scored(0, 0.2, 0.4), facts.scored(1, 0.9, 0.89)])
    found = changes(then, now)
    assert [
        (each.metric, each.then and each.then.value, each.now and each.now.value) for each in found.compared
    ] == [
        ("loss", 1.0, 0.2),
        ("accuracy", 0.9, 0.89),
    ]
    assert len(found.lines()) >= 2


def test_a_trial_that_breaks_a_constraint_is_no_best(tmp_path: Path) -> None:
    study = facts.several(tmp_path, limit=10)
    kept = facts.scored(0, 1.0, 0.5, latency=5)
    broken = facts.scored(1, 0.1, 0.9, latency=50)
    found = changes(facts.history(study, [kept]), facts.history(study, [kept, broken]))
    assert found.compared[0].now is not None
    assert found.compared[0].now.trial == 0
