"""Second moments of a corpus in shards: collected by many workers, merged in order, stopped when updates no longer change."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from safetensors.torch import load_file, save
from torch import Tensor

from editing.errors import MomentError
from editing.measure.convergence import update_change
from editing.measure.moments import MomentAccumulator, SecondMoment, add_texts, layers_that_fit
from editing.methods.locate import read_keys
from editing.model.lm import LanguageModel
from editing.model.memory import free_bytes
from editing.model.progress import Interrupted
from storage.artifacts import Artifact, drop_artifact, find_artifact, has_artifact, put_artifact
from storage.digests import digest_of
from storage.sql import query
from storage.store import Store
from tasks.data.corpora import corpus_texts, unchanged
from tasks.data.facts import read_facts
from tasks.errors import InputError
from tasks.specs.recipes import MomentsRecipe, Stop
from tasks.units.moments import MOMENTS, SUMS, layer_recipe, shard_recipe
from tasks.units.sampled_texts import sampled_texts
from tasks.units.unfinished import Key, leave, left

MEMORY_SHARE = 0.5
"""Of the free memory, how much the sums of one pass may take."""


class Merged(NamedTuple):
    """What a merge has done."""

    digests: dict[int, str]
    """Of each layer's artifact; empty when more texts are wanted."""
    rows: list[dict[str, Any]]
    """Of the table ``second_moments``: how much each layer has read, how far its updates still move, and the digest of its
    artifact if that was enough."""


def collect_shard(
    store: Store,
    lm: LanguageModel,
    recipe: MomentsRecipe,
    layers: Sequence[int],
    shard: tuple[int, int],
    files: Mapping[str, str],
    *,
    unit: Key | None = None,
) -> int:
    """Store the sums of some texts' keys, an artifact per layer; return the number of tokens read.

    Layers are read together as far as their sums fit in memory; those whose sums, or whose second moment, are there already
    are left alone.

    Args:
        shard: The first text and the one after the last.
        files: Path of each file that the recipe names by its digest.
        unit: The unit that may leave its sums behind when it is asked to end; None if nothing is left behind.

    Raises:
        InputError: A file has changed since the experiment was planned, or the hub does not answer.
        Interrupted: It was asked to end.
    """
    missing = [
        layer
        for layer in layers
        if not has_artifact(store, SUMS, shard_recipe(recipe, layer, shard))
        and not has_artifact(store, MOMENTS, layer_recipe(recipe, layer))
    ]
    n_tokens, source = 0, recipe["texts"]
    assert source["name"] != "npz", "published moments are read, not collected"
    groups = layers_that_fit(lm, missing, MEMORY_SHARE * free_bytes(lm.input_device))
    for group in lm.progress.over(groups):
        if source["name"] == "own":
            with lm.progress.part(0.0, 0.5):
                texts = sampled_texts(store, lm, recipe, source, range(*shard))
        else:
            texts = list(corpus_texts(store, source, files)[shard[0] : shard[1]])
        found = _sums(store, lm, texts, group, recipe["max_tokens"], unit)
        n_tokens = found.n_tokens
        for layer in group:
            state = save(_on_cpu(found.state(layer)))
            put_artifact(store, SUMS, shard_recipe(recipe, layer, shard), {"sums.safetensors": state})
    return n_tokens


def _sums(
    store: Store,
    lm: LanguageModel,
    texts: Sequence[str],
    layers: Sequence[int],
    max_tokens: int | None,
    unit: Key | None,
) -> MomentAccumulator:
    """Return the sums of some texts' keys, from where the unit has left them; leave them where it is asked to end."""
    total, start = MomentAccumulator(layers), (0, 0)
    kept = None if unit is None else left(store, unit)
    tokens = lm.tokens_per_forward
    if kept is not None:
        where = json.loads(kept.path("where.json").read_text())
        if where["layers"] == list(layers) and where["tokens_per_forward"] == tokens:
            states = {layer: load_file(kept.path(f"{layer}.safetensors")) for layer in layers}
            total, start = MomentAccumulator.of_states(states), (where["texts"], where["groups"])
    for n_texts, n_groups in add_texts(total, lm, texts, start=start, max_tokens=max_tokens):
        if unit is not None and lm.progress.is_asked_to_stop and lm.tokens_per_forward == tokens:
            at = {"layers": list(layers), "texts": n_texts, "groups": n_groups, "tokens_per_forward": tokens}
            sums = {f"{layer}.safetensors": save(_on_cpu(total.state(layer))) for layer in layers}
            leave(store, unit, {"where.json": json.dumps(at).encode(), **sums})
            raise Interrupted
    return total


