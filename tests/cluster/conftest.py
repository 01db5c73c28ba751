"""The one guard of the tests that need hosts of their own, and the hosts."""

from __future__ import annotations

from collections.abc import Iterator

import hosts
import pytest
from lab import Lab, lab


@pytest.fixture(scope="module")
def three_hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Hosts for a head and two workers, with nothing on them yet."""
    if why := hosts.lack():
        pytest.skip(f"{hosts.NOT_TESTED} ({why})")
    with lab(3, tmp_path_factory.mktemp("lab")) as made:
        yield made
