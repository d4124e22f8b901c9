"""A Ray cluster for the run: embedded, or joined by address; how many workers it holds, and on which devices."""

import contextlib
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

import psutil
import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from tasks.data.model_files import weight_bytes
from tasks.errors import ClusterError, InputError
from tasks.specs.placement import Placement
from tasks.specs.run import ModelRef
from tasks.workers.node_files import fetch_models
from tasks.workers.processes import descendants_of
from tasks.workers.worker_process import WATCH, WorkerProcess

_log = logging.getLogger(__name__)
_T = TypeVar("_T")
_PROBE_S = 60.0
"""For how long a node may take to describe itself; its first process has to start."""
_FAULTS = 3
"""Workers that do not start on a node, one after another, before it is left out."""

_PROMPT_HEALTH_CHECKS = {
    "health_check_initial_delay_ms": 1000,
    "health_check_period_ms": 1000,
    "health_check_failure_threshold": 3,
}
"""An embedded node that is killed is noticed after 2 to 3 s, by Ray's defaults after 13; one that only hangs after 33 s, by
Ray's defaults after 60."""


@contextmanager
def cluster(placement: Placement) -> Iterator[None]:
    """Inside, Ray is connected; an embedded cluster ends with it.

    Raises:
        ClusterError: The address does not answer, or the embedded cluster does not start.
    """
    options: dict[str, Any] = {"include_dashboard": False, "log_to_driver": False, "logging_level": logging.ERROR}
    if placement.ray == "local":
        n_cpus = max(os.cpu_count() or 1, placement.threads)
        options |= {"address": "local", "num_cpus": n_cpus, "object_store_memory": 200 * 2**20}
        niceness = {} if placement.niceness is None else {"worker_niceness": placement.niceness}
        options["_system_config"] = _PROMPT_HEALTH_CHECKS | niceness
    else:
        options["address"] = placement.ray
    try:
        if placement.ray == "local":
            _start_embedded(options)
        else:
            ray.init(**options)
    except Exception as error:  # Ray raises no narrower one
        expected = (
            "Ray's log under the temporary directory says more; try again, or with less beside it"
            if placement.ray == "local"
            else "expected a running cluster and the same token on every node (RAY_AUTH_TOKEN_PATH), or compute.ray: local"
        )
        raise ClusterError(f"no Ray cluster at {placement.ray!r}: {error}; {expected}") from error
    try:
        yield
    finally:
        ray.shutdown()


def _start_embedded(options: dict[str, Any]) -> None:
    """Start an embedded cluster, twice if need be: Ray gives its node 30 s, which one under heavy load may miss."""
    before = descendants_of(os.getpid())
    try:
        ray.init(**options)
    except Exception as error:  # noqa: BLE001 - Ray raises no narrower one
        _log.warning("Ray did not start (%s); trying once more", error)
        ray.shutdown()
        for process in descendants_of(os.getpid()) - before:  # Ray leaves them
            with contextlib.suppress(psutil.Error):
                process.kill()
        ray.init(**options)


class Node(NamedTuple):
    """A living node of the cluster."""

    node_id: str
    address: str
    cpus: float
    gpus: float
    memory: float
    """Bytes that workers may ask for."""

    def holds(self, shape: "Shape") -> int:
        """Return how many workers it holds when it is empty."""
        fits = int(self.cpus / shape.cpus)
        if shape.gpus >= 1:
            fits = min(fits, int(self.gpus / shape.gpus))
        elif shape.gpus > 0:  # a GPU is shared by whole workers: 0.4 of it each are two
            fits = min(fits, int(self.gpus) * int(1 / shape.gpus + 1e-9))
        return min(fits, int(self.memory / shape.memory)) if shape.memory else fits

    def __str__(self) -> str:
        return f"{self.address}: {self.cpus:g} CPUs, {self.gpus:g} GPUs, {self.memory / 2**30:.1f} GiB"


class Shape(NamedTuple):
    """What one worker takes."""

    cpus: float
    gpus: float
    memory: float


def living_nodes() -> list[Node]:
    found = [(node, node["Resources"]) for node in ray.nodes() if node["Alive"]]
    return [
        Node(
            node["NodeID"],
            node["NodeManagerAddress"],
            float(has.get("CPU", 0)),
            float(has.get("GPU", 0)),
            float(has.get("memory", 0)),
        )
        for node, has in found
    ]


def ask_node(node_id: str, function: Callable[..., Any], *args: Any) -> Any:
    """Return a reference to what a function says on a node."""
    there = NodeAffinitySchedulingStrategy(node_id, soft=False)
    return ray.remote(function).options(num_cpus=0, max_retries=0, scheduling_strategy=there).remote(*args)


def on_each_node(node_ids: Sequence[str], function: Callable[..., _T], *args: Any) -> list[_T | None]:
    """Return what a function says on each node; None for a node that does not answer in time."""
    references = [ask_node(node_id, function, *args) for node_id in node_ids]
    ready, _ = ray.wait(references, num_returns=len(references), timeout=_PROBE_S) if references else ([], [])
    answers: list[_T | None] = []
    for reference in references:
        try:
            answers.append(ray.get(reference) if reference in ready else None)
        except RayError:  # the node has gone again
            answers.append(None)
    return answers


