"""Progress bars with an ETA that share one console with Prefect's logs."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from tasks.driver.stage_progress import StageProgress

console = Console(stderr=True)


@contextmanager
def progress_bar(stage: StageProgress) -> Iterator[Callable[[], None]]:
    """Show a bar for one stage; yields a function that shows how far it is.

    Off a terminal, one line is written at the end.
    """
    columns = (
        TextColumn("{task.description:<16}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[done]}/{task.fields[units]} units"),
        TimeElapsedColumn(),
        TextColumn("ETA {task.fields[eta]}"),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        _share_console(bar)
        task = bar.add_task(stage.name, total=1.0, done=0, units=stage.units, eta=eta(stage.left_s))

        def show() -> None:
            bar.update(task, completed=stage.share, done=stage.done, eta=eta(stage.left_s))

        yield show
        bar.update(task, completed=1.0, done=stage.done, eta=eta(0.0))
    if not console.is_terminal:
        elapsed = bar.tasks[0].elapsed or 0.0
        console.print(f"{stage.name}: {stage.done} units in {elapsed:.1f} s", highlight=False)


def eta(seconds: float | None) -> str:
    """Return a time that is left as people read it."""
    return "–" if seconds is None else str(timedelta(seconds=round(seconds)))


def _share_console(bar: Progress) -> None:
    # Prefect's handler writes through a console of its own, which would tear the bar.
    for name in (None, *logging.root.manager.loggerDict):
        for handler in logging.getLogger(name).handlers:
            if hasattr(handler, "console"):
                handler.console = bar.console
