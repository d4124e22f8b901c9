"""What determines each artifact of a store, and so names it: JSON, key by key.

A key that is added makes new names, unless it is left out where it has its old meaning (``NotRequired``).
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NotRequired, final

# pydantic, by which Prefect looks into a flow's parameters, reads no other before Python 3.12.
from typing_extensions import TypedDict

from editing.versions import CONTEXTS_VERSION, MOMENTS_VERSION, OWN_TEXTS_VERSION, TRACING_VERSION

Recipe = Mapping[str, Any]
"""Any of those below."""


class Versioned(TypedDict):
    """What is computed by one of :mod:`editing.versions`."""

    version: NotRequired[int]
    """1 where it is left out."""


_VERSIONS = {
    "moments": MOMENTS_VERSION,
    "own texts": OWN_TEXTS_VERSION,
    "contexts": CONTEXTS_VERSION,
    "tracing": TRACING_VERSION,
}


def set_version(recipe: Versioned, what: Literal["moments", "own texts", "contexts", "tracing"]) -> None:
    """Say in a recipe by which version its content is computed."""
    if _VERSIONS[what] > 1:
        recipe["version"] = _VERSIONS[what]


class ModelIdentity(TypedDict):
    """A model as it computes (:class:`tasks.specs.run.ModelRef`)."""

    model: str
    """Digest of config, weights and tokenizer files."""
    dtype: str
    prompt_format: str
    adapter: NotRequired[str]
    prompts: NotRequired[Mapping[str, Any]]


class Drawn(TypedDict):
    """How many texts of a source are taken, and the seed that draws them."""

    n_texts: int
    seed: int


class HubTexts(Drawn):
    """Texts of a hub data set at a commit."""

    name: Literal["hub"]
    hub: str
    revision: str
    config: str | None
    split: str
    column: str


class FileTexts(Drawn):
    """Texts of a local file, by its content."""

    name: Literal["file"]
    digest: str


class WorldTexts(Drawn):
    """Texts of the world that a bundled model knows."""

    name: Literal["factworld"]
    model: str


class FactsTexts(Drawn):
    """The neighborhood prompts of a data set's facts, with their answers."""

    name: Literal["facts"]
    facts_run_id: str


class OwnTexts(Drawn, Versioned):
    """Texts that the unedited model samples itself."""

    name: Literal["own"]
    tokens: int
    top_k: int
    temperature: NotRequired[float]
    """1 where it is left out."""


Texts = HubTexts | FileTexts | WorldTexts | FactsTexts | OwnTexts


class Published(TypedDict):
    """Second moments that somebody has published as files."""

    name: Literal["npz"]
    files: Mapping[str, str]
    """Digest of each layer's file."""
    provenance: str | None


class Stop(TypedDict):
    """When enough texts are read."""

    change: float
    first_texts: int
    facts: int
    facts_run_id: str


class MomentsRecipe(ModelIdentity, Versioned):
    """Of second moments."""

    texts: Texts | Published
    max_tokens: int | None
    jitter: float
    stop: NotRequired[Stop]


class GivenTargets(TypedDict):
    """Of targets that a user gives: their content, fact by fact, and the layer at whose output they stand."""

    digest: str
    layer: int


@final
class SampledContexts(ModelIdentity, Versioned):
    """Of context prefixes that the unedited model samples."""

    contexts: int
    context_tokens: Sequence[int]
    context_starts: Sequence[str]
    seed: int


@final
class GivenContexts(ModelIdentity):
    """Of context prefixes that a file gives."""

    texts: list[str]


ContextsRecipe = SampledContexts | GivenContexts


class WorldTraining(TypedDict):
    """Facts that a bundled model's world keeps for training."""

    name: Literal["factworld"]
    model: str
    unknown: bool
    digest: str


class FactsTraining(TypedDict):
    """Facts of the data set that no run edits."""

    name: Literal["facts"]
    facts_run_id: str
    positions: list[int]


class NetworkRecipe(ModelIdentity):
    """Of a hyper-network; ``step`` is added for each of its states."""

    editor: str
    version: int
    hparams: Mapping[str, Any]
    layers: list[int]
    edits: int
    facts: WorldTraining | FactsTraining
    validation: int


class TraceRecipe(ModelIdentity, Versioned):
    """Of causal traces; each fact's are rows of it."""

    facts: str
    """Digest of the data set."""
    order: Mapping[str, Any]
    """What determines the candidates, beside the facts."""
    known: str
    wanted: int
    samples: int
    window: int
    noise: float | None


class TargetsRecipe(ModelIdentity):
    """Of targets that runs share; ``positions`` is added for each part."""

    facts: str
    """Digest of the data set."""
    sample: NotRequired[int]
    sample_seed: NotRequired[int]
    chosen: NotRequired[list[int]]
    """Positions of the facts, where they are not the first of a sample."""
    contexts: ContextsRecipe | None
    layers: list[int]
    definition: Mapping[str, Any]
    version: int
