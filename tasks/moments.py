"""Second moments of a corpus in shards: collected by many workers, merged in order, stopped when updates no longer change."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from safetensors.torch import load_file, save
from torch import Tensor

from editing.convergence import update_change
from editing.errors import MomentError
from editing.lm import LanguageModel
from editing.locate import read_keys
from editing.memory import free_bytes
from editing.moments import MomentAccumulator, SecondMoment, accumulate_moments, layers_that_fit
from storage.artifacts import Artifact, artifact_recipes, drop_artifact, find_artifact, has_artifact, put_artifact
from storage.identity import digest_of
from storage.store import Store
from tasks.datasets import read_facts
from tasks.errors import InputError
from tasks.identity import Recipe
from tasks.texts import corpus_texts, unchanged

MOMENTS, SUMS = "second_moments", "second_moment_sums"
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
    recipe: Recipe,
    layers: Sequence[int],
    shard: tuple[int, int],
    files: Mapping[str, str],
) -> int:
    """Store the sums of some texts' keys, an artifact per layer; return the number of tokens read.

    Layers are read together as far as their sums fit in memory; those whose sums, or whose second moment, are there already
    are left alone.

    Args:
        shard: The first text and the one after the last.
        files: Path of each file that the recipe names by its digest.

    Raises:
        InputError: A file has changed since the experiment was planned, or the hub does not answer.
    """
    missing = [
        layer
        for layer in layers
        if not has_artifact(store, SUMS, _shard_recipe(recipe, layer, shard))
        and not has_artifact(store, MOMENTS, layer_recipe(recipe, layer))
    ]
    n_tokens = 0
    for group in layers_that_fit(lm, missing, MEMORY_SHARE * free_bytes(lm.input_device)):
        texts = corpus_texts(store, recipe["texts"], files)[shard[0] : shard[1]]
        found = accumulate_moments(lm, texts, group, max_tokens=recipe["max_tokens"])
        n_tokens = found.n_tokens
        for layer in group:
            state = {name: tensor.cpu() for name, tensor in found.state(layer).items()}
            put_artifact(store, SUMS, _shard_recipe(recipe, layer, shard), {"sums.safetensors": save(state)})
    return n_tokens


def merge_shards(
    store: Store,
    lm: LanguageModel,
    recipe: Recipe,
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
    stop, shards = recipe.get("stop"), [shard for wave in waves for shard in wave]
    missing = [layer for layer in layers if not has_artifact(store, MOMENTS, layer_recipe(recipe, layer))]
    for shard in shards:  # one that nobody shares, or that was dropped with another job's
        collect_shard(store, lm, recipe, missing, shard, files)
    rows = []
    for layer in missing:
        before, moment = _two_last(store, recipe, layer, waves)
        change, artifact = None, None
        if stop and before is not None:
            keys = _probe_keys(store, lm, stop, layer)
            old, new = before.matrix.to(keys.device), moment.matrix.to(keys.device)
            change = update_change(old, new, keys, jitter=recipe["jitter"])
        if last or (stop and change is not None and change <= stop["change"]):
            artifact = put_moment(store, recipe, layer, moment, change=change)
            for shard in shards:
                drop_artifact(store, SUMS, _shard_recipe(recipe, layer, shard))
        rows.append(_row(recipe, layer, moment, shards[-1][1], artifact, change))
    if not all(has_artifact(store, MOMENTS, layer_recipe(recipe, layer)) for layer in layers):
        return Merged({}, rows)
    return Merged({layer: _stored(store, recipe, layer).digest for layer in layers}, rows)


def read_published(
    store: Store, lm: LanguageModel, recipe: Recipe, layers: Sequence[int], files: Mapping[str, str]
) -> Merged:
    """Store second moments that others have published.

    Raises:
        InputError: A file has changed since the experiment was planned.
        MomentError: A file is none, or of another shape.
    """
    rows = []
    for layer in layers:
        if find_artifact(store, MOMENTS, layer_recipe(recipe, layer)) is None:
            path = unchanged(recipe["texts"]["files"][str(layer)], files)
            moment = SecondMoment.read_npz(path, d_in=lm.weight(layer).shape[1])
            rows.append(_row(recipe, layer, moment, None, put_moment(store, recipe, layer, moment), None))
    return Merged({layer: _stored(store, recipe, layer).digest for layer in layers}, rows)


def put_moment(
    store: Store, recipe: Recipe, layer: int, moment: SecondMoment, *, change: float | None = None
) -> Artifact:
    """Store a layer's second moment, with its tokens and the last change of the updates."""
    card = {"n_tokens": moment.n_tokens} | ({} if change is None else {"change": change})
    content = {
        "moment.safetensors": save({"moment": moment.matrix.cpu()}),
        "moment.json": json.dumps(card).encode(),
    }
    return put_artifact(store, MOMENTS, layer_recipe(recipe, layer), content)


