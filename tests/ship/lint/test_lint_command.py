"""The command k8s validate: exit codes, streams, the JSON object, what this project renders and builds."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import lint_world as world
import pytest
import yaml

from hpsearch import cli
from hpsearch.ship.lint import checks

GOOD = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {type: ClusterIP, ports: [{port: 80}]}\n"
BAD = GOOD.replace("ClusterIP", "NodePort").replace("name: a", "name: b")
WARNED = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {selector: {a: b}}\n"


@pytest.fixture
def validate(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Runs the command in this process and directory: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def command(*arguments: str, stdin: str = "") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["hpsearch", "k8s", "validate", *arguments])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        with pytest.raises(SystemExit) as left:
            cli.main()
        code = left.value.code
        return code if isinstance(code, int) else 0, *capsys.readouterr()

    return command


def test_a_good_manifest_is_0_and_a_bad_one_2_with_its_line(validate: Any) -> None:
    Path("good.yaml").write_text(GOOD)
    Path("bad.yaml").write_text(BAD)
    assert validate("good.yaml") == (0, "1 object in 1 file: no errors, 0 warnings\n", "")
    code, out, err = validate("good.yaml", "bad.yaml")
    assert code == 2
    assert out.splitlines() == [
        "bad.yaml:4: Service/b spec.type: a Service of type NodePort (object/service-type); "
        "set type: ClusterIP; use kubectl port-forward service/NAME PORT"
    ]
    assert err == "error: 2 objects in 2 files: 1 error\n"


def test_standard_input_is_read(validate: Any) -> None:
    code, out, _ = validate("-", stdin=BAD)
    assert code == 2
    assert out.startswith("<stdin>:4: Service/b")


def test_a_warning_fails_only_if_strict(validate: Any, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(f"{WARNED}---\n{world.SERVER}")
    code, out, _ = validate("a.yaml")
    assert code == 0
    assert "warning: Service/a spec.selector: no pod in these files" in out
    assert validate("a.yaml", "--strict")[0] == 2
    assert validate("a.yaml", "--strict", "--ignore", "selector/nothing")[0] == 0


def test_the_answer_is_one_object_and_only_that(validate: Any) -> None:
    Path("bad.yaml").write_text(BAD)
    code, out, err = validate("bad.yaml", "--json")
    assert (code, err) == (2, "error: 1 object in 1 file: 1 error\n")
    answer = json.loads(out)
    assert out.count("\n") == 1
    assert [answer[name] for name in ("valid", "files", "objects", "errors", "warnings")] == [
        False,
        1,
        1,
        1,
        0,
    ]
    assert answer["findings"] == [
        {
            "file": "bad.yaml",
            "line": 4,
            "kind": "Service",
            "name": "b",
            "path": "spec.type",
            "level": "error",
            "rule": "object/service-type",
            "message": "a Service of type NodePort",
            "hint": "set type: ClusterIP; use kubectl port-forward service/NAME PORT",
            "source": "this project's security rules",
        }
    ]


def test_schemas_that_nobody_has_looked_at_are_told_loudly(validate: Any) -> None:
    Path("job.yaml").write_text(yaml.safe_dump_all(world.job()))
    code, out, err = validate("job.yaml", "--json")
    assert code == 0
    assert "the schema of ray.io/v1 RayJob was NOT checked" in err
    assert "--crds" in err
    assert json.loads(out)["schemas_unchecked"] == ["ray.io/v1 RayJob"]


def test_definitions_come_from_the_running_cluster(
    validate: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    schema = {"type": "object", "properties": {"spec": {"type": "object", "properties": {}}}}
    versions = [{"name": "v1", "served": True, "schema": {"openAPIV3Schema": schema}}]
    spec = {"group": "ray.io", "names": {"kind": "RayJob"}, "versions": versions}
    listed = {"kind": "List", "items": [{"kind": "CustomResourceDefinition", "spec": spec}]}
    (tmp_path / "crds.json").write_text(json.dumps(listed))
    kubectl = tmp_path / "bin" / "kubectl"
    kubectl.parent.mkdir()
    kubectl.write_text(f'#!/bin/sh\n[ "$2" = customresourcedefinitions ] && cat {tmp_path}/crds.json\n')
    kubectl.chmod(0o700)
    monkeypatch.setenv("PATH", f"{kubectl.parent}:/usr/bin:/bin")
    Path("job.yaml").write_text(yaml.safe_dump_all(world.job()))
    code, out, err = validate("job.yaml", "--crds", "cluster")
    assert code == 2
    assert "spec.entrypoint: unknown field 'entrypoint' (schema)" in out
    assert "NOT checked" not in err
    kubectl.write_text("#!/bin/sh\necho 'The connection to the server was refused' >&2; exit 1\n")
    code, _, err = validate("job.yaml", "--crds", "cluster")
    assert code == 69
    assert "kubectl cannot get the CRDs: The connection to the server was refused" in err
    kubectl.unlink()
    monkeypatch.setenv("PATH", str(kubectl.parent))
    code, _, err = validate("job.yaml", "--crds", "cluster")
    assert (code, err.splitlines()[0]) == (2, "error: no kubectl here")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "error: no manifest is named"),
        (["a.yaml", "--ignore", "object/servicetype"], "hint: did you mean object/service-type"),
        (["a.yaml", "--gate", "Everything"], "error: no gate is called 'Everything'"),
        (["a.yaml", "--kubernetes-version", "1.9"], "error: no schemas of Kubernetes '1.9'"),
        (["a.yaml", "--crds", "nowhere"], "error: no CRDs at nowhere"),
        (["nowhere.yaml"], "error: 0 objects in 0 files: 1 error"),
    ],
)
def test_bad_usage_is_2_with_a_hint(validate: Any, arguments: list[str], said: str) -> None:
    Path("a.yaml").write_text(GOOD)
    code, out, err = validate(*arguments)
    assert code == 2
    assert said in err
    assert "Traceback" not in out + err


def test_without_the_extra_the_command_says_how_to_get_it(
    validate: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hpsearch.ship.lint import core_schemas

    Path("a.yaml").write_text(GOOD)
    monkeypatch.setitem(sys.modules, "kubernetes_validate", None)
    core_schemas._folder.cache_clear()
    code, _, err = validate("a.yaml")
    core_schemas._folder.cache_clear()
    assert code == 2
    assert err.splitlines() == [
        "error: hpsearch k8s validate needs the extra k8s, which is not installed",
        'hint: pip install "hpsearch[k8s]"',
    ]


def test_all_rules_are_printed_with_a_remedy_and_a_source(validate: Any) -> None:
    code, out, _ = validate("--rules", "--json")
    listed = json.loads(out)["rules"]
    assert code == 0
    assert len(listed) == len(list(checks.every_rule())) > 190
    assert all(rule["says"].endswith(".") and rule["hint"] and rule["source"] for rule in listed)
    assert len(validate("--rules")[1].splitlines()) == len(listed)


def test_quick_commands_load_none_of_it() -> None:
    code = """
