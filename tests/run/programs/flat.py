"""A flat script without a main guard, as many are: strict parser, a new HyperTune in each epoch."""

import argparse
import sys
import time

import hypertune

FIRST_LINE = (time.time(), "torch" in sys.modules)
parser = argparse.ArgumentParser()
parser.add_argument("--lr", type=float, required=True)
parser.add_argument("--epochs", type=int, default=3)
parser.add_argument("--note", default="")
args = parser.parse_args()
print(f"training at {args.lr}", *FIRST_LINE)


def train(epoch, lr):
    return lr + epoch


for epoch in range(1, args.epochs + 1):
    loss = train(epoch, args.lr)
    hypertune.HyperTune().report_hyperparameter_tuning_metric("loss", loss, epoch)
