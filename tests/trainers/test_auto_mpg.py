"""The cars: disjoint and complete splits, statistics of the training split only, miles per gallon."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hpsearch.study.trial import Context
from hpsearch.train import loop
from hpsearch.trainers import auto_mpg

GOOD = {"learning_rate": 0.01, "hidden_layers": 1, "hidden_units": 64, "batch_size": 32, "optimizer": "Adam"}


def context(directory: Path, seed: int = 0) -> Context:
    return Context(0, 1, seed, 200, 100, directory)


def rows(*tensors: torch.Tensor) -> list[tuple[float, ...]]:
    return sorted(tuple(row) for row in torch.cat(tensors, dim=1).tolist())


def test_the_data_are_392_cars_with_seven_features() -> None:
    features, labels = auto_mpg.load()
    assert features.shape == (392, 7)
    assert labels.shape == (392, 1)
    assert bool(torch.isfinite(features).all() and torch.isfinite(labels).all())
    assert (labels.min().item(), labels.max().item()) == (9.0, pytest.approx(46.6))


def test_the_splits_are_disjoint_complete_shuffled_and_always_the_same() -> None:
    features, labels = auto_mpg.load()
    numbered = torch.arange(392.0)[:, None]
    training, _, validation, _ = auto_mpg.split(numbered, labels)
    assert sorted(training.flatten().tolist() + validation.flatten().tolist()) == list(range(392))
    assert (len(training), len(validation)) == (314, 78)
    assert validation.flatten().tolist() != sorted(validation.flatten().tolist())
    torch.manual_seed(5)
    again = auto_mpg.split(features, labels)
    torch.manual_seed(6)
    assert all(torch.equal(a, b) for a, b in zip(again, auto_mpg.split(features, labels), strict=True))
    assert rows(*again[:2]) + rows(*again[2:]) != rows(features, labels)
    assert sorted(rows(*again[:2]) + rows(*again[2:])) == rows(features, labels)


def test_the_statistics_are_those_of_the_training_split_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = loop.fresh(auto_mpg.build, GOOD, context(tmp_path))
    for tensor in learner.batches.tensors:
        assert torch.allclose(tensor.mean(0), torch.zeros(1), atol=1e-5)
        assert torch.allclose(tensor.std(0), torch.ones(1), atol=1e-5)
    seen: list[torch.Tensor] = []
    learner.model.register_forward_pre_hook(lambda model, given: seen.append(given[0]))
    loop.evaluate(learner)
    (held_out,) = seen
    assert held_out.shape == (78, 7)
    assert bool((held_out.mean(0).abs() > 1e-3).all())
    load = auto_mpg.load

    def other_validation() -> tuple[torch.Tensor, torch.Tensor]:
        features, labels = load()
        order = torch.randperm(392, generator=torch.Generator().manual_seed(auto_mpg.SPLIT_SEED))
        features[order[:78]] *= 100
        return features, labels

    monkeypatch.setattr(auto_mpg, "load", other_validation)
    changed = loop.fresh(auto_mpg.build, GOOD, context(tmp_path))
    assert all(
        torch.equal(a, b) for a, b in zip(changed.batches.tensors, learner.batches.tensors, strict=True)
    )


def test_the_error_is_in_miles_per_gallon(tmp_path: Path) -> None:
    learner = loop.fresh(auto_mpg.build, GOOD, context(tmp_path))
    for parameter in learner.model.parameters():
        torch.nn.init.zeros_(parameter)
    _, labels, _, truth = auto_mpg.split(*auto_mpg.load())
    guessing_the_mean = (truth - labels.mean()).square().mean().sqrt().item()
    assert loop.evaluate(learner)["val_rmse"] == pytest.approx(guessing_the_mean, rel=1e-5)


def test_a_good_setting_gets_below_three_miles_per_gallon(tmp_path: Path) -> None:
    learner = loop.fresh(auto_mpg.build, GOOD, context(tmp_path))
    for step in range(1, 401):
        loop.update(learner, step)
    assert loop.evaluate(learner)["val_rmse"] < 3.0


@pytest.mark.parametrize("name", auto_mpg.OPTIMIZERS)
def test_every_optimizer_and_depth_lowers_the_loss(tmp_path: Path, name: str) -> None:
    params = {"learning_rate": 1e-3, "optimizer": name, "hidden_layers": 3, "dropout": 0.1, "batch_size": 500}
    learner = loop.fresh(auto_mpg.build, params, context(tmp_path))
    first = loop.update(learner, 1).item()
    for step in range(2, 60):
        last = loop.update(learner, step).item()
    assert last < first


@pytest.mark.parametrize("penalty", ["l1", "l2"])
def test_penalties_shrink_the_weights_but_not_the_biases(tmp_path: Path, penalty: str) -> None:
    learner = loop.fresh(auto_mpg.build, GOOD | {penalty: 0.5}, context(tmp_path))
    plain = loop.fresh(auto_mpg.build, GOOD, context(tmp_path))
    weights = [parameter for parameter in plain.model.parameters() if parameter.ndim == 2]
    expected = sum((w.abs() if penalty == "l1" else w.square()).sum().item() for w in weights) * 0.5
    difference = learner.loss(learner.batches[0]) - plain.loss(plain.batches[0])
    assert difference.item() == pytest.approx(expected, rel=1e-4)


def test_the_trials_seed_changes_the_start_but_not_the_split(tmp_path: Path) -> None:
    one, two = (loop.fresh(auto_mpg.build, GOOD, context(tmp_path, seed)) for seed in (1, 2))
    assert not torch.equal(next(one.model.parameters()), next(two.model.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(one.batches.tensors, two.batches.tensors, strict=True))
    assert not torch.equal(one.batches[0][0], two.batches[0][0])
