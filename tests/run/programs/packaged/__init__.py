"""A package that offers nothing, but runs: `python -m packaged`."""
