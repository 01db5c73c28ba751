"""The same misbehaviour as an unmodified program of the services: hypertune, flags, exit codes."""

import argparse
from pathlib import Path

import hypertune
import misbehaving

from hpsearch.study.trial import Context

parser = argparse.ArgumentParser()
parser.add_argument("--kind")
parser.add_argument("--attempt", type=int, default=1)
args = parser.parse_args()
context = Context(0, args.attempt, 0, 300, 100, Path.cwd())
reporter = hypertune.HyperTune()
for measurement in misbehaving.train({"kind": args.kind}, context):
    for name, value in measurement.metrics.items():
        reporter.report_hyperparameter_tuning_metric(name, value, measurement.step)
