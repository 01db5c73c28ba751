"""What Vertex AI runs for a trial (trialJobSpec): the program of the first worker pool, and its machine."""

from __future__ import annotations

from typing import Any, ClassVar

from hpsearch.spec.draft import Draft
from hpsearch.spec.form import Form, Listed
from hpsearch.spec.machines import Hint, accelerator_hint, warn_of_several, warn_of_tpus
from hpsearch.spec.model import Program
from hpsearch.spec.node import Findings, Node
from hpsearch.spec.programs import EnvForm, environment, has_placeholder, is_remote, warn_of_packages
from hpsearch.spec.quantities import Duration
from hpsearch.spec.resource import resource
from hpsearch.spec.scalars import Count, Module, Text, Verbatim


class MachineForm(Form):
    """One machine and its accelerators."""

    unread = frozenset({"tpuTopology", "reservationAffinity", "gpuPartitionSize", "minGpuDriverVersion"})
    machine_type: Text | None = None
    accelerator_type: Text | None = None
    accelerator_count: Count | None = None


class ContainerForm(Form):
    """What runs in a container; its command runs here."""

    rules: ClassVar = {"required": ["imageUri"]}
    image_uri: Text | None = None
    command: Listed[Verbatim] | None = None
    args: Listed[Verbatim] | None = None
    env: Listed[EnvForm] | None = None


class PackageForm(Form):
    """A Python package; its module runs here."""

    unread = frozenset({"executorImageUri"})
    rules: ClassVar = {"required": ["pythonModule"]}
    package_uris: Any = None
    python_module: Module | None = None
    args: Listed[Verbatim] | None = None
    env: Listed[EnvForm] | None = None


class PoolForm(Form):
    """One worker pool: machines of a kind, and what runs on them."""

    unread = frozenset({"diskSpec", "nfsMounts", "lustreMounts"})
    machine_spec: MachineForm | None = None
    replica_count: Count | None = None
    container_spec: ContainerForm | None = None
    python_package_spec: PackageForm | None = None


class TrialSchedulingForm(Form):
    """The time limit of a trial; what is said of restarts and queues is not followed."""

    unread = frozenset({"restartJobOnWorkerRestart", "disableRetries", "strategy", "maxWaitDuration"})
    timeout: Duration | None = None


class OutputForm(Form):
    """Where the output of the trials goes."""

    output_uri_prefix: Text | None = None


class TrialJobForm(Form):
    """What is run for every trial, a CustomJobSpec."""

    unread = frozenset(
        {"serviceAccount", "network", "reservedIpRanges", "tensorboard", "enableWebAccess", "models"}
        | {"enableDashboardAccess", "protectedArtifactLocationId", "experiment", "experimentRun"}
        | {"persistentResourceId", "pscInterfaceConfig", "jobId"}
    )
    worker_pool_specs: Listed[PoolForm] | None = None
    scheduling: TrialSchedulingForm | None = None
    base_output_directory: OutputForm | None = None


def job(form: TrialJobForm, draft: Draft, findings: Findings) -> None:
    """Fill in what a trial runs, for how long and on which machine."""
    pools = form.worker_pool_specs or []
    pool = pools[0] if pools else PoolForm.empty()
    if form.scheduling:
        draft.trial_timeout = form.scheduling.timeout
    command, env = _started(pool, draft, findings)
    draft.program = Program(
        command=command,
        env=environment(env, findings),
        output=_output(form.base_output_directory, draft, findings),
        job=resource(form.node),
    )
    draft.gpus = _machines(pools, findings)


def _started(pool: PoolForm, draft: Draft, findings: Findings) -> tuple[tuple[str, ...], list[EnvForm]]:
    """The command and the variables; module, args and places go to the draft."""
    package, container = pool.python_package_spec, pool.container_spec
    if not pool.lacks("pythonPackageSpec") and not pool.lacks("containerSpec"):
        message = "pythonPackageSpec and containerSpec exclude each other"
        findings.error(pool.at("containerSpec"), message, "keep the one that is to run")
    if package:
        draft.module, draft.args = package.python_module or "", tuple(package.args or ())
        warn_of_packages(package.at("packageUris"), findings)
        _note(package, ("pythonModule",), draft)
        return (), package.env or []
    if container:
        draft.args = tuple(container.args or ())
        _note(container, ("command", "imageUri"), draft)
        return tuple(container.command or ()), container.env or []
    return (), []


def _note(form: PackageForm | ContainerForm, keys: tuple[str, ...], draft: Draft) -> None:
    """Note where the values stand that a trial is started with."""
    draft.places |= {key: form.at(key) for key in keys if not form.lacks(key)}
    draft.texts |= {
        "module": [form.at("pythonModule")],
        "command": form.at("command").items,
        "args": form.at("args").items,
        "env": [each.at("value") for each in form.env or ()],
    }


def _output(form: OutputForm | None, draft: Draft, findings: Findings) -> str | None:
    """The base of the output directories if it is a path of this machine."""
    prefix = form.output_uri_prefix if form else None
    if not form or not prefix:
        return None
    place = form.at("outputUriPrefix")
    draft.texts["output"] = [place]
    if is_remote(prefix):
        message = (
            f"outputUriPrefix {place.shown} is not written to: AIP_MODEL_DIR and its kin are each trial's own"
        )
        findings.warn(place, message, "write a path of this machine to have them there")
    return None if is_remote(prefix) or has_placeholder(place) else prefix


def _machines(pools: list[PoolForm], findings: Findings) -> Hint | None:
    """The GPUs of the first pool's machine, and warnings of what there is only one of, or none."""
    several: list[Node] = []
    if pools and (pools[0].replica_count or 0) > 1:
        several.append(pools[0].at("replicaCount"))
    several += [each.node for each in pools[1:] if each.replica_count != 0 and each.node.entries]
    warn_of_several(several, findings)
    given = [each.machine_spec for each in pools if each.machine_spec]
    names = [each.at(key) for each in given for key in ("machineType", "acceleratorType")]
    warn_of_tpus(names, findings)
    mine = pools[0].machine_spec if pools else None
    if mine is None:
        return None
    return accelerator_hint(mine.accelerator_count, mine.accelerator_type, mine.at("acceleratorCount"))
