"""Studies over the zoo of trainers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hpsearch.spec.reading import parse
from hpsearch.study.pruning import make_pruner
from hpsearch.study.sampling import OptunaSampler
from hpsearch.study.search import Search
from hpsearch.study.store import Store
from hpsearch.study.trial import Entry, Measurement, Study

HERE = Path(__file__).parent


class Watched:
    """A journal that counts measurements and can act at one of them."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.measured = 0
        self.at: dict[int, Callable[[], None]] = {}

    def commit(self, entries: Sequence[Entry]) -> None:
        self.store.commit(entries)
        for entry in entries:
            if isinstance(entry.fact, Measurement):
                self.measured += 1
                self.at.pop(self.measured, lambda: None)()


def yaml_of(kinds: Sequence[str], parallel: int = 1, module: str = "zoo", **block: Any) -> str:
    """A study that tries each kind of trainer once."""
    settings = {"maxSteps": 300, "measureEvery": 100, "sampler": "{type: GRID}", **block}
    own = "\n".join(f"  {key}: {value}" for key, value in settings.items())
    return f"""\
trainingInput:
  pythonModule: {module}
  hyperparameters:
    goal: MINIMIZE
    hyperparameterMetricTag: loss
    maxTrials: {len(kinds)}
    maxParallelTrials: {parallel}
    params:
      - {{parameterName: kind, type: CATEGORICAL, categoricalValues: [{", ".join(kinds)}]}}
hpsearch:
{own}
"""


def study_of(base: Path, *kinds: str, **block: Any) -> Search:
    """A Search over a real store for some kinds of trainers; the next life of one that is there."""
    directory = base / "study"
    if (directory / "study.db").exists():
        store = Store.open(directory)
    else:
        reading = parse(yaml_of(kinds, **block), "zoo.yaml")
        assert reading.spec, reading.errors
        store = Store.create(Study("study", "u", 1, reading.spec, directory), "sqlite:///none.db")
    history = store.take(1)
    spec = history.study.spec
    search = Search(
        history.study, OptunaSampler(spec), make_pruner(spec), Watched(store), python_path=[str(HERE)]
    )
    search.restore(history.trials, history.attributes)
    return search
