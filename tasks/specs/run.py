"""Plain descriptions of models and runs: what determines a run's weights, what is scored of it, how it is executed."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, Literal, cast

from storage.digests import digest_of
from tasks.specs.execution import Execution
from tasks.specs.identity import called, identity_of, outside
from tasks.specs.recipes import ContextsRecipe, GivenTargets, ModelIdentity, MomentsRecipe, NetworkRecipe, Recipe
from tasks.specs.scoring import Scoring

UNEDITED = "none"
"""The editor of a run without edits: the baseline of others."""
TOKENS_PER_FORWARD = 2048
"""Of units that belong to no run of edits: their rows must not depend on what a worker did before."""


def _prompt_format(chat: bool | Mapping[str, Any]) -> str:
    asked = chat is not False
    return "chat template; answer begins the reply" if asked else "tokenizer's own; answer after one space"


@dataclass(frozen=True, kw_only=True)
class ModelRef:
    """A model on disk: what to load, and the digest of its files."""

    name: str = outside()
    folder: str = outside()
    revision: str | None = outside()
    dtype: str
    digest: str = called("model")
    """Of config, weights and tokenizer files."""
    n_layers: int = outside()
    family: str = outside()
    """Its row in the family table."""
    chat: bool | Mapping[str, Any] = called("prompt_format", _prompt_format, default=False)
    """Whether prompts go through the tokenizer's chat template; or the template's variables."""
    text_start: str = outside(default="none")
    """What stands in front of every text; ``particulars`` has its token."""
    adapter: str | None = outside(default=None)
    """A folder with an adapter that is merged into the weights."""
    adapter_digest: str | None = called("adapter", default=None)
    file: str | None = outside(default=None)
    """The GGUF file that the folder was made of, where one was given."""
    source: str | None = outside(default=None)
    """The same file by its content, and what de-quantised it, in words; also of a model of the catalogue."""
    particulars: Mapping[str, Any] = called("prompts", default_factory=dict)
    """What prompts have beside what the files and the usual format determine (:class:`editing.model.tokens.PromptFormat`)."""

    @property
    def identity(self) -> ModelIdentity:
        return cast(ModelIdentity, identity_of(self))


@dataclass(frozen=True, kw_only=True)
class FactsRef:
    """A data set of facts, with the order in which one sample takes them."""

    name: str = outside()
    run_id: str = outside()
    """Where ``facts`` and ``probes`` hold it: ``facts-<digest>``."""
    digest: str = called("facts")
    sample: int
    sample_seed: int
    size: int = outside()
    """Facts of this sample that the experiment uses: a longer run goes on from a shorter one."""
    order: str = outside()
    """The unit that holds the sample's order in the store."""
    order_digest: str | None = called("order", default=None)
    """Of an order that sample and seed alone do not determine: a list of one's own, or facts left out."""

    @property
    def identity(self) -> dict[str, Any]:
        return identity_of(self)


@dataclass(frozen=True, kw_only=True)
class Trajectory:
    """What determines a run's weights, round by round: all of it is the run's identity."""

    model: ModelRef
    facts: FactsRef
    editor: str
    """An editor's name, or ``UNEDITED``."""
    version: int
    hparams: Mapping[str, Any]
    layers: tuple[int, ...]
    """Empty while a search or a trace is still to find them; however they are found, they are the same run."""
    batch_size: int
    mode: Literal["sequential", "independent"]
    seed: int
    contexts: ContextsRecipe | None
    moments: MomentsRecipe | None
    network: NetworkRecipe | None
    guard: Mapping[str, Any] | None = None
    """What keeps edits out that are predicted to break the model (:class:`tasks.runs.guard.Guard`)."""
    targets: GivenTargets | None = None
    """Targets that are given, in place of a search (:mod:`tasks.units.given_targets`)."""

    @property
    def identity(self) -> dict[str, Any]:
        return identity_of(self)


@dataclass(frozen=True, kw_only=True)
class LayersFrom:
    """What chooses a run's layers, where they are not given."""

    by: Literal["search", "trace"]
    run_id: str
    recipe: Recipe


