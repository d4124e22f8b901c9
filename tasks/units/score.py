"""What scores of runs have in common: how they are wanted, what is missing of them, and how they were made."""

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, ClassVar, Self

from editing.versions import SCORING_VERSION
from storage.commits import Commit
from storage.digests import digest_of
from tasks.specs.run import RunSpec
from tasks.units.unit import Record, RunUnit, kinds


@dataclass(frozen=True, kw_only=True)
class Score(RunUnit):
    """A unit that scores a run's model as it is after some rounds, or after each of several.

    With more of them only what is missing is scored; what is scored in another way (its recipe) is scored anew.
    """

    @classmethod
    @abstractmethod
    def missing(cls, run: RunSpec, segments: Sequence[range], seen: Sequence[Commit]) -> list[Self]:
        """Return what is still to be scored of a run of which these segments are done, or will be.

        Args:
            segments: The rounds of each, in order; a run without edits has none.
            seen: Commits of this kind that scored as it is wanted now.
        """

    @classmethod
    def recipe_of(cls, run: RunSpec) -> str | None:
        """Return how a run's units of this kind score; None if there is but one way, or none is wanted."""
        return None

    @property
    def recipe(self) -> str | None:
        return self.recipe_of(self.run)

    @property
    @abstractmethod
    def last_round(self) -> int:
        """After how many rounds it scores, the last of several."""

    def named(self, name: str, identity: Mapping[str, Any] | None = None) -> str:
        """Return a unit's name with a digest of how it scores, and of what else tells it from others."""
        return f"{name}-{digest_of({**(identity or {}), 'recipe': self.recipe}, length=8)}"


@dataclass(frozen=True, kw_only=True)
class CheckpointRecord(Record):
    """What the commit of a checkpoint's score says."""

    rounds: int
    n_items: int


@dataclass(frozen=True, kw_only=True)
class CheckpointScore(Score):
    """A score of the whole model at every checkpoint, in one unit; its settings are the experiment's ``score.<kind>``."""

    version: ClassVar[int] = SCORING_VERSION
    """Raised when the same settings give other numbers."""
    Settings: ClassVar[type | None] = None
    """A dataclass of what an experiment can set, for kinds that ``flows`` does not know by name."""
    rounds: int

    @classmethod
    def settings_of(cls, run: RunSpec) -> Mapping[str, Any] | None:
        """Return the settings with which a run's checkpoints are scored; None if they are not."""
        return run.scoring.scores.get(cls.kind)

    @property
    def settings(self) -> Mapping[str, Any]:
        found = self.settings_of(self.run)
        if found is None:
            raise ValueError(f"run {self.run_id} asks for no {self.kind}; expected settings in score.{self.kind}")
        return found

    @classmethod
    def recipe_of(cls, run: RunSpec) -> str | None:
        settings = cls.settings_of(run)
        return None if settings is None else cls.recipe_with(settings)

    @classmethod
    def recipe_with(cls, settings: Mapping[str, Any]) -> str:
        """Return how it scores with these settings; where files stand is no part of that."""
        kept = {name: value for name, value in settings.items() if name != "files"}
        return f"v{cls.version}-{digest_of(kept, length=8)}"

    @classmethod
    def missing(cls, run: RunSpec, segments: Sequence[range], seen: Sequence[Commit]) -> list[Self]:
        if cls.settings_of(run) is None:
            return []
        done = {CheckpointRecord.of_json(commit.spec).rounds for commit in seen}
        return [cls(run=run, rounds=at) for at in checkpoints(run, segments) if at not in done]

    @property
    def unit_id(self) -> str:
        return self.named(f"{self.kind}-{self.rounds:06d}")

    @property
    def last_round(self) -> int:
        return self.rounds

    @property
    def record(self) -> CheckpointRecord:
        return CheckpointRecord(rounds=self.rounds, n_items=self.n_items)

    @property
    def columns(self) -> dict[str, Any]:
        """The columns that say of a row after which edits it was scored."""
        return {"scored_at": self.rounds - 1, "edits_so_far": self.rounds * self.run.batch_size}

    def measured(self, item: str, name: str, value: float | None, text: str | None = None) -> dict[str, Any]:
        """Return a row of ``measurements``: one quantity of one item, NULL where the model gave none."""
        return {"score": self.kind, **self.columns, "item": item, "name": name, "value": value, "text": text}


def score_kinds() -> list[type[Score]]:
    """Return every kind of score."""
    return [kind for kind in kinds().values() if issubclass(kind, Score)]


def settings_types() -> dict[str, Any]:
    """Return by kind the settings of the scores that bring their own."""
    found = [kind for kind in score_kinds() if issubclass(kind, CheckpointScore)]
    return {kind.kind: kind.Settings for kind in found if kind.Settings is not None}


def checkpoints(run: RunSpec, segments: Sequence[range]) -> list[int]:
    """Return the numbers of rounds at which the whole model is scored, as far as these segments lead."""
    return reached(run.checkpoints, segments)


def reached(rounds: Iterable[int], segments: Sequence[range]) -> list[int]:
    """Return those numbers of rounds to which these segments lead."""
    return [at for at in rounds if at <= (segments[-1].stop if segments else 0)]


def stretches(numbers: Iterable[int]) -> list[tuple[int, int]]:
    """Return the numbers as ranges: the first of each, and the one behind its last."""
    groups = (list(group) for _, group in groupby(enumerate(sorted(numbers)), lambda pair: pair[1] - pair[0]))
    return [(group[0][1], group[-1][1] + 1) for group in groups]
