"""Reports as fast as it can: from one HyperTune object, or from a new one each time."""

import sys

import hypertune

words = dict(word.removeprefix("--").split("=") for word in sys.argv[1:])
one = hypertune.HyperTune()
for step in range(1, int(words["reports"]) + 1):
    reporter = one if words["objects"] == "one" else hypertune.HyperTune()
    reporter.report_hyperparameter_tuning_metric("loss", 1 / step, step)
