"""What an experiment file may say, part by part, and what each part may not."""

import json
from collections.abc import Callable, Iterable, Sequence
from datetime import date
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, field_validator, model_validator

from flows.score_spec import ScoreSpec
from flows.spec_values import Count, Layers, SpecError, Strict, auto_is_none, named, named_or_file
from flows.texts_spec import TextsSpec


class ModelSpec(Strict):
    """A bundled model, one of the catalogue, a local Hugging Face folder, a GGUF file, or a hub id."""

    name: str
    """Of a model of ``palimpsest list models``, a folder, a ``.gguf`` file (``pip install 'palimpsest-editing[gguf]'``), or a
    hub id."""
    revision: str | None = None
    """The commit of the hub's repository."""
    dtype: Literal["auto", "float32", "float64", "bfloat16", "float16"] = "auto"
    """Number format of the weights; the checkpoint's unless given."""
    chat: bool | dict[str, Any] = False
    """Put every prompt into the tokenizer's chat template, as a user's message; or a table with the template's variables, of
    which ``date`` is the day that it is told (2024-07-26 unless given)."""
    text_start: str = Field(default="none", min_length=1)
    """What stands in front of every text that the model reads, once: ``bos``, ``eos``, a token, or ``none``: what its
    tokenizer puts there itself."""
    adapter: str | None = None
    """A folder with a PEFT adapter (``pip install peft``), which is merged into the weights."""

    @field_validator("chat")
    @classmethod
    def _as_json(cls, value: bool | dict[str, Any]) -> bool | dict[str, Any]:
        """YAML reads days as dates; what a template is told is part of a run's identity, which is JSON."""
        if isinstance(value, bool) or not value:
            return value is not False
        plain = {key: each.isoformat() if isinstance(each, date) else each for key, each in value.items()}
        try:
            json.dumps(plain, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ValueError(f"a variable of the template is not JSON: {error}") from error
        return plain


class FactsSpec(Strict):
    """A data set and how much of it: each sample is a seeded order of all facts, of which ``size`` are edited."""

    @model_validator(mode="after")
    def _asks_something(self) -> "FactsSpec":
        if self.ask_every != 1 and self.known is None:
            raise ValueError(
                "ask_every says how many facts the model is asked, and without known it is asked none; give known"
            )
        return self

    name: str = "columns"
    """``factworld``, one of ``palimpsest list datasets``, or the path of a layout of one's own (``.yaml``)."""
    path: str | None = None
    """A file of records: CSV, TSV, JSON, JSON lines (each also gzipped) or Parquet."""
    hub: str | None = None
    """Or a data set on the hub, with its commit as ``revision``."""
    revision: str | None = None
    """The commit."""
    split: str | None = None
    """``train`` unless given."""
    completions: str | None = None
    """Facts asked by questions, as beginnings of sentences: a JSON list of {question, text_completion_prompt}."""
    order: str | None = None
    """A JSON list of fact ids to edit, or one such list per sample, in place of seeded orders."""
    size: Annotated[int, Field(gt=0)] | Literal["all"] = "all"
    """Facts of each sample; all that there are, if it is not given."""
    samples: int = Field(default=1, gt=0)
    """How many orders; each is a run of its own for every editor, layer and batch size."""
    known: Literal["first_token", "all_tokens", "free_text"] | None = None
    """Only facts that the unedited model knows: it is asked all of them first (view ``knowledge``).  By the first token of the
    true answer, by all its tokens, or where the text that it writes contains the answer."""
    ask_every: int = Field(default=1, gt=0)
    """Of so many facts the model is asked the first; the others count as not known.  For a first look at a large data set."""
    disjoint: bool = False
    """No fact is in two samples: they are cut one after the other from the order of sample 0, so that from sample 1 on
    another ``size`` makes other runs."""
    seed: int = 0
    """Of the orders."""


class GuardSpec(Strict):
    """What keeps an edit out that is predicted to break the model: more than ``times`` the median of earlier ones."""

    on_spike: Literal["skip", "stop"]
    """``skip`` leaves the fact out and solves its batch again; ``stop`` leaves out its round and all later ones."""
    by: Literal["disturbance", "norm"] = "disturbance"
    """Of what is predicted before a write: tr(ΔCΔᵀ), or ‖Δ‖."""
    times: float = Field(default=10.0, gt=1)
    after: int = Field(default=10, gt=0)
    """Facts that must have been written before."""


class EditorSpec(BaseModel):
    """An editor; further keys are its hyper-parameters."""

    model_config = ConfigDict(extra="allow", frozen=True, use_attribute_docstrings=True)

    name: str
    """One of ``palimpsest list editors``."""
    preset: str | None = None
    """A named set of numbers of one source (see ``palimpsest list editors``)."""
    by_model: dict[str, dict[str, Any]] | None = None
    """What differs for a model, by the last part of its name: ``layers``, ``preset``, hyper-parameters."""
    layers: Layers | None = None
    """Of this editor's runs, in place of the experiment's."""
    batch_sizes: list[Count] | None = Field(default=None, min_length=1)
    """Of this editor's runs, in place of the experiment's."""
    seeds: list[int] | None = Field(default=None, min_length=1)
    """Of this editor's runs, in place of the experiment's."""
    contexts_file: str | None = None
    """A JSON list of context prefixes, in place of sampled ones; its content is part of the identity."""
    targets: str | None = None
    """Targets in place of a search: a folder of ``*_layer_L_clamp_C_case_ID.npz``, as official MEMIT caches them, or one
    ``.npz`` with an array for each fact id; their content is part of the identity."""
    guard: GuardSpec | None = None
    """Leaves edits out that are predicted to break the model."""

    @property
    def hparams(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class SecondMomentSpec(TextsSpec):
    """Second moments: of texts, or published ones."""

    files: dict[int, str] | None = Field(default=None, min_length=1)
    """Published ``.npz`` files by layer (ROME's layout), in place of texts."""
    provenance: str | None = None
    """Where those files come from: model, corpus, number of documents, repository and commit."""
    n_texts: int = Field(default=1000, gt=0)
    """How many texts."""
    shard_texts: int = Field(default=1024, gt=0, multiple_of=64)
    """Texts of one unit of work: what a kill can cost, and what workers share."""
    stop_change: float | None = Field(default=None, gt=0)
    """Stop with a layer when doubling the texts changes its updates by at most this share; then part of a run's identity."""
    first_texts: int = Field(default=1024, gt=0, multiple_of=64)
    """Of the first wave, which is doubled until the updates stand still or ``n_texts`` is reached."""
    stop_facts: int = Field(default=64, gt=0)
    """Facts whose updates are looked at."""
    jitter: float = Field(default=0.0, ge=0)
    """Added to the diagonal, in units of its mean; part of a run's identity."""
    seed: int = 0
    """Of the choice of texts."""


class TrainingSpec(Strict):
    """What hyper-networks are trained on: facts that no run edits."""

    facts: int = Field(default=1000, gt=0)
    """How many of the data set's facts are kept for training (the fact world has facts of its own for it)."""
    unknown: bool = False
    """Of the fact world: also facts that the bundled models have not seen."""
    validation: int = Field(default=64, gt=0)
    """How many of them only measure what the network does, after each segment."""
    steps_per_segment: int = Field(default=100, gt=0)
    """Steps between two commits: what a kill can cost."""


class SearchSpec(Strict):
    """Layer search: independent edits of every candidate layer."""

    editor: str | Annotated[list[str], Field(min_length=1)] = "rome"
    """What edits each layer; several each search, and an editor's ``layers: search`` is its own search's, or else the first
    one's."""
    edits: int = Field(default=100, gt=0)
    """Facts that are edited at each layer, each alone."""
    layers: Literal["all"] | list[int] = "all"
    """Candidates."""
    keep: int | None = Field(default=None, gt=0)
    """Successive halving: a quarter of the facts at all layers, half of them at those that are left, and all at the rest.  A
    layer goes on while the interval of its score reaches that of the best, and so many always do."""
    contexts_file: str | None = None
    """As an editor's."""


class TraceSpec(Strict):
    """Causal tracing of facts that the model knows."""

    facts: int = Field(default=20, gt=0)
    """Facts that the model knows."""
    samples: int = Field(default=10, gt=0)
    """Noise draws for each."""
    window: int = Field(default=10, ge=1)
    """Layers that are restored together, of MLP and attention outputs: the one in question in their middle; 1 is that alone."""
    noise: float | None = Field(default=None, gt=0)
    """Standard deviation; three times that of the subjects' embeddings unless given."""


class LocateSpec(Strict):
    """Where facts are stored."""

    search: SearchSpec | None = None
    """A layer search, which ``layers: search`` takes the best layer of."""
    trace: TraceSpec | None = None
    """Causal tracing. ``layers: trace`` takes the middle of the window whose MLPs bring most back at the last subject token."""


class ComputeSpec(Strict):
    """Where it runs."""

    ray: str = "local"
    """``local``, or the address of a Ray cluster."""
    actors: Annotated[Annotated[int, Field(gt=0)] | None, BeforeValidator(auto_is_none)] = None
    """Workers, at most; as many as there is room for unless given."""
    gpus_per_model: Annotated[Annotated[float, Field(ge=0)] | None, BeforeValidator(auto_is_none)] = None
    """A fraction shares a GPU between workers; several spread one model over them."""
    threads: int = Field(default=1, gt=0)
    """Of each worker."""
    niceness: int | None = Field(default=None, ge=0, le=19)
    """Of workers: 0 gets as much of a busy machine as others, 19 what these leave.  Ray's own is 15; a joined cluster has
    what its nodes were started with (``RAY_worker_niceness``)."""
    tokens_per_forward: Annotated[Annotated[int, Field(gt=0)] | None, BeforeValidator(auto_is_none)] = None
    """Padded tokens in one forward pass; from the memory that is free when a run begins unless given, and recorded."""
    chains_in_step: int = Field(default=1, gt=0)
    """Sequential runs of one editor definition, last layer and batch size that one worker takes forward together, round by
    round; their targets are searched for in one batch.  Pays where batches are small and runs are more than workers."""
    start_timeout_s: float = Field(default=300.0, gt=0)
    """For how long a worker may take to start."""
    max_attempts: int = Field(default=3, gt=0)
    """How often a unit is tried before it is given up."""
    store_timeout_s: float = Field(default=600.0, ge=0)
    """For how long workers and driver wait for a store that does not answer, is full or is not mounted."""

    @model_validator(mode="after")
    def _niceness_of_its_own(self) -> "ComputeSpec":
        if self.niceness is not None and self.ray != "local":
            raise ValueError(
                "niceness is of an embedded cluster's workers (ray: local); start the nodes of a cluster with "
                f"RAY_worker_niceness={self.niceness} in their environment"
            )
        return self

    @model_validator(mode="after")
    def _whole_gpus(self) -> "ComputeSpec":
        gpus = self.gpus_per_model or 0.0
        if gpus > 1 and gpus != int(gpus):
            raise ValueError(f"gpus_per_model is {gpus:g}; expected a fraction of one GPU, or a whole number of them")
        return self


class Experiment(Strict):
    """One experiment: a grid of runs that answers a question."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    """Of the experiment; letters, digits, dot, dash and underscore."""
    model: Annotated[ModelSpec, BeforeValidator(named)]
    """What is edited; or ``models``."""
    models: list[Annotated[ModelSpec, BeforeValidator(named)]] | None = Field(default=None, min_length=1)
    """Several models, in place of ``model``: the grid gets that axis; second moments, knowledge, targets and layers are each
    model's own."""
    facts: Annotated[FactsSpec, BeforeValidator(named_or_file("path"))]
    """What is written into it."""
    editors: list[Annotated[EditorSpec, BeforeValidator(named)]] = Field(min_length=1)
    """What writes it."""
    layers: Layers | dict[str, Layers] | None = None
    """Of editors that name none; for several models also a table by the last part of their names."""
    batch_sizes: list[Count] = Field(min_length=1)
    """Facts that one update writes; each is a run of its own."""
    mode: Literal["sequential", "independent"] = "sequential"
    """Each batch on the model that the one before has left, or on the unedited one."""
    seeds: list[int] = Field(default=[0], min_length=1)
    """Of what is random in a run; each is a run of its own."""
    second_moment: SecondMomentSpec = SecondMomentSpec()
    """Where second moments come from, for editors that need them."""
    training: TrainingSpec = TrainingSpec()
    """What hyper-networks are trained on."""
    locate: LocateSpec = LocateSpec()
    """Where facts are, if that is to be found out."""
    score: ScoreSpec = ScoreSpec()
    """What is scored, and when."""
    protocol: Literal["paper", "code", "corrected"] = "corrected"
    """What editors do where papers and official code disagree (docs/editors.md)."""
    commit_every: int = Field(default=50, gt=0)
    """Edits between two commits: what a kill can cost."""
    compute: ComputeSpec = ComputeSpec()
    """Where it runs."""
    store: str = "results"
    """A directory, or ``s3://BUCKET/PREFIX``."""

    @model_validator(mode="before")
    @classmethod
    def _first_model(cls, value: Any) -> Any:
        """Of several models the first is also ``model``."""
        if not isinstance(value, dict) or not value.get("models"):
            return value
        models = value["models"]
        first = models[0] if isinstance(models, list) else models
        if "model" in value and value["model"] != first:
            raise ValueError("found model and models; expected one of them")
        return value | {"model": first}

    _file: str = PrivateAttr(default="")
    _shown: Callable[[Sequence[str | int]], str] | None = PrivateAttr(default=None)

    @property
    def file(self) -> str:
        """Where it was read from."""
        return self._file

    def shown(self, loc: Sequence[str | int]) -> str:
        """Return the line of its file on which a value stands, as messages show it; empty if there is none."""
        return "" if self._shown is None else self._shown(loc)


def errors_of(experiment: "Experiment", problems: Iterable[str]) -> SpecError:
    """Return the error that lists everything that is wrong with an experiment, each once."""
    unique = list(dict.fromkeys(problems))
    lines = "".join(f"\n  {line}{experiment.shown(_loc(line))}" for line in unique)
    return SpecError(f"experiment {experiment.name} ({experiment.file}): {n_errors(len(unique))}{lines}")


def n_errors(count: int) -> str:
    """Return how many errors there are, as messages say it."""
    return f"{count} error" if count == 1 else f"{count} errors"


def _loc(problem: str) -> list[str | int]:
    """Return the path with which a problem begins, as ``editors.0.layers: ...``."""
    return [int(part) if part.isdecimal() else part for part in problem.partition(":")[0].split(".")]
