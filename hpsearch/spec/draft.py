"""What a dialect says of a study, before the `hpsearch:` block is laid over it."""

from __future__ import annotations

from dataclasses import dataclass, field

from hpsearch.spec.model import Algorithm, Objective, Parameter
from hpsearch.spec.node import Findings, Node


@dataclass(slots=True)
class Draft:
    """The dialect's part of a Spec; None where the file says nothing, or nothing that could be read.

    `node` is the map that holds the study; `places` are the values that rules of the block speak about,
    by key, and the types of parameters by the parameter's name. `study_timeout` is in seconds.
    """

    node: Node
    module: str = ""
    args: tuple[str, ...] = ()
    parameters: tuple[Parameter, ...] = ()
    objective: Objective | None = None
    max_trials: int = 1
    max_parallel_trials: int = 1
    max_failed_trials: int | None = None
    algorithm: Algorithm | None = None
    early_stopping: bool | None = None
    study_timeout: float | None = None
    places: dict[str, Node] = field(default_factory=dict)
    types: dict[str, Node] = field(default_factory=dict)


def warn_of_zero_failures(node: Node, findings: Findings) -> None:
    """Warn that 0 failed trials is the default rule, not none."""
    message = (
        "maxFailedTrials is 0: the default is used, which stops when the first 3 finished trials "
        "failed, or more than half of at least 6"
    )
    findings.warn(node, message, "give 1 to stop at the first failure")
