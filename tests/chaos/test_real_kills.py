"""60 real SIGKILLs of real drivers and trials, drawn with a seed from the trace of an uninterrupted sweep.

A failure names its seed: HPSEARCH_CHAOS_SEED=17 scripts/test tests/chaos/test_real_kills.py
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from real_sweep import Event, Sweep, events, kill_often
from zygote import Zygote

pytestmark = pytest.mark.timeout(500)

SEED = int(os.environ.get("HPSEARCH_CHAOS_SEED", "1"))
FORMS = {"closed_form": (24, 4, 12), "closed_form_program": (12, 2, 6)}  # trials, sweeps, kills in each


def reference(zygote: Zygote, directory: Path) -> tuple[list[Event], list[tuple[object, ...]]]:
    """What an uninterrupted sweep passes, and how it ends."""
    sweep = Sweep(zygote, directory)
    assert sweep.live(trace=directory / "trace") == 0
    return events(directory / "trace"), sweep.outcome()


@pytest.mark.fault("F01", "F57")
@pytest.mark.parametrize("form", FORMS)
def test_a_sweep_that_is_killed_again_and_again_ends_as_if_nothing_had_happened(
    zygote: Zygote,
    place: Callable[..., Path],
    fired: Callable[..., None],
    form: str,
    record_property: Callable[[str, object], None],
) -> None:
    trials, sweeps, kills = FORMS[form]
    trace, expected = reference(zygote, place("whole", module=form, trials=trials))
    assert len(expected) == trials
    failures: list[str] = []
    done: list[Sweep] = []

    def kill_all(seeds: range) -> None:
        """Sweeps until there were as many kills as there shall be: some end before theirs are all through."""
        killed = 0
        for seed in seeds:
            if killed >= sweeps * kills // 2:
                return
            sweep = Sweep(zygote, place(f"cut-{seed}", module=form, trials=trials, pause=0.002))
            if form.endswith("program"):
                (sweep.directory / "programs").touch()
            try:
                kill_often(sweep, trace, kills, seed)
                sweep.check_the_end(expected)
                done.append(sweep)
                killed += len(sweep.fired)
            except BaseException as error:  # of a thread: told by the test itself
                failures.append(f"HPSEARCH_CHAOS_SEED={SEED}, seed {seed}, after {sweep.fired}: {error}")

    first = SEED * 1000
    halves = range(first, first + 4 * sweeps, 2), range(first + 1, first + 4 * sweeps, 2)
    threads = [threading.Thread(target=kill_all, args=(half,)) for half in halves]  # two at a time
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, "\n".join(failures)
    faults = [fault for sweep in done for fault in sweep.fired]
    print(f"seed {SEED}: {len(faults)} kills, {sum(s.lives for s in done)} lives")
    print("steps again:", [s.again() for s in done], dict(Counter(f.partition(":")[0] for f in faults)))
    record_property("kills", len(faults))
    fired(len(faults) >= sweeps * kills and len(faults))
