"""Targets that several runs share: found once on the pristine weights, published, then taken by each.

Runs share a target when model, facts in their order, context prefixes, layer and the target's definition are the same:
MEMIT and EMMET do, and batch sizes of one editor.  Only rounds that start from pristine weights can take them: the first
of a sequential run, all of independent ones.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace

from safetensors.torch import load, save

from editing.editor import Artifacts, make_editor
from editing.families import FAMILIES
from editing.lm import LanguageModel
from editing.locate import LocatingEditor
from editing.requests import EditRequest
from editing.targets import Targets
from storage.artifacts import find_artifact, put_artifact
from storage.identity import digest_of
from storage.store import Store
from tasks.errors import InputError
from tasks.identity import Recipe, RunSpec, SharedTargets, Unit

TARGETS, CHUNK = "targets", 64
"""Facts of one unit."""


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
                shared[run.run_id] = SharedTargets(recipe=recipe, n_facts=most)
    return [replace(run, shared_targets=shared.get(run.run_id)) for run in runs]


def target_units(runs: Sequence[RunSpec]) -> list[Unit]:
    """Return the units that find the shared targets of these runs, each once."""
    units: dict[tuple[str, str], Unit] = {}
    for run in runs:
        for chunk in _chunks(run.shared_targets):
            assert run.shared_targets is not None
            name = digest_of({"recipe": run.shared_targets.recipe, "facts": list(chunk)})
            unit = Unit(
                run_id="prepare",
                unit_id=f"targets-{name}",
                kind="targets",
                model=run.model,
                payload={"first": chunk[0], "last": chunk[1], "n_items": chunk[1] - chunk[0]},
                run=run,
            )
            units.setdefault(unit.key, unit)
    return list(units.values())


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
        targets = method.targets(lm, facts, run.layers, artifacts)
        tensors = {name: getattr(targets, name).cpu().contiguous() for name in Targets._fields}
        ids = json.dumps([request.request_id for request in facts]).encode()
        found = put_artifact(store, TARGETS, recipe, {"targets.safetensors": save(tensors), "facts.json": ids})
    return found.digest


def shared_targets(store: Store, run: RunSpec) -> Mapping[str, Targets]:
    """Return the targets that a run shares, by request id.

    Raises:
        InputError: They have not been found yet.
        ArtifactMismatch: They have been damaged.
    """
    out = {}
    for chunk in _chunks(run.shared_targets):
        assert run.shared_targets is not None
        found = find_artifact(store, TARGETS, _chunk_recipe(run.shared_targets.recipe, chunk))
        if found is None:
            raise InputError(f"the store {store.root} lacks shared targets of {run.run_id}; run the experiment again")
        targets = Targets(**load(found.path("targets.safetensors").read_bytes()))
        for number, request_id in enumerate(json.loads(found.path("facts.json").read_text())):
            out[request_id] = targets.select([number])
    return out


def _recipe(run: RunSpec) -> Recipe | None:
    if run.editor == "none" or not run.layers:
        return None
    definition = make_editor(run.editor, run.hparams).target_definition(FAMILIES[run.model.family])
    if definition is None:
        return None
    return {
        **run.model.identity,
        "facts": run.facts.digest,
        "sample": run.facts.sample,
        "sample_seed": run.facts.sample_seed,
        "contexts": run.contexts_recipe,
        "layer": run.layers[-1],
        "definition": definition,
    }


def _from_pristine(run: RunSpec) -> int:
    """Return how many facts of a run are edited from pristine weights."""
    return min(run.n_rounds, 1 if run.mode == "sequential" else run.n_rounds) * run.batch_size


def _chunks(shared: SharedTargets | None) -> list[tuple[int, int]]:
    n_facts = shared.n_facts if shared else 0
    return [(start, min(start + CHUNK, n_facts)) for start in range(0, n_facts, CHUNK)]


def _chunk_recipe(recipe: Recipe, chunk: tuple[int, int]) -> Recipe:
    return {**recipe, "positions": list(chunk)}