class Placer:
    """Starts workers on the nodes of a cluster, as many as fit.

    A node that joins is used once it has the models, which it fetches where it can; one that is gone is not counted; one
    that cannot have them, or on which workers do not start, is left out.

    Args:
        models: What workers will load, with folders on this machine.

    Raises:
        InputError: No node holds even one worker; says what each has.
    """

    def __init__(
        self, store: str, placement: Placement, models: Sequence[ModelRef] = (), *, patience_s: float = 0.0
    ) -> None:
        self._store, self._placement, self._models, self._patience_s = store, placement, models, patience_s
        self._placed: dict[Any, str] = {}
        self._all_gpus = 0.0
        # The plan has read the models on this machine.
        self._fit: dict[str, bool] = {ray.get_runtime_context().get_node_id(): True}
        self._asked: dict[str, Any] = {}
        self._faults = Counter[str]()
        self._problems: dict[str, str] = {}
        nodes = living_nodes()
        self._shape = _shape(placement, nodes, max((weight_bytes(model) for model in models), default=0))
        if not any(node.holds(self._shape) for node in nodes):
            cpus, gpus, memory = self._shape
            raise InputError(
                f"a worker takes {cpus:g} CPUs (compute.threads), {gpus:g} GPUs (compute.gpus_per_model) and "
                f"{memory / 2**30:.1f} GiB (by the size of the weights); no node has room for one: "
                f"{'; '.join(map(str, nodes)) or 'there is none'}; ask for less, or use a larger cluster"
            )

    def capacity(self) -> int:
        """Return how many workers the nodes hold that can be used, at most as many as were asked for."""
        nodes = self._usable()
        self._all_gpus = sum(node.gpus for node in nodes)
        fit = sum(node.holds(self._shape) for node in nodes)
        return min(fit, self._placement.actors or fit)

    def preparing(self) -> bool:
        """Return whether a node is still fetching models."""
        return bool(self._asked)

    def problems(self) -> str:
        """Return why nodes were left out."""
        return "; ".join(f"node {node}: {why}" for node, why in self._problems.items())

    def start(self) -> Any | None:
        """Start a worker on the node with most room, None if there is no node; Ray never restarts it or replays its calls.

        A replay would edit an unedited model.
        """
        nodes = self._usable()
        taken = Counter(self._placed.values())
        best = max(nodes, key=lambda node: node.holds(self._shape) - taken[node.node_id], default=None)
        if best is None:
            return None
        # Elsewhere if others have taken that room; not where a node has been left out.
        soft = all(self._fit.get(node.node_id) for node in living_nodes())
        cpus, gpus, memory = self._shape
        worker = (
            ray.remote(concurrency_groups={WATCH: 1})(WorkerProcess)
            .options(
                num_cpus=cpus,
                num_gpus=gpus,
                memory=memory or None,
                scheduling_strategy=NodeAffinitySchedulingStrategy(best.node_id, soft=soft),
                max_restarts=0,
                max_task_retries=0,
            )
            .remote(self._store, n_gpus=gpus, patience_s=self._patience_s)
        )
        self._placed[worker] = best.node_id
        return worker

    def ended(self, worker: Any, *, unfit: str | None = None) -> bool:
        """Take note that a worker is gone; return whether its node is still there.

        Args:
            unfit: Why it did not start, if it did not.
        """
        place = self._placed.pop(worker, "")
        stays = any(node.node_id == place for node in living_nodes())
        if unfit is not None and stays:
            self._fault(place, unfit)
        return stays

    def started(self, worker: Any) -> None:
        """Take note that a worker has started: its node can be used."""
        self._faults[self._placed.get(worker, "")] = 0

    def gpus(self) -> tuple[float, float]:
        """Return how many GPUs workers hold now, and how many there are."""
        return len(self._placed) * self._shape.gpus, self._all_gpus

    def _usable(self) -> list[Node]:
        """Return the living nodes that have the models; new ones are asked, and answer when they have fetched them."""
        nodes = living_nodes()
        for node in nodes:
            if node.node_id not in self._fit and node.node_id not in self._asked:
                self._asked[node.node_id] = ask_node(node.node_id, fetch_models, self._models)
        waiting = list(self._asked.values())
        ready, _ = ray.wait(waiting, num_returns=len(waiting), timeout=0) if waiting else ([], [])
        for node_id in [node_id for node_id, reference in self._asked.items() if reference in ready]:
            try:
                problem = ray.get(self._asked.pop(node_id))
            except RayError as error:  # the node has gone again, or starts no process
                self._fault(node_id, str(error).splitlines()[0])
                continue
            if problem:
                self._leave_out(node_id, problem)
            else:
                self._fit[node_id] = True
        return [node for node in nodes if self._fit.get(node.node_id)]

    def _fault(self, node_id: str, why: str) -> None:
        self._faults[node_id] += 1
        if self._faults[node_id] >= _FAULTS and any(self._fit[other] for other in self._fit if other != node_id):
            self._leave_out(node_id, why)

    def _leave_out(self, node_id: str, why: str) -> None:
        address = next((node.address for node in living_nodes() if node.node_id == node_id), node_id)
        self._fit[node_id], self._problems[address] = False, why
        _log.warning("node %s is left out until the next run: %s", address, why)


def _shape(placement: Placement, nodes: Sequence[Node], weights: int) -> Shape:
    wanted = placement.gpus_per_model
    gpus = (1.0 if any(node.gpus for node in nodes) else 0.0) if wanted is None else float(wanted)
    # A worker on a CPU holds the weights, and the pristine ones of what is edited; one on a GPU reads them through memory.
    return Shape(float(placement.threads), gpus, float(weights * (1 if gpus else 2)))