@dataclass(frozen=True, kw_only=True)
class RunSpec:
    """One run: from pristine weights to the last round."""

    trajectory: Trajectory
    scoring: Scoring
    execution: Execution
    experiment: str
    protocol: str
    preset: str | None
    """Where the hyper-parameters came from; the numbers themselves are the identity."""
    layers_from: LayersFrom | None = None

    def changed(self, **changes: Any) -> "RunSpec":
        """Return the run with other values of its own or of its parts' fields, by their names."""
        parts = {}
        for name in ("trajectory", "scoring", "execution"):
            part = getattr(self, name)
            mine = {each.name: changes.pop(each.name) for each in fields(part) if each.name in changes}
            parts[name] = replace(part, **mine)
        return replace(self, **parts, **changes)

    @cached_property
    def run_id(self) -> str:
        return f"{self.editor}-b{self.batch_size}-{digest_of(self.trajectory.identity, length=10)}"

    @property
    def model(self) -> ModelRef:
        return self.trajectory.model

    @property
    def facts(self) -> FactsRef:
        return self.trajectory.facts

    @property
    def editor(self) -> str:
        return self.trajectory.editor

    @property
    def hparams(self) -> Mapping[str, Any]:
        return self.trajectory.hparams

    @property
    def layers(self) -> tuple[int, ...]:
        return self.trajectory.layers

    @property
    def batch_size(self) -> int:
        return self.trajectory.batch_size

    @property
    def mode(self) -> Literal["sequential", "independent"]:
        return self.trajectory.mode

    @property
    def is_unedited(self) -> bool:
        """Whether it is a baseline, which no edit changes."""
        return self.editor == UNEDITED

    @property
    def knows_its_layers(self) -> bool:
        """Whether its layers are given, or have been found."""
        return bool(self.layers) or self.layers_from is None

    @property
    def searched_by(self) -> str | None:
        """What chooses its layers, by its run id; None if they are given."""
        return None if self.layers_from is None else self.layers_from.run_id

    @property
    def baseline_run_id(self) -> str:
        """The run of the unedited model on the same facts and sample."""
        return baseline_of(self).run_id

    @property
    def n_rounds(self) -> int:
        """Full batches in the sample; a remainder is not edited."""
        return 0 if self.is_unedited else self.facts.size // self.batch_size

    @property
    def rounds_per_segment(self) -> int:
        return max(1, self.execution.commit_every // self.batch_size)

    @property
    def checkpoints(self) -> tuple[int, ...]:
        """Numbers of rounds after which the whole model is scored: the first boundary at or after each step.

        The unedited model is scored once, whatever the steps.
        """
        return self._checkpoints(self.scoring.every_edits)

    @property
    def benchmark_checkpoints(self) -> tuple[int, ...]:
        """Numbers of rounds after which benchmarks are asked."""
        wanted = self.scoring.benchmark_edits
        return self.checkpoints if wanted is None else self._checkpoints(wanted)

    def _checkpoints(self, step: int | tuple[int, ...]) -> tuple[int, ...]:
        if self.is_unedited:
            return (0,)
        n_edits = self.n_rounds * self.batch_size
        if not step:
            return ()
        wanted = range(step, n_edits + 1, step) if isinstance(step, int) else step
        found = {-(-edits // self.batch_size) for edits in wanted} | {self.n_rounds}
        return tuple(sorted(rounds for rounds in found if rounds <= self.n_rounds))


def baseline_of(run: RunSpec) -> RunSpec:
    """Return the run of the unedited model that a run is compared with: of its trajectory only model and facts are kept."""
    trajectory = Trajectory(
        model=run.model,
        facts=run.facts,
        editor=UNEDITED,
        version=1,
        hparams={},
        layers=(),
        batch_size=1,
        mode="sequential",
        seed=0,
        contexts=None,
        moments=None,
        network=None,
    )
    return replace(run, trajectory=trajectory, protocol="corrected", preset=None, layers_from=None)
