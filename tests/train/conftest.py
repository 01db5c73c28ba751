"""The fixtures of these tests."""

from trial_run import noisy, run

__all__ = ["noisy", "run"]
