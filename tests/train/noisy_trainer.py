"""Dropout, batch norm, Adam, a schedule, shuffling, and random numbers of all kinds wherever they fit."""

import random
import time

import numpy as np
import torch
from torch import nn

from hpsearch.train.learner import Batches, Learner


class Trap:
    """Batches that end the process, as far as this one can, after `kill_at` updates."""

    def __init__(self, batches, kill_at):
        self.batches, self.kill_at = batches, kill_at

    def __getitem__(self, position):
        if position == self.kill_at:
            raise KeyboardInterrupt
        return self.batches[position]


def build(params, context):
    features = torch.randn(50, 4, generator=torch.Generator().manual_seed(1))
    labels = features.sum(1, keepdim=True)
    model = nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)

    def loss(batch):
        time.sleep(float(params.get("pause", 0)))
        features, labels = batch
        noise = random.random() + np.random.rand()
        return nn.functional.mse_loss(model(features), labels) * (1 + 0.1 * noise)

    def evaluate():
        error = nn.functional.mse_loss(model(features), labels).sqrt()
        return {"rmse": error, "noise": random.random() + np.random.rand() + torch.rand(())}

    return Learner(
        model=model,
        optimizer=optimizer,
        batches=Trap(Batches(features, labels, batch_size=8, seed=context.seed), params.get("kill_at")),
        loss=loss,
        evaluate=evaluate,
        schedule=torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.05, total_steps=context.max_steps),
    )
