"""Benchmarks: ``python -m tests.bench [NAME ...]``; prints a table and writes ``bench.json``.

Ratios of one thread's processor time, measured in one run, interleaved, median of three; never a timed unit test.
"""

import json
import sys
from pathlib import Path

import torch

from tests.bench.cases import all_cases
from tests.bench.measure import Measured, measure


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


def main(names: list[str]) -> None:
    """Run the named benchmarks, or all of them, on one thread."""
    known = dict(all_cases())
    unknown = sorted(set(names) - set(known))
    if unknown:
        sys.exit(f"no benchmarks {unknown}; expected some of {sorted(known)}")
    torch.set_num_threads(1)
    head = ("benchmark", "ratio", "target", "error", "plain", "fast", "of GEMM rate: plain, fast")
    sys.stdout.write("{:<22} {:>8} {:>7}  {:>8}  {:>7} {:>7}  {}\n".format(*head))
    sys.stdout.write(f"{'':<22} {'':>8} {'':>7}  {'':>8}  {'GFLOP per item':>15}\n")
    rows = []
    for name, case in known.items():
        if not names or name in names:
            rows.append(measure(case()))
            sys.stdout.write(line(rows[-1]))
            sys.stdout.flush()
    Path("bench.json").write_text(json.dumps([row.row() for row in rows], indent=1) + "\n")
    sys.exit(0 if all(row.ok for row in rows) else 1)


if __name__ == "__main__":
    main(sys.argv[1:])
