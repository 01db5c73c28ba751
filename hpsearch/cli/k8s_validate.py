"""The command k8s validate: what is wrong with manifests, said offline."""

from __future__ import annotations

import difflib
import logging
from typing import TYPE_CHECKING, Annotated

import typer

from hpsearch.cli import options
from hpsearch.cli.options import AsJson
from hpsearch.errors import SpecError, UsageError
from hpsearch.show.lines import counted

if TYPE_CHECKING:
    from hpsearch.ship.lint.checks import Verdict
    from hpsearch.show.console import Console

_log = logging.getLogger(__name__)

Manifests = Annotated[
    list[str] | None,
    typer.Argument(metavar="FILE...", help="Manifests: files, folders, or - for standard input."),
]
CrdPlace = Annotated[
    str | None,
    typer.Option(
        "--crds",
        metavar="PATH|cluster",
        help="Custom resource definitions: a file, a folder, or `cluster` for those of kubectl's cluster "
        "[none: schemas of ray.io are not checked].",
    ),
]
Versions = Annotated[
    list[str] | None,
    typer.Option("--kubernetes-version", metavar="1.N", help="Whose schemas to use; may be repeated [1.28]."),
]
Gates = Annotated[
    list[str] | None,
    typer.Option("--gate", metavar="NAME", help="A feature gate that KubeRay's operator runs with."),
]
Ignored = Annotated[
    list[str] | None, typer.Option("--ignore", metavar="RULE", help="A rule to leave out; may be repeated.")
]


def validate(
    files: Manifests = None,
    crds: CrdPlace = None,
    kubernetes_version: Versions = None,
    gate: Gates = None,
    ignore: Ignored = None,
    strict_references: Annotated[
        bool, typer.Option("--strict-references", help="Whatever is named must be in the files, Secrets too.")
    ] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Take every warning for an error.")] = False,
    rules: Annotated[bool, typer.Option("--rules", help="Print all rules, and check nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Check Kubernetes manifests, also those of others: schemas, KubeRay's and Kueue's rules, pod security,
    references, schedules. Nothing is sent anywhere. An error ends in exit code 2; a warning does not.

    To check a kustomization: kubectl kustomize DIR | hpsearch k8s validate -
    """
    from hpsearch.ship.lint import checks, sources
    from hpsearch.ship.lint import crds as definitions
    from hpsearch.ship.lint.core_schemas import DEFAULT_VERSION
    from hpsearch.ship.lint.kuberay_options import ALL_GATES

    with options.console(as_json) as console:
        if rules:
            _rules(console, as_json)
            return
        if not files:
            raise UsageError("no manifest is named", hint="name files or folders, or - for standard input")
        wishes = checks.Wishes(
            versions=tuple(kubernetes_version or (DEFAULT_VERSION,)),
            gates=_known("gate", gate, ALL_GATES),
            ignored=_known("rule", ignore, tuple(checks.ids())),
            strict=strict,
            strict_references=strict_references,
        )
        known = definitions.load(crds) if crds else None
        verdict = checks.check(sources.gather(files), known, wishes)
        _tell(console, verdict, as_json)


def _known(what: str, given: list[str] | None, there: tuple[str, ...]) -> frozenset[str]:
    for name in given or ():
        if name not in there:
            near = difflib.get_close_matches(name, there, 3, cutoff=0.4)
            listed = ", ".join(there) if len(there) < 20 else "see `hpsearch k8s validate --rules`"
            hint = f"did you mean {' or '.join(near)}?" if near else listed
            raise UsageError(f"no {what} is called {name!r}", hint=hint)
    return frozenset(given or ())


def _tell(console: Console, verdict: Verdict, as_json: bool) -> None:
    """The findings, and last how many; what was not looked at is said before."""
    from hpsearch.ship.lint.finding import Level

    errors, warnings = verdict.count(Level.ERROR), verdict.count(Level.WARNING)
    if as_json:
        console.json(verdict.as_json())
    for finding in verdict.findings:
        console.told(finding.text)
    if unchecked := verdict.unchecked_ray:
        _log.warning(
            f"the schema of {', '.join(unchecked)} was NOT checked, a wrong field there goes unseen: "
            "name KubeRay's CRDs by --crds PATH, or --crds cluster"
        )
    said = f"{counted(verdict.objects, 'object')} in {counted(verdict.files, 'file')}"
    if errors:
        more = f", {counted(warnings, 'warning')}" if warnings else ""
        raise SpecError(f"{said}: {counted(errors, 'error')}{more}")
    console.told(f"{said}: no errors, {counted(warnings, 'warning')}")


def _rules(console: Console, as_json: bool) -> None:
    from hpsearch.ship.lint import checks

    found = list(checks.every_rule())
    if as_json:
        listed = [
            {"rule": r.id, "level": str(r.level), "says": r.says, "hint": r.remedy, "source": r.source}
            for r in found
        ]
        console.json({"rules": listed})
    for rule in found:
        console.told(f"{rule.id} ({rule.level}; {rule.source}): {rule.says} {rule.remedy}")
