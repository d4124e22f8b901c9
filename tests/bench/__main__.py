"""Benchmarks: ``python -m tests.bench [NAME ...]``; prints a table and writes ``bench.json``.

Ratios of one thread's processor time, measured in one run, interleaved, median of three; never a timed unit test.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from tests.bench.cases import all_cases, large_cases
from tests.bench.measure import Measured, measure
from tests.bench.shape import LARGE

LIMITS = (
    "summary_2000_segments",
    "summary_compacted",
    "scheduling_of_a_unit",
    "driver_memory",
    "summary_4_million",
    "summary_16_million",
    "plan_10_runs",
    "plan_100_runs",
    "plan_1000_runs",
)
"""The rows of ``system.py`` and ``growth.py``."""
if TYPE_CHECKING:
    from tests.bench.limits import Limited


def line(row: Measured) -> str:
    """Return one row of the table."""

    def percent(share: float | None) -> str:
        return "    –" if share is None else f"{100 * share:4.0f}%"

    def number(value: float | None) -> str:
        return "      –" if value is None else f"{value:7.2f}"

    return (
        f"{row.name:<22} {row.ratio:7.1f}x {row.target:6.1f}x  {row.error:8.1e}  {number(row.plain_gflop)} "
        f"{number(row.fast_gflop)}  {percent(row.plain_efficiency)} {percent(row.efficiency)}  {'ok' if row.ok else 'MISSED'}\n"
    )


def limit_line(row: "Limited") -> str:
    """Return one row of the table of limits."""
    return f"{row.name:<22} {row.value:7.3f}  {row.limit:6.1f}   {row.unit:<20} {'ok' if row.ok else 'MISSED'}\n"


def arguments() -> argparse.Namespace:
    """Return the command line's."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("names", nargs="*", help="benchmarks to run; all if none is named")
    parser.add_argument("--shape", choices=LARGE, help="edits per second at this shape, in place of the fixed table")
    parser.add_argument("--device", default="cpu", help="cpu, or torch's name of an accelerator")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 64, 1024], help="batch sizes of --shape")
    parser.add_argument("--out", type=Path, default=Path("bench.json"))
    return parser.parse_args()


def main(given: argparse.Namespace) -> None:
    """Run the named benchmarks, or all of them; on a CPU on one thread."""
    dtype = getattr(torch, given.dtype)
    cases = (
        large_cases(given.shape, dtype=dtype, device=given.device, batches=given.batches)
        if given.shape
        else all_cases()
    )
    known = dict(cases)
    unknown = sorted(set(given.names) - set(known) - set(LIMITS))
    if unknown:
        sys.exit(f"no benchmarks {unknown}; expected some of {[*sorted(known), *LIMITS]}")
    torch.set_num_threads(1)
    head = ("benchmark", "ratio", "target", "error", "plain", "fast", "of GEMM rate: plain, fast")
    sys.stdout.write("{:<22} {:>8} {:>7}  {:>8}  {:>7} {:>7}  {}\n".format(*head))
    sys.stdout.write(f"{'':<22} {'':>8} {'':>7}  {'':>8}  {'GFLOP per item':>15}\n")
    rows = []
    for name, case in known.items():
        if not given.names or name in given.names:
            rows.append(measure(case(), given.device))
            sys.stdout.write(line(rows[-1]))
            sys.stdout.flush()
            given.out.write_text(json.dumps([row.row() for row in rows], indent=1) + "\n")
    wanted = [] if given.shape else [name for name in LIMITS if not given.names or name in given.names]
    found = []
    if wanted:
        sys.stdout.write(f"\n{'limit':<22} {'value':>7}  {'at most':>6}\n")
    for name in wanted:
        # Here, because GPU machines that are lent bare have neither Ray nor DuckDB.
        from tests.bench.growth import growth_limits
        from tests.bench.system import all_limits

        found.append(dict([*all_limits(), *growth_limits()])[name]())
        sys.stdout.write(limit_line(found[-1]))
        sys.stdout.flush()
        given.out.write_text(json.dumps([row.row() for row in (*rows, *found)], indent=1) + "\n")
    sys.exit(0 if all(row.ok for row in (*rows, *found)) else 1)


if __name__ == "__main__":
    main(arguments())
