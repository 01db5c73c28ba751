"""The whole state of a training step as bytes and back: model, optimizer, schedule and random numbers."""

from __future__ import annotations

import io
import pickle
import random
import warnings
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from hpsearch.train.checkpoint import CheckpointError
from hpsearch.train.learner import Learner

FORMAT = 1
Last = Mapping[str, tuple[int, float]]


def seed_everything(seed: int) -> None:
    """Seed Python's, numpy's and torch's global random numbers."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def take(learner: Learner[Any], step: int, last: Last) -> memoryview:
    """The state after `step` updates, and each metric's last (step, value), serialised.

    Only tensors, numbers, texts, lists and dicts go in, so that it loads with `weights_only=True`. Raises
    CheckpointError when the trainer's own state is more than that and cannot be serialised.
    """
    version, internal, gauss = random.getstate()
    _, keys, *position = np.random.get_state(legacy=True)
    state = {
        "format": FORMAT,
        "step": step,
        "last": {name: list(pair) for name, pair in last.items()},
        "model": learner.model.state_dict(),
        "optimizer": learner.optimizer.state_dict(),
        "schedule": learner.schedule.state_dict() if learner.schedule else None,
        # As tensors: a pickle of a thousand single numbers takes longer than all the rest.
        "python": [version, torch.tensor(internal, dtype=torch.int64), gauss],
        "numpy": [torch.from_numpy(np.asarray(keys, dtype=np.int64)), *position],
        "torch": torch.get_rng_state(),
        # Asking for the state of a GPU that nothing has touched would start a context on it.
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],  # type: ignore[no-untyped-call]
    }
    buffer = io.BytesIO()
    try:
        torch.save(state, buffer)
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        raise CheckpointError(f"not plain data: {error}") from error
    if not is_plain(state):
        # Better found out now than when a trial has to go on from it.
        parse(buffer.getbuffer())
    return buffer.getbuffer()


def is_plain(state: object) -> bool:
    """True if a state surely loads with `weights_only=True`; False means that only trying can tell."""
    if isinstance(state, dict):
        return type(state) in (dict, OrderedDict) and all(map(is_plain, [*state.keys(), *state.values()]))
    if type(state) in (list, tuple):
        return all(map(is_plain, state))  # type: ignore[call-overload]
    return state is None or type(state) in (bool, int, float, str, torch.Tensor, torch.nn.Parameter)


def parse(data: bytes | memoryview) -> dict[str, Any]:
    """The state that `take` serialised, its tensors on the CPU; no code in it is ever run.

    Raises CheckpointError when it cannot be read.
    """
    try:
        with warnings.catch_warnings(action="ignore"):  # about formats that others wrote
            state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # What torch says advises to load it all the same, and that would run what is in it.
        raise CheckpointError("not plain data") from error
    except (RuntimeError, EOFError, ValueError, KeyError) as error:
        raise CheckpointError(f"not plain data: {str(error).partition(chr(10))[0][:200]}") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise CheckpointError(f"not of format {FORMAT}")
    return state


def restore(learner: Learner[Any], state: Mapping[str, Any]) -> None:
    """Put a parsed state into a freshly built learner and into the random numbers.

    Raises CheckpointError when the state is another model's; the learner, half written, must be built anew.
    """
    if (state["schedule"] is None) != (learner.schedule is None):
        raise CheckpointError("it has another schedule")
    try:
        learner.model.load_state_dict(state["model"])
        learner.optimizer.load_state_dict(state["optimizer"])
        if learner.schedule:
            learner.schedule.load_state_dict(state["schedule"])
    except (RuntimeError, ValueError, KeyError) as error:
        raise CheckpointError(f"it is another model's: {' '.join(str(error).split())}") from error
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal.tolist()), gauss))
    keys, *position = state["numpy"]
    np.random.set_state(("MT19937", keys.numpy().astype(np.uint32), *position))
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.is_available() and torch.cuda.device_count() == len(state["cuda"]):
        torch.cuda.set_rng_state_all(state["cuda"])
