"""Real public files of both services: what `shared/compat` says of each is what the Reading holds."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest

from hpsearch.spec.model import (
    Algorithm,
    Categorical,
    Discrete,
    Double,
    Integer,
    Parameter,
    Problem,
    PruningRule,
    Reading,
    Scale,
    Spec,
)
from hpsearch.spec.reading import read

SHARED = Path(__file__).parents[2].parent / "shared"
COMPAT = SHARED / "compat"
# What the message of a rule holds.
SAYS = {
    "V1": "a tab",
    "V3": "trainingInput: is missing",
    "V5": "nothing to tune",
    "V7": "key max_parallel_trials is read as",
    "V8": "scaleTier STANDARD-1 is read as STANDARD_1",
    "V10": "training/hptuning/metric is used",
    "V12": "is 0: the default of 1",
    "V18": "type FDOUBLE is unknown",
    "V20": "is above maxValue",
    "V23": "needs numbers above 0",
    "V24": "not increasing",
    "V25": "is empty",
    "V26": "read as the text as written",
    "V29": "more than one machine is asked for",
    "V30": "asks for a TPU|masterType is absent, but scaleTier is CUSTOM",
    "V32": "is not fetched",
    "V36": "absent: 1 is used",
    "V38": "left in the file",
}
# Warnings that depend on the machine, or say that the file names nothing that runs here.
BESIDE = "nothing to run|resources.gpu is [0-9]+, read from"


def rows(folder: str) -> list[tuple[Path, str]]:
    """The files of a folder with what is expected; one row that fails where the files are absent."""
    manifest = COMPAT / folder / "MANIFEST.tsv"
    if not manifest.is_file():
        return [(manifest, "absent")]
    with manifest.open(encoding="utf-8") as stream:
        return [
            (COMPAT / folder / row["file"], row["expected"]) for row in csv.DictReader(stream, delimiter="\t")
        ]


CLOUD_ML_ENGINE, NOTHING_TO_TUNE = rows("cloud_ml_engine"), rows("nothing_to_tune")
VERTEX_AI = rows("vertex_ai")


def reading_of(file: Path, expected: str) -> Reading:
    if expected == "absent":
        pytest.fail(f"no {file}: the compatibility files lie in ../shared beside the repository")
    return read(file)


def test_the_compatibility_files_are_there() -> None:
    counts = (len(CLOUD_ML_ENGINE), len(NOTHING_TO_TUNE), len(VERTEX_AI))
    assert counts == (48, 6, 6), f"../shared/compat is not whole: {COMPAT}"


@pytest.mark.parametrize(
    ("file", "expected"),
    CLOUD_ML_ENGINE + NOTHING_TO_TUNE + VERTEX_AI,
    ids=lambda v: v.stem if isinstance(v, Path) else "",
)
def test_a_public_file_is_read_as_the_manifest_says(file: Path, expected: str) -> None:
    reading = reading_of(file, expected)
    assert reading.dialect == ("vertex_ai" if "Vertex AI" in expected else "cloud_ml_engine")
    if expected.startswith("error"):
        check_errors(reading, expected)
    else:
        assert reading.spec is not None, reading.errors
        assert set(described(reading.spec)) == set(accepted(expected))
        check_warnings(reading, expected)


def check_errors(reading: Reading, expected: str) -> None:
    """Every error has the rule's words in the manifest's line, and there is no other."""
    assert reading.spec is None
    wanted = re.findall(r"error (V\d+)(?: at lines? (\d+))?", expected)
    assert len(reading.errors) == len(wanted), reading.errors
    for problem, (rule, line) in zip(reading.errors, wanted, strict=True):
        assert SAYS[rule] in problem.message
        assert not line or problem.line == int(line)
        assert problem.hint
        assert problem.column >= 1
        for name in re.findall(r"parameter (\w+) has", expected) if len(wanted) == 1 else ():
            assert name in problem.message


def check_warnings(reading: Reading, expected: str) -> None:
    """The warnings are those of the manifest, and one each for what does not run and for GPUs."""
    told = re.findall(r"(V\d+)(?: \(line (\d+)\))?", (re.findall(r"warn ([^;]*)", expected) or [""])[0])
    left: list[Problem] = [w for w in reading.warnings if not re.search(BESIDE, w.message)]
    for rule, line in told:
        found = [w for w in left if re.search(SAYS[rule], w.message) and (not line or w.line == int(line))]
        assert len(found) == 1, (rule, line, left)
        left.remove(found[0])
    assert not left
    assert reading.spec is not None
    hints = [w for w in reading.warnings if "resources.gpu is" in w.message]
    assert len(hints) == reading.spec.resources.hinted
    runs = reading.spec.module or reading.spec.program.command
    assert len([w for w in reading.warnings if "nothing to run" in w.message]) == (not runs)


def accepted(expected: str) -> list[str]:
    """The parts of a manifest's line that a Spec holds."""
    parts = expected.split("; mind: ")[0].split("; ")
    parts = [part for part in parts if not part.startswith(("warn", "Vertex AI"))]
    parts = [part.replace(" unless given by flag", "") for part in parts]
    # A Spec does not tell a linear scale that was written from one that was not.
    return [part.replace("DISCRETE linear", "DISCRETE") for part in parts]


def described(spec: Spec) -> list[str]:
    """A Spec in the manifest's words."""
    failed = f", max failed {spec.limits.max_failed_trials}" if spec.limits.max_failed_trials else ""
    algorithms = {Algorithm.RANDOM: "RANDOM_SEARCH", Algorithm.GRID: "GRID_SEARCH"}
    count = len(spec.space.parameters)
    return [
        "accept",
        f"trials {spec.max_trials}, parallel {spec.max_parallel_trials}{failed}",
        *([algorithms[spec.sampler.type]] if spec.sampler.type in algorithms else []),
        f"{count} param{'s' * (count > 1)}: " + " | ".join(map(parameter, spec.space.parameters)),
        *(of_vertex_ai(spec) if spec.dialect == "vertex_ai" else of_cloud_ml_engine(spec)),
    ]


def of_cloud_ml_engine(spec: Spec) -> list[str]:
    return [
        f"{spec.objective.goal} `{spec.objective.metric}`",
        f"early stop {'on' if spec.pruner.type is PruningRule.MEDIAN else 'off'}",
        *([f"GPU hint {number(spec.resources.gpu)}"] if spec.resources.hinted else []),
    ]


def of_vertex_ai(spec: Spec) -> list[str]:
    return [f"{spec.objective.goal} {spec.objective.metric}", f"measurement {spec.selection}"]


def parameter(given: Parameter) -> str:
    if isinstance(given, Categorical):
        return f"{given.name} CATEGORICAL [" + ",".join(f'"{v}"' for v in given.values) + "]"
    if isinstance(given, Discrete):
        return f"{given.name} DISCRETE [" + ",".join(map(number, given.values)) + "]"
    kind = type(given).__name__.upper()
    assert isinstance(given, Double | Integer)
    if given.low == given.high:
        return f"{given.name} {kind} constant {number(given.low)}"
    scale = {Scale.LINEAR: "linear", Scale.LOG: "log", Scale.REVERSE_LOG: "reverse-log"}[given.scale]
    return f"{given.name} {kind} {scale} {number(given.low)}..{number(given.high)}"


def number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)
