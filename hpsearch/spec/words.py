"""The enumerations of the services: their documented words, and what else is taken for them."""

from __future__ import annotations

from hpsearch.spec.model import Algorithm, Goal, Scale, Selection
from hpsearch.spec.scalars import Choice

GOALS = Choice(
    words={"MAXIMIZE": Goal.MAXIMIZE, "MINIMIZE": Goal.MINIMIZE, "GOAL_TYPE_UNSPECIFIED": None},
    meant={"MAX": "MAXIMIZE", "MIN": "MINIMIZE"},
)
ALGORITHMS = Choice(
    words={
        "ALGORITHM_UNSPECIFIED": None,
        "GRID_SEARCH": Algorithm.GRID,
        "RANDOM_SEARCH": Algorithm.RANDOM,
    },
    lenient={"GRID": Algorithm.GRID, "RANDOM": Algorithm.RANDOM},
    meant={
        **dict.fromkeys(("BAYESIAN", "BAYESIAN_OPTIMIZATION", "TPE"), "ALGORITHM_UNSPECIFIED"),
        **dict.fromkeys(("GP", "CMA_ES", "QMC", "NSGA_II"), "sampler.type in the hpsearch: block"),
    },
)
SCALES = Choice(
    words={
        "NONE": None,
        "UNIT_LINEAR_SCALE": Scale.LINEAR,
        "UNIT_LOG_SCALE": Scale.LOG,
        "UNIT_REVERSE_LOG_SCALE": Scale.REVERSE_LOG,
        "SCALE_TYPE_UNSPECIFIED": None,
    },
    lenient={
        f"{prefix}{name}{suffix}": scale
        for name, scale in (("LINEAR", Scale.LINEAR), ("LOG", Scale.LOG), ("REVERSE_LOG", Scale.REVERSE_LOG))
        for prefix, suffix in (("", ""), ("UNIT_", ""), ("", "_SCALE"))
    },
    meant={
        "LOGARITHMIC": "UNIT_LOG_SCALE",
        "LOGUNIFORM": "UNIT_LOG_SCALE",
        "UNIFORM": "UNIT_LINEAR_SCALE",
    },
)
SELECTIONS = Choice(
    words={
        "LAST_MEASUREMENT": Selection.LAST,
        "BEST_MEASUREMENT": Selection.BEST,
        "MEASUREMENT_SELECTION_TYPE_UNSPECIFIED": None,
    },
    lenient={"LAST": Selection.LAST, "BEST": Selection.BEST},
)
