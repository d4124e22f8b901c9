"""Ending a run in good order: Ctrl-C, a signal or ``palimpsest cancel`` lets the units in work come to their end."""

import json
import logging
import signal
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from storage.store import Store

_log = logging.getLogger(__name__)
_FOLDER = "control"
_PREFIX = f"{_FOLDER}/cancel-"
_POLL_S = 2.0


class Stop:
    """Whether a run is asked to end, and why."""

    def __init__(self, store: Store, name: str) -> None:
        self._store, self._name = store, name
        self._seen, self._asked_at = _requests(store), time.monotonic()
        self._reason: str | None = None

    def ask(self, reason: str) -> None:
        if self._reason is None:
            _log.warning(
                "%s: the units in work are finished, long ones up to where they can go on later; nothing new is begun "
                "(Ctrl-C once more ends at once)",
                reason,
            )
            self._reason = reason

    @property
    def is_asked(self) -> bool:
        """Whether the run knows already that it is to end."""
        return self._reason is not None

    def reason(self) -> str | None:
        """Return why the run is to end, None if it is to go on."""
        if self._reason is None and time.monotonic() - self._asked_at > _POLL_S:
            fresh, self._asked_at = _requests(self._store) - self._seen, time.monotonic()
            self._seen |= fresh
            if any(_wants(self._store, name) in (None, self._name) for name in fresh):
                self.ask("cancelled")
        return self._reason


def cancel(store: Store, experiment: str | None = None) -> None:
    """Ask the drivers that work on a store now to end, or those of one experiment; wherever they run."""
    store.files.write(f"{_PREFIX}{uuid.uuid4().hex}.json", json.dumps({"experiment": experiment}).encode())


@contextmanager
def stops(store: Store, name: str) -> Iterator[Stop]:
    """Inside, the first Ctrl-C or SIGTERM only asks; once the run is asked to end, by whomever, one is what it always is."""
    stop = Stop(store, name)
    with listening(stop):
        yield stop


@contextmanager
def listening(stop: Stop) -> Iterator[None]:
    """Inside, these signals ask; needed anew where a library has put its own handlers over the ones from before."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def handle(number: int, _frame: FrameType | None) -> None:
        signal.signal(number, before[signal.Signals(number)])
        if stop.is_asked:
            signal.raise_signal(number)
        else:
            stop.ask("interrupted" if number == signal.SIGINT else "terminated")

    for number in before:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _requests(store: Store) -> set[str]:
    return {name for name in store.files.listing(_FOLDER) if name.startswith(_PREFIX)}


def _wants(store: Store, name: str) -> str | None:
    """Return which experiment a request wants to end; all if None."""
    try:
        found: str | None = json.loads(store.files.read(name))["experiment"]
        return found
    except FileNotFoundError:  # cleared away just now
        return ""
