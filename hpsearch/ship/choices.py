"""What one may choose about a job; apart from it, because commands name these before anything is loaded."""

from __future__ import annotations

from enum import StrEnum


class Profile(StrEnum):
    """What becomes of the cluster once the job has ended; they exclude each other."""

    SHUTDOWN = "shutdown"  # it goes with the job; Kueue needs this one
    RETAIN = "retain"  # a failed one stays a while for whoever looks into it


class Submitter(StrEnum):
    """Who hands the job to Ray."""

    JOB = "job"  # a pod of ours that polls, and whose log is the driver's
    NONE = "none"  # the operator, over HTTP; the driver's log is then nowhere in Kubernetes


class Overlap(StrEnum):
    """What a tick does while the one before still runs."""

    SKIP = "skip"
    QUEUE = "queue"
    REPLACE = "replace"


class Target(StrEnum):
    """Where a sweep is submitted to."""

    JOBS = "jobs"  # a Ray cluster that runs already, by its dashboard
    KUBERAY = "kuberay"  # a Ray cluster of its own on Kubernetes, by kubectl
    SLURM = "slurm"  # a Ray over the nodes of a batch job, by sbatch
    LOCAL = "local"  # a driver in the background, on this machine
