"""What is read: YAML as kubectl reads it, JSON, Lists, folders; and texts that are no manifests."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import lint_world as world
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hpsearch.ship.lint import checks, document, sources
from hpsearch.ship.lint.finding import written
from hpsearch.ship.lint.shape import walked

SERVICE = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {type: NodePort}\n"


def gathered(tmp_path: Path, text: str | bytes) -> sources.Sources:
    file = tmp_path / "a.yaml"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return sources.gather([str(file)])


def refusals(tmp_path: Path, text: str | bytes) -> list[str]:
    """The rules that refuse a text, each with its line."""
    return [f"{f.rule}:{f.line}" for f in gathered(tmp_path, text).findings]


@pytest.mark.parametrize(
    ("plain", "value"),
    [
        ("0644", 420),
        ("0o644", 420),
        ("0x1F", 31),
        ("1_000", 1000),
        ("1e3", 1000.0),
        ("12:30", "12:30"),
        ("2026-01-01", "2026-01-01"),
        ("yes", True),
        ("Off", False),
        ("y", "y"),
        ("~", None),
        ("", None),
        ("'yes'", "yes"),
        ('"5"', "5"),
        ("500m", "500m"),
        ("1.2.3", "1.2.3"),
        ("!!str 5", "5"),
        ("-", None),
        ("9" * 400, "9" * 400),
    ],
)
def test_plain_scalars_are_what_they_are_to_kubectl(plain: str, value: object) -> None:
    text = f"a: {plain}\n" if plain != "-" else "a:\n"
    assert document.read(text)[0][0].value == {"a": value}


def test_anchors_aliases_and_merge_keys_are_read() -> None:
    text = "a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\nc: {<<: [*a, {z: 4}]}\nd: *a\n"
    documents, problems = document.read(text)
    assert not problems
    value = documents[0].value
    assert value["b"] == {"x": 1, "y": 3}
    assert value["c"] == {"x": 1, "y": 2, "z": 4}
    assert value["d"] == {"x": 1, "y": 2}
    assert documents[0].at(("b", "y")) == 2
    assert documents[0].at(("b", "nothing", "there")) == 2


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: [", "read/yaml:2"),
        ("\t- a\n", "read/yaml:1"),
        ("a: 'b\n", "read/yaml:2"),
        ("a: *nobody\n", "read/yaml:1"),
        ("a: &a [*a]\n", "read/yaml:1"),
        ("{{ name }}: b\n", "read/yaml:1"),
        ("a: !!python/object:os.system b\n", "read/yaml:1"),
        ("a: !include b.yaml\n", "read/yaml:1"),
        ("<<: 5\n", "read/yaml:1"),
        ("[" * 100_000, "read/yaml:1"),
        ("a: \x00\n", "read/yaml:1"),
        (b"kind: \xff\xfe\n", "read/yaml:1"),
        ("", "read/empty-file:1"),
        ("---\n---\n# nothing\n", "read/empty-file:1"),
        ("- a\n- b\n", "read/no-object:1"),
        ("just a text\n", "read/no-object:1"),
        ("kind: Service\n", "read/no-object:1"),
        ("replicaCount: 3\nimage: {tag: a}\n", "read/no-object:1"),
    ],
)
def test_what_is_no_manifest_is_refused_with_its_line(tmp_path: Path, text: str | bytes, told: str) -> None:
    assert refusals(tmp_path, text) == [told]


def test_a_text_that_grows_by_aliases_is_refused_at_once(tmp_path: Path) -> None:
    lines = ["a: &a [x,x,x,x,x,x,x,x,x]"]
    for before, name in zip("abcdefghij", "bcdefghijk", strict=True):
        lines.append(f"{name}: &{name} [{','.join([f'*{before}'] * 9)}]")
    found = gathered(tmp_path, "\n".join(lines)).findings
    assert [f.message for f in found] == ["more than 500,000 values when the aliases are written out"]


def test_a_key_that_stands_twice_is_an_error_and_the_first_counts(tmp_path: Path) -> None:
    found = gathered(tmp_path, SERVICE + "spec: {type: ClusterIP}\n")
    assert [(f.rule, f.line, written(f.path)) for f in found.findings] == [("read/duplicate-key", 5, "spec")]
    assert found.manifests[0].value["spec"] == {"type": "NodePort"}


def test_a_bad_document_does_not_hide_the_good_ones_before_it(tmp_path: Path) -> None:
    found = gathered(tmp_path, f"{SERVICE}---\na: [\n")
    assert [f.rule for f in found.findings] == ["read/yaml"]
    assert [m.subject for m in found.manifests] == ["Service/a"]


def test_objects_of_lists_are_checked_each_at_its_line(tmp_path: Path) -> None:
    item = "- apiVersion: v1\n  kind: Service\n  metadata: {name: a}\n  spec:\n    type: NodePort\n"
    text = f"apiVersion: v1\nkind: List\nitems:\n{item}"
    found = checks.check(gathered(tmp_path, text), None, checks.Wishes()).findings
    assert [(f.line, f.subject, f.rule) for f in found] == [(8, "Service/a", "object/service-type")]


def test_json_is_read_too(tmp_path: Path) -> None:
    text = (
        '{"apiVersion": "v1", "kind": "Service",\n "metadata": {"name": "a"}, "spec":\n {"type": "NodePort"}}'
    )
    found = checks.check(gathered(tmp_path, text), None, checks.Wishes()).findings
    assert [(f.line, f.rule) for f in found] == [(3, "object/service-type")]


def test_a_file_that_is_not_there_or_cannot_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "folder.yaml").mkdir()
    found = sources.gather([str(tmp_path / "no.yaml"), str(tmp_path / "folder.yaml")]).findings
    assert [f.rule for f in found] == ["read/missing-file", "read/folder"]


def test_a_folder_is_searched_and_patches_in_it_are_no_manifests(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "service.yml").write_text(SERVICE)
    (tmp_path / "notes.txt").write_text("no manifest")
    (tmp_path / "patch.yaml").write_text("- {op: remove, path: /a}\n")
    (tmp_path / "refs.yaml").write_text("nameReference: []\n")
    (tmp_path / "kustomization.yaml").write_text(
        "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n"
        "patches: [{path: patch.yaml}]\nconfigurations: [refs.yaml]\n"
    )
    found = sources.gather([str(tmp_path)])
    assert [Path(file).name for file in found.files] == ["service.yml", "kustomization.yaml"]
    assert found.findings == []


def test_control_characters_of_a_manifest_reach_no_terminal(tmp_path: Path) -> None:
    text = 'apiVersion: v1\nkind: Service\nmetadata: {name: "a\\e[31m"}\nspec: {"ty\\u202epe": NodePort}\n'
    found = checks.check(gathered(tmp_path, text), None, checks.Wishes()).findings
    assert found
    assert all(f.text.isprintable() for f in found)


JUNK: tuple[Any, ...] = (
    None,
    True,
    5,
    -1,
    1.5,
    "",
    "x",
    [],
    [None],
    ["x"],
    [[]],
    {},
    {"x": None},
    [{"x": {}}],
)


@settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_no_manifest_however_odd_ends_in_a_traceback(data: st.DataObject) -> None:
    value = copy.deepcopy(data.draw(st.sampled_from(WHOLE)))
    for _ in range(data.draw(st.integers(1, 4))):
        paths = [path for path, _ in walked(value) if path and path[0] not in ("apiVersion", "kind")]
        path = data.draw(st.sampled_from(paths))
        place: Any = value
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = copy.deepcopy(data.draw(st.sampled_from(JUNK)))
    for finding in world.ruled(value, *OTHERS):
        assert finding.text
        assert finding.as_json()


WHOLE = [
    *world.documents(world.PLATFORM),
    *world.retained(),
    *world.queued()[1:2],
    *world.cluster()[:1],
    *world.ray_cron()[:1],
    *world.documents(world.CRONJOB),
    *world.documents(world.SERVER),
]
# They refer to the others, and are referred to.
OTHERS = [
    each for each in WHOLE if each["kind"] in ("Namespace", "NetworkPolicy", "PodDisruptionBudget", "CronJob")
]


def test_standard_input_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "_standard_input", SERVICE.encode)
    given = sources.gather(["-", "-"])
    assert len(given.manifests) == 1
    assert [f.message for f in given.findings] == ["standard input is named twice, and can be read once"]


def test_a_folder_of_too_many_files_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.yaml").write_text(SERVICE)
    monkeypatch.setattr(sources, "MAX_FILES", 2)
    given = sources.gather([str(tmp_path)])
    assert len(given.manifests) == 2
    assert [f.message for f in given.findings] == ["3 manifests, and 2 are read"]
