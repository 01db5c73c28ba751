"""Studies over the zoo of trainers, which both runners must treat alike."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from zoo_studies import study_of

from hpsearch.study.search import Search


@pytest.fixture
def search_for(tmp_path: Path) -> Callable[..., Search]:
    """A Search over a real store for some kinds of trainers."""
    return partial(study_of, tmp_path)
