"""What kind of failure it was that ended a trial, read from what it said."""

from __future__ import annotations

import re

from hpsearch.study.trial import Ending, State

# `torch.cuda.OutOfMemoryError` and `torch.OutOfMemoryError` are one; other frameworks have their own words.
_OUT_OF_MEMORY = re.compile(
    r"(?:^|[\s.])(?:OutOfMemoryError|MemoryError|ResourceExhaustedError)\b"
    r"|CUDA out of memory|CUDA_ERROR_OUT_OF_MEMORY"
)


def failed(reason: str, said: str = "") -> Ending:
    """FAILED for a reason, with the last thing it said; one that ran out of memory is called so."""
    whole = f"{reason}: {said}" if said else reason
    return Ending(State.FAILED, f"oom: {whole}" if is_out_of_memory(said or reason) else whole)


def is_out_of_memory(text: str) -> bool:
    """True for what Python, torch and CUDA say when there is no more memory."""
    return _OUT_OF_MEMORY.search(text) is not None
