"""Batches: every example once per pass, in an order that only the seed and the pass decide."""

from __future__ import annotations

import pytest
import torch

from hpsearch.train.learner import Batches


def taken(batches: Batches, first: int, count: int) -> list[list[int]]:
    return [batches[position][0].tolist() for position in range(first, first + count)]


def test_a_pass_holds_every_example_once_and_passes_differ() -> None:
    batches = Batches(torch.arange(12), batch_size=4, seed=1)
    passes = [[example for batch in taken(batches, first, 3) for example in batch] for first in (0, 3, 6)]
    assert all(sorted(each) == list(range(12)) for each in passes)
    assert passes[0] != passes[1] != passes[2] != list(range(12))


def test_a_batch_depends_on_its_position_alone() -> None:
    forwards = taken(Batches(torch.arange(10), batch_size=3, seed=1), 0, 9)
    jumping = Batches(torch.arange(10), batch_size=3, seed=1)
    torch.manual_seed(99)
    assert [jumping[position][0].tolist() for position in reversed(range(9))] == forwards[::-1]
    assert taken(Batches(torch.arange(10), batch_size=3, seed=2), 0, 9) != forwards


def test_examples_that_fill_no_batch_sit_out_one_pass_only() -> None:
    batches = Batches(torch.arange(10), batch_size=4, seed=0)
    assert all(len(batch) == 4 for batch in taken(batches, 0, 20))
    assert {example for batch in taken(batches, 0, 20) for example in batch} == set(range(10))


def test_tensors_stay_in_step() -> None:
    batches = Batches(torch.arange(9), torch.arange(9) * 10.0, batch_size=2, seed=3)
    assert all(torch.equal(batches[n][0] * 10.0, batches[n][1]) for n in range(12))


def test_a_batch_larger_than_the_data_set_is_all_of_it() -> None:
    batches = Batches(torch.arange(5), batch_size=64, seed=0)
    assert all(sorted(batch) == list(range(5)) for batch in taken(batches, 0, 4))
    assert taken(batches, 0, 1) != taken(batches, 1, 1)


@pytest.mark.parametrize(
    ("tensors", "size", "message"),
    [
        ((torch.arange(3), torch.arange(4)), 2, r"one length above 0, got \[3, 4\]"),
        ((torch.arange(0),), 2, r"one length above 0, got \[0\]"),
        ((), 2, r"one length above 0, got \[\]"),
        ((torch.arange(3),), 0, "batch_size must be at least 1, got 0"),
    ],
)
def test_nothing_to_cut_is_an_error(tensors: tuple[torch.Tensor, ...], size: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Batches(*tensors, batch_size=size, seed=0)
