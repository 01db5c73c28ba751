"""A trial that is stopped or killed anywhere goes on from its checkpoint to the very same curve."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import random
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from trial_run import Run, Said

from hpsearch.study.trial import Checkpoint
from hpsearch.train import checkpoint, snapshot

STEPS = list(range(5, 45, 5))
FROM_ZERO = "starting from step 0"


def test_the_same_launch_gives_the_same_curve_twice(run: Run, noisy: str) -> None:
    first = run(noisy)
    torch.rand(3)
    assert [step for step, _ in first.curve] == STEPS
    assert run(noisy).curve == first.curve
    assert run(noisy, seed=8).curve != first.curve


@pytest.mark.parametrize("measured", range(1, 8))
def test_a_trial_stopped_at_any_measurement_resumes_to_the_same_curve(
    run: Run, noisy: str, measured: int, tmp_path: Path
) -> None:
    whole = run(noisy)
    last = torch.load(tmp_path / "trial" / whole.checkpoints[-1].name, weights_only=True)
    begun = run(noisy, stop_after=measured)
    assert begun.endings == []
    assert begun.checkpoints[-1].step == STEPS[measured - 1]
    resumed = run(noisy, attempt=2, resume=begun.checkpoints[-1])
    assert begun.curve + resumed.curve == whole.curve
    assert resumed.verdict == ("completed", "reached step 40")
    again = torch.load(tmp_path / "trial" / resumed.checkpoints[-1].name, weights_only=True)
    assert all(torch.equal(again["model"][name], value) for name, value in last["model"].items())
    assert torch.equal(again["torch"], last["torch"])


def test_a_trial_killed_at_random_steps_again_and_again_repeats_the_same_curve(run: Run, noisy: str) -> None:
    whole = dict(run(noisy).curve)
    for seed in range(6):
        chance = random.Random(seed)
        seen: dict[int, object] = {}
        resume: Checkpoint | None = None
        for attempt in (1, 2, 3):
            start = resume.step if resume else 0
            said = Said()
            with pytest.raises(KeyboardInterrupt):
                kill_at = chance.randint(start, 39)
                run(noisy, params={"kill_at": kill_at}, attempt=attempt, resume=resume, said=said)
            assert said.endings == []
            seen |= dict(said.curve)
            resume = said.checkpoints[-1] if said.checkpoints else resume
        seen |= dict(run(noisy, attempt=4, resume=resume).curve)
        assert seen == whole


def test_a_process_killed_by_the_system_resumes_to_the_same_curve(
    run: Run, noisy: str, tmp_path: Path
) -> None:
    program = """
import json, sys
from dataclasses import asdict
from pathlib import Path
from hpsearch.study.trial import Context, Launch
from hpsearch.train.trial import execute

def report(what):
    print(json.dumps(asdict(what)), flush=True)
    return True

