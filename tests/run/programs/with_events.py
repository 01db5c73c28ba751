"""Reports to TensorBoard alone, where `--where` says, or also through hypertune."""

import argparse
import os

import hypertune
from torch.utils.tensorboard import SummaryWriter

parser = argparse.ArgumentParser()
parser.add_argument("--where", choices=["default", "logs"], required=True)
parser.add_argument("--both", action="store_true")
args = parser.parse_args()
writer = SummaryWriter(os.environ["AIP_TENSORBOARD_LOG_DIR"] if args.where == "logs" else None)
for epoch in range(1, 4):
    for batch in range(2):
        writer.add_scalar("batch_loss", 1.0, 2 * epoch + batch)
    writer.add_scalar("loss", 1 / epoch, epoch)
    if args.both:
        hypertune.HyperTune().report_hyperparameter_tuning_metric("loss", 10 / epoch, epoch)
writer.close()
