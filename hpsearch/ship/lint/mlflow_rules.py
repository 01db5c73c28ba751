"""What a pod that serves MLflow must be told: its hosts, where probes ask, how much memory it needs."""

from __future__ import annotations

import re
from collections.abc import Iterator

from hpsearch.ship.lint.finding import Fault, Level
from hpsearch.ship.lint.names import quantity
from hpsearch.ship.lint.pod_rules import commands
from hpsearch.ship.lint.pods import Container, Pod
from hpsearch.ship.lint.ray_objects import variable
from hpsearch.ship.lint.rulebook import Rulebook
from hpsearch.ship.lint.schema_errors import shown
from hpsearch.ship.lint.shape import dig, mapping, sequence, text

MLFLOW: Rulebook[Pod, Fault] = Rulebook("mlflow", "MLflow 3.17, mlflow server")
HOSTS = "MLFLOW_SERVER_ALLOWED_HOSTS"
MEMORY = 2 * 1024**3
_SERVES = re.compile(r"\bmlflow\s+(server|ui)\b")
_STORE = re.compile(r"--backend-store-uri[ =](\S+)")
_HOSTS = re.compile(r"--allowed-hosts[ =](\S+)")


def _servers(pod: Pod) -> Iterator[tuple[Container, str]]:
    """The containers that serve MLflow, each with all of its words."""
    for container in pod.containers:
        own = [command for path, command in commands(container) if path[-1] in ("command", "args")]
        if _SERVES.search(words := " ".join(own)):
            yield container, words


def _allowed(container: Container, words: str) -> str | None:
    found = _HOSTS.search(words)
    return found[1].strip("\"'") if found else variable(container.value, HOSTS)


@MLFLOW.rule(
    "allowed-hosts",
    "The server knows under which names it is asked, with and without port: by default localhost and "
    "private addresses "
    "alone, and all others get 403.",
    f"set {HOSTS}: mlflow,mlflow.NAMESPACE.svc,mlflow.NAMESPACE.svc:*,localhost:*",
    source="trap: MLflow answers 403 Invalid Host header",
)
def allowed_hosts(pod: Pod) -> Iterator[Fault]:
    for container, words in _servers(pod):
        given = _allowed(container, words)
        if given is None and sequence(container.value, "envFrom"):
            continue
        if given is None:
            yield Fault(
                (*container.path, "env"), f"mlflow server without {HOSTS}: it answers 403 to all names"
            )
            continue
        names = [name.strip() for name in given.split(",") if name.strip()]
        if "*" in names:
            yield Fault(
                (*container.path, "env"), f"{HOSTS} is `*`: any page may use the server by DNS rebinding"
            )
        elif names and not any(re.search(r":(\*|\d+)$", name) for name in names):
            yield Fault((*container.path, "env"), f"{HOSTS} {shown(given)} has no name with a port")
        elif names and all(re.search(r":(\*|\d+)$", name) for name in names):
            yield Fault((*container.path, "env"), f"{HOSTS} {shown(given)} has no name without a port")


@MLFLOW.rule(
    "probes",
    "Probes ask /health: every other path asks for a host that is allowed, and for a password.",
    "set httpGet: {path: /health}",
)
def probes(pod: Pod) -> Iterator[Fault]:
    for container, _ in _servers(pod):
        for name in ("livenessProbe", "readinessProbe", "startupProbe"):
            path = text(container.value, name, "httpGet", "path")
            if path and path != "/health":
                yield Fault((*container.path, name, "httpGet", "path"), f"{name} asks {path}")


@MLFLOW.rule(
    "startup",
    "The server has five minutes to start: its first start takes 23 to 60 s and more.",
    "set startupProbe: {httpGet: {path: /health, port: 5000}, failureThreshold: 30, periodSeconds: 10}",
    level=Level.WARNING,
)
def startup(pod: Pod) -> Iterator[Fault]:
    for container, _ in _servers(pod):
        if dig(container.value, "livenessProbe") is not None and dig(container.value, "startupProbe") is None:
            yield Fault(
                (*container.path, "startupProbe"), "a livenessProbe without startupProbe kills a slow start"
            )


@MLFLOW.rule(
    "memory",
    "The server has 2Gi of memory: one worker takes 1.45 GB.",
    "set requests and limits of memory to 2Gi, and --workers 1",
    level=Level.WARNING,
)
def memory(pod: Pod) -> Iterator[Fault]:
    for container, _ in _servers(pod):
        given = mapping(container.value, "resources", "limits").get("memory")
        amount = quantity(given)
        if amount is not None and amount < MEMORY:
            yield Fault(
                (*container.path, "resources", "limits", "memory"), f"mlflow server with {given} of memory"
            )


@MLFLOW.rule(
    "auth",
    "The server asks for a password.",
    "write --app-name basic-auth, and MLFLOW_AUTH_CONFIG_PATH with a password of its own",
)
def auth(pod: Pod) -> Iterator[Fault]:
    for container, words in _servers(pod):
        if "basic-auth" not in words and "--app-name" not in words:
            yield Fault(container.path, "mlflow server without authentication")
        elif not any(
            (
                variable(container.value, "MLFLOW_FLASK_SERVER_SECRET_KEY") is not None,
                sequence(container.value, "envFrom"),
            )
        ):
            yield Fault((*container.path, "env"), "basic-auth without MLFLOW_FLASK_SERVER_SECRET_KEY")


@MLFLOW.rule(
    "one-writer",
    "A SQLite file has one server: one replica, and the old one is gone before the new one starts.",
    "set replicas: 1 and strategy: {type: Recreate}, or use PostgreSQL",
)
def one_writer(pod: Pod) -> Iterator[Fault]:
    if pod.manifest.kind != "Deployment":
        return
    for container, words in _servers(pod):
        store = _STORE.search(words)
        given = store[1] if store else variable(container.value, "MLFLOW_BACKEND_STORE_URI")
        # A reference, or nothing that can be read, may be another database.
        if given is None or not given.startswith("sqlite"):
            continue
        replicas = dig(pod.manifest.value, "spec", "replicas")
        if isinstance(replicas, int) and replicas > 1:
            yield Fault(("spec", "replicas"), f"{replicas} servers write one SQLite file")
        if text(pod.manifest.value, "spec", "strategy", "type") != "Recreate":
            said = "a rolling update runs two servers on one SQLite file"
            yield Fault(("spec", "strategy"), said)
