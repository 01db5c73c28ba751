"""The command line and the environment of a trial: what parsers of the wild make of them."""

from __future__ import annotations

import argparse
import json
import math
import random
import struct
import sys
from pathlib import Path
from typing import Any

import pytest
from program_run import launch

from hpsearch.run import contract
from hpsearch.spec.model import Program, Scale, Value

DIRECTORY = Path("/study/trials/0006")


def draws(kind: type, scale: Scale) -> list[Value]:
    """Values as a search space may hold them: of all magnitudes, both ends of ranges, awkward ones."""
    dice = random.Random(f"{kind}{scale}")
    found: list[Value] = []
    while len(found) < 1000:
        low = 10.0 ** dice.uniform(-12, 12)
        high = low * 10.0 ** dice.uniform(0, 6)
        share = dice.random()
        if scale is Scale.LINEAR:
            value = dice.choice((1, -1)) * (low + share * (high - low))
        else:
            value = math.exp(math.log(low) + share * (math.log(high) - math.log(low)))
            value = value if scale is Scale.LOG else low + high - value
        found.append(round(value) if kind is int else value)
    bits = (dice.getrandbits(64) for _ in range(100))
    awkward = [struct.unpack("<d", b.to_bytes(8, "little"))[0] for b in bits]
    return found + ([v for v in awkward if math.isfinite(v)] if kind is float else [])


@pytest.mark.parametrize("scale", Scale)
@pytest.mark.parametrize("kind", [float, int])
def test_every_number_reads_back_equal_through_a_parser(kind: type, scale: Scale) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--x-1", type=kind)
    for value in draws(kind, scale):
        words = contract.arguments(launch(DIRECTORY, "m", {"x-1": value}))
        assert len(words) == 1
        assert parser.parse_args(words).x_1 == value


def test_every_text_arrives_whole() -> None:
    dice = random.Random(0)
    parser = argparse.ArgumentParser()
    parser.add_argument("--x")
    alphabet = "abc 0123456789-=,;'\"\\$`|&<>(){}[]*?~#!%\t\nüßλ"
    texts = ["".join(dice.choices(alphabet, k=dice.randint(0, 12))) for _ in range(1000)]
    for text in ["64 32 16", "64,16", "-1e-05", "--other", "=", *texts]:
        if text == "--":
            continue  # which argparse of Python 3.11 swallows even here
        (word,) = contract.arguments(launch(DIRECTORY, "m", {"x": text}))
        assert parser.parse_args([word]).x == text


def test_the_users_arguments_come_first_then_the_job_directory_then_the_params_in_their_order() -> None:
    params: dict[str, Value] = {"n.trees": 50, "learning-rate": 0.1, "A": "64 32", "b": 1e-06}
    given = launch(
        DIRECTORY,
        "trainer.task",
        params,
        args=("--epochs", "3", "--learning-rate=9"),
        program=Program(job_dir="gs://bucket/jobs/"),
    )
    assert contract.command(given) == [
        *(sys.executable, "-m", "trainer.task"),
        *("--epochs", "3", "--learning-rate=9"),
        *("--job-dir", "gs://bucket/jobs/7"),
        *("--n.trees=50", "--learning-rate=0.1", "--A=64 32", "--b=1e-06"),
    ]


def test_without_a_job_directory_a_strict_parser_is_not_told_of_one() -> None:
    assert contract.arguments(launch(DIRECTORY, "m", {"x": 1})) == ["--x=1"]


def test_a_command_takes_the_place_of_the_module() -> None:
    given = launch(DIRECTORY, "m", {"x": 1}, program=Program(command=("Rscript", "train.R")))
    assert contract.command(given) == ["Rscript", "train.R", "--x=1"]


