"""The conversation: what is committed before what is told, and how trials and studies end."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from hpsearch.spec.model import (
    Constraint,
    Double,
    Goal,
    Limits,
    Objective,
    SearchSpace,
    Selection,
    Spec,
    Stopping,
)
from hpsearch.study.search import Search
from hpsearch.study.trial import (
    KEEP,
    Attempt,
    Cause,
    Checkpoint,
    Decision,
    Ending,
    Entry,
    Known,
    Launch,
    Measurement,
    Outcome,
    Report,
    State,
    Study,
    Suggestion,
    Trial,
)

SPEC = Spec(
    source="x.yaml",
    text="",
    sha256="",
    dialect="cloud_ml_engine",
    module="m",
    args=(),
    space=SearchSpace((Double("x", 0.0, 1.0),)),
    objectives=(Objective("loss", Goal.MINIMIZE),),
    max_trials=4,
    max_parallel_trials=2,
)


class Notebook:
    """Sampler, pruner and journal in one: writes down in order what it hears."""

    def __init__(self, points: int = 100, prune_at: int | None = None) -> None:
        self.heard: list[tuple[object, ...]] = []
        self.entries: list[Entry] = []
        self.points = points
        self.prune_at = prune_at
        self.selection = Selection.LAST

    def commit(self, entries: Sequence[Entry]) -> None:
        self.entries += entries
        self.heard.append(("commit", *(type(e.fact).__name__ for e in entries)))

    def ask(self, number: int) -> Suggestion | None:
        self.heard.append(("ask", number))
        return Suggestion({"x": number / 10}, {}) if number < self.points else None

    def measured(self, number: int, step: int, value: float) -> None:
        self.heard.append(("measured", number, step, value))

    def ended(self, trial: Trial) -> None:
        outcome = trial.outcome(SPEC.objective, self.selection) if trial.state is State.COMPLETED else None
        told = ("ended", trial.number, trial.state, outcome[1] if outcome else None)
        if self.heard[-1:] != [told]:  # the sampler hears it first, then the pruner
            self.heard.append(told)

    def restore(self, history: Iterable[tuple[Trial, Mapping[str, object]]]) -> None:
        self.heard.append(("restore", len(list(history))))

    def record(self, trial: Trial, measurement: Measurement) -> None:
        self.heard.append(("record", trial.number, measurement.step, len(trial.measurements)))

    def decide(self, trial: Trial) -> Decision:
        if self.prune_at is not None and trial.step == self.prune_at:
            return Decision(True, f"too bad at {trial.step}")
        return KEEP


def search_with(notebook: Notebook, spec: Spec = SPEC) -> Search:
    study = Study("s", "uid", 0, spec, Path("/nowhere"))
    return Search(study, notebook, notebook, notebook)


def seen(step: int, value: float = 1.0) -> Report:
    return Report(measurement=Measurement(step, {"loss": value}, time=step))


def end(state: State = State.COMPLETED, reason: str = "done") -> Report:
    return Report(ending=Ending(state, reason))


def launched(search: Search) -> Launch:
    launch = search.suggest(1)
    assert launch is not None
    return launch


def complete(search: Search, value: float = 1.0) -> int:
    number = launched(search).context.number
    search.measure(number, 1, [seen(10, value), end()], 2)
    search.released(number)
    return number


def test_a_suggestion_is_committed_before_it_is_launched() -> None:
    notebook = Notebook()
    launch = launched(search_with(notebook))
    assert notebook.heard == [("ask", 0), ("commit", "Trial", "Attempt")]
    assert launch.params == {"x": 0.0}
    assert launch.context.directory == Path("/nowhere/trials/0000")


def test_an_ending_is_committed_before_the_sampler_is_told() -> None:
    notebook = Notebook()
    search = search_with(notebook)
    launched(search)
    notebook.heard.clear()
    assert not search.measure(0, 1, [seen(10, 2.0), end()], 7)
    assert notebook.heard == [
        ("record", 0, 10, 1),
        ("commit", "Measurement", "Ending"),
        ("measured", 0, 10, 2.0),
        ("ended", 0, State.COMPLETED, 2.0),
    ]
    assert search.trials[0].ending == Ending(State.COMPLETED, "done", 7)


def test_no_more_trials_are_launched_than_may_run_at_once() -> None:
    search = search_with(Notebook())
    assert [launched(search).context.number for _ in range(2)] == [0, 1]
    assert search.suggest(1) is None
    assert not search.over
    search.measure(0, 1, [seen(1), end()], 2)
    assert search.suggest(1) is None, "the slot is not free before the runner says so"
    search.released(0)
    assert launched(search).context.number == 2


def test_a_study_is_over_when_all_its_trials_have_ended() -> None:
    search = search_with(Notebook())
    for _ in range(4):
        assert not search.over
        complete(search)
    assert search.over
    assert search.suggest(1) is None
    assert search.conclude(9).outcome is Outcome.COMPLETED


def test_a_pruned_trial_ends_at_the_step_that_decided_it_whatever_came_later() -> None:
    notebook = Notebook(prune_at=20)
    search = search_with(notebook)
    launched(search)
    assert not search.measure(0, 1, [seen(10), seen(20), seen(30), end()], 5)
    trial = search.trials[0]
    assert [m.step for m in trial.measurements] == [20], "of an ended trial its last and best are kept"
    assert trial.ending == Ending(State.PRUNED, "too bad at 20", 5)
    assert ("ended", 0, State.PRUNED, None) in notebook.heard


def test_the_first_value_of_a_step_wins_and_steps_only_grow() -> None:
    search = search_with(Notebook())
    launched(search)
    search.measure(0, 1, [seen(10, 1.0), seen(10, 9.0), seen(5, 9.0), seen(20, 2.0)], 2)
    assert search.trials[0].values("loss") == [(10, 1.0), (20, 2.0)]
    assert search.rejected == 2


def test_reports_of_an_attempt_that_is_not_the_current_one_change_nothing() -> None:
    notebook = Notebook()
    search = search_with(notebook)
    launched(search)
    search.lost(0, 1, "killed", 2)
    before = list(notebook.entries)
    assert not search.measure(0, 1, [seen(10), end()], 3)
    assert notebook.entries == before
    assert search.measure(0, 2, [seen(10)], 3)


def test_a_lost_attempt_goes_on_from_the_newest_checkpoint() -> None:
    search = search_with(Notebook())
    launched(search)
    newest = Checkpoint(20, 1, "checkpoints/b", 3, "beef")
    older = Checkpoint(10, 1, "checkpoints/a", 3, "dead")
    search.measure(0, 1, [seen(10), Report(checkpoint=older), seen(20), Report(checkpoint=newest)], 2)
    launch = search.lost(0, 1, "killed by signal 9", 3)
    assert launch is not None
    assert launch.context.attempt == 2
    assert launch.context.checkpoint == Path("/nowhere/trials/0000/checkpoints/b")
    assert launch.context.checkpoint_sha256 == "beef"
    assert launch.context.earlier == ((Path("/nowhere/trials/0000/checkpoints/a"), "dead"),)
    assert Launch.from_json(launch.to_json()) == launch
    assert search.trials[0].attempts[-1] == Attempt(
        2, 3, resumed_from=20, cause=Cause.CRASHED, reason="killed by signal 9"
    )


def test_a_trial_that_is_lost_too_often_has_failed() -> None:
    search = search_with(Notebook(), replace(SPEC, limits=Limits(max_attempts=2)))
    launched(search)
    assert search.lost(0, 1, "its process was killed by signal 11", 2)
    assert search.lost(0, 2, "its process was killed by signal 11", 3) is None
    ending = search.trials[0].ending
    assert ending
    assert ending.state is State.FAILED
    assert ending.reason == "its process was killed by signal 11, in attempt 2 of 2"


def test_what_was_not_the_trials_own_failure_uses_up_no_attempt() -> None:
    notebook = Notebook()
    search = search_with(notebook, replace(SPEC, limits=Limits(max_attempts=2)))
    launched(search)
    attempt = 1
    for _ in range(3):  # lives of the driver
        for cause in (Cause.PREEMPTED, Cause.PREEMPTED):
            assert search.lost(0, attempt, "its node was lost", 2, cause)
            attempt += 1
        trial = search.trials[0]
        search = search_with(notebook, replace(SPEC, limits=Limits(max_attempts=2)))
        search.restore([trial], {0: {}})
        assert launched(search).context.attempt == attempt + 1
        assert trial.attempts[-1].cause is Cause.DRIVER
        attempt += 1
    assert search.lost(0, attempt, "its process was killed", 3), "the first failure of two"
    assert search.lost(0, attempt + 1, "its process was killed", 3) is None
    ending = search.trials[0].ending
    assert ending
    assert ending.reason == "its process was killed, in attempt 8 of 8", "those of the driver aside"


@pytest.mark.parametrize("cause", [Cause.HUNG, Cause.OOM])
def test_a_trial_that_hangs_or_outgrows_its_memory_is_tried_once_again(cause: Cause) -> None:
    search = search_with(Notebook(), replace(SPEC, limits=Limits(max_attempts=9)))
    launched(search)
    assert search.lost(0, 1, "first", 2, cause)
    assert search.lost(0, 2, "crash", 2)
    assert search.lost(0, 3, "again", 2, cause) is None
    assert search.trials[0].state is State.FAILED
    assert [each.cause for each in search.trials[0].attempts] == [Cause.FIRST, cause, Cause.CRASHED]


def test_a_trial_that_takes_every_node_with_it_is_given_up_in_the_end() -> None:
    search = search_with(Notebook())
    launched(search)
    attempts = 1
    while search.lost(0, attempts, "its node was lost", 2, Cause.PREEMPTED):
        attempts += 1
    assert attempts == 21
    assert search.trials[0].state is State.FAILED


def test_completed_without_a_finite_objective_is_a_failure() -> None:
    search = search_with(Notebook())
    launched(search)
    search.measure(0, 1, [seen(10, float("nan")), end()], 2)
    ending = search.trials[0].ending
    assert ending
    assert ending.state is State.FAILED
    assert "loss" in ending.reason


def test_a_sampler_never_hears_of_values_that_are_not_finite() -> None:
    notebook = Notebook()
    search = search_with(notebook)
    launched(search)
    search.measure(0, 1, [seen(10, float("inf")), seen(20, 1.0), end(State.INFEASIBLE, "nan")], 2)
    told = [event for event in notebook.heard if event[0] in ("measured", "ended")]
    assert told == [("measured", 0, 20, 1.0), ("ended", 0, State.INFEASIBLE, None)]


@pytest.mark.parametrize(("selection", "expected"), [(Selection.LAST, 3.0), (Selection.BEST, 1.0)])
def test_the_selected_measurement_is_the_value_that_counts(selection: Selection, expected: float) -> None:
    notebook = Notebook()
    notebook.selection = selection
    search = search_with(notebook, replace(SPEC, selection=selection))
    launched(search)
    search.measure(0, 1, [seen(1, 2.0), seen(2, 1.0), seen(3, 3.0), end()], 2)
    assert notebook.heard[-1] == ("ended", 0, State.COMPLETED, expected)


def test_three_failures_from_the_start_end_the_study() -> None:
    search = search_with(Notebook(), replace(SPEC, max_trials=50))
    for number in range(3):
        assert not search.over
        launched(search)
        search.measure(number, 1, [end(State.FAILED, "ValueError: no")], 2)
        search.released(number)
    assert search.over
    ending = search.conclude(9)
    assert ending.outcome is Outcome.FAILED
    assert "3 of 3 trials failed" in ending.reason
    assert "ValueError: no" in ending.reason


def test_one_bad_trial_does_not_end_the_study() -> None:
    search = search_with(Notebook())
    launched(search)
    search.measure(0, 1, [end(State.FAILED)], 2)
    search.released(0)
    for _ in range(3):
        complete(search)
    assert search.conclude(9).outcome is Outcome.COMPLETED


def test_max_failed_trials_ends_the_study_at_that_failure() -> None:
    search = search_with(Notebook(), replace(SPEC, max_trials=50, limits=Limits(max_failed_trials=2)))
    complete(search)
    for number in (1, 2):
        assert not search.over
        launched(search)
        search.measure(number, 1, [end(State.FAILED)], 2)
        search.released(number)
    assert search.over
    assert "maxFailedTrials is 2" in search.conclude(9).reason


def test_infeasible_trials_do_not_count_as_failures() -> None:
    search = search_with(Notebook(), replace(SPEC, limits=Limits(max_failed_trials=1)))
    for number in range(4):
        launched(search)
        search.measure(number, 1, [end(State.INFEASIBLE, "nan")], 2)
        search.released(number)
    ending = search.conclude(9)
    assert ending.outcome is Outcome.FAILED
    assert ending.reason == "no trial completed: 4 infeasible"


def test_a_stop_lets_every_trial_stop_and_keeps_it_unfinished() -> None:
    search = search_with(Notebook())
    launched(search)
    search.stop(Outcome.INTERRUPTED, "interrupted by SIGINT", 5)
    search.stop(Outcome.DEADLINE, "too late", 6)
    assert search.over
    assert not search.measure(0, 1, [seen(10)], 7), "told to stop"
    assert search.trials[0].state is State.RUNNING
    assert search.trials[0].step == 10, "what it measured is kept all the same"
    assert search.conclude(9).reason == "interrupted by SIGINT"


def test_a_trial_that_ends_while_the_study_stops_is_kept() -> None:
    search = search_with(Notebook())
    launched(search)
    search.stop(Outcome.INTERRUPTED, "x", 5)
    search.measure(0, 1, [seen(10), end()], 6)
    assert search.trials[0].state is State.COMPLETED


def test_an_exhausted_space_ends_the_study_as_a_success_that_says_so() -> None:
    search = search_with(Notebook(points=2))
    complete(search)
    complete(search)
    assert search.suggest(1) is None
    assert search.over
    assert "every point of the search space has been tried" in search.conclude(9).reason


def test_a_restored_study_launches_unfinished_trials_first_and_as_new_attempts() -> None:
    first = search_with(Notebook())
    complete(first, 3.0)
    launched(first)
    launched(first)
    first.measure(1, 1, [seen(10), Report(checkpoint=Checkpoint(10, 1, "c", 1, "d"))], 3)

    notebook = Notebook()
    second = search_with(notebook)
    second.restore(list(first.trials.values()), {n: {} for n in first.trials})
    ended = ("ended", 0, State.COMPLETED, 3.0)
    assert notebook.heard == [("restore", 3), ("record", 0, 10, 1), ended, ("record", 1, 10, 1)]
    one, two = launched(second), launched(second)
    assert (one.context.number, one.context.attempt) == (1, 2)
    assert one.context.checkpoint == Path("/nowhere/trials/0001/c")
    assert (two.context.number, two.context.attempt, two.context.checkpoint) == (2, 2, None)
    assert second.counts()[State.COMPLETED] == 1


def test_a_trial_keeps_its_seed_in_every_attempt() -> None:
    search = search_with(Notebook())
    first = launched(search)
    again = search.lost(0, 1, "killed", 2)
    other = launched(search)
    assert again
    assert again.context.seed == first.context.seed
    assert other.context.seed != first.context.seed


def test_the_best_trial_is_the_earlier_of_equals_and_never_a_pruned_one() -> None:
    search = search_with(Notebook(prune_at=7))
    complete(search, 2.0)
    complete(search, 2.0)
    launched(search)
    search.measure(2, 1, [seen(7, 0.1)], 3)
    best = search.best()
    assert best
    assert best.number == 0


def test_a_decision_to_prune_needs_a_reason() -> None:
    with pytest.raises(ValueError, match="reason"):
        Decision(True)


def test_a_launch_survives_its_way_as_json() -> None:
    search = search_with(Notebook())
    launch = launched(search)
    assert Launch.from_json(launch.to_json()) == launch


def test_a_trial_that_has_ended_hears_nothing_more() -> None:
    notebook = Notebook()
    search = search_with(notebook, replace(SPEC, limits=Limits(max_attempts=1)))
    launched(search)
    assert search.lost(0, 1, "its worker was lost", 2) is None
    before = list(notebook.entries)
    assert not search.measure(0, 1, [seen(10), Report(checkpoint=Checkpoint(10, 1, "c", 1, "d"))], 3)
    assert notebook.entries == before


def test_a_runner_that_ends_before_the_study_leaves_it_interrupted() -> None:
    search = search_with(Notebook())
    complete(search)
    assert search.conclude(9).outcome is Outcome.INTERRUPTED


@pytest.mark.parametrize("outcome", [Outcome.INTERRUPTED, Outcome.DEADLINE])
def test_a_stop_that_comes_after_the_last_ending_changes_nothing(outcome: Outcome) -> None:
    search = search_with(Notebook())
    for _ in range(4):
        complete(search)
    search.stop(outcome, "too late", 9)
    assert search.conclude(9).outcome is Outcome.COMPLETED


def test_a_study_that_had_failed_too_often_stays_ended_when_it_is_restored() -> None:
    spec = replace(SPEC, max_trials=50)
    first = search_with(Notebook(), spec)
    for number in range(3):
        launched(first)
        first.measure(number, 1, [end(State.FAILED)], 2)
        first.released(number)
    second = search_with(Notebook(), spec)
    second.restore(list(first.trials.values()), {n: {} for n in first.trials})
    assert second.over
    assert second.conclude(9).outcome is Outcome.FAILED


# -- programs that report one metric after the other ----------------------------------------------------


def measured(step: int, **metrics: float) -> Report:
    return Report(measurement=Measurement(step, metrics, time=step))


def test_metrics_of_one_step_that_come_one_by_one_make_one_measurement() -> None:
    notebook = Notebook()
    search = search_with(notebook)
    launched(search)
    search.measure(0, 1, [measured(10, accuracy=0.5)], 20)
    search.measure(0, 1, [measured(10, loss=2.0), measured(10, loss=9.0, accuracy=0.9)], 30)
    assert search.trials[0].measurements == [Measurement(10, {"accuracy": 0.5, "loss": 2.0}, 10)]
    assert [e.fact for e in notebook.entries[2:]] == [
        measured(10, accuracy=0.5).measurement,
        seen(10, 2.0).measurement,
    ]
    assert ("measured", 0, 10, 2.0) in notebook.heard
    assert search.rejected == 1


def test_a_time_ahead_of_the_drivers_clock_is_not_believed() -> None:
    search = search_with(Notebook())
    launched(search)
    search.measure(0, 1, [measured(10, loss=1.0), measured(5000, loss=1.0)], 20)
    assert [m.time for m in search.trials[0].measurements] == [10, 20]


def test_a_silent_trial_holds_the_study_until_somebody_reports_the_objective() -> None:
    search = search_with(Notebook())
    launched(search), launched(search)
    silent = Report(ending=Ending(State.FAILED, "metric tag loss never reported", silent=True))
    search.measure(0, 1, [silent], 2)
    search.released(0)
    assert search.suggest(3) is None
    assert not search.over
    search.measure(1, 1, [seen(1, 2.0)], 4)
    assert launched(search).context.number == 2


def test_a_study_whose_first_trials_are_silent_ends_as_failed_and_says_why() -> None:
    search = search_with(Notebook())
    launched(search)
    search.measure(0, 1, [Report(ending=Ending(State.FAILED, "never reported", silent=True))], 2)
    assert not search.over
    search.released(0)
    assert search.over
    ending = search.conclude(3)
    assert ending.outcome is Outcome.FAILED
    assert ending.reason == "no trial has reported the objective, so no further one starts: never reported"


def test_a_trial_lacking_one_of_several_objectives_is_not_complete() -> None:
    both = (SPEC.objective, Objective("speed", Goal.MAXIMIZE))
    search = search_with(Notebook(), replace(SPEC, objectives=both))
    launched(search)
    search.measure(0, 1, [seen(1), end()], 2)
    assert search.trials[0].ending == Ending(
        State.FAILED, "metric speed was never reported as a finite number", 2
    )


# -- what a study knows from its start -----------------------------------------------------------------


def test_known_trials_are_learned_from_but_neither_counted_nor_run_again() -> None:
    first = search_with(Notebook())
    complete(first, 3.0)
    complete(first, 1.0)
    notebook = Notebook()
    search = search_with(notebook)
    search.restore([], {}, [Known(trial) for trial in first.trials.values()])
    assert notebook.heard[:2] == [("restore", 2), ("record", 0, 10, 1)]
    assert [launched(search).context.number, launched(search).context.number] == [2, 3]
    assert search.counts()[State.COMPLETED] == 0
    assert search.best() is None
    for number in (2, 3):
        search.measure(number, 1, [seen(10), end()], 2)
        search.released(number)
    assert [complete(search), complete(search)] == [4, 5]
    assert search.over, "maxTrials counts the new trials"


# -- studyStoppingConfig -------------------------------------------------------------------------------


def stopping(**rules: object) -> Search:
    return search_with(Notebook(), replace(SPEC, max_trials=100, stopping=Stopping(**rules)))  # type: ignore[arg-type]


def run_until_over(search: Search, values: Iterable[float]) -> int:
    for done, value in enumerate(values):
        if search.suggest(1000 * done) is None:
            return done
        number = max(search.trials)
        search.measure(number, 1, [seen(1, value), end()], 1000 * done)
        search.released(number)
    raise AssertionError("the study goes on")


@pytest.mark.parametrize(
    ("rules", "trials", "reason"),
    [
        ({"max_trials": 3}, 3, "3 trials have started (maxNumTrials)"),
        ({"max_runtime": 5.0}, 5, "it has run for 5 s (maximumRuntimeConstraint 5 s)"),
        ({"max_end": 4500}, 5, "the end time of maximumRuntimeConstraint has come"),
        ({"max_trials_no_progress": 4}, 6, "the best has not improved for 4 trials (maxNumTrialsNoProgress)"),
        ({"max_seconds_no_progress": 3.0}, 4, "the best has not improved for 3 s (maxDurationNoProgress)"),
        ({"max_trials": 3, "min_runtime": 7.0}, 7, "7 trials have started (maxNumTrials)"),
        ({"max_trials": 3, "min_end": 6500}, 7, "7 trials have started (maxNumTrials)"),
        ({"max_trials": 3, "min_trials": 8}, 8, "8 trials have started (maxNumTrials)"),
        ({"max_runtime": 5.0, "min_trials": 8}, 5, "it has run for 5 s (maximumRuntimeConstraint 5 s)"),
    ],
)
def test_a_study_stops_by_the_rules_of_its_file_in_their_order(
    rules: dict[str, object], trials: int, reason: str
) -> None:
    search = stopping(**rules)
    # The second trial is the best.
    assert run_until_over(search, [3.0, 1.0, *[2.0] * 20]) == trials
    assert search.over
    ending = search.conclude(10**6)
    assert ending.outcome is Outcome.COMPLETED
    assert ending.reason == f"{trials} of {trials} trials completed; stopped because {reason}"


@pytest.mark.parametrize("at_once", [False, True])
def test_running_trials_go_on_unless_the_study_shall_stop_as_soon_as_possible(at_once: bool) -> None:
    search = stopping(max_runtime=5.0, as_soon_as_possible=at_once)
    launched(search), launched(search)
    assert search.measure(0, 1, [seen(1)], 4999)
    assert search.measure(0, 1, [seen(2)], 5000) is not at_once
    assert search.suggest(5001) is None
    assert not search.over
    if not at_once:
        search.measure(0, 1, [seen(3), end()], 6000)
    ending = search.trials[0].ending
    assert ending
    assert ending.state is (State.PRUNED if at_once else State.COMPLETED)
    assert ("the study stops as soon as possible: it has run for 5 s" in ending.reason) is at_once


def test_no_progress_is_counted_over_a_restart() -> None:
    first = stopping(max_trials_no_progress=3)
    for value in (1.0, 2.0, 2.0):
        complete(first, value)
    second = stopping(max_trials_no_progress=3)
    second.restore(list(first.trials.values()), {n: {} for n in first.trials})
    assert launched(second).context.number == 3
    second.measure(3, 1, [seen(1, 2.0), end()], 5)
    assert second.suggest(6) is None
    assert second.over


def test_a_silent_running_trial_stops_with_a_study_that_stops_as_soon_as_possible() -> None:
    search = stopping(max_runtime=5.0, as_soon_as_possible=True)
    launched(search)
    assert search.measure(0, 1, [], 4999)
    assert not search.measure(0, 1, [], 5000)
    assert search.trials[0].state is State.PRUNED


def test_only_safe_trials_are_progress() -> None:
    limit = Constraint(Objective("memory", Goal.MINIMIZE), 2.0)
    rules = Stopping(max_trials_no_progress=2)
    search = search_with(Notebook(), replace(SPEC, max_trials=9, stopping=rules, constraints=(limit,)))
    for number, (loss, memory) in enumerate([(5.0, 1.0), (1.0, 3.0), (4.0, 1.0), (3.0, 1.0)]):
        assert launched(search).context.number == number
        search.measure(number, 1, [measured(1, loss=loss, memory=memory), end()], 2)
        search.released(number)
    assert launched(search).context.number == 4


def test_a_study_that_ended_stays_ended_also_if_its_last_trials_changed_what_stopped_it() -> None:
    first = stopping(max_trials_no_progress=2)
    for value in (1.0, 2.0):
        complete(first, value)
    launched(first), launched(first)
    first.measure(2, 1, [seen(1, 2.0), end()], 5)
    first.released(2)
    assert first.suggest(6) is None
    first.measure(3, 1, [seen(1, 0.5), end()], 7)
    first.released(3)
    ending = first.conclude(8)
    assert ending.outcome is Outcome.COMPLETED
    second = stopping(max_trials_no_progress=2)
    second.restore(list(first.trials.values()), {n: {} for n in first.trials}, ending=ending)
    assert second.over
    assert second.suggest(9) is None
    assert second.conclude(9).reason == ending.reason


def test_a_tag_that_was_heard_by_nobody_holds_the_study_even_if_others_were() -> None:
    both = (SPEC.objective, Objective("speed", Goal.MAXIMIZE))
    search = search_with(Notebook(), replace(SPEC, objectives=both))
    launched(search)
    silent = Report(ending=Ending(State.FAILED, "metric tag speed never reported", silent=True))
    search.measure(0, 1, [seen(1), silent], 2)
    search.released(0)
    assert search.over
