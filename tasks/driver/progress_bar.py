"""Progress bars with an ETA that share one console with Prefect's logs."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

console = Console(stderr=True)


@contextmanager
def progress_bar(title: str, total: float, n_units: int) -> Iterator[Callable[[float], None]]:
    """Show a bar for one stage; yields a function that is told the cost of each finished unit.

    Off a terminal, one line is written at the end.
    """
    columns = (
        TextColumn("{task.description:<16}"),
        BarColumn(),
        TextColumn("{task.fields[done]}/{task.fields[units]} units"),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        _share_console(bar)
        task = bar.add_task(title, total=max(total, 1e-9), done=0, units=n_units)
        done = 0

        def advance(cost: float) -> None:
            nonlocal done
            done += 1
            bar.update(task, advance=cost, done=done)

        yield advance
        bar.update(task, completed=max(total, 1e-9))
    if not console.is_terminal:
        elapsed = bar.tasks[0].elapsed or 0.0
        console.print(f"{title}: {done} units in {elapsed:.1f} s", highlight=False)


def _share_console(bar: Progress) -> None:
    # Prefect's handler writes through a console of its own, which would tear the bar.
    for name in (None, *logging.root.manager.loggerDict):
        for handler in logging.getLogger(name).handlers:
            if hasattr(handler, "console"):
                handler.console = bar.console
