"""Where an experiment wants its workers."""

from dataclasses import dataclass


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
    niceness: int | None = None
    """Of workers of an embedded cluster; Ray's own, 15, if None."""
