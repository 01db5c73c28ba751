"""Jobs that were submitted, as lines for people: pure, from the object that `status --json` prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hpsearch.show import lines
from hpsearch.study.trial import State

Json = Mapping[str, Any]
LABEL = 9  # characters, as wide as those of `show`


def table(answers: Sequence[Json]) -> list[str]:
    """A line for each job: its name, where it is, how it is and why."""
    widths = [max((len(str(each[key])) for each in answers), default=0) for key in ("name", "target")]
    found = []
    for each in answers:
        why = f": {' '.join(str(each['reason']).split())}" if each.get("reason") else ""
        name, target = (str(each[key]).ljust(w) for key, w in zip(("name", "target"), widths, strict=True))
        found.append(f"{name}  {target}  {state(each)}{why}")
    return found


def facts(answer: Json) -> list[str]:
    """All that is known of one job, and what to type next; what is not known is left out."""
    name = answer["name"]
    found = {
        "job": f"{name}, {answer['target']}{_place(answer)}",
        "state": state(answer) + _time(answer),
        "study": _study(answer),
        "trials": _trials(answer.get("counts")),
        "reason": answer.get("reason"),
        "message": answer.get("message"),
        "log": f"hpsearch logs {name}" + ("" if answer["final"] else " --follow"),
    }
    said = []
    for label, text in found.items():
        first, *rest = str(text or "").splitlines() or [""]
        if first or rest:
            said += [f"{label:{LABEL}}{first}", *(f"{'':{LABEL}}{each}" for each in rest)]
    return said


def state(answer: Json) -> str:
    """How a job is: what its end was, else what it is at."""
    if answer["outcome"]:
        return f"{answer['outcome']} (exit code {answer['exit_code']})"
    word = str(answer.get("phase") or answer["job_status"] or "new").lower()
    attempt = answer.get("attempt") or 1
    word += f", attempt {attempt} of {answer['attempts']}" if attempt > 1 else ""
    return word + (", being deleted" if answer.get("deleting") else "")


def _place(answer: Json) -> str:
    parts = []
    for key, text in (("namespace", "in namespace {}"), ("cluster", "cluster {}"), ("job", "job {}")):
        if answer.get(key):
            parts.append(text.format(answer[key]))
    if answer.get("pid") and not answer["final"]:
        parts.append(f"process {answer['pid']}")
    return f" ({', '.join(parts)})" if parts else ""


def _time(answer: Json) -> str:
    took = answer.get("seconds")
    if answer["final"]:
        return "" if took is None else f" after {lines.duration(took)}"
    age = answer.get("age")
    return "" if age is None else f", {lines.duration(age)} old"


def _study(answer: Json) -> str:
    home = answer.get("home")
    return f"{answer['study']}{f' in {home}' if home else ''}" if answer.get("study") else ""


def _trials(counts: Mapping[str, int] | None) -> str:
    if not counts:
        return ""
    said = [f"{counts[s]} {s}" for s in (*lines.ORDER, State.RUNNING) if counts.get(s)]
    return ", ".join(said) or "none yet"
