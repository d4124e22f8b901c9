"""Computed inputs as artifacts of the store: context prefixes and second moments."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from safetensors.torch import load_file, save

from editing.contexts import sample_contexts
from editing.editor import Artifacts
from editing.geometry import KeyGeometry
from editing.lm import LanguageModel
from editing.moments import collect_moments
from storage.artifacts import Artifact, find_artifact, put_artifact
from storage.identity import digest_of
from storage.store import Store
from tasks.datasets import facts_texts, load_texts, read_facts
from tasks.errors import InputError
from tasks.identity import Recipe, RunSpec

CONTEXTS, MOMENTS = "contexts", "second_moments"


def make_contexts(store: Store, lm: LanguageModel, recipe: Recipe) -> Artifact:
    """Sample context prefixes by their recipe and store them; return what is stored if they are there already."""
    found = find_artifact(store, CONTEXTS, recipe)
    if found is not None:
        return found
    texts = sample_contexts(
        lm, recipe["contexts"], n_tokens=recipe["context_tokens"], seed=recipe["seed"], starts=recipe["context_starts"]
    )
    return put_artifact(store, CONTEXTS, recipe, {"contexts.json": json.dumps(texts).encode()})


def make_moments(store: Store, lm: LanguageModel, recipe: Recipe, layers: Sequence[int]) -> dict[int, str]:
    """Collect second moments on the pristine model, one artifact per layer; return their content digests.

    All layers that are not stored yet are collected in one pass.
    """
    found = {layer: find_artifact(store, MOMENTS, _layer_recipe(recipe, layer)) for layer in layers}
    missing = [layer for layer, artifact in found.items() if artifact is None]
    if missing:
        moments = collect_moments(lm, _texts(store, recipe["texts"]), missing, max_tokens=recipe["max_tokens"])
        for layer, moment in moments.items():
            card = json.dumps({"n_tokens": moment.n_tokens}).encode()
            files = {"moment.safetensors": save({"moment": moment.matrix}), "moment.json": card}
            found[layer] = put_artifact(store, MOMENTS, _layer_recipe(recipe, layer), files)
    return {layer: artifact.digest for layer, artifact in found.items() if artifact is not None}


def _layer_recipe(recipe: Recipe, layer: int) -> Recipe:
    # The jitter is applied when a moment is factored, so moments are shared between jitters.
    return {**{key: value for key, value in recipe.items() if key != "jitter"}, "layer": layer}


def _texts(store: Store, source: Mapping[str, Any]) -> list[str]:
    if source["name"] == "facts":
        return facts_texts(read_facts(store, source["facts_run_id"]), n_texts=source["n_texts"], seed=source["seed"])
    return load_texts(
        source["name"], n_texts=source["n_texts"], path=source["path"], model=source["model"], seed=source["seed"]
    )


def contexts_of(store: Store, recipe: Recipe) -> tuple[tuple[str, ...], str]:
    """Return stored context prefixes and their content digest."""
    artifact = _required(store, CONTEXTS, recipe)
    return tuple(json.loads(artifact.path("contexts.json").read_text())), artifact.digest


def geometry_of(store: Store, recipe: Recipe, layers: Sequence[int]) -> tuple[dict[int, KeyGeometry], str]:
    """Return the factored second moments of some layers and the digest of their content.

    Raises:
        MomentError: One of them is singular.
    """
    geometry, digests = {}, {}
    for layer in layers:
        artifact = _required(store, MOMENTS, _layer_recipe(recipe, layer))
        matrix = load_file(artifact.path("moment.safetensors"))["moment"]
        name = f"the second moment of layer {layer}"
        geometry[layer] = KeyGeometry.of(matrix, jitter=recipe["jitter"], name=name)
        digests[str(layer)] = artifact.digest
    return geometry, digest_of(digests)


def artifacts_for(store: Store, run: RunSpec) -> tuple[Artifacts, Mapping[str, Any]]:
    """Return what a run's editor needs, with the content digests that its first commit records."""
    contexts: tuple[str, ...] = ("",)
    geometry: dict[int, KeyGeometry] = {}
    digests: dict[str, Any] = {"contexts": None, "moments": None}
    if run.contexts_recipe is not None:
        contexts, digests["contexts"] = contexts_of(store, run.contexts_recipe)
    if run.moments_recipe is not None:
        geometry, digests["moments"] = geometry_of(store, run.moments_recipe, run.layers)
    return Artifacts(geometry=geometry, contexts=contexts), {**digests, "context_texts": list(contexts)}


def _required(store: Store, kind: str, recipe: Recipe) -> Artifact:
    found = find_artifact(store, kind, recipe)
    if found is None:
        raise InputError(
            f"the store {store.root} lacks the {kind} of {dict(recipe)}; run the experiment's prepare stage"
        )
    return found
