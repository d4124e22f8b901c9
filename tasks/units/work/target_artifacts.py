"""Targets of some facts at some layers, found on the pristine weights and stored; a search that is asked to end keeps them."""

import json
from collections.abc import Mapping, Sequence

import torch
from safetensors.torch import load, save
from torch import Tensor

from editing.methods.editor import Artifacts
from editing.methods.locate import LocatingEditor
from editing.methods.targets import Targets, targets_of_layers
from editing.model.lm import LanguageModel
from editing.model.progress import Interrupted
from editing.requests import EditRequest
from storage.artifacts import find_artifact, put_artifact
from storage.store import Store
from tasks.specs.recipes import Recipe
from tasks.units.targets import TARGETS
from tasks.units.unfinished import Key, leave, left

Found = dict[tuple[int, int], Targets]
"""By layer and the fact's number, its targets."""


def find_targets(
    store: Store,
    lm: LanguageModel,
    facts: Sequence[EditRequest],
    artifacts: Artifacts,
    method: LocatingEditor,
    *,
    recipe: Recipe,
    layers: Sequence[int],
    unit: Key,
) -> str:
    """Find the targets of some facts, those that the unit has left among them, and store them; return their digest.

    Raises:
        Interrupted: It was asked to end, and has left what it had.
    """
    stored = find_artifact(store, TARGETS, recipe)
    if stored is None:
        found = _left(store, unit)
        try:
            with lm.progress.interruptible():
                _find_missing(lm, facts, artifacts, method, layers, found)
        except Interrupted:
            leave(store, unit, {"targets.safetensors": save(_tensors(found))})
            raise
        ids = json.dumps([request.request_id for request in facts]).encode()
        content = {"targets.safetensors": save(_of_layers(found, layers, len(facts))), "facts.json": ids}
        stored = put_artifact(store, TARGETS, recipe, content)
    return stored.digest


def _find_missing(
    lm: LanguageModel,
    facts: Sequence[EditRequest],
    artifacts: Artifacts,
    method: LocatingEditor,
    layers: Sequence[int],
    found: Found,
) -> None:
    """Add what is missing: facts that lack the same layers are searched together."""
    lacking: dict[tuple[int, ...], list[int]] = {}
    for number in range(len(facts)):
        if missing := tuple(layer for layer in sorted(layers) if (layer, number) not in found):
            lacking.setdefault(missing, []).append(number)
    for missing, numbers in lacking.items():

        def keep(layer: int, places: Sequence[int], targets: Targets, numbers: list[int] = numbers) -> None:
            found.update({(layer, numbers[place]): targets.select([row]) for row, place in enumerate(places)})

        targets_of_layers(
            lm,
            [facts[number] for number in numbers],
            artifacts.contexts,
            missing,
            method.target_hparams,
            site=method.site(lm.family),
            on_found=keep,
        )


def _of_layers(found: Mapping[tuple[int, int], Targets], layers: Sequence[int], n_facts: int) -> dict[str, Tensor]:
    return {
        f"{layer}.{name}": torch.cat([getattr(found[layer, number], name) for number in range(n_facts)])
        .cpu()
        .contiguous()
        for layer in layers
        for name in Targets._fields
    }


def _tensors(found: Mapping[tuple[int, int], Targets]) -> dict[str, Tensor]:
    return {
        f"{layer}.{number}.{name}": getattr(targets, name).cpu().contiguous()
        for (layer, number), targets in found.items()
        for name in Targets._fields
    }


def _left(store: Store, unit: Key) -> Found:
    if (kept := left(store, unit)) is None:
        return {}
    tensors = load(kept.path("targets.safetensors").read_bytes())
    keys = {(int(layer), int(number)) for layer, number, _ in (name.split(".") for name in tensors)}
    return {
        (layer, number): Targets(**{name: tensors[f"{layer}.{number}.{name}"] for name in Targets._fields})
        for layer, number in keys
    }
