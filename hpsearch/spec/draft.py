"""What a dialect says of a study, before the `hpsearch:` block is laid over it."""

from __future__ import annotations

from dataclasses import dataclass, field

from hpsearch.spec.model import Algorithm, Objective, Parameter
from hpsearch.spec.node import Node


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
