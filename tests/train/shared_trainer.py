"""A trainer whose loss is a mean over examples, and whose batch two or three cannot share evenly."""

import torch
from torch import nn

from hpsearch.train.learner import Batches, Learner


def build(params, context):
    """A small network; `dropout` and `batch` say what is special."""
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(50, 4, generator=generator)
    targets = inputs.sum(dim=1, keepdim=True).sin()
    drop = nn.Dropout(params.get("dropout", 0.0))
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), drop, nn.Linear(8, 1))
    model[0].unused = nn.Linear(2, 2)  # no loss needs it
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    loss = nn.functional.mse_loss
    return Learner(
        model,
        optimizer,
        Batches(inputs, targets, batch_size=params.get("batch", 7), seed=context.seed),
        lambda batch: loss(model(batch[0]), batch[1]),
        lambda: {"loss": float(loss(model(inputs), targets))},
        torch.optim.lr_scheduler.StepLR(optimizer, 15, 0.5),
    )