def _on_cpu(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.cpu() for name, tensor in state.items()}


def merge_shards(
    store: Store,
    lm: LanguageModel,
    recipe: MomentsRecipe,
    layers: Sequence[int],
    waves: Sequence[Sequence[tuple[int, int]]],
    *,
    last: bool,
    files: Mapping[str, str],
) -> Merged:
    """Add up shards in their order and store each layer's second moment as soon as they are enough for it.

    They are when the corpus is done (``last``) or, where the recipe has a stop, when the last wave has changed the layer's
    updates of some facts by no more than that.  A layer's shards are dropped then.

    Raises:
        MomentError: The corpus holds no token.
        ArtifactMismatch: A stored shard has been damaged.
    """
    shards = [shard for wave in waves for shard in wave]
    missing = [layer for layer in layers if not has_artifact(store, MOMENTS, layer_recipe(recipe, layer))]
    for shard in shards:  # one that nobody shares, or that was dropped with another job's
        collect_shard(store, lm, recipe, missing, shard, files)
    rows = [_merge_layer(store, lm, recipe, layer, waves, last=last) for layer in missing]
    there = [layer for layer in layers if has_artifact(store, MOMENTS, layer_recipe(recipe, layer))]
    for layer in there:
        for shard in shards:
            drop_artifact(store, SUMS, shard_recipe(recipe, layer, shard))
    found = [row for row in rows if row is not None]
    if len(there) < len(layers):
        return Merged({}, found)
    named = _recorded(store) | {row["recipe"] for row in found if row["digest"]}
    found += [row for layer in layers if (row := _row_of(recipe, _stored(store, recipe, layer)))["recipe"] not in named]
    return Merged({layer: _stored(store, recipe, layer).digest for layer in layers}, found)


def _merge_layer(
    store: Store,
    lm: LanguageModel,
    recipe: MomentsRecipe,
    layer: int,
    waves: Sequence[Sequence[tuple[int, int]]],
    *,
    last: bool,
) -> dict[str, Any] | None:
    """Add up a layer's shards until they are enough for it, and store its second moment then; return its row.

    One that is made again ends where it ended before, whatever the other layers have read since.  None if somebody else
    has stored it meanwhile, and dropped its shards.
    """
    stop, known = recipe.get("stop"), _known_changes(store, recipe, layer)
    total, before, row = MomentAccumulator([layer]), None, None
    for number, wave in enumerate(waves):
        for shard in wave:
            sums = find_artifact(store, SUMS, shard_recipe(recipe, layer, shard))
            if sums is None and has_artifact(store, MOMENTS, layer_recipe(recipe, layer)):
                return None
            total.merge(_sums_of(store, sums, layer, shard))
        at_end = last and number == len(waves) - 1
        if not total.n_tokens and not at_end:
            continue
        moment, n_texts, change = total.result()[layer], wave[-1][1], None
        if stop and before is not None:
            change = known.get(n_texts)
            change = _change(store, lm, recipe, layer, before, moment) if change is None else change
        enough = stop and change is not None and change <= stop["change"]
        if enough or at_end:
            return _row_of(recipe, put_moment(store, recipe, layer, moment, n_texts=n_texts, change=change))
        row, before = _row(recipe, layer, n_texts=n_texts, n_tokens=moment.n_tokens, change=change), moment
    return row


def _known_changes(store: Store, recipe: MomentsRecipe, layer: int) -> dict[int, float]:
    """Return by number of texts how far a layer's updates were found to move: merges before this one measured it."""
    if recipe.get("stop") is None:
        return {}
    key = digest_of(layer_recipe(recipe, layer))
    rows = query(store, f"SELECT n_texts, change FROM moment_curve WHERE recipe = '{key}'").to_pylist()
    return {row["n_texts"]: row["change"] for row in rows}


