"""What makes the fork server that imports it the parent of all that a killed trial's process leaves."""

from __future__ import annotations

import warnings

from hpsearch.run.kin import adopt_orphans

adopt_orphans()
# It reaps the adopted ones, too, and would tell of each.
warnings.filterwarnings("ignore", "forkserver: waitpid returned unexpected pid")
