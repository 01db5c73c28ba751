"""Trials of several processes, which are real and speak by gloo on loopback."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from trial_run import Run, Said

from hpsearch.run.team import CUT
from hpsearch.train.crew import part_of

TRAINER = Path(__file__).with_name("shared_trainer.py").read_text()


def close(one: Said, other: Said, after: int = 0) -> bool:
    """Whether two curves are the same from a step on, but for rounding."""
    rows, others = ([row for row in said.curve if row[0] > after] for said in (one, other))
    assert [row[0] for row in rows] == [row[0] for row in others] != []
    return [metrics for _, metrics in rows] == [pytest.approx(metrics, rel=1e-4) for _, metrics in others]


@pytest.mark.parametrize(("size", "batch"), [(2, 7), (3, 7), (2, 1)], ids=["uneven", "three", "one example"])
def test_several_workers_measure_what_one_measures(together, run: Run, size: int, batch: int) -> None:
    alone = run(TRAINER, metric="loss", params={"batch": batch})
    first, *others = together(TRAINER, size=size, params={"batch": batch})
    assert first.verdict == alone.verdict == ("completed", "reached step 40")
    assert len(alone.curve) == 8
    assert close(first, alone)
    assert all(other.curve == other.checkpoints == [] for other in others), "only the first reports"
    assert all(other.endings[0].silent for other in others)


def test_one_worker_goes_on_from_the_checkpoint_of_two_and_two_from_that_of_one(together, run: Run) -> None:
    whole = run(TRAINER, metric="loss")
    half, _ = together(TRAINER, attempt=2, stop_after=4)
    assert half.checkpoints[-1].step == 20
    assert half.endings == []
    rest = run(TRAINER, metric="loss", attempt=3, resume=half.checkpoints[-1])
    assert rest.curve[0][0] == 25
    assert close(rest, whole, after=20)
    start = whole.checkpoints[0]
    again, _ = together(TRAINER, attempt=4, resume=start)
    assert again.curve[0][0] == start.step + 5
    assert close(again, whole, after=start.step)


def test_two_workers_that_draw_go_on_as_if_they_had_never_stopped(together) -> None:
    params = {"dropout": 0.5}
    whole, _ = together(TRAINER, params=params)
    half, _ = together(TRAINER, params=params, attempt=2, stop_after=4)
    rest, _ = together(TRAINER, params=params, attempt=3, resume=half.checkpoints[-1])
    assert half.curve + rest.curve == whole.curve


def test_where_one_raises_the_others_say_that_they_lost_it(together) -> None:
    raising = TRAINER.replace(
        "lambda batch: loss(model(batch[0]), batch[1]),",
        "lambda batch: loss(model(batch[0]), batch[1]) if os.environ['MINE'] == '0' else batch.missing,",
    ).replace("import torch\n", "import os\nimport torch\n", 1)
    raising = raising.replace("def build(", "from torch import distributed\n\n\ndef build(", 1).replace(
        "    generator =", "    os.environ['MINE'] = str(distributed.get_rank())\n    generator =", 1
    )
    first, other = together(raising)
    assert other.verdict[1].startswith("AttributeError: 'tuple' object has no attribute 'missing'")
    assert first.verdict[0] == "failed"
    assert CUT.search(first.verdict[1]), "or the first one's reason would be taken for the trial's"


def test_only_the_trials_address_is_listened_on(together) -> None:
    looking = (
        TRAINER.replace('{"loss":', '{"open": listening(), "loss":')
        + """

def listening():
    # The places where this process listens that are not of 127.0.0.1.
    import os
    from pathlib import Path
    files = [f"/proc/self/fd/{each}" for each in os.listdir("/proc/self/fd")]
    mine = {os.readlink(each) for each in files if os.path.exists(each)}
    texts = [Path(f"/proc/self/net/{name}").read_text() for name in ("tcp", "tcp6")]
    rows = [row.split() for text in texts for row in text.splitlines()[1:]]
    found = [row[1] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in mine]
    assert found, "it listens nowhere"
    return sum(not each.startswith("0100007F") for each in found)
"""
    )
    first, _ = together(looking, max_steps=5)
    assert first.verdict == ("completed", "reached step 5")
    assert first.curve[0][1]["open"] == 0


def test_a_batch_is_cut_in_parts_that_differ_by_one_at_most() -> None:
    batch = {
        "x": torch.arange(7),
        "deep": [torch.arange(14).view(7, 2), (3, "text")],
        "scalar": torch.tensor(1),
    }
    parts = [part_of(batch, rank, 3) for rank in range(3)]
    assert [part["x"].tolist() for part, _ in parts] == [[0, 1], [2, 3], [4, 5, 6]]
    assert [weight for _, weight in parts] == [2 / 7, 2 / 7, 3 / 7]
    assert all(part["deep"][1] == (3, "text") for part, _ in parts)
    assert parts[2][0]["deep"][0].tolist() == [[8, 9], [10, 11], [12, 13]]
    assert part_of((torch.ones(1),), 0, 2) == ((torch.ones(1),), 0.0)
    with pytest.raises(TypeError, match="needs tensors of one length, in tuples, lists or dicts; got a str"):
        part_of("nothing", 0, 2)
    with pytest.raises(ValueError, match=r"lengths \[1, 2\]"):
        part_of((torch.ones(1), torch.ones(2)), 0, 2)
