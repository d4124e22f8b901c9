"""How far a piece of work is: told by loops, and read from another thread."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


class Interrupted(Exception):
    """Work was asked to end, and can go on later."""


class Progress:
    """The share of a piece of work that is done, from 0 to 1; loops within loops refine it.

    Written by the thread that works, read by any other.  It never goes back: work whose parts are not known beforehand tells
    too much, not too little.
    """

    def __init__(self) -> None:
        self.share = 0.0
        self.is_asked_to_stop = False
        """Whether what can go on later should end at the next place where it can."""
        self._may_end = False
        self._start, self._width = 0.0, 1.0

    def begin(self) -> None:
        """Start a new piece of work."""
        self.share, self._start, self._width = 0.0, 0.0, 1.0
        self.is_asked_to_stop = self._may_end = False

    def at(self, share: float) -> None:
        """Tell how much of the innermost part is done; raises Interrupted where work is asked to end and may end anywhere."""
        self.share = max(self.share, min(1.0, self._start + self._width * share))
        if self._may_end and self.is_asked_to_stop:
            raise Interrupted

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Inside, work may end at any place where it tells how far it is: what it has not finished leaves nothing behind."""
        self._may_end = True
        try:
            yield
        finally:
            self._may_end = False

    @contextmanager
    def part(self, begin: float, end: float) -> Iterator[None]:
        """Inside, what is told is of this part of what is told outside."""
        start, width = self._start, self._width
        self._start, self._width = start + width * begin, width * (end - begin)
        try:
            yield
            self.at(1.0)
        finally:
            self._start, self._width = start, width

    def over(self, items: Sequence[T]) -> Iterator[T]:
        """Yield items, each an equal part."""
        for number, item in enumerate(items):
            with self.part(number / len(items), (number + 1) / len(items)):
                yield item


@contextmanager
def without_bars(*, where: bool) -> Iterator[None]:
    """Inside, transformers shows no progress of its own, where that is asked for."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    if where:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        if where and shown:
            logging.enable_progress_bar()
