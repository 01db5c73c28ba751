"""A trainer of a known length: small matrix steps, as many as the param `steps` says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from hpsearch.train.learner import Batches, Context, Learner


def build(params: Mapping[str, Any], context: Context) -> Learner:
    """A regression on random data; one step costs well under a millisecond."""
    features = torch.randn(512, 32)
    labels = features @ torch.randn(32, 1)
    model = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 1))
    mse = nn.MSELoss()

    def loss(batch: tuple[torch.Tensor, ...]) -> torch.Tensor:
        x, y = batch
        result: torch.Tensor = mse(model(x), y)
        return result

    return Learner(
        model=model,
        optimizer=torch.optim.Adam(model.parameters(), lr=float(params["learning_rate"])),
        batches=Batches(features, labels, batch_size=64, seed=context.seed),
        loss=loss,
        evaluate=lambda: {"loss": float(mse(model(features), labels))},
    )
