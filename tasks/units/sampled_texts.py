"""Texts that an unedited model samples itself: made once, kept in the store, and read by whoever asks for them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from storage.artifacts import Artifact, find_artifact, has_artifact, put_artifact
from storage.digests import digest_of
from storage.store import Store
from tasks.errors import InputError
from tasks.specs.recipes import ModelIdentity, OwnTexts, Recipe
from tasks.units.unit import Bench, Done, Preparation

if TYPE_CHECKING:
    from editing.model.lm import LanguageModel

TEXTS = "texts"


@dataclass(frozen=True, kw_only=True)
class SampledTexts(Preparation):
    """All texts of a source that the model samples, for what is measured on models that have been edited."""

    kind: ClassVar[str] = TEXTS
    cost_per_item: ClassVar[float] = 0.1
    source: OwnTexts

    @property
    def numbers(self) -> range:
        return range(self.source["n_texts"])

    @property
    def unit_id(self) -> str:
        return f"texts-{digest_of(self._recipe)}"

    @property
    def n_items(self) -> int:
        return len(self.numbers)

    def do(self, bench: Bench) -> Done:
        lm = bench.pristine(self.model)
        sampled_texts(bench.store, lm, self.model.identity, self.source, self.numbers)
        return Done({})

    def is_lost(self, store: Store) -> bool:
        return not has_artifact(store, TEXTS, self._recipe)

    @property
    def _recipe(self) -> Recipe:
        return _recipe(self.model.identity, self.source, self.numbers)


def sampled_texts(
    store: Store, lm: "LanguageModel", model: ModelIdentity | Recipe, source: OwnTexts, numbers: range
) -> list[str]:
    """Return some of the texts that an unedited model samples; those that are not in the store are made and kept.

    Args:
        model: Its identity.
        numbers: Of the texts; each depends on its number, not on which others are asked for.
    """
    from editing.measure.own_texts import own_texts

    recipe = _recipe(model, source, numbers)
    found = find_artifact(store, TEXTS, recipe)
    if found is None:
        texts = own_texts(
            lm,
            numbers,
            seed=source["seed"],
            n_tokens=source["tokens"],
            top_k=source["top_k"],
            temperature=source.get("temperature", 1.0),
        )
        found = put_artifact(store, TEXTS, recipe, {"texts.json": json.dumps(texts, ensure_ascii=False).encode()})
    return _texts_of(found)


def is_sampled(store: Store, model: ModelIdentity | Recipe, source: OwnTexts, numbers: range) -> bool:
    """Return whether some of the texts that an unedited model samples are in the store."""
    return has_artifact(store, TEXTS, _recipe(model, source, numbers))


def kept_texts(store: Store, model: ModelIdentity, source: OwnTexts) -> list[str]:
    """Return all texts of a source, as they were kept.

    Raises:
        InputError: They are not there.
    """
    found = find_artifact(store, TEXTS, _recipe(model, source, range(source["n_texts"])))
    if found is None:
        raise InputError(
            f"the texts that the model samples are not in {store.location}; expected them from the stage before: run the "
            "same command again"
        )
    return _texts_of(found)


def _texts_of(artifact: Artifact) -> list[str]:
    return list(json.loads(artifact.path("texts.json").read_text(encoding="utf-8")))


def _recipe(model: Mapping[str, Any], source: OwnTexts, numbers: range) -> Recipe:
    kept = {name: model[name] for name in ModelIdentity.__annotations__ if name in model}
    how = {name: value for name, value in source.items() if name != "n_texts"}
    return {**kept, "texts": how, "shard": [numbers.start, numbers.stop]}
