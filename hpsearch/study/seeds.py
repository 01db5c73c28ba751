"""Seeds that follow from the study's: the same in every life of a study, and different for each use."""

from __future__ import annotations

import hashlib


def seed_of(study_seed: int, trial: int, purpose: str = "") -> int:
    """A seed from 0 to 2^32-1 for one purpose of one trial."""
    digest = hashlib.sha256(f"{study_seed}:{trial}:{purpose}".encode()).digest()
    return int.from_bytes(digest[:4])
