"""A benchmark's definition: one YAML file that says where its examples are, how they are asked, and how answers count."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from editing.errors import did_you_mean
from editing.factworld.benchmarks import TASKS
from tasks.errors import InputError

DEFINITIONS = Path(__file__).parent / "definitions"
ShotSource = Literal["train", "dev", "file"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _as_groups(value: Any) -> Any:
    return {name: {} for name in value} if isinstance(value, list) else value


Texts = Annotated[tuple[str, ...], BeforeValidator(_as_list)]


class Source(_Strict):
    """Where the examples are: a data set on the hub, the files as published, or a generator of this package.

    Splits are ``test`` (what is asked), ``train`` and ``dev`` (what shots are taken from).  ``{group}`` in a configuration
    or a pattern stands for each group.
    """

    hub: str | None = None
    revision: str | None = None
    """A commit of the hub's data set; without one the user must give it, or the files."""
    config: str | None = None
    splits: dict[Literal["test", "train", "dev"], str] = {}
    """Names of the splits on the hub."""
    files: dict[Literal["test", "train", "dev"], Texts] = {}
    """Patterns of the published files, relative to the folder that the user gives; ``.gz`` may follow."""
    format: Literal["jsonl", "json", "csv", "tsv"] = "jsonl"
    columns: tuple[str, ...] | None = None
    """Of a table without a header; a first line that is not data is left out (``header``)."""
    header: str | None = None
    """What the first cell says if a table that should have no header has one."""
    levels: dict[str, str] = {}
    """Of nested files: names for the items of lists, each an expression over ``record`` and the names before it."""
    generator: str | None = None
    """A task of the fact world."""
    path: str | None = None
    """A file of one's own whose records are asked."""

    @model_validator(mode="after")
    def _pinned(self) -> "Source":
        if sum(given is not None for given in (self.hub, self.generator, self.path)) != 1:
            raise ValueError("give hub, generator or path, one of them")
        if self.hub is not None and "test" not in self.splits:
            raise ValueError("a hub data set needs splits.test")
        if self.generator is not None and self.generator not in TASKS:
            raise ValueError(f"no generator {self.generator!r}; expected one of {sorted(TASKS)}")
        if wrong := [p for some in self.files.values() for p in some if not p or p.startswith("/")]:
            raise ValueError(f"files {wrong}: expected patterns within the folder that the user gives")
        return self


class Shots(_Strict):
    """Answered examples in front of each question."""

    count: int = Field(default=0, ge=0)
    source: ShotSource = "train"
    """``dev``: the split of that name, else examples that are taken out of the test split and never asked."""
    file: str | None = None
    """With ``source: file``: a text that stands in front of every question, letter by letter."""
    order: Literal["seeded", "first"] = "seeded"
    balanced: bool = False
    """One of each label in turn."""
    separator: str = "\n\n"


class Order(_Strict):
    """The order in which examples are asked, of which a run takes the first so many."""

    seed: int | None = 0
    """None: as published."""
    balanced: bool = False
    """One of each label in turn, so that every even number of examples is balanced."""


class AnswerRule(_Strict):
    """How an answer is taken from the model, and when it is right."""

    kind: Literal["choices", "argmax", "text"]
    """The likeliest choice; the choice whose every token is the argmax of the vocabulary; what the model writes."""
    by: Literal["sum", "token", "byte"] = "sum"
    tokens: int = Field(default=0, ge=0)
    """Of a written answer, at most."""
    until: Texts = ()
    """Strings that end it."""
    labels: dict[str, Texts] | None = None
    """Of a written answer: what it says for each label, looked for in this order; none of them is an invalid answer."""
    whole_words: bool = True
    extract: Literal["all", "first_line", "math", "code_block"] = "all"
    """Which part of a written answer counts; of a program ``all`` is the text as it is, with its white space."""
    normal: Literal["none", "squad", "math"] = "none"
    value: Literal["exact", "token_f1", "code"] = "exact"

    @model_validator(mode="after")
    def _complete(self) -> "AnswerRule":
        if (self.kind == "text") != (self.tokens > 0):
            raise ValueError(
                f"kind {self.kind} with tokens {self.tokens}; written answers need a number, others have none"
            )
        if self.kind != "text" and (self.labels is not None or self.until):
            raise ValueError(f"kind {self.kind} takes no labels and no until; those are for written answers")
        return self


class Definition(_Strict):
    """One benchmark."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    title: str
    paper: str = ""
    """arXiv id or address of who made it; empty of one's own."""
    source: Source
    groups: Annotated[dict[str, dict[str, Any]], BeforeValidator(_as_groups)] = {}
    """Its parts by name; further values are known to all expressions and templates."""
    fields: dict[str, str]
    """Expressions over ``record`` (and ``group``), evaluated one after another; later ones see earlier ones.  ``group`` sorts
    the records of a file into groups."""
    file_fields: dict[str, str] = {}
    """Where the published files say it differently than the hub."""
    keep: dict[Literal["test", "train", "dev"], str] = {}
    """Of a split, an expression that is true of the records that belong to it."""
    prompt: str
    """A template over the fields."""
    choices: tuple[str, ...] | str = ()
    """Templates, or one expression that gives a list."""
    gold: str
    """An expression: the right answer as text, or a list of right answers."""
    description: str = ""
    """A template that stands once, before the shots."""
    shot: str = "{{ prompt }} {{ gold }}"
    """A template of one answered example."""
    tests: str = ""
    """An expression: the lines of code that a written program must pass."""
    shots: Shots = Shots()
    order: Order = Order()
    examples: int | None = Field(default=None, gt=0)
    """How many are asked unless the experiment says otherwise for this benchmark."""
    answer: AnswerRule
    metrics: tuple[Literal["accuracy", "f1", "f1_weighted", "mcc", "token_f1"], ...] = ("accuracy",)
    """The first is the headline."""

    @property
    def runs_code(self) -> bool:
        return self.answer.value == "code"


def definition_names() -> list[str]:
    return sorted(path.stem for path in DEFINITIONS.glob("*.yaml"))


def read_definition(name: str, base: Mapping[str, Any] | None = None) -> Definition:
    """Return a definition by name, or from a file of one's own (``.yaml``).

    Args:
        base: What the file of one's own says only the differences to.

    Raises:
        InputError: There is none, or it is not a definition; lists every error with its path.
    """
    own = name.endswith(".yaml")
    path = Path(name) if own else DEFINITIONS / f"{name}.yaml"
    if not path.is_file():
        expected = (
            "a definition file"
            if own
            else f"some of {definition_names()}, a file of questions (.jsonl, .csv ...), or a definition (.yaml)"
        )
        raise InputError(f"no benchmark {name!r}{did_you_mean(name, definition_names())}; expected {expected}")
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
        found = Definition.model_validate({**(base or {}), "name": path.stem, **raw})
    except (yaml.YAMLError, TypeError, UnicodeDecodeError) as error:
        raise InputError(f"benchmark {path}: not a table in YAML ({error}); see docs/add-a-benchmark.md") from error
    except ValidationError as error:
        lines = [f"  {'.'.join(map(str, e['loc'])) or '(top)'}: {e['msg']}" for e in error.errors()]
        text = "\n".join([*lines, "  see docs/add-a-benchmark.md"])
        raise InputError(f"benchmark {path}: {len(lines)} errors\n{text}") from error
    return _with_absolute_shots(found, path.parent)


def _with_absolute_shots(definition: Definition, base: Path) -> Definition:
    shots = definition.shots
    if shots.file is None:
        return definition
    return definition.model_copy(
        update={"shots": shots.model_copy(update={"file": str((base / shots.file).resolve())})}
    )
