"""Plain descriptions of models and runs; what determines them is what names them."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from storage.digests import digest_of

Recipe = Mapping[str, Any]
UNEDITED = "none"
"""The editor of a run without edits: the baseline of others."""
TOKENS_PER_FORWARD = 2048
"""Of units that belong to no run of edits: their rows must not depend on what a worker did before."""


@dataclass(frozen=True, kw_only=True)
class ModelRef:
    """A model on disk: what to load and the digest of its files."""

    name: str
    folder: str
    revision: str | None
    dtype: str
    digest: str
    """Of config, weights and tokenizer files."""
    n_layers: int
    family: str
    """Its row in the family table."""
    chat: bool | Mapping[str, Any] = False
    """Whether prompts go through the tokenizer's chat template; or the template's variables."""
    text_start: str = "none"
    """What stands in front of every text."""
    adapter: str | None = None
    """A folder with an adapter that is merged into the weights."""
    adapter_digest: str | None = None
    particulars: Mapping[str, Any] = field(default_factory=dict)
    """What prompts have beside what the files and the usual format determine (:class:`editing.model.tokens.PromptFormat`)."""

    @property
    def identity(self) -> dict[str, Any]:
        chat = self.chat is not False
        prompts = "chat template; answer begins the reply" if chat else "tokenizer's own; answer after one space"
        return {
            "model": self.digest,
            "dtype": self.dtype,
            "prompt_format": prompts,
            **({"adapter": self.adapter_digest} if self.adapter_digest else {}),
            **({"prompts": dict(self.particulars)} if self.particulars else {}),
        }


@dataclass(frozen=True, kw_only=True)
class FactsRef:
    """A data set of facts, with the order in which one sample takes them."""

    name: str
    run_id: str
    """Where ``facts`` and ``probes`` hold it: ``facts-<digest>``."""
    digest: str
    sample: int
    sample_seed: int
    size: int
    """Facts of this sample that the experiment uses; not part of a run's identity."""
    order: str
    """The unit that holds the sample's order in the store."""
    order_digest: str | None
    """Of an order that sample and seed alone do not determine: a list of one's own, or facts left out."""


@dataclass(frozen=True, kw_only=True)
class BenchmarkRef:
    """A benchmark's questions, as they stand in the store, and how many of them are asked."""

    name: str
    run_id: str
    """Where ``benchmark_questions`` holds them: ``questions-<digest>``, of their texts and the rule for answers."""
    n_examples: int


@dataclass(frozen=True, kw_only=True)
class Compute:
    """What can change bits, fixed by the plan and written to a run's first commit."""

    threads: int
    tokens_per_forward: int | None
    """None until the first worker has looked how much memory is free; its choice goes to the first commit."""


@dataclass(frozen=True, kw_only=True)
class SharedTargets:
    """Targets that a run takes from the store for the first facts of its sample, where it edits pristine weights."""

    recipe: Recipe
    """Facts, layers and definition."""
    n_facts: int
    per_unit: int


@dataclass(frozen=True, kw_only=True)
class RunSpec:
    """One run: from pristine weights to the last round."""

    experiment: str
    model: ModelRef
    facts: FactsRef
    editor: str
    """An editor's name, or ``UNEDITED``."""
    version: int
    hparams: Mapping[str, Any]
    layers: tuple[int, ...]
    layers_recipe: Recipe | None
    """How the layers were chosen, if they were not given."""
    batch_size: int
    mode: Literal["sequential", "independent"]
    seed: int
    protocol: str
    contexts_recipe: Recipe | None
    moments_recipe: Recipe | None
    network_recipe: Recipe | None
    preset: str | None
    """Where the hyper-parameters came from; the numbers themselves are the identity."""
    commit_every: int
    every_edits: int | tuple[int, ...]
    """Scores of the whole at every so many edits, or at these numbers of edits."""
    retention: str | int
    text_tokens: int
    """Tokens of the free-running texts of fact scores; 0: none."""
    texts: str
    """``own``: of each edit right after its round, and of the baseline; ``all``: of retention too."""
    benchmarks: tuple[BenchmarkRef, ...]
    scores: Mapping[str, Recipe]
    """Settings of the scores of whole checkpoints, by kind; those that are not named are not wanted."""
    compute: Compute
    shared_targets: SharedTargets | None = None
    """Changes rounding only; fixed when the run begins and written to its first commit."""
    in_step: tuple[str, ...] = ()
    """Ids of the runs, this one among them, that go in step and search for their targets together.  As above."""

    @property
    def identity(self) -> dict[str, Any]:
        """What determines the weight trajectory.  Number of edits, scoring cadence and benchmarks are not in it."""
        return {
            **self.model.identity,
            "facts": self.facts.digest,
            "sample": self.facts.sample,
            "sample_seed": self.facts.sample_seed,
            **({"order": self.facts.order_digest} if self.facts.order_digest else {}),
            "editor": self.editor,
            "version": self.version,
            "hparams": dict(self.hparams),
            "layers": list(self.layers),
            "batch_size": self.batch_size,
            "mode": self.mode,
            "seed": self.seed,
            "contexts": self.contexts_recipe,
            "moments": self.moments_recipe,
            "network": self.network_recipe,
        }

    @property
    def run_id(self) -> str:
        return f"{self.editor}-b{self.batch_size}-{digest_of(self.identity, length=10)}"

    @property
    def baseline_run_id(self) -> str:
        """The no-op run of the same model, facts and sample."""
        return baseline_of(self).run_id

    @property
    def is_unedited(self) -> bool:
        """Whether it is a baseline, which no edit changes."""
        return self.editor == UNEDITED

    @property
    def n_rounds(self) -> int:
        """Full batches in the sample; a remainder is not edited."""
        return 0 if self.is_unedited else self.facts.size // self.batch_size

    @property
    def rounds_per_segment(self) -> int:
        return max(1, self.commit_every // self.batch_size)

    @property
    def checkpoints(self) -> tuple[int, ...]:
        """Numbers of rounds after which the whole model is scored: the first boundary at or after each step.

        The unedited model is scored once, whatever the steps.
        """
        if self.is_unedited:
            return (0,)
        if not self.every_edits:
            return ()
        step, n_edits = self.every_edits, self.n_rounds * self.batch_size
        wanted = range(step, n_edits + 1, step) if isinstance(step, int) else step
        found = {-(-edits // self.batch_size) for edits in wanted} | {self.n_rounds}
        return tuple(sorted(rounds for rounds in found if rounds <= self.n_rounds))


def baseline_of(run: RunSpec) -> RunSpec:
    """Return the no-op run that a run is compared with."""
    return replace(
        run,
        editor=UNEDITED,
        version=1,
        hparams={},
        layers=(),
        layers_recipe=None,
        batch_size=1,
        mode="sequential",
        seed=0,
        protocol="corrected",
        contexts_recipe=None,
        moments_recipe=None,
        network_recipe=None,
        preset=None,
    )
