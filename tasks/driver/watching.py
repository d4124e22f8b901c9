"""What is under way on a store, shown until it has ended."""

import time
from collections.abc import Mapping
from typing import Any

from rich.live import Live
from rich.table import Table

from tasks.driver.heartbeat import SILENT_AFTER, read_progress
from tasks.driver.progress_bar import console, eta

_EVERY_S = 2.0
_COLUMNS = ("experiment", "driver", "stage", "units", "done", "per minute", "ETA", "workers", "GPUs", "state")


def watch_progress(store: str, *, every_s: float = _EVERY_S) -> None:
    """Show all experiments of a store that are under way, until the last one has ended or is silent.

    Off a terminal, a line is written whenever something has changed.
    """
    beats: dict[tuple[str, str], tuple[int, int]] = {}
    shown: list[dict[str, str]] = []
    with Live(console=console, auto_refresh=False, transient=False) as live:
        while True:
            said = read_progress(store)
            for row in said:
                beat, looks = beats.get((row["experiment"], row["driver"]), (-1, 0))
                beats[row["experiment"], row["driver"]] = (row["beat"], 0 if row["beat"] != beat else looks + 1)
            rows = [
                progress_row(row, silent=beats[row["experiment"], row["driver"]][1] >= SILENT_AFTER) for row in said
            ]
            if console.is_terminal:
                live.update(_table(rows), refresh=True)
            elif rows != shown:
                for row in rows:
                    live.console.print(
                        " | ".join(f"{name} {row[name]}" for name in _COLUMNS), highlight=False, soft_wrap=True
                    )
            shown = rows
            if all(row["state"] != "under way" for row in rows):
                return
            time.sleep(every_s)


def progress_row(said: Mapping[str, Any], *, silent: bool) -> dict[str, str]:
    """Return what a driver said as it is shown."""
    done, seconds, stage = said.get("done", 0), said.get("seconds", 0.0), said.get("stage")
    workers = said["busy"] + said["idle"] + said["starting"]
    return {
        "experiment": said["experiment"],
        "driver": said["driver"],
        "stage": stage or "–",
        "units": f"{done}/{said['units']}" if stage else "–",
        "per minute": f"{60 * done / seconds:.1f}" if stage and seconds else "–",
        "done": f"{said['share']:.0%}" if stage else "–",
        "ETA": eta(said["left_s"]) if stage else "–",
        "workers": f"{said['busy']} of {workers} busy",
        "GPUs": f"{said['gpus']:g} of {said['all_gpus']:g}" if said["all_gpus"] else "none",
        "state": said["ended"] or ("silent" if silent else "under way"),
    }


def _table(rows: list[dict[str, str]]) -> Table:
    table = Table(*_COLUMNS, caption="none has been started on this store yet" if not rows else None)
    for row in rows:
        table.add_row(*(row[name] for name in _COLUMNS))
    return table
