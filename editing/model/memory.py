"""Memory: how much of it is free, how many tokens of a forward pass that holds, and what an exhausted one looks like."""

import logging
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import torch

from editing.errors import OutOfMemory
from editing.model.progress import Progress

_log = logging.getLogger(__name__)
FEWEST_TOKENS, CPU_TOKENS, ACCELERATOR_TOKENS = 64, 2048, 16384
"""Least and most tokens of one forward pass; on a CPU longer ones are not faster (docs/log.md)."""
SHARE = 0.5
"""Of the free memory, what a pass may take by its estimate."""

_CGROUP = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current"))
_MESSAGE = re.compile("can't allocate memory|not enough memory|STATUS_ALLOC_FAILED", re.IGNORECASE)


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
    """Return whether an error says that an allocation failed; on a CPU, and in cuBLAS, torch raises a plain RuntimeError."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and _MESSAGE.search(str(error)) is not None


def tokens_that_fit(lm: Any) -> int:
    """Return how many tokens one forward pass with gradients may have in the memory that is free now, a power of two.

    By an estimate of what a block keeps for its gradient and of the logits; where it is too large, passes are halved.
    """
    config, device = lm.model.config, lm.input_device
    d_out, d_in = lm.weight(0).shape
    item = torch.finfo(lm.dtype).bits // 8
    per_token = item * lm.n_layers * (16 * d_out + 5 * d_in) + 4 * config.vocab_size
    fits = max(FEWEST_TOKENS, int(SHARE * free_bytes(device) / per_token))
    most = CPU_TOKENS if device.type == "cpu" else ACCELERATOR_TOKENS
    return int(min(most, 2 ** (fits.bit_length() - 1)))


class Sized(Protocol):
    """What decides how large parts are."""

    tokens_per_forward: int

    @property
    def progress(self) -> Progress:
        """How far work is."""
        ...


T = TypeVar("T")
R = TypeVar("R")


class Part(NamedTuple, Generic[T]):
    """A part of some items that is done at once."""

    members: Sequence[int]
    """Numbers of the items."""
    what: T


def done_in_parts(
    sized: Sized,
    numbers: Sequence[int],
    split: Callable[[Sequence[int]], Sequence[Part[T]]],
    work: Callable[[T], R],
) -> list[tuple[Sequence[int], R]]:
    """Do ``work`` on every part that ``split`` makes of the items; return members and result of each.

    Where memory does not suffice, ``sized.tokens_per_forward`` is halved, what is left is split anew, and nothing that is
    done is done again.

    Raises:
        OutOfMemory: A single item does not fit.
    """
    done: list[tuple[Sequence[int], R]] = []
    parts, n_done = list(split(numbers)), 0
    while parts:
        part = parts[0]
        ends = n_done + len(part.members)
        try:
            with sized.progress.part(n_done / len(numbers), ends / len(numbers)):
                done.append((part.members, work(part.what)))
            parts.pop(0)
            n_done = ends
            continue
        except (RuntimeError, MemoryError) as error:
            message = _why(error)
        # Outside of the handler: its traceback held on to the tensors that did not fit.
        alone = len(part.members) == 1  # its own passes may still become smaller
        if sized.tokens_per_forward <= (FEWEST_TOKENS if alone else 1):
            raise OutOfMemory(_TOO_LARGE.format(message))
        _halve(sized, message)
        parts = list(split([number for left in parts for number in left.members]))
    return done


def until_it_fits(sized: Sized, work: Callable[[], R]) -> R:
    """Do ``work`` and return what it gives; where memory does not suffice, do all of it again in passes of half the size.

    For work that sums over its passes, which :func:`done_in_parts` cannot take apart.  It must leave nothing behind when it
    fails.

    Raises:
        OutOfMemory: Not even passes of ``FEWEST_TOKENS`` fit.
    """
    while True:
        try:
            return work()
        except OutOfMemory:
            raise
        except (RuntimeError, MemoryError) as error:
            message = _why(error)
        if sized.tokens_per_forward <= FEWEST_TOKENS:
            raise OutOfMemory(_TOO_LARGE.format(message))
        _halve(sized, message)


_TOO_LARGE = (
    "one item does not fit into memory ({}); expected room for at least one; use a shorter prompt, fewer contexts, smaller "
    "micro-batches, a smaller dtype or a larger device"
)


def _why(error: BaseException) -> str:
    """Return what an exhausted memory says of itself; raise any other error again."""
    if not is_out_of_memory(error):
        raise error
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _halve(sized: Sized, message: str) -> None:
    sized.tokens_per_forward = max(1, sized.tokens_per_forward // 2)
    _log.warning("out of memory; going on with %d tokens per forward pass (%s)", sized.tokens_per_forward, message)
    if torch.accelerator.is_available():
        torch.accelerator.empty_cache()


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
