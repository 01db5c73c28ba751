"""Reports as lines of JSON: what a trial's process writes and the driver reads; nothing is unpickled."""

from __future__ import annotations

import json
from dataclasses import asdict

from hpsearch.study.trial import Checkpoint, Ending, Measurement, Report, State


def encode(report: Report) -> str:
    """One line without its newline; NaN and infinities are kept."""
    return json.dumps({name: value for name, value in asdict(report).items() if value not in (None, "")})


def decode(line: str) -> Report:
    """The report that `encode` wrote."""
    data = json.loads(line)
    measurement, checkpoint, ending = (data.get(k) for k in ("measurement", "checkpoint", "ending"))
    return Report(
        measurement=Measurement(measurement["step"], measurement["metrics"], measurement["time"])
        if measurement
        else None,
        checkpoint=Checkpoint(**checkpoint) if checkpoint else None,
        ending=Ending(State(ending["state"]), ending["reason"], ending["time"], ending["silent"])
        if ending
        else None,
        note=data.get("note", ""),
        resumed_from=data.get("resumed_from"),
    )


def is_failure(line: str) -> bool:
    """True if the line is the last word of a trial that failed."""
    return line.startswith('{"ending": {"state": "failed"')


def is_checkpoint(line: str) -> bool:
    """True if the line announces a checkpoint."""
    return line.startswith('{"checkpoint"')


def is_ending(line: str) -> bool:
    """True if the line is a trial's last word."""
    return line.startswith('{"ending"')
