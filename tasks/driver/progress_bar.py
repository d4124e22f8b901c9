"""Progress bars with an ETA that share one console with Prefect's logs."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from tasks.driver.stage_progress import StageProgress

console = Console(stderr=True)
_MINUTE, _TENTH = 60.0, 0.1
"""Off a terminal a line is written after a minute, then after another or a tenth of the stage's time, whichever is longer."""


@contextmanager
def progress_bar(stage: StageProgress) -> Iterator[Callable[[], None]]:
    """Show a bar for one stage; yields a function that shows how far it is.

    Off a terminal lines are written, ever rarer the longer it lasts, and one at the end.
    """
    told = stage.since
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
            nonlocal told
            bar.update(task, completed=stage.share, done=stage.done, eta=eta(stage.left_s))
            now = time.monotonic()
            if not console.is_terminal and now - told >= max(_MINUTE, _TENTH * (now - stage.since)):
                told = now
                console.print(_line(stage, now - stage.since), highlight=False, soft_wrap=True)

        yield show
        bar.update(task, completed=1.0, done=stage.done, eta=eta(0.0))
    if not console.is_terminal:
        elapsed = bar.tasks[0].elapsed or 0.0
        console.print(f"{stage.name}: {stage.done} units in {elapsed:.1f} s", highlight=False)


def _line(stage: StageProgress, seconds: float) -> str:
    done = f"{stage.done}/{stage.units} units, {stage.share:.0%}"
    return f"{stage.name}: {done} in {eta(seconds)}, ETA {eta(stage.left_s)}"


def eta(seconds: float | None) -> str:
    """Return a time that is left as people read it."""
    return "–" if seconds is None else str(timedelta(seconds=round(seconds)))


def _share_console(bar: Progress) -> None:
    # Prefect's handler writes through a console of its own, which would tear the bar.
    for name in (None, *logging.root.manager.loggerDict):
        for handler in logging.getLogger(name).handlers:
            if hasattr(handler, "console"):
                handler.console = bar.console
