"""What a worker says while it does one unit: kept with the unit's commit."""

import io
import logging
import platform
from collections.abc import Iterator
from contextlib import contextmanager

_OURS = ("editing", "storage", "tasks")
_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_LIMIT = 20_000
"""Characters of one unit's log; its end is kept."""


class UnitLog:
    """The lines so far."""

    def __init__(self) -> None:
        self._lines = io.StringIO()

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Inside, what this package logs is kept, and the warnings of all others."""
        handler = logging.StreamHandler(self._lines)
        handler.setFormatter(logging.Formatter(_FORMAT))
        root, levels = logging.getLogger(), {name: logging.getLogger(name).level for name in _OURS}
        for name in _OURS:
            logging.getLogger(name).setLevel(logging.INFO)
        logging.captureWarnings(True)
        root.addHandler(handler)
        try:
            yield
        finally:
            root.removeHandler(handler)
            logging.captureWarnings(False)
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)

    def text(self) -> str | None:
        """Return the lines, with who says them; None if nothing was said."""
        said = self._lines.getvalue()
        if len(said) > _LIMIT:
            said = f"... {len(said) - _LIMIT} characters left out ...\n{said[-_LIMIT:]}"
        return f"on {platform.node()}\n{said}" if said else None
