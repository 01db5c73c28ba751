"""Studies that run in this process on a Ray that they join, with a journal that lets tests act at facts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hpsearch.spec.reading import parse
from hpsearch.study.history import StoreReader
from hpsearch.study.pruning import make_pruner
from hpsearch.study.sampling import OptunaSampler
from hpsearch.study.search import Search
from hpsearch.study.store import Store
from hpsearch.study.trial import Entry, Study, Trial

HERE = Path(__file__).parent
ZOO = HERE.parent / "run"
When = Callable[[Entry], None]


class Telling:
    """A journal that shows each durable fact to a test."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.told: list[Entry] = []
        self.when: When = lambda entry: None

    def commit(self, entries: Sequence[Entry]) -> None:
        self.store.commit(entries)
        for entry in entries:
            self.told.append(entry)
            self.when(entry)


def steady(trials: int, parallel: int = 1, steps: int = 2000, **block: Any) -> str:
    """A file for trials of the steady learner."""
    settings = {"maxSteps": steps, "measureEvery": 10, "sampler": "{type: RANDOM}", **block}
    own = "\n".join(f"  {key}: {value}" for key, value in settings.items())
    return f"""\
trainingInput:
  pythonModule: steady
  hyperparameters:
    goal: MINIMIZE
    hyperparameterMetricTag: loss
    maxTrials: {trials}
    maxParallelTrials: {parallel}
    params:
      - {{parameterName: target, type: DOUBLE, minValue: 0.5, maxValue: 1.5}}
hpsearch:
{own}
"""


def zoo(*kinds: str, parallel: int = 1, **block: Any) -> str:
    """A file that tries each kind of the zoo's trainers once."""
    text = steady(len(kinds), parallel, 300, **{"measureEvery": 100, "sampler": "{type: GRID}", **block})
    line = f"{{parameterName: kind, type: CATEGORICAL, categoricalValues: [{', '.join(kinds)}]}}"
    old = "{parameterName: target, type: DOUBLE, minValue: 0.5, maxValue: 1.5}"
    return text.replace("pythonModule: steady", "pythonModule: zoo").replace(old, line)


def life(directory: Path, text: str) -> tuple[Search, Telling]:
    """The next life of a study, its first one if there was none."""
    if (directory / "study.db").exists():
        store = Store.open(directory)
    else:
        reading = parse(text, "chaos.yaml")
        assert reading.spec, reading.errors
        study = Study("study", "u", 1, reading.spec, directory)
        store = Store.create(study, "sqlite:///none.db")
    history = store.take(1)
    spec, journal = history.study.spec, Telling(store)
    path = [str(HERE), str(ZOO)]
    search = Search(history.study, OptunaSampler(spec), make_pruner(spec), journal, path)
    search.epoch = history.epoch
    search.restore(history.trials, history.attributes)
    return search, journal


def stored(search: Search) -> list[Trial]:
    """A study's trials with all that they measured, of which a search forgets much once they have ended."""
    return StoreReader(search.study.directory).history().trials


def ledger(search: Search, trial: int) -> list[tuple[int, int, int, int]]:
    """What a trial did: (attempt, step, pid, fork server's pid) in the order in which it happened."""
    path = search.study.directory / f"trials/{trial:04d}/ledger"
    lines = path.read_text().splitlines() if path.exists() else []
    return [tuple(map(int, line.split())) for line in lines]  # type: ignore[misc]


def worker_of(search: Search, trial: int) -> int:
    """The pid of the Ray worker on which a trial runs now."""
    server = ledger(search, trial)[-1][3]
    worker = int(Path(f"/proc/{server}/stat").read_text().rpartition(")")[2].split()[1])
    assert "ray::" in Path(f"/proc/{worker}/cmdline").read_text(), "it is no Ray worker"
    return worker
