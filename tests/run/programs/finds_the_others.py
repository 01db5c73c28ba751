"""An unmodified program of torch.distributed, which finds the others by itself; the first reports."""

import argparse
import os
import time

import hypertune
import torch
from torch import distributed

parser = argparse.ArgumentParser()
parser.add_argument("--kind")
kind = parser.parse_args().kind

if __name__ == "__main__":
    distributed.init_process_group("gloo")
    total = torch.tensor([distributed.get_rank() + 1.0])
    distributed.all_reduce(total)
    print(
        "rank", distributed.get_rank(), "of", distributed.get_world_size(), "local", os.environ["LOCAL_RANK"]
    )
    if distributed.get_rank() == 0:
        report = hypertune.HyperTune().report_hyperparameter_tuning_metric
        report("loss", float(total), 1)
    distributed.barrier()
    if kind == "lingers" and distributed.get_rank() == 1:
        time.sleep(600)
    distributed.destroy_process_group()
