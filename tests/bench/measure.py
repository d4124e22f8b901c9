"""How the benchmarks measure: two ways to do one thing, interleaved, as a ratio, with the share of the GEMM rate."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

REPEATS = 3
Work = Callable[[], Any]


class Part(NamedTuple):
    """A piece of the work on some items; fewer than one where it is done in part."""

    work: Work
    n_items: float


@dataclass(frozen=True, kw_only=True)
class Contest:
    """A plain and a fast way to one result.

    Attributes:
        plain: Its time per item is the sum of its parts'.
        fast: The same, of the fast way.
        error: Relative difference of their results.
        target: Ratio of times per item that must be reached.
        tolerance: Largest error.
        efficiency: Share of the GEMM rate that the fast way must reach, if that is asked.
    """

    name: str
    plain: Sequence[Part]
    fast: Sequence[Part]
    error: float
    target: float
    tolerance: float = 1e-4
    efficiency: float | None = None
    gemm_dtype: torch.dtype = torch.float32
    counted: bool = True
    """Whether the FLOPs of both can be counted (those of a factorisation cannot)."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One row of the table."""

    name: str
    ratio: float
    target: float
    error: float
    efficiency: float | None
    """FLOPs of the fast way per second, over the GEMM rate measured beside it."""
    plain_efficiency: float | None
    plain_s: float
    """Per item, the median."""
    fast_s: float
    plain_gflop: float | None
    """Per item."""
    fast_gflop: float | None
    peak_gb: float | None
    """Of the accelerator's memory, by the fast way; a CPU does not count it."""
    ok: bool

    def row(self) -> dict[str, Any]:
        return asdict(self)


def timed(work: Work, device: str) -> float:
    """Return seconds: of this thread's processor time, or, on an accelerator, until its queue is empty."""
    if device == "cpu":
        started = time.thread_time()
        work()
        return time.thread_time() - started
    torch.accelerator.synchronize()
    started = time.perf_counter()
    work()
    torch.accelerator.synchronize()
    return time.perf_counter() - started


def flops(work: Work) -> float:
    """Return the floating-point operations of the matrix products in ``work``."""
    with FlopCounterMode(display=False) as counter:
        work()
    return float(counter.get_total_flops())


def gemm_rate(device: str, dtype: torch.dtype) -> float:
    """Return FLOP per second of a matrix product of the model's shape."""
    rows, inner, columns = (512, 768, 3072) if device == "cpu" else (4096, 4096, 16384)
    a = torch.randn(rows, inner, dtype=dtype, device=device)
    b = torch.randn(inner, columns, dtype=dtype, device=device)

    def work() -> None:
        for _ in range(8):
            a @ b

    return 8 * 2 * rows * inner * columns / statistics.median(timed(work, device) for _ in range(5))


def measure(contest: Contest, device: str = "cpu") -> Measured:
    """Time both ways in turn, ``REPEATS`` times, with the GEMM rate beside each pair, and take medians."""

    def counted(parts: Sequence[Part]) -> float | None:
        return sum(flops(work) / n for work, n in parts) if contest.counted else None

    def seconds(parts: Sequence[Part]) -> float:
        return sum(timed(work, device) / n for work, n in parts)

    per_plain = counted(contest.plain)
    if device != "cpu":
        torch.accelerator.reset_peak_memory_stats()
    per_fast = counted(contest.fast)
    peak = None if device == "cpu" else torch.accelerator.max_memory_allocated() / 1e9
    plain, fast, rates = [], [], []
    for _ in range(REPEATS):
        plain.append(seconds(contest.plain))
        rates.append(gemm_rate(device, contest.gemm_dtype))
        fast.append(seconds(contest.fast))
        rates.append(gemm_rate(device, contest.gemm_dtype))
    rate = statistics.median(rates)
    ratio = statistics.median(slow / quick for slow, quick in zip(plain, fast, strict=True))

    def share(per_item: float | None, seconds: list[float]) -> float | None:
        if per_item is None:
            return None
        return per_item / statistics.median(seconds) / rate

    efficiency = share(per_fast, fast)
    reached = contest.efficiency is None or (efficiency is not None and efficiency >= contest.efficiency)
    return Measured(
        name=contest.name,
        ratio=ratio,
        target=contest.target,
        error=contest.error,
        efficiency=efficiency,
        plain_efficiency=share(per_plain, plain),
        plain_s=statistics.median(plain),
        fast_s=statistics.median(fast),
        plain_gflop=None if per_plain is None else per_plain / 1e9,
        fast_gflop=None if per_fast is None else per_fast / 1e9,
        peak_gb=peak,
        ok=ratio >= contest.target and contest.error <= contest.tolerance and reached,
    )
