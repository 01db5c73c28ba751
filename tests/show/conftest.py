"""A study in a temporary home."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import facts
import pytest

from hpsearch.study.history import History
from hpsearch.study.trial import StudyEnding, Trial


@pytest.fixture
def history(tmp_path: Path) -> Callable[..., History]:
    """Makes the history of a study from its trials."""

    def make(*trials: Trial, ending: StudyEnding | None = None) -> History:
        return facts.history(facts.study(tmp_path), trials, ending)

    return make
