"""What is better, and by which name a trainer reports it: the rules that all dialects share."""

from __future__ import annotations

from hpsearch.spec.form import Form
from hpsearch.spec.model import Goal
from hpsearch.spec.node import Findings
from hpsearch.spec.texts import RESERVED


def goal_of(form: Form, given: Goal | None, findings: Findings) -> Goal:
    """The goal; MAXIMIZE, with a warning, where the form has none."""
    if given is None and form.lacks("goal"):
        hint = "write goal: MAXIMIZE or MINIMIZE"
        findings.absent(form.node, "goal", "goal is absent: MAXIMIZE is used", hint)
    elif given is None and not form.refused("goal"):
        findings.warn(form.at("goal"), "goal is unspecified: MAXIMIZE is used", "write MAXIMIZE or MINIMIZE")
    return given or Goal.MAXIMIZE


def check_metric(name: str | None, key: str, form: Form, findings: Findings) -> None:
    """Refuse a metric whose name means something else in the metric file."""
    if name in RESERVED:
        message = f"{key} is {name}, which every record of the metric file holds already"
        findings.error(form.at(key), message, "report the metric under another name")
