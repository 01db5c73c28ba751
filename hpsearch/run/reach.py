"""GPUs for trials where a file's machine has more of them than there are here."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from hpsearch.spec.model import Resources

DEVICE = re.compile(r"nvidia\d+")
log = logging.getLogger(__name__)


def within_reach(resources: Resources, there: float) -> Resources:
    """What a trial asks for; where a machine's name stood for GPUs, no more than the best machine has."""
    if not resources.hinted or resources.gpu <= there:
        return resources
    plural = "" if resources.gpu == 1 else "s"
    log.warning(
        "the file's machine has %g GPU%s, the best one here %g: a trial gets %g",
        *(resources.gpu, plural, there, there),
    )
    return replace(resources, gpu=there)


def gpus_here(environment: Mapping[str, str] = os.environ, devices: Path = Path("/dev")) -> int:
    """How many GPUs of this machine a process may use, without a library that would take one of them."""
    found = sum(DEVICE.fullmatch(device.name) is not None for device in devices.iterdir())
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return found
    names = [name.strip() for name in visible.split(",")]
    # CUDA takes the names up to the first that is none.
    return min(found, next((n for n, name in enumerate(names) if name in ("", "-1")), len(names)))
