"""Parses with click, and names its command `train`."""

import click
import hypertune


@click.command()
@click.option("--learning-rate", type=float, required=True)
@click.option("--layers", type=int, default=1)
def train(learning_rate, layers):
    hypertune.HyperTune().report_hyperparameter_tuning_metric("loss", learning_rate * layers, 1)


if __name__ == "__main__":
    train()