def _row(
    recipe: Recipe,
    layer: int,
    moment: SecondMoment,
    n_texts: int | None,
    artifact: Artifact | None,
    change: float | None,
) -> dict[str, Any]:
    return {
        "recipe": digest_of(layer_recipe(recipe, layer)),
        "layer": layer,
        "n_texts": n_texts,
        "n_tokens": moment.n_tokens,
        "change": change if change is not None and math.isfinite(change) else None,
        "digest": artifact.digest if artifact else None,
    }


def layer_recipe(recipe: Recipe, layer: int) -> Recipe:
    """Return the recipe of one layer's second moment; moments are shared between jitters, unless a stop depends on it."""
    shared = ("jitter",) if recipe.get("stop") is None else ()
    return {**{key: value for key, value in recipe.items() if key not in shared}, "layer": layer}


def _shard_recipe(recipe: Recipe, layer: int, shard: tuple[int, int]) -> Recipe:
    kept = {key: value for key, value in recipe.items() if key not in ("jitter", "stop")}
    return {**kept, "layer": layer, "shard": list(shard)}


def _sums(store: Store, recipe: Recipe, layer: int, shard: tuple[int, int]) -> MomentAccumulator:
    found = find_artifact(store, SUMS, _shard_recipe(recipe, layer, shard))
    if found is None:
        raise InputError(
            f"the store {store.root} lacks the texts {shard} of layer {layer}'s second moment; run it again"
        )
    return MomentAccumulator.of_state(layer, load_file(found.path("sums.safetensors")))


def _two_last(
    store: Store, recipe: Recipe, layer: int, waves: Sequence[Sequence[tuple[int, int]]]
) -> tuple[SecondMoment | None, SecondMoment]:
    """Return a layer's second moment before the last wave, if that has tokens, and after it."""
    total, before = MomentAccumulator([layer]), None
    for number, wave in enumerate(waves):
        if number == len(waves) - 1 and total.n_tokens:
            before = total.result()[layer]
        for shard in wave:
            total.merge(_sums(store, recipe, layer, shard))
    return before, total.result()[layer]


def _probe_keys(store: Store, lm: LanguageModel, stop: Mapping[str, Any], layer: int) -> Tensor:
    """Return the keys of the facts by which a stop is judged, fewer than dimensions."""
    facts = read_facts(store, stop["facts_run_id"])[: min(stop["facts"], lm.weight(layer).shape[1] // 2)]
    return read_keys(lm, facts, ("",), [layer], "flat")[layer].bare


def _stored(store: Store, recipe: Recipe, layer: int) -> Artifact:
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


def export_moments(store: Store, out: Path) -> list[dict[str, Any]]:
    """Write every stored second moment as ``.npz`` in ROME's layout, with its recipe beside it; return what was written.

    Raises:
        InputError: The store holds none.
    """
    rows = []
    for recipe in sorted(artifact_recipes(store, MOMENTS), key=repr):
        artifact = find_artifact(store, MOMENTS, recipe)
        assert artifact is not None, "its recipe was just listed"
        n_tokens = int(json.loads(artifact.path("moment.json").read_text())["n_tokens"])
        moment = SecondMoment(load_file(artifact.path("moment.safetensors"))["moment"], n_tokens)
        out.mkdir(parents=True, exist_ok=True)
        name = f"layer-{recipe['layer']:03d}-{artifact.digest[:10]}"
        moment.write_npz(out / f"{name}.npz")
        (out / f"{name}.json").write_text(json.dumps(recipe, indent=1))
        rows.append({"file": str(out / f"{name}.npz"), "layer": recipe["layer"], "tokens": n_tokens})
    if not rows:
        raise InputError(f"the store {store.root} holds no second moments; run an experiment whose editors need them")
    return rows
