"""Targets that several runs share, or the layers of a search: found on the pristine weights, published, then taken by each.

Runs share a target when model, facts in their order, context prefixes, layer and the target's definition are the same:
MEMIT and EMMET do, and batch sizes of one editor.  Only rounds that start from pristine weights can take them: the first
of a sequential run, all of independent ones.  A layer search finds the targets of all its layers together, because what
stands in front of the subjects runs once for all of them.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from safetensors.torch import load, save

from editing.methods.editor import Artifacts, make_editor
from editing.methods.locate import LocatingEditor
from editing.methods.targets import TARGETS_VERSION, Targets, targets_of_layers
from editing.model.families import FAMILIES
from editing.model.lm import LanguageModel
from editing.requests import EditRequest
from storage.artifacts import find_artifact, put_artifact
from storage.digests import digest_of
from storage.store import Store
from tasks.errors import InputError
from tasks.specs.run import Recipe, RunSpec, SharedTargets, Unit
from tasks.units.jobs import SearchPlan

TARGETS = "targets"
PER_UNIT, PER_SEARCH_UNIT = 64, 8
"""Facts of one unit; of a search's few facts, so that all workers have some."""


def with_shared_targets(runs: Sequence[RunSpec]) -> list[RunSpec]:
    """Return the runs, those that share targets with the recipe of these and how many facts have them."""
    groups: dict[str, list[RunSpec]] = {}
    recipes = {run.run_id: _recipe(run) for run in runs}
    for run in runs:
        if (recipe := recipes[run.run_id]) is not None and _from_pristine(run):
            groups.setdefault(digest_of(recipe), []).append(run)
    shared = {}
    for group in groups.values():
        if len(group) > 1:
            most = max(_from_pristine(run) for run in group)
            for run in group:
                recipe = recipes[run.run_id]
                assert recipe is not None
                shared[run.run_id] = SharedTargets(recipe=recipe, n_facts=most, per_unit=PER_UNIT)
    return [replace(run, shared_targets=shared.get(run.run_id)) for run in runs]


def with_search_targets(search: SearchPlan) -> SearchPlan:
    """Return a layer search whose layers share the work in front of the subjects, if its editor searches for targets."""
    template = search.template
    definition = _definition(template)
    if definition is None or len(search.layers) < 2:
        return search
    recipe = {
        **template.model.identity,
        "facts": template.facts.digest,
        "chosen": list(search.positions),
        "contexts": template.contexts_recipe,
        "layers": list(search.layers),
        "definition": definition,
        "version": TARGETS_VERSION,
    }
    shared = SharedTargets(recipe=recipe, n_facts=len(search.positions), per_unit=PER_SEARCH_UNIT)
    return replace(search, template=replace(template, shared_targets=shared))


def target_units(runs: Sequence[RunSpec]) -> list[Unit]:
    """Return the units that find the shared targets of these runs, each once."""
    units = [_unit(run, chunk, {}) for run in runs for chunk in _chunks(run.shared_targets)]
    return list({unit.key: unit for unit in units}.values())


def search_target_units(search: SearchPlan) -> list[Unit]:
    """Return the units that find the shared targets of a layer search."""
    return [
        _unit(
            search.template,
            (first, last),
            {"facts_run_id": search.facts_run_id, "positions": search.positions[first:last]},
        )
        for first, last in _chunks(search.template.shared_targets)
    ]


def _unit(run: RunSpec, chunk: tuple[int, int], facts: Mapping[str, Any]) -> Unit:
    assert run.shared_targets is not None
    recipe, (first, last) = run.shared_targets.recipe, chunk
    return Unit(
        run_id="prepare",
        unit_id=f"targets-{digest_of(_chunk_recipe(recipe, chunk))}",
        kind="targets",
        model=run.model,
        payload={"first": first, "last": last, "n_items": (last - first) * len(recipe["layers"]), **facts},
        run=run,
    )


def targets_recipe(unit: Unit) -> Recipe:
    """Return the recipe of what a unit of targets stores."""
    assert unit.run is not None and unit.run.shared_targets is not None
    return _chunk_recipe(unit.run.shared_targets.recipe, (int(unit.payload["first"]), int(unit.payload["last"])))


def find_targets(
    store: Store,
    lm: LanguageModel,
    run: RunSpec,
    chunk: tuple[int, int],
    facts: Sequence[EditRequest],
    artifacts: Artifacts,
) -> str:
    """Find the targets of some facts on the pristine weights and store them; return the digest of their content."""
    assert run.shared_targets is not None
    recipe = _chunk_recipe(run.shared_targets.recipe, chunk)
    found = find_artifact(store, TARGETS, recipe)
    if found is None:
        method = make_editor(run.editor, run.hparams)
        assert isinstance(method, LocatingEditor)
        recipe_layers, site = run.shared_targets.recipe["layers"], method.site(lm.family)
        of_layers = targets_of_layers(lm, facts, artifacts.contexts, recipe_layers, method.target_hparams, site=site)
        tensors = {
            f"{layer}.{name}": getattr(targets, name).cpu().contiguous()
            for layer, targets in of_layers.items()
            for name in Targets._fields
        }
        ids = json.dumps([request.request_id for request in facts]).encode()
        found = put_artifact(store, TARGETS, recipe, {"targets.safetensors": save(tensors), "facts.json": ids})
    return found.digest


def shared_targets(store: Store, run: RunSpec) -> Mapping[str, Targets]:
    """Return the targets that a run shares at its last layer, by request id.

    Raises:
        InputError: They have not been found yet.
        ArtifactMismatch: They have been damaged.
    """
    out = {}
    for chunk in _chunks(run.shared_targets):
        assert run.shared_targets is not None
        found = find_artifact(store, TARGETS, _chunk_recipe(run.shared_targets.recipe, chunk))
        if found is None:
            raise InputError(
                f"the store {store.location} lacks shared targets of {run.run_id}; run the experiment again"
            )
        tensors = load(found.path("targets.safetensors").read_bytes())
        targets = Targets(**{name: tensors[f"{run.layers[-1]}.{name}"] for name in Targets._fields})
        for number, request_id in enumerate(json.loads(found.path("facts.json").read_text())):
            out[request_id] = targets.select([number])
    return out


def _recipe(run: RunSpec) -> Recipe | None:
    definition = _definition(run)
    if definition is None or not run.layers:
        return None
    return {
        **run.model.identity,
        "facts": run.facts.digest,
        "sample": run.facts.sample,
        "sample_seed": run.facts.sample_seed,
        "contexts": run.contexts_recipe,
        "layers": [run.layers[-1]],
        "definition": definition,
        "version": TARGETS_VERSION,
    }


def _definition(run: RunSpec) -> dict[str, Any] | None:
    if run.editor == "none":
        return None
    return make_editor(run.editor, run.hparams).target_definition(FAMILIES[run.model.family])


def _from_pristine(run: RunSpec) -> int:
    """Return how many facts of a run are edited from pristine weights."""
    return min(run.n_rounds, 1 if run.mode == "sequential" else run.n_rounds) * run.batch_size


def _chunks(shared: SharedTargets | None) -> list[tuple[int, int]]:
    if shared is None:
        return []
    starts = range(0, shared.n_facts, shared.per_unit)
    return [(start, min(start + shared.per_unit, shared.n_facts)) for start in starts]


def _chunk_recipe(recipe: Recipe, chunk: tuple[int, int]) -> Recipe:
    return {**recipe, "positions": list(chunk)}
