"""A manifest: one Kubernetes object of a file, with the lines of its fields."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hpsearch.ship.lint.document import Document
from hpsearch.ship.lint.finding import Path
from hpsearch.ship.lint.shape import mapping, text

RAY_GROUP = "ray.io"


@dataclass(frozen=True, slots=True)
class Manifest:
    """One object as it stands in a document; `base` is its path there where it is an item of a List."""

    file: str
    document: Document = field(repr=False)
    value: dict[str, Any] = field(repr=False)
    base: Path = ()

    @property
    def kind(self) -> str:
        """Its kind; empty if it has none."""
        return text(self.value, "kind")

    @property
    def api(self) -> str:
        """Its apiVersion: v1, batch/v1, ray.io/v1."""
        return text(self.value, "apiVersion")

    @property
    def group(self) -> str:
        """Its API group; empty for the core one."""
        return self.api.rpartition("/")[0]

    @property
    def is_ray(self) -> bool:
        """Whether KubeRay's operator is its reader."""
        return self.group == RAY_GROUP

    @property
    def name(self) -> str:
        """Its name, or the start of the one that the server makes."""
        return text(self.value, "metadata", "name") or text(self.value, "metadata", "generateName")

    @property
    def namespace(self) -> str:
        """Its namespace; empty where the one of whoever applies it is meant."""
        return text(self.value, "metadata", "namespace")

    @property
    def labels(self) -> dict[str, Any]:
        """Its labels."""
        return mapping(self.value, "metadata", "labels")

    @property
    def annotations(self) -> dict[str, Any]:
        """Its annotations."""
        return mapping(self.value, "metadata", "annotations")

    @property
    def subject(self) -> str:
        """How lines name it: KIND/NAME."""
        return f"{self.kind or 'object'}/{self.name or '?'}"

    def line(self, path: Path) -> int:
        """The line of a path in it."""
        return self.document.at((*self.base, *path))
