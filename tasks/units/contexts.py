"""Context prefixes: sampled from a model or given in a file, looked at, kept in the store, and exported."""

import json
import logging
import math
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from storage.artifacts import Artifact, artifact_recipes, find_artifact, has_artifact, put_artifact
from storage.digests import digest_of
from storage.store import Store
from tasks.errors import InputError
from tasks.specs.recipes import ContextsRecipe
from tasks.units.fluency import repetition
from tasks.units.unit import Bench, Done, Preparation, Record

if TYPE_CHECKING:
    from editing.model.lm import LanguageModel

CONTEXTS = "contexts"
SAMPLING = ("contexts", "context_tokens", "context_starts")
"""Hyper-parameters that say how prefixes are sampled."""
_REPEATS = 0.25
"""Share of 4-grams that have stood in a prefix before, from which on it is said to repeat itself."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ContextsRecord(Record):
    """How prefixes came to be, and how each reads."""

    recipe: ContextsRecipe
    looks: tuple[dict[str, Any], ...] | None = None
    """None in stores of earlier versions."""


@dataclass(frozen=True, kw_only=True)
class Contexts(Preparation):
    """Context prefixes by their recipe."""

    kind: ClassVar[str] = CONTEXTS
    cost_per_item: ClassVar[float] = 1.0
    prefixes: ContextsRecipe

    @property
    def unit_id(self) -> str:
        return f"contexts-{digest_of(self.prefixes)}"

    @property
    def n_items(self) -> int:
        return len(self.prefixes["texts"]) if "texts" in self.prefixes else self.prefixes["contexts"]

    def do(self, bench: Bench) -> Done:
        lm = bench.pristine(self.model)
        artifact = make_contexts(bench.store, lm, self.prefixes)
        looks = look_at(lm, [text for text in texts_of(artifact) if text])
        return Done({}, ContextsRecord(recipe=self.prefixes, looks=tuple(looks)), artifact.digest)

    def is_lost(self, store: Store) -> bool:
        return not has_artifact(store, CONTEXTS, self.prefixes)


def read_contexts(path: str | Path, tokens: Callable[[str], Sequence[int]]) -> tuple[str, ...]:
    """Return the prefixes of a file: a JSON list of texts, as ``palimpsest export-contexts`` writes it.

    Args:
        tokens: Tokenises a text; raises ValueError where the model does not know one of its tokens.

    Raises:
        InputError: It holds something else, or a text that would be joined to the prompt behind it.
    """
    try:
        found = json.loads(Path(path).read_text())
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}: {error}; expected a JSON list of texts (palimpsest export-contexts writes one)"
        ) from error
    if not isinstance(found, list) or not found:
        raise InputError(f"{path}: found {type(found).__name__}; expected a JSON list of one text or more")
    for number, text in enumerate(found):
        if not isinstance(text, str) or not text.strip():
            raise InputError(
                f"{path}: text {number} is {text!r}; expected a text, without the bare prompt, which is always there"
            )
        # Wide characters, as Chinese ones, are written without spaces.
        if not text[-1].isspace() and unicodedata.east_asian_width(text[-1]) not in "WF":
            raise InputError(
                f"{path}: text {number}, {text!r}, ends in {text[-1]!r}, which would be joined to the prompt behind it; end it "
                "with a space"
            )
        try:
            tokens(text)
        except ValueError as error:
            raise InputError(f"{path}: text {number}, {text!r}: {error}") from error
    return tuple(found)


def make_contexts(store: Store, lm: "LanguageModel", recipe: ContextsRecipe) -> Artifact:
    """Store context prefixes by their recipe, given or sampled; return what is stored if they are there already."""
    found = find_artifact(store, CONTEXTS, recipe)
    if found is not None:
        return found
    if "texts" in recipe:
        texts: tuple[str, ...] = ("", *recipe["texts"])
    else:
        from editing.measure.contexts import sample_contexts

        tokens, starts = recipe["context_tokens"], recipe["context_starts"]
        texts = sample_contexts(lm, recipe["contexts"], n_tokens=tokens, seed=recipe["seed"], starts=starts)
    return put_artifact(store, CONTEXTS, recipe, {"contexts.json": json.dumps(texts).encode()})


def texts_of(artifact: Artifact) -> tuple[str, ...]:
    """Return stored prefixes; the first is the bare prompt's, which is empty."""
    return tuple(json.loads(artifact.path("contexts.json").read_text()))


def look_at(lm: "LanguageModel", texts: Sequence[str]) -> list[dict[str, Any]]:
    """Return of each prefix what tells whether it is a text: its perplexity to the model itself, and how much it repeats.

    The perplexity is of its tokens behind the first; None where there are none, or where it is not finite.
    """
    rows = []
    ids = [lm.format.plain(text) for text in texts]
    scored = [number for number, row in enumerate(ids) if len(row) > 1]
    scores = lm.score_ids([ids[i][:1] for i in scored], [ids[i][1:] for i in scored])
    nll = {number: score.nll_sum / score.n_tokens for number, score in zip(scored, scores, strict=True)}
    for number, text in enumerate(texts):
        mean = nll.get(number, math.nan)
        rows.append(
            {
                "number": number,
                "text": text,
                "n_tokens": len(ids[number]),
                "perplexity": math.exp(mean) if math.isfinite(mean) and mean < 700 else None,
                "repetition": repetition(text),
            }
        )
    _warn(rows)
    return rows


def _warn(rows: Sequence[dict[str, Any]]) -> None:
    again = [text for text, count in Counter(row["text"] for row in rows).items() if count > 1]
    for text in again:
        _log.warning(
            "the context prefix %r was drawn more than once; other context_starts or context_tokens vary more", text
        )
    for row in rows:
        if (row["repetition"] or 0.0) >= _REPEATS:
            _log.warning("the context prefix %r repeats itself; give prefixes with contexts_file", row["text"])


def export_contexts(store: Store, out: Path) -> list[dict[str, Any]]:
    """Write every set of prefixes as a JSON list that ``contexts_file`` takes, its recipe beside it; return what they hold.

    Raises:
        InputError: The store holds none.
    """
    looked = {
        digest_of(record.recipe): record.looks
        for commit in store.commits("prepare").values()
        if commit.kind == CONTEXTS and commit.spec
        for record in [ContextsRecord.of_json(commit.spec)]
    }
    rows = []
    for recipe in sorted(artifact_recipes(store, CONTEXTS), key=repr):
        artifact = find_artifact(store, CONTEXTS, recipe)
        assert artifact is not None, "its recipe was just listed"
        texts = [text for text in texts_of(artifact) if text]
        out.mkdir(parents=True, exist_ok=True)
        file = out / f"contexts-{digest_of(recipe, length=10)}.json"
        file.write_text(json.dumps(texts, indent=1, ensure_ascii=False) + "\n")
        file.with_suffix(".recipe.json").write_text(json.dumps(recipe, indent=1, ensure_ascii=False) + "\n")
        blank = {"n_tokens": None, "perplexity": None, "repetition": None}
        seen = looked.get(digest_of(recipe)) or [{"number": i, "text": t, **blank} for i, t in enumerate(texts)]
        rows += [{"file": file.name, **row, "text": repr(row["text"])} for row in seen]
    if not rows:
        raise InputError(
            f"the store {store.location} holds no context prefixes; run an experiment whose editors need them"
        )
    return rows
