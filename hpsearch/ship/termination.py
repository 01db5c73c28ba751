"""The last word of a pod's process: one JSON object that Kubernetes keeps in the pod's status."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PATH = Path("/dev/termination-log")
# Kubernetes keeps so many bytes.
LARGEST = 4096


def leave(path: Path, answer: Mapping[str, Any]) -> bool:
    """Write an answer where the kubelet reads it; False where there is no such file, outside of a pod.

    What does not fit loses the end of its `message`, and then its `hint`.
    """
    text = _fitting(dict(answer))
    try:
        with path.open("r+", encoding="ascii") as file:
            file.truncate()
            file.write(text)
    except OSError:
        return False
    return True


def _fitting(answer: dict[str, Any]) -> str:
    for name in ("message", "hint"):
        while len(text := json.dumps(answer)) > LARGEST and answer.get(name):
            answer[name] = str(answer[name])[: len(str(answer[name])) * 3 // 4]
    return text
