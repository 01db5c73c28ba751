"""How far does a car go on a gallon? A multilayer perceptron on the 392 cars of the Auto MPG data set.

Source: Quinlan 1993, UCI Machine Learning Repository (Auto MPG), as shipped by mlxtend. The seven features
are cylinders, displacement, horsepower, weight, acceleration, model year and origin.
"""

from __future__ import annotations

import torch
from mlxtend.data import autompg_data
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from hpsearch.train.learner import Batches, Context, Learner, Params

OPTIMIZERS = {"SGD": torch.optim.SGD, "Adam": torch.optim.Adam, "RMSprop": torch.optim.RMSprop}
VALIDATION = 78  # a fifth of the cars
SPLIT_SEED = 0  # never the trial's seed: trials can only be compared on the same cars


def load() -> tuple[Tensor, Tensor]:
    """Features of shape (392, 7) and labels in miles per gallon of shape (392, 1)."""
    features, labels = (torch.as_tensor(array, dtype=torch.float32) for array in autompg_data())
    return features[:, :7], labels[:, None]  # the eighth column would be the car's name, and is empty


def split(features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Training features and labels, then those for validation, the same for every trial."""
    order = torch.randperm(len(features), generator=torch.Generator().manual_seed(SPLIT_SEED))
    held_out, rest = order[:VALIDATION], order[VALIDATION:]
    return features[rest], labels[rest], features[held_out], labels[held_out]


def perceptron(inputs: int, layers: int, units: int, dropout: float) -> nn.Sequential:
    """`layers` hidden layers of `units` rectifiers, each followed by dropout, and a linear output."""
    model = nn.Sequential()
    for _ in range(layers):
        model.extend([nn.Linear(inputs, units), nn.ReLU(), nn.Dropout(dropout)])
        inputs = units
    return model.append(nn.Linear(inputs, 1))


def build(params: Params, context: Context) -> Learner[tuple[Tensor, ...]]:
    """Minimise the squared error of the standardised label, with L1 and L2 penalties on the weights."""
    features, labels, held_out, truth = (tensor.to(context.device) for tensor in split(*load()))
    # What is known of the data before training is known of the training split alone.
    mean, deviation = features.mean(0), features.std(0)
    middle, spread = labels.mean(), labels.std()
    examples = (features - mean) / deviation, (labels - middle) / spread
    unseen = (held_out - mean) / deviation

    model = perceptron(
        features.shape[1],
        int(params.get("hidden_layers", 2)),
        int(params.get("hidden_units", 32)),
        float(params.get("dropout", 0.0)),
    ).to(context.device)
    weights = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    l1, l2 = float(params.get("l1", 0.0)), float(params.get("l2", 0.0))

    def loss(batch: tuple[Tensor, ...]) -> Tensor:
        inputs, targets = batch
        penalty = sum(l1 * weight.abs().sum() + l2 * weight.square().sum() for weight in weights)
        return mse_loss(model(inputs), targets) + penalty

    size = sum(parameter.numel() for parameter in model.parameters())

    def evaluate() -> dict[str, float]:
        answers = model(unseen) * spread + middle
        return {"val_rmse": mse_loss(answers, truth).sqrt().item(), "weights": size}

    optimizer = OPTIMIZERS[str(params.get("optimizer", "Adam"))]
    # Only some optimizers have one; a condition in the search space gives it to those.
    momentum = {"momentum": float(params["momentum"])} if "momentum" in params else {}
    return Learner(
        model=model,
        optimizer=optimizer(model.parameters(), lr=float(params["learning_rate"]), **momentum),
        batches=Batches(*examples, batch_size=int(params.get("batch_size", 32)), seed=context.seed),
        loss=loss,
        evaluate=evaluate,
    )
