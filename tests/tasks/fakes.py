"""Units that do nothing, and workers of the pool's tests.

A module of its own that imports nothing heavy, since each of their processes imports it.
"""

import os
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from storage.errors import StoreUnavailableError
from tasks.errors import ClusterError
from tasks.specs.run import ModelRef
from tasks.units.unit import Bench, Done, Unit

MODEL = ModelRef(name="m", folder="/", revision=None, dtype="float32", digest="d", n_layers=1, family="gpt2")


@dataclass(frozen=True, kw_only=True)
class FakeUnit(Unit):
    """A unit of a name that says what happens to a worker."""

    kind: ClassVar[str] = "fake"
    cost_per_item: ClassVar[float] = 1.0
    run_id: str
    name: str
    model: ModelRef = MODEL
    threads: int = 1
    what: str = "nothing"
    given: Mapping[str, Any] = field(default_factory=dict)

    @property
    def unit_id(self) -> str:
        return self.name

    @property
    def n_items(self) -> int:
        return 1

    @property
    def stands_at(self) -> str:
        return self.run_id

    def do(self, bench: Bench) -> Done:
        raise AssertionError("a fake worker does it")


@dataclass(frozen=True, kw_only=True)
class FakeSegment(FakeUnit):
    """One that takes a chain further."""

    kind: ClassVar[str] = "fake segment"
    edits: ClassVar[bool] = True
    left: int = 1

    @property
    def rounds_left(self) -> int:
        return self.left


class Fake:
    """A worker whose units say what happens to them."""

    def ping(self) -> str:
        return "here"

    def look(self, *, stop: bool) -> float:
        return 0.0

    def do(self, unit: FakeUnit) -> str:
        what, given = unit.what, unit.given
        if what == "die":
            os._exit(1)
        if what == "wait":
            time.sleep(1.0)
        if what == "meet":
            mark(Path(given["folder"]))
            wait_for(Path(given["folder"]), given["count"])
        if what == "raise":
            raise ValueError("a poisoned unit")
        if what == "refuse":
            raise ClusterError("will never work")
        return "done"


class Reluctant(Fake):
    """A worker that dies while it starts, unless so many have died before it."""

    def __init__(self, graves: str, deaths: int) -> None:
        if len(list(Path(graves).iterdir())) < deaths:
            mark(Path(graves))
            os._exit(1)


class Sick(Fake):
    """A worker in whose process nothing works any more after one unit."""

    def __init__(self) -> None:
        self._is_sick = False

    def do(self, unit: FakeUnit) -> str:
        self._is_sick |= unit.what == "infect"
        if self._is_sick:
            raise RuntimeError("the device has failed")
        return "done"


class Mortal(Fake):
    """A worker that dies with its unit, unless so many have died before it."""

    def __init__(self, graves: str, deaths: int) -> None:
        self._graves, self._deaths = Path(graves), deaths

    def do(self, unit: FakeUnit) -> str:
        if len(list(self._graves.iterdir())) < self._deaths:
            mark(self._graves)
            os._exit(1)
        return "done"


class Cut(Fake):
    """A worker that the store does not answer, if it is the first one."""

    def __init__(self, folder: str) -> None:
        self._cut = not any(Path(folder).iterdir())
        mark(Path(folder))

    def do(self, unit: FakeUnit) -> str:
        if self._cut:
            raise StoreUnavailableError("the store is gone")
        return "done"


class Second(Fake):
    """A worker that dies while it starts, but for the first one."""

    def __init__(self, folder: str) -> None:
        first = not any(Path(folder).iterdir())
        mark(Path(folder))
        if not first:
            os._exit(1)


def mark(folder: Path) -> None:
    """Leave one more file."""
    (folder / uuid.uuid4().hex).touch()


def wait_for(folder: Path, count: int) -> None:
    """Wait until so many files have been left."""
    while len(list(folder.iterdir())) < count:
        time.sleep(0.05)