def _change(
    store: Store, lm: LanguageModel, recipe: MomentsRecipe, layer: int, before: SecondMoment, after: SecondMoment
) -> float:
    keys = _probe_keys(store, lm, recipe["stop"], layer)
    old, new = before.matrix.to(keys.device), after.matrix.to(keys.device)
    return update_change(old, new, keys, jitter=recipe["jitter"])


def read_published(
    store: Store, lm: LanguageModel, recipe: MomentsRecipe, layers: Sequence[int], files: Mapping[str, str]
) -> Merged:
    """Store second moments that others have published.

    Raises:
        InputError: A file has changed since the experiment was planned.
        MomentError: A file is none, or of another shape.
    """
    rows, texts = [], recipe["texts"]
    assert texts["name"] == "npz", "it names no published files"
    for layer in layers:
        if find_artifact(store, MOMENTS, layer_recipe(recipe, layer)) is None:
            path = unchanged(texts["files"][str(layer)], files)
            moment = SecondMoment.read_npz(path, d_in=lm.weight(layer).shape[1])
            rows.append(_row_of(recipe, put_moment(store, recipe, layer, moment)))
    return Merged({layer: _stored(store, recipe, layer).digest for layer in layers}, rows)


def put_moment(
    store: Store,
    recipe: MomentsRecipe,
    layer: int,
    moment: SecondMoment,
    *,
    n_texts: int | None = None,
    change: float | None = None,
) -> Artifact:
    """Store a layer's second moment, with its texts and tokens and the last change of the updates, if these are known."""
    known = {"n_tokens": moment.n_tokens, "n_texts": n_texts, "change": change if _is_finite(change) else None}
    card = {key: value for key, value in known.items() if value is not None}
    content = {
        "moment.safetensors": save({"moment": moment.matrix.cpu()}),
        "moment.json": json.dumps(card).encode(),
    }
    return put_artifact(store, MOMENTS, layer_recipe(recipe, layer), content)


def _row(
    recipe: MomentsRecipe,
    layer: int,
    *,
    n_texts: int | None,
    n_tokens: int,
    change: float | None,
    digest: str | None = None,
) -> dict[str, Any]:
    return {
        "recipe": digest_of(layer_recipe(recipe, layer)),
        "layer": layer,
        "n_texts": n_texts,
        "n_tokens": n_tokens,
        "change": change if _is_finite(change) else None,
        "digest": digest,
    }


def _row_of(recipe: MomentsRecipe, artifact: Artifact) -> dict[str, Any]:
    """Return the row of a stored second moment."""
    card = json.loads(artifact.path("moment.json").read_text())
    return _row(
        recipe,
        artifact.recipe["layer"],
        n_texts=card.get("n_texts"),
        n_tokens=card["n_tokens"],
        change=card.get("change"),
        digest=artifact.digest,
    )


def _recorded(store: Store) -> set[str]:
    """Return the recipes of the second moments that the table says are stored."""
    found = query(store, "SELECT DISTINCT recipe FROM second_moments WHERE digest IS NOT NULL").to_pylist()
    return {row["recipe"] for row in found}


def _is_finite(change: float | None) -> bool:
    return change is not None and math.isfinite(change)


def _sums_of(store: Store, sums: Artifact | None, layer: int, shard: tuple[int, int]) -> MomentAccumulator:
    if sums is None:
        raise InputError(
            f"the store {store.location} lacks the texts {shard} of layer {layer}'s second moment; run it again"
        )
    return MomentAccumulator.of_state(layer, load_file(sums.path("sums.safetensors")))


def _probe_keys(store: Store, lm: LanguageModel, stop: Stop, layer: int) -> Tensor:
    """Return the keys of the facts by which a stop is judged, fewer than dimensions."""
    facts = read_facts(store, stop["facts_run_id"])[: min(stop["facts"], lm.weight(layer).shape[1] // 2)]
    return read_keys(lm, facts, ("",), [layer], "flat")[layer].bare


def _stored(store: Store, recipe: MomentsRecipe, layer: int) -> Artifact:
    found = find_artifact(store, MOMENTS, layer_recipe(recipe, layer))
    assert found is not None, "it has just been stored or found"
    return found


def published_problem(path: Path, *, d_in: int) -> str | None:
    """Return what is wrong with a published second moment; None if it can be used."""
    try:
        SecondMoment.read_npz(path, d_in=d_in)
    except MomentError as error:
        return str(error)
    return None
