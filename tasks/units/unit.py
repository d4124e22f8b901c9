"""What a unit of work is: what is retried, done by one worker, and committed as a whole."""

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from functools import cached_property
from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol, Self

from storage.errors import DamagedFileError
from storage.schemas import Tables
from storage.store import Store
from tasks.specs.run import ModelRef, RunSpec

if TYPE_CHECKING:
    from editing.methods.editor import Artifacts, Editor
    from editing.methods.targets import Targets
    from editing.model.lm import LanguageModel
    from editing.model.progress import Progress
    from editing.requests import EditRequest


LEFT = "left"
"""What a worker answers where a unit was asked to end, and goes on later."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """What a commit says of its unit, typed; its JSON is a part of the store's format.

    A field at its default is not written, and a field without one must be there.
    """

    def to_json(self) -> dict[str, Any]:
        """Return the record as JSON has it."""
        optional = {f.name: f.default for f in fields(self) if f.default is not MISSING}
        given = {name: value for name, value in asdict(self).items() if name not in optional or value != optional[name]}
        found: dict[str, Any] = json.loads(json.dumps(given))
        return found

    @classmethod
    def of_json(cls, found: Mapping[str, Any]) -> Self:
        """Return the record that a commit holds; what this version does not know is left out.

        Raises:
            DamagedFileError: A field is missing.
        """
        known = {f.name: found[f.name] for f in fields(cls) if f.name in found}
        try:
            return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in known.items()})
        except TypeError as error:
            raise DamagedFileError(
                f"a commit says {dict(found)!r}; expected a {cls.__name__} with {[f.name for f in fields(cls)]} ({error}); "
                "withdraw the unit so that the next run computes it again"
            ) from error


class Done(NamedTuple):
    """What doing a unit has given."""

    tables: Tables
    record: Record | None = None
    digest: str | None = None
    """Of the edited parameters, or of the artifact that was made."""
    last_round: int | None = None
    """Behind the last round that was done, where the unit was asked to end before its own."""
    others: Mapping[str, "Done"] = {}
    """By run id, what is committed for the runs that go in step with the unit's; before its own commit."""


class Inputs(NamedTuple):
    """What a run edits with."""

    editor: "Editor"
    artifacts: "Artifacts"
    digests: Mapping[str, Any]
    """Of the artifacts' content, as the run's first commit records them."""


class Bench(Protocol):
    """What a unit may ask of the worker that does it."""

    store: Store
    device: str
    """The kind of device on which models stand."""
    progress: "Progress"
    """How far the unit is, and whether it is asked to end."""

    def pristine(self, model: ModelRef) -> "LanguageModel":
        """Return a model as it was loaded."""
        ...

    def at(self, run: RunSpec, rounds: int) -> "LanguageModel":
        """Return a run's model as it is after ``rounds`` rounds."""
        ...

    def sized(self, run: RunSpec) -> RunSpec:
        """Return a run with the micro-batches with which it began, or that fit into memory now."""
        ...

    def facts(self, facts_run_id: str) -> "Sequence[EditRequest]":
        """Return all facts of a data set."""
        ...

    def order(self, run: RunSpec) -> "Sequence[EditRequest]":
        """Return all facts as a run's sample takes them; it edits the first ``facts.size`` of them."""
        ...

    def inputs(self, run: RunSpec) -> Inputs:
        """Return what a run edits with; the last few are kept."""
        ...

    def targets(self, run: RunSpec) -> "Mapping[str, Targets]":
        """Return the targets that a run shares, by request id; none if it shares none."""
        ...

    @property
    def models(self) -> Any:
        """The models in this worker's memory (``tasks.workers.loaded_models.Models``), for what moves them."""
        ...


_KINDS: dict[str, type["Unit"]] = {}


@dataclass(frozen=True, kw_only=True)
class Unit(ABC):
    """What is retried and written as a whole.

    A subclass with a ``kind`` is one kind of unit, everything about which it says itself.  It must say what an item costs.
    """

    kind: ClassVar[str]
    """What its commit is called."""
    cost_per_item: ClassVar[float]
    """Of the time in which one fact's target is optimised, for the progress bar."""
    edits: ClassVar[bool] = False
    """Whether it takes a chain of edits further; these go before all others."""

    if TYPE_CHECKING:

        @property
        def run_id(self) -> str: ...
        @property
        def model(self) -> ModelRef: ...
        @property
        def threads(self) -> int: ...

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "kind" not in cls.__dict__:
            return
        if not isinstance(getattr(cls, "cost_per_item", None), float):
            raise TypeError(f"{cls.__name__} has no cost_per_item; expected a number, relative to an edit")
        if (other := _KINDS.get(cls.kind)) is not None and other.__qualname__ != cls.__qualname__:
            raise TypeError(
                f"{cls.__name__} and {other.__name__} are both of kind {cls.kind!r}; expected one class of each"
            )
        _KINDS[cls.kind] = cls

    @property
    @abstractmethod
    def unit_id(self) -> str:
        """Its name among its run's units; it says what is done, so that what is done is never done again."""

    @property
    @abstractmethod
    def n_items(self) -> int:
        """How many facts, texts or questions it works on."""

    @abstractmethod
    def do(self, bench: Bench) -> Done:
        """Do it.

        One that may take long raises :class:`editing.model.progress.Interrupted` where it is asked to end and can go on later
        (:mod:`tasks.units.unfinished`).  Heavy libraries are imported here, so that a driver, which only names units, needs
        none of them.
        """

    @property
    def key(self) -> tuple[str, str]:
        return self.run_id, self.unit_id

    @property
    def cost(self) -> float:
        """Rough relative cost, for the progress bar: optimising a fact's target is the unit."""
        return self.cost_per_item * self.n_items

    @property
    def run_ids(self) -> tuple[str, ...]:
        """The runs for which it commits, its own first."""
        return (self.run_id,)

    @property
    def stands_at(self) -> str | None:
        """The run at which it leaves the worker's model, so that the next unit of that run is best done there."""
        return None

    @property
    def rounds_left(self) -> int:
        """How many rounds its chain has still to go, this unit's among them; 0 where it takes no chain further."""
        return 0

    @property
    def recipe(self) -> str | None:
        """How something is scored, where that can change (:class:`storage.commits.CommitInfo`)."""
        return None

    @property
    def rounds_held(self) -> tuple[int | None, int | None]:
        """The first round that its commit holds, and the one after the last."""
        return None, None

    def is_lost(self, store: Store) -> bool:
        """Return whether it is committed, but the artifact that it made is gone: damaged and deleted, or by accident."""
        return False


@dataclass(frozen=True, kw_only=True)
class Preparation(Unit):
    """A unit that comes before the runs and is shared by them."""

    run_id: str = "prepare"
    model: ModelRef
    threads: int


@dataclass(frozen=True, kw_only=True)
class RunUnit(Unit):
    """A unit of one run."""

    run: RunSpec

    @cached_property
    def run_id(self) -> str:
        return self.run.run_id

    @property
    def model(self) -> ModelRef:
        return self.run.model

    @property
    def threads(self) -> int:
        return self.run.execution.compute.threads

    @property
    def stands_at(self) -> str | None:
        return self.run_id


def kinds() -> dict[str, type[Unit]]:
    """Return every kind of unit: the classes of this folder's files, by kind."""
    package = __name__.rpartition(".")[0]
    for module in iter_modules(import_module(package).__path__):
        if not module.ispkg:
            import_module(f"{package}.{module.name}")
    return dict(_KINDS)
