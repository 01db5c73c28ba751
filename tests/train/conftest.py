"""The fixtures of these tests."""

from team_run import forks, together
from trial_run import noisy, run

__all__ = ["forks", "noisy", "run", "together"]
