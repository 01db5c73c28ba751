"""What is said before a trial starts of nodes that have too little, and of a Ray that is another."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from types import SimpleNamespace

import pytest

from hpsearch.errors import UsageError
from hpsearch.run import cluster, nodes
from hpsearch.run.scratch import Scratch
from hpsearch.spec.model import Resources

READ_ONLY = {"ab": "node_ab"}
GROWS = {"10.0.0.1": "ray.head.default"}


@pytest.fixture
def there(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A Ray of two nodes that does not grow, in what its own calls say of it."""
    for name in nodes.KEPT:
        monkeypatch.delenv(name, raising=False)
    said = SimpleNamespace(nodes=[{"CPU": 4.0}, {"CPU": 1.0, "GPU": 1.0}], types=READ_ONLY, newer=b"0")

    def kept(name: bytes, namespace: bytes | None) -> bytes:
        if (name, namespace) == nodes.NEWER:
            return bytes(said.newer)
        return json.dumps({"autoscaler_report": {"node_type_mapping": said.types}}).encode()

    worker = SimpleNamespace(global_worker=SimpleNamespace(gcs_client=SimpleNamespace(internal_kv_get=kept)))
    ray = SimpleNamespace(
        nodes=lambda: [{"Alive": True, "Resources": each} for each in said.nodes],
        available_resources=lambda: {"CPU": 5.0, "GPU": 1.0},
        _private=SimpleNamespace(worker=worker),
    )
    monkeypatch.setattr(nodes, "ray", ray)
    return said


def test_a_trial_that_fits_no_node_is_refused_where_none_can_come(there: SimpleNamespace) -> None:
    with pytest.raises(
        UsageError, match=r"asks for 8 CPU, the largest node has 4, and .* does not grow"
    ) as it:
        nodes.preflight(Resources(cpu=8), 2, joined=True, patient=False)
    assert "--start-timeout" in str(it.value.hint)
    with pytest.raises(UsageError, match=r"asks for 2 CPU, 1 GPU, and no single node has all of that"):
        nodes.preflight(Resources(cpu=2, gpu=1), 2, joined=True, patient=False)
    assert nodes.preflight(Resources(cpu=1, gpu=1), 7, joined=True, patient=False) == 7


@pytest.mark.parametrize("way", ["autoscaler", "newer autoscaler", "Kubernetes", "patience"])
def test_it_is_waited_for_where_nodes_may_come(
    way: str, there: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if way == "autoscaler":
        there.types = GROWS
    elif way == "newer autoscaler":
        there.newer = b"1"
    elif way == "Kubernetes":
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    with caplog.at_level(logging.WARNING):
        assert nodes.preflight(Resources(cpu=8), 2, joined=True, patient=way == "patience") == 2
    assert "waiting for 8 CPU, 4 exist on the largest node" in caplog.text


def test_on_ones_own_machine_there_is_room_for_so_many(there: SimpleNamespace) -> None:
    there.nodes = [{"CPU": 4.0, "GPU": 2.0}]
    assert nodes.preflight(Resources(cpu=1, gpu=0.5), 9, joined=False, patient=True) == 4
    with pytest.raises(UsageError, match="asks for 3 GPU, the largest node has 2"):
        nodes.preflight(Resources(gpu=3), 1, joined=False, patient=True)


def test_the_workers_of_a_trial_may_lie_on_several_nodes_and_must_all_fit(there: SimpleNamespace) -> None:
    assert nodes.preflight(Resources(workers=5), 3, joined=True, patient=False) == 3
    with pytest.raises(UsageError, match="6 workers of 1 CPU each, and all nodes together have room for 5"):
        nodes.preflight(Resources(workers=6), 3, joined=True, patient=False)
    assert nodes.lacking(Resources(workers=6)) == "no trial has started: one asks for 6 CPU, 5 are free"
    there.nodes = [{"CPU": 5.0}]
    assert nodes.preflight(Resources(workers=2), 9, joined=False, patient=True) == 2, "four of five CPUs"


def test_a_ray_of_another_version_is_bad_usage_and_both_are_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from ray._private import utils

    def joins(**given: object) -> None:
        monkeypatch.setattr(utils, "compute_version_info", lambda: ("2.60.0", "3.11.7"))
        utils.check_version_info({"ray_version": "2.52.0", "python_version": "3.12.1"}, "here")

    monkeypatch.setattr(cluster.ray, "init", joins)
    place = Scratch(tmp_path, "mark", tmp_path, 0)
    with pytest.raises(UsageError) as caught, cluster._ray("auto", place):
        raise AssertionError("it joined")
    assert caught.value.exit_code == 2
    for version in ("2.52.0", "3.12.1", "2.60.0", "3.11.7"):
        assert version in caught.value.message
