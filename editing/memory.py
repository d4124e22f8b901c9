"""Memory: how much of it is free, and what an exhausted one looks like."""

import re
from pathlib import Path

import torch

_CGROUP = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current"))
_CPU_MESSAGE = re.compile("can't allocate memory|not enough memory", re.IGNORECASE)


def free_bytes(device: torch.device) -> int:
    """Return the memory that new tensors on a device can take: of this machine or container, or of the accelerator."""
    if device.type != "cpu":
        torch.accelerator.empty_cache()
        return int(torch.accelerator.get_memory_info(device)[0])
    found = [int(line.split()[1]) * 1024 for line in _lines(Path("/proc/meminfo")) if line.startswith("MemAvailable:")]
    limit, used = (" ".join(_lines(path)) for path in _CGROUP)
    if limit.isdigit() and used.isdigit():
        found.append(int(limit) - int(used))
    return max(0, min(found, default=2**30))


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that an allocation failed; on a CPU torch raises a plain RuntimeError."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and _CPU_MESSAGE.search(str(error)) is not None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