def test_a_command_is_found_where_a_trial_will_find_it(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    for name in ("bin/tool", "train.sh"):
        (tmp_path / name).touch(mode=0o755)
    (tmp_path / "plain").touch(mode=0o644)
    own = {"env": (("PATH", str(tmp_path / "bin")),)}

    def find(word: str, directory: Path | None = tmp_path, **fields: Any) -> str | None:
        return contract.find_command(Program(command=(word,), **fields), directory, {"PATH": "/no/such"})

    assert find("python3") == sys.executable
    interpreter = Path(sys.executable)
    assert find(interpreter.name) == str(interpreter), "the commands of this interpreter come first"
    assert find("tool") is None
    assert find("tool", **own) == str(tmp_path / "bin/tool"), "the file's PATH is the one that counts"
    assert find(str(tmp_path / "train.sh")) == find("./train.sh") == str(tmp_path / "train.sh")
    assert find("train.sh") is None, "a bare name is not looked for in the directory"
    assert find("./plain") is None
    assert find("./train.sh", None) is None, "a new directory is empty"
    assert find("../train.sh", None) == "../train.sh", "only the trial can tell"
    assert contract.find_command(Program(), None, {}) == sys.executable


def test_all_trials_share_a_directory_unless_each_has_its_own(tmp_path: Path) -> None:
    assert contract.shared_directory(Program(), [str(tmp_path), "/else"]) == tmp_path
    assert contract.shared_directory(Program(own_directory=True), [str(tmp_path)]) is None


def test_a_bucket_is_passed_on_and_never_made_a_path() -> None:
    given = launch(DIRECTORY, "m", program=Program(output="gs://bucket/out"))
    env = contract.environment(given, DIRECTORY / "m", {})
    assert env["AIP_MODEL_DIR"] == "gs://bucket/out/7/model/"
    assert contract.local(env["AIP_MODEL_DIR"]) is None
    own = contract.environment(launch(DIRECTORY, "m"), DIRECTORY / "m", {})
    assert own["AIP_MODEL_DIR"] == f"{DIRECTORY}/model/"


def test_the_file_may_set_what_it_likes_but_not_the_protocol() -> None:
    env = (("AIP_MODEL_DIR", "/mine/"), ("CLOUD_ML_TRIAL_ID", "99"), ("PYTHONPATH", "/lib"), ("HOME", "/h"))
    base = {"HOME": "/root", "PATH": "/bin", "CLUSTER_SPEC": "of an outer job", "TF_CONFIG": "{}"}
    found = contract.environment(launch(DIRECTORY, "m", program=Program(env=env)), DIRECTORY / "f", base)
    assert (found["AIP_MODEL_DIR"], found["CLOUD_ML_TRIAL_ID"], found["HOME"]) == ("/mine/", "7", "/h")
    assert found["PYTHONPATH"].endswith(":/lib")
    assert found["PATH"] == f"{Path(sys.executable).parent}:/bin"
    assert "CLUSTER_SPEC" not in found
    assert "CLOUD_ML_REGION" not in found
    assert json.loads(found["TF_CONFIG"])["task"] == {"index": 0, "trial": "7"}


def test_a_missing_drivers_directory_is_replaced_by_the_one_at_hand(tmp_path: Path) -> None:
    elsewhere = launch(DIRECTORY, "m", program=Program(), python_path=(str(tmp_path / "gone"),))
    assert contract.working_directory(elsewhere) == Path.cwd()
    here = launch(DIRECTORY, "m", program=Program(), python_path=(str(tmp_path),))
    assert contract.working_directory(here) == tmp_path


def test_a_job_too_long_for_a_variable_is_left_out_and_the_trial_stays(tmp_path: Path) -> None:
    job = json.dumps({"args": ["ü" * 30_000]}, ensure_ascii=False)
    found = contract.environment(launch(tmp_path, "m", program=Program(job=job)), tmp_path / "f", {})
    assert json.loads(found["TF_CONFIG"])["job"] == {}
    assert json.loads(found["TF_CONFIG"])["task"]["trial"] == found["CLOUD_ML_TRIAL_ID"]
