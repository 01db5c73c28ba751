"""What a dialect says of a study, before the `hpsearch:` block is laid over it."""

from __future__ import annotations

from dataclasses import dataclass, field

from hpsearch.spec.machines import Hint
from hpsearch.spec.model import (
    Algorithm,
    Constraint,
    Objective,
    Parameter,
    Params,
    Program,
    PrunerSpec,
    Selection,
    Stopping,
)
from hpsearch.spec.node import Findings, Node


@dataclass(slots=True)
class Draft:
    """The dialect's part of a Spec; None where the file says nothing, or nothing that could be read.

    `node` is the map in which the program is looked for. `places` are the values that later rules speak
    about, by what they are; `types` those that give parameters their types, by name; `texts` those that a
    trial is started with or reports by, by what they are for. Timeouts are in seconds.
    """

    node: Node
    module: str = ""
    args: tuple[str, ...] = ()
    parameters: tuple[Parameter, ...] = ()
    objectives: tuple[Objective, ...] = ()
    constraints: tuple[Constraint, ...] = ()
    max_trials: int = 1
    max_parallel_trials: int = 1
    max_failed_trials: int | None = None
    algorithm: Algorithm | None = None
    selection: Selection | None = None
    pruner: PrunerSpec | None = None
    stopping: Stopping = field(default_factory=Stopping)
    program: Program = field(default_factory=Program)
    gpus: Hint | None = None
    trial_timeout: float | None = None
    study_timeout: float | None = None
    first: Params | None = None
    previous: str | None = None
    places: dict[str, Node] = field(default_factory=dict)
    types: dict[str, Node] = field(default_factory=dict)
    texts: dict[str, list[Node]] = field(default_factory=dict)


def counts(
    trials: int | None, parallel: int | None, failed: int | None, draft: Draft, findings: Findings
) -> None:
    """Fill in the three counts, whose values stand in `draft.places` as trials, parallel and failed.

    A 0 is the services' word for absent, except that no trial at all is refused.
    """
    if trials == 0:
        place = draft.places["trials"]
        findings.error(place, f"{place.name} is 0: no trial would run", "give 1 or more")
    if parallel == 0:
        place = draft.places["parallel"]
        findings.warn(place, f"{place.name} is 0: the default of 1 is used", "give 1 or more")
    if failed == 0:
        warn_of_zero_failures(draft.places["failed"], findings)
    draft.max_trials = trials or 1
    draft.max_parallel_trials = min(parallel or 1, draft.max_trials)
    draft.max_failed_trials = failed


def warn_of_zero_failures(node: Node, findings: Findings) -> None:
    """Warn that 0 failed trials is the default rule, not none."""
    message = (
        f"{node.name} is 0: the default is used, which stops when the first 3 finished trials "
        "failed, or more than half of at least 6"
    )
    findings.warn(node, message, "give 1 to stop at the first failure")
