"""A Ray cluster for the run: embedded, or joined by address; how many workers it holds, and on which devices."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray

from tasks.errors import ClusterError, InputError
from tasks.worker import Worker

_PROMPT_HEALTH_CHECKS = {
    "health_check_initial_delay_ms": 1000,
    "health_check_period_ms": 1000,
    "health_check_failure_threshold": 3,
}
"""An embedded node that is killed is noticed after 2 to 3 s, by Ray's defaults after 13; one that only hangs after 33 s, by
Ray's defaults after 60."""


@dataclass(frozen=True, kw_only=True)
class Placement:
    """How workers are placed."""

    ray: str = "local"
    """``local`` for an embedded cluster, or the address of one."""
    actors: int | None = None
    """Workers; as many as fit if None."""
    gpus_per_model: float | None = None
    """GPUs of one worker; one if the cluster has any, else none, if None."""
    threads: int = 1
    """CPU threads of one worker."""


@contextmanager
def cluster(placement: Placement) -> Iterator[None]:
    """Inside, Ray is connected; an embedded cluster ends with it.

    Raises:
        ClusterError: The address does not answer.
    """
    options: dict[str, Any] = {"include_dashboard": False, "log_to_driver": False, "logging_level": logging.ERROR}
    if placement.ray == "local":
        n_cpus = max(os.cpu_count() or 1, placement.threads)
        options |= {"address": "local", "num_cpus": n_cpus, "object_store_memory": 200 * 2**20}
        options["_system_config"] = _PROMPT_HEALTH_CHECKS
    else:
        options["address"] = placement.ray
    try:
        ray.init(**options)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ClusterError(
            f"no Ray cluster at {placement.ray!r}: {error}; expected a running cluster and the same token on every node "
            "(RAY_AUTH_TOKEN_PATH), or compute.ray: local"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def worker_shape(placement: Placement) -> tuple[int, float]:
    """Return how many workers to start and the GPUs of each.

    Raises:
        InputError: The cluster has too few GPUs or CPUs for even one worker.
    """
    found = ray.cluster_resources()
    gpus, cpus = float(found.get("GPU", 0)), float(found.get("CPU", 0))
    wanted = placement.gpus_per_model
    per_worker = (1.0 if gpus else 0.0) if wanted is None else float(wanted)
    if per_worker > gpus:
        raise InputError(
            f"compute.gpus_per_model is {per_worker:g}, the cluster has {gpus:g} GPUs; expected at most that; use "
            "gpus_per_model: auto, or a larger cluster"
        )
    if placement.threads > cpus:
        raise InputError(f"compute.threads is {placement.threads}, the cluster has {cpus:g} CPUs; give fewer threads")
    fit = int(gpus / per_worker) if per_worker else int(cpus / placement.threads)
    return max(1, min(fit, placement.actors or fit)), per_worker


def start_worker(store_root: str, placement: Placement, gpus: float) -> Any:
    """Start a worker actor; Ray never restarts it or replays its calls, which would edit an unedited model."""
    options = {"num_cpus": placement.threads, "num_gpus": gpus, "max_restarts": 0, "max_task_retries": 0}
    return ray.remote(Worker).options(**options).remote(store_root, accelerated=gpus > 0)