context = Context(3, 1, 7, 400, 5, Path(sys.argv[1]) / "trial")
execute(Launch("doomed", (), {"pause": 0.001}, context, "rmse", (sys.argv[1],)), report)
"""
    (tmp_path / "doomed.py").write_text(noisy)
    curve, announced = [], []
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, cwd=Path.cwd()
    ) as process:
        assert process.stdout
        for line in process.stdout:
            what = json.loads(line)
            if what["measurement"]:
                curve.append((what["measurement"]["step"], what["measurement"]["metrics"]))
            if what["checkpoint"]:
                announced.append(Checkpoint(**what["checkpoint"]))
            if len(curve) == 20:
                os.kill(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    newest = announced[-1]
    assert 0 < newest.step < 400
    assert (tmp_path / "trial" / newest.name).stat().st_size == newest.size
    resumed = run(noisy, max_steps=400, attempt=2, resume=newest)
    assert resumed.notes == []
    whole = run(noisy, max_steps=400)
    assert resumed.curve == whole.curve[newest.step // 5 :]
    assert [(step, dict(metrics)) for step, metrics in whole.curve[: len(curve)]] == curve


def test_a_trial_that_had_said_everything_but_its_end_only_ends(run: Run, noisy: str) -> None:
    whole = run(noisy)
    resumed = run(noisy, attempt=2, resume=whole.checkpoints[-1])
    assert resumed.measurements == []
    assert resumed.verdict == ("completed", "reached step 40")


def damage(path: Path, kind: str, chance: random.Random) -> None:
    data = bytearray(path.read_bytes())
    if kind == "missing":
        path.unlink()
    elif kind == "cut":
        path.write_bytes(data[: chance.randrange(len(data))])
    else:
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        path.write_bytes(data)


@pytest.mark.parametrize("kind", ["flip", "cut", "missing", "without proof"])
def test_a_damaged_checkpoint_means_starting_again_and_saying_so(
    run: Run, noisy: str, tmp_path: Path, kind: str
) -> None:
    begun = run(noisy, stop_after=3)
    newest = begun.checkpoints[-1]
    if kind == "without proof":
        newest = replace(newest, sha256="")
    else:
        damage(tmp_path / "trial" / newest.name, kind, random.Random(kind))
    resumed = run(noisy, attempt=2, resume=newest)
    (note,) = resumed.notes
    assert note.startswith("checkpoint step-00000015-attempt-1.pt cannot be used (")
    assert note.endswith(FROM_ZERO)
    assert resumed.curve == run(noisy).curve


def test_a_damaged_checkpoint_means_the_one_before_it_and_the_same_curve(
    run: Run, noisy: str, tmp_path: Path
) -> None:
    whole = run(noisy)
    begun = run(noisy, stop_after=4)
    before, newest = begun.checkpoints[-2:]
    (tmp_path / "trial" / newest.name).unlink()
    resumed = run(noisy, attempt=2, resume=newest, earlier=before)
    assert resumed.notes == [
        f"checkpoint {Path(newest.name).name} cannot be used (No such file or directory): "
        f"going on from step {before.step}"
    ]
    assert resumed.curve == [point for point in whole.curve if point[0] > before.step]


def test_every_flipped_bit_and_every_cut_is_found_before_anything_is_parsed(
    run: Run, noisy: str, tmp_path: Path
) -> None:
    newest = run(noisy, max_steps=5).checkpoints[-1]
    path = tmp_path / "trial" / newest.name
    good = path.read_bytes()
    assert len(checkpoint.read(path, newest.sha256)) == newest.size
    chance = random.Random(0)
    for number in range(300):
        path.write_bytes(good)
        damage(path, "cut" if number % 3 == 0 else "flip", chance)
        with pytest.raises(checkpoint.CheckpointError):
            checkpoint.read(path, newest.sha256)


class Evil:
    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.victim,))


@pytest.mark.parametrize("container", ["pickle", "torch"])
def test_code_in_a_checkpoint_is_never_run_even_if_its_proof_is_right(
    run: Run, noisy: str, tmp_path: Path, container: str
) -> None:
    victim, buffer = tmp_path / "owned", io.BytesIO()
    if container == "pickle":
        pickle.dump(Evil(victim), buffer, protocol=2)
    else:
        torch.save({"format": snapshot.FORMAT, "model": Evil(victim)}, buffer)
    data = buffer.getvalue()
    (tmp_path / "trial").mkdir()
    (tmp_path / "trial" / "evil.pt").write_bytes(data)
    evil = Checkpoint(5, 1, "evil.pt", len(data), hashlib.sha256(data).hexdigest())
    resumed = run(noisy, attempt=2, resume=evil)
    assert not victim.exists()
    assert resumed.notes[0].endswith(FROM_ZERO)
    assert resumed.curve == run(noisy).curve


def test_the_checkpoint_of_another_model_means_starting_again(run: Run, noisy: str) -> None:
    newest = run(noisy, stop_after=3).checkpoints[-1]
    smaller = noisy.replace("16", "12")
    resumed = run(smaller, attempt=2, resume=newest)
    assert "another model's" in resumed.notes[0]
    assert resumed.curve == run(smaller).curve


def test_a_trainer_that_lost_its_schedule_starts_again(run: Run, noisy: str) -> None:
    newest = run(noisy, stop_after=3).checkpoints[-1]
    without = noisy.replace("        schedule=", "    ); (")
    resumed = run(without, attempt=2, resume=newest)
    assert "another schedule" in resumed.notes[0]
    assert [step for step, _ in resumed.curve] == STEPS


SCHEDULES = {
    "StepLR": "StepLR(optimizer, 7)",
    "MultiStepLR": "MultiStepLR(optimizer, [4, 9, 22])",
    "CosineAnnealingLR": "CosineAnnealingLR(optimizer, 40)",
    "CosineAnnealingWarmRestarts": "CosineAnnealingWarmRestarts(optimizer, 6)",
    "LambdaLR": "LambdaLR(optimizer, lambda step: 0.97**step)",
}


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(
    "optimizer", ["SGD(model.parameters(), lr=0.01, momentum=0.9)", "RMSprop(model.parameters())"]
)
def test_every_usual_schedule_and_optimizer_resumes_exactly(
    run: Run, noisy: str, schedule: str, optimizer: str
) -> None:
    source = noisy.replace("Adam(model.parameters(), lr=0.02)", optimizer)
    source = source.replace("OneCycleLR(optimizer, 0.05, total_steps=context.max_steps)", SCHEDULES[schedule])
    assert SCHEDULES[schedule] in source
    begun = run(source, stop_after=4)
    assert begun.notes == []
    resumed = run(source, attempt=2, resume=begun.checkpoints[-1])
    assert begun.curve + resumed.curve == run(source).curve
