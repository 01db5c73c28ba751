"""Loads with workers of torch, and with a pool that it starts in its own way."""

import multiprocessing

import hypertune
import torch


class Squares(torch.utils.data.Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, index):
        return float(index * index)


def double(number):
    return 2 * number


if __name__ == "__main__":
    assert multiprocessing.current_process().name == "MainProcess"
    assert multiprocessing.parent_process() is None
    multiprocessing.set_start_method("spawn")
    with multiprocessing.Pool(1) as pool:
        (doubled,) = pool.map(double, [21])
    loader = torch.utils.data.DataLoader(
        Squares(), batch_size=4, num_workers=2, multiprocessing_context="fork"
    )
    total = sum(float(batch.sum()) for batch in loader)
    hypertune.HyperTune().report_hyperparameter_tuning_metric("loss", total + doubled, 1)
