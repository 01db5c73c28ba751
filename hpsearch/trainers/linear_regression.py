"""The straight line: one weight and one bias fitted to twelve examples by stochastic gradient descent.

The smallest trainer there is, and the first exercise of many courses: with a learning rate that is too low
the line does not arrive in the steps it is given, with one that is too high it flies away.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from hpsearch.train.learner import Batches, Context, Learner, Params

FEATURES = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0]
LABELS = [5.0, 8.8, 9.6, 14.2, 18.8, 19.5, 21.4, 26.8, 28.9, 32.0, 33.8, 38.2]


def build(params: Params, context: Context) -> Learner[tuple[Tensor, ...]]:
    """Minimise the mean squared error of label = weight * feature + bias; `rmse` is over all examples."""
    features = torch.tensor(FEATURES, device=context.device)[:, None]
    labels = torch.tensor(LABELS, device=context.device)[:, None]
    line = nn.Linear(1, 1, device=context.device)

    def loss(batch: tuple[Tensor, ...]) -> Tensor:
        features, labels = batch
        return mse_loss(line(features), labels)

    def evaluate() -> dict[str, float]:
        return {"rmse": mse_loss(line(features), labels).sqrt().item()}

    return Learner(
        model=line,
        optimizer=torch.optim.SGD(line.parameters(), lr=float(params["learning_rate"])),
        batches=Batches(features, labels, batch_size=int(params["batch_size"]), seed=context.seed),
        loss=loss,
        evaluate=evaluate,
    )
