"""What the names of machines say: how many GPUs a trial had, and what cannot be had here."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

from pydantic import BeforeValidator, ValidationInfo, WithJsonSchema

from hpsearch.spec.node import Findings, Kind, Node
from hpsearch.spec.scalars import scalar

_TIERS = {"BASIC": 0, "STANDARD_1": 0, "PREMIUM_1": 0, "BASIC_GPU": 1, "BASIC_TPU": 0, "CUSTOM": 0}
_MACHINES = {
    **dict.fromkeys(("standard", "large_model", "cloud_tpu"), 0),
    **dict.fromkeys(("complex_model_s", "complex_model_m", "complex_model_l"), 0),
    **dict.fromkeys(("standard_gpu", "standard_p100", "standard_v100", "large_model_v100"), 1),
    **dict.fromkeys(("complex_model_m_gpu", "complex_model_m_p100", "complex_model_m_v100"), 4),
    **dict.fromkeys(("complex_model_l_gpu", "complex_model_l_v100"), 8),
}
# Compute Engine's own, such as n1-highmem-2; their GPUs stand in acceleratorConfig.
_COMPUTE_ENGINE = re.compile(r"[a-z][0-9]+[a-z]?-[a-z]+(-[a-z0-9]+)*")
_TPU = re.compile(r"(^|[_-])(high)?tpu(s|$|[_-])", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Hint:
    """How many GPUs a trial had on its machine, and the value that says so."""

    gpus: int
    place: Node


def _tier(node: Node, info: ValidationInfo[Findings]) -> str:
    """A scale tier in its documented spelling; an unknown one as it is."""
    text = scalar(node)
    folded = re.sub(r"[-\s]+", "_", text).upper()
    if folded == text or folded not in _TIERS:
        return text
    info.context.warn(node, f"scaleTier {node.shown} is read as {folded}", f"write {folded}")
    return folded


Tier = Annotated[str, BeforeValidator(_tier), WithJsonSchema({"type": "string", "enum": list(_TIERS)})]


def tier_hint(tier: str, place: Node, findings: Findings) -> Hint | None:
    """What a tier says of GPUs; an unknown one is warned of."""
    if tier not in _TIERS:
        message = f"scaleTier {place.shown} is unknown: nothing is read from it"
        findings.warn(place, message, "use " + ", ".join(_TIERS))
    return _hint(_TIERS.get(tier, 0), place)


def machine_hint(machine: str, place: Node, findings: Findings) -> Hint | None:
    """What a machine of Cloud ML Engine says of GPUs; an unknown one is warned of."""
    known = machine in _MACHINES or _COMPUTE_ENGINE.fullmatch(machine) or _TPU.search(machine)
    if not known:
        message = f"{place.name} {place.shown} is an unknown machine: nothing is read from it"
        findings.warn(place, message, "write hpsearch.resources with what a trial needs")
    return _hint(_MACHINES.get(machine, 0), place)


def accelerator_hint(count: int | None, kind: str | None, place: Node) -> Hint | None:
    """What a number of accelerators says of GPUs; TPUs are none."""
    return _hint(0 if _TPU.search(kind or "") else count or 0, place)


def warn_of_tpus(places: Iterable[Node], findings: Findings) -> None:
    """Warn, once, that a TPU is asked for; `places` are the names of tiers, machines and accelerators."""
    asking = next((place for place in places if _TPU.search(place.text)), None)
    if asking:
        message = f"{asking.name} {asking.shown} asks for a TPU: trials run without one"
        findings.warn(asking, message, "write hpsearch.resources with what a trial needs")


def warn_of_several(places: list[Node], findings: Findings) -> None:
    """Warn that more than one machine a trial is asked for; `places` are the values that do so."""
    if places:
        said = [p.name if p.kind is Kind.MAP else f"{p.name} {p.shown}" for p in places]
        message = (
            f"{' and '.join(said)}: more than one machine is asked for, but a trial is one process on one"
        )
        findings.warn(places[0], message, "let the trainer do all of its work in one process")


def _hint(gpus: int, place: Node) -> Hint | None:
    return Hint(gpus, place) if gpus else None
