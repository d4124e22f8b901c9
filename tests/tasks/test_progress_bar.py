"""What is told of a stage where nobody looks at a terminal: a batch system's log."""

import io
import re
import time
from itertools import pairwise

import pytest
from rich.console import Console

from tasks.driver import progress_bar as module
from tasks.driver.stage_progress import StageProgress


class Time:
    """A clock that a test puts forward."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


def lines_of(seconds: int, monkeypatch: pytest.MonkeyPatch, *, terminal: bool = False) -> list[str]:
    """Return what is written of a stage that lasts so long, and tells every second how far it is."""
    clock, out = Time(), io.StringIO()
    monkeypatch.setattr(time, "monotonic", clock.monotonic)
    monkeypatch.setattr(module, "console", Console(file=out, force_terminal=terminal))
    stage = StageProgress("edit and score", cost=float(seconds), units=seconds, since=0.0)
    with module.progress_bar(stage) as show:
        for _ in range(seconds):
            clock.now += 1
            stage.advance(1.0)
            show()
    return out.getvalue().splitlines()


def test_a_short_stage_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [re.sub(r"[\d.]+ s$", "", line) for line in lines_of(59, monkeypatch)] == ["edit and score: 59 units in "]


def test_a_long_stage_tells_how_far_it_is_ever_more_rarely(monkeypatch: pytest.MonkeyPatch) -> None:
    *told, _ = lines_of(7200, monkeypatch)
    assert told[0] == "edit and score: 60/7200 units, 1% in 0:01:00, ETA 1:59:00"
    at = [int(line.removeprefix("edit and score: ").partition("/")[0]) for line in told]
    steps = [later - earlier for earlier, later in pairwise(at)]
    assert steps[:9] == [60] * 9 and steps == sorted(steps) and steps[-1] > 600
    assert len(told) < 45, "a day has fifty lines more, not a thousand"


def test_a_terminal_has_a_bar_and_no_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not any("ETA" in line and " in 0:" in line for line in lines_of(180, monkeypatch, terminal=True))
