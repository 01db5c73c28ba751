"""All manifests of a run together: what rules that look at several objects are asked about."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from hpsearch.ship.lint.finding import Level, Path
from hpsearch.ship.lint.manifest import Manifest
from hpsearch.ship.lint.pods import Pod
from hpsearch.ship.lint.ray_objects import RayCluster, RayJob


@dataclass(frozen=True, slots=True)
class Placed:
    """What a rule about several objects found: in which of them, and where."""

    manifest: Manifest
    path: Path
    message: str
    level: Level | None = None
    remedy: str = ""


@dataclass(slots=True)
class Scene:
    """Everything that is checked. `strict_references`: what may be made elsewhere counts as missing too."""

    manifests: list[Manifest]
    pods: list[Pod] = field(default_factory=list)
    jobs: list[RayJob] = field(default_factory=list)
    clusters: list[RayCluster] = field(default_factory=list)
    strict_references: bool = False

    def of(self, kind: str, group: str = "") -> Iterator[Manifest]:
        """The manifests of a kind."""
        return (each for each in self.manifests if each.kind == kind and each.group == group)

    def find(self, kind: str, name: str, namespace: str, group: str = "") -> Manifest | None:
        """The object of a name; one that says no namespace may be in any."""
        for each in self.of(kind, group):
            if each.name == name and near(each.namespace, namespace):
                return each
        return None


def near(one: str, other: str) -> bool:
    """Whether two namespaces may be the same: an empty one is that of whoever applies the file."""
    return not one or not other or one == other
