"""What an experiment file may say of scores: what is asked of a model besides its facts, and how often."""

from dataclasses import asdict, fields
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError, model_validator

from flows.spec_values import Count, Strict, named_or_file
from flows.texts_spec import TextsSpec


class BenchmarkSpec(Strict):
    """A benchmark, and what of its definition is changed."""

    name: str = ""
    """One of ``palimpsest list benchmarks``, or the path of a definition file of one's own (``.yaml``)."""
    file: str | None = None
    """Questions of one's own: records with question, choices, answer, or with text, label; ``name`` is then what they are
    called, or a definition that says what differs."""
    path: str | None = None
    """The folder that holds the benchmark's published files; else it comes from the hub at the definition's revision."""
    revision: str | None = None
    """Another commit of the hub's data set than the definition's."""
    examples: Annotated[int, Field(gt=0)] | Literal["all"] | None = None
    """How many questions, in a seeded order; ``score.examples`` unless given."""
    groups: list[str] | None = Field(default=None, min_length=1)
    """Some of its groups (MMLU's subjects, BBH's tasks); all unless given."""
    shots: int | None = Field(default=None, ge=0)
    """Answered examples before each question."""
    shots_from: Literal["train", "dev", "file"] | None = None
    """Where they come from."""
    shots_file: str | None = None
    """A text that stands before every question, letter by letter: a paper's own shots."""
    run_code: bool = False
    """Allow a benchmark to run what the model writes, in a sandbox."""
    extract: Literal["all", "code_block"] | None = None
    """Of programs: the whole answer, or its first fenced block (the default of chat models); part of the identity."""

    @model_validator(mode="after")
    def _is_named(self) -> "BenchmarkSpec":
        if not self.name and self.file is None:
            raise ValueError(
                "found neither name nor file; expected a benchmark's name, or a file of questions of your own"
            )
        return self

    @property
    def label(self) -> str:
        """What it is called in messages."""
        return self.name or str(self.file)


class GenerationSpec(Strict):
    """Free texts at every checkpoint: stored, with their n-gram entropy and repetition."""

    prompts: int = Field(default=20, gt=0)
    """How many beginnings."""
    tokens: int = Field(default=100, gt=0)
    """Of each text."""
    top_k: int = Field(default=5, gt=0)
    """1: always the likeliest token."""
    seed: int = 0
    """Of what is drawn."""


class PerplexitySpec(TextsSpec):
    """The perplexity of held-out texts at every checkpoint."""

    split: str = "test"
    """The data set's split."""
    n_texts: int = Field(default=100, gt=0)
    """How many texts."""
    seed: int = 1
    """Of the choice of texts: another than that of second moments."""
    max_tokens: int | None = Field(default=None, gt=1)
    """Of each text; the model's context length unless given."""


def _settings(name: str, kind: Any, given: Any) -> dict[str, Any]:
    """Return the settings of a score of one's own, checked; one that is given nothing has its defaults."""
    known = [each.name for each in fields(kind)]
    if unknown := sorted(given.keys() - set(known)) if isinstance(given, dict) else []:
        raise ValueError(f"{name} has no setting {unknown}; expected some of {known}")
    try:
        return asdict(TypeAdapter(kind).validate_python(given or {}))
    except ValidationError as error:
        wrong = [f"{'.'.join(map(str, (name, *each['loc'])))}: {each['msg']}" for each in error.errors()]
        raise ValueError("; ".join(wrong)) from error


class ScoreSpec(Strict):
    """What is scored besides each round's own facts, and how often."""

    every_edits: Annotated[int, Field(ge=0)] | Annotated[list[Count], Field(min_length=1)] = 50
    """Checkpoints: every so many edits, or at these numbers of edits; and after the last round."""
    retention: Literal["all", "none"] | Annotated[int, Field(gt=0)] = "all"
    """Earlier edits that each checkpoint scores again: all, none, or a seeded sample of so many."""
    text_tokens: int = Field(default=16, ge=0)
    """Tokens that the model says freely after each probe; the same for all, so that no answer's length shows."""
    texts: Literal["own", "all"] = "own"
    """Free texts of each edit right after its round, or at every later check too."""
    benchmarks: list[Annotated[BenchmarkSpec, BeforeValidator(named_or_file("file"))]] = []
    """Asked at every checkpoint, and of the unedited model."""
    benchmark_edits: Annotated[int, Field(ge=0)] | Annotated[list[Count], Field(min_length=1)] | None = None
    """When benchmarks are asked, if not at every checkpoint: as ``every_edits``."""
    examples: Annotated[int, Field(gt=0)] | Literal["all"] = 100
    """Questions of each benchmark; all of a file of one's own."""
    generation: GenerationSpec | None = None
    """Free texts."""
    perplexity: PerplexitySpec | None = None
    """The perplexity of held-out texts."""
    further: dict[str, dict[str, Any]] = {}
    """Settings of scores of one's own, by kind; each stands in the file as one of the fields above does."""

    @model_validator(mode="after")
    def _asks_something(self) -> "ScoreSpec":
        if self.benchmark_edits is not None and not self.benchmarks:
            raise ValueError(
                "benchmark_edits says when benchmarks are asked, and there are none; remove it, or give benchmarks"
            )
        return self

    @model_validator(mode="before")
    @classmethod
    def _sorted_out(cls, given: Any) -> Any:
        """Put the settings of further scores aside, checked."""
        names = given.keys() - cls.model_fields.keys() if isinstance(given, dict) else set()
        if isinstance(given, dict) and "further" in given:
            raise ValueError("unknown key 'further'; name each score by its kind, as the other fields are")
        if not names:
            return given
        from tasks.units.score import settings_types

        known = settings_types()
        further = {name: _settings(name, known[name], given[name]) for name in sorted(names & known.keys())}
        return {key: value for key, value in given.items() if key not in further} | {"further": further}