import sys
sys.argv = ["hpsearch", "k8s", "validate", "--help"]
from hpsearch.cli import main
try:
    main()
finally:
    heavy = ("kubernetes_validate", "cel", "jsonschema", "yaml", "ray", "torch", "mlflow")
    sys.stderr.write(repr([name for name in heavy if name in sys.modules]))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "[]")


needs_kubectl = pytest.mark.skipif(
    shutil.which("kubectl") is None, reason="no kubectl: overlays are NOT built"
)


@needs_kubectl
@pytest.mark.parametrize("overlay", sorted(each.name for each in (world.ROOT / "k8s" / "overlays").iterdir()))
def test_each_overlay_as_kustomize_builds_it_has_nothing_but_notes(validate: Any, overlay: str) -> None:
    folder = world.ROOT / "k8s" / "overlays" / overlay
    built = subprocess.run(
        ["kubectl", "kustomize", str(folder)], capture_output=True, text=True, timeout=60, check=True
    )
    crds = ["--crds", str(world.CRD_FOLDER)] if world.CRD_FOLDER.is_dir() else []
    versions = ["--kubernetes-version", "1.28", "--kubernetes-version", "1.37"]
    code, out, err = validate("-", "--strict", *versions, *crds, stdin=built.stdout)
    assert (code, [line for line in out.splitlines() if ": note: " not in line][:-1], err) == (0, [], "")


def test_the_committed_sweep_has_nothing_but_notes(validate: Any) -> None:
    crds = ["--crds", str(world.CRD_FOLDER)] if world.CRD_FOLDER.is_dir() else []
    code, out, _ = validate(str(world.ROOT / "k8s" / "sweep"), "--strict", *crds)
    assert code == 0, out


@needs_kubectl
def test_a_reference_that_an_overlay_breaks_is_found(validate: Any) -> None:
    """kustomize adds a hash to what it generates: where it is not told of a RayJob, the old name stays."""
    folder = Path("tree")
    folder.mkdir()
    objects = world.job()
    (folder / "job.yaml").write_text(yaml.safe_dump_all(objects[1:]))
    (folder / "sweep.yaml").write_text(world.SWEEP)
    generated = {"name": objects[0]["metadata"]["name"], "namespace": "hpsearch", "files": ["sweep.yaml"]}
    tree = {"resources": ["job.yaml"], "configMapGenerator": [generated]}
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(tree))
    built = subprocess.run(
        ["kubectl", "kustomize", "tree"], capture_output=True, text=True, timeout=60, check=True
    )
    code, out, _ = validate("-", stdin=built.stdout)
    assert code == 2
    assert "no ConfigMap auto-mpg-sweep in these files, but auto-mpg-sweep-" in out
