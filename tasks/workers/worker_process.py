"""The process that a worker lives in, as Ray knows it: what a driver names without loading what workers need."""

import ray

from tasks.units.unit import Unit

WATCH = "watch"
"""The calls that are answered while a unit is in work."""


class WorkerProcess:
    """A :class:`tasks.workers.worker.Worker`, whose libraries are imported where it runs."""

    def __init__(self, root: str, *, n_gpus: float, patience_s: float) -> None:
        from tasks.workers.worker import Worker

        self._worker = Worker(root, n_gpus=n_gpus, patience_s=patience_s)

    def ping(self) -> str:
        return self._worker.ping()

    def do(self, unit: Unit) -> str:
        return self._worker.do(unit)

    @ray.method(concurrency_group=WATCH)
    def look(self, *, stop: bool) -> float:
        return self._worker.look(stop=stop)
