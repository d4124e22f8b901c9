"""Computed inputs as artifacts of the store: hyper-networks, and what a run's editor needs of all kinds."""

from collections.abc import Mapping, Sequence
from typing import Any
from weakref import WeakValueDictionary

from safetensors.torch import load_file, save
from torch import Tensor

from editing.methods.editor import Artifacts, make_editor
from editing.methods.geometry import KeyGeometry
from editing.methods.hypernetwork import HyperNetworks
from editing.methods.trained import TrainedEditor
from editing.methods.training import Trainer, facts_with_variants, load_networks
from editing.model.lm import LanguageModel
from editing.requests import EditRequest
from storage.artifacts import Artifact, find_artifact, has_artifact, put_artifact
from storage.digests import digest_of
from storage.store import Store
from tasks.data.facts import read_facts, world_for
from tasks.errors import InputError
from tasks.specs.run import Recipe, RunSpec, Unit
from tasks.units.contexts import CONTEXTS, texts_of
from tasks.units.moments import MOMENTS, layer_recipe
from tasks.units.targets import TARGETS, targets_recipe

NETWORK = "networks"
Factored = WeakValueDictionary[tuple[str, float, str], KeyGeometry]
"""Factored second moments by content, jitter and device: of all runs that use one at the same time there is one."""


def trainer_of(store: Store, lm: LanguageModel, recipe: Recipe) -> tuple[Trainer, list[EditRequest]]:
    """Return an untrained trainer by its recipe, and the facts to validate it on."""
    facts = training_facts(store, recipe["facts"])
    groups = facts_with_variants(facts)
    held_out = {fact.request_id for group in groups[-recipe["validation"] :] for fact in group}
    editor = make_editor(recipe["editor"], recipe["hparams"])
    assert isinstance(editor, TrainedEditor)
    plan = editor.training_plan(recipe["layers"], recipe["edits"])
    trainer = Trainer(lm, [f for f in facts if f.request_id not in held_out], plan, editor.network_shape())
    return trainer, [group[0] for group in groups[-recipe["validation"] :]]


def training_facts(store: Store, source: Mapping[str, Any]) -> list[EditRequest]:
    """Return the facts that a hyper-network is trained on: none of them is edited by a run."""
    if source["name"] == "factworld":
        return world_for(source["model"]).training_requests(unknown=source["unknown"])
    facts = read_facts(store, source["facts_run_id"])
    return [facts[i] for i in source["positions"]]


def network_state(store: Store, recipe: Recipe, step: int) -> tuple[dict[str, Tensor], str]:
    """Return a hyper-network and its optimiser as they were after ``step`` steps, and the digest of that content."""
    artifact = _required(store, NETWORK, {**recipe, "step": step})
    return load_file(artifact.path("network.safetensors")), artifact.digest


def put_network(store: Store, recipe: Recipe, step: int, state: Mapping[str, Tensor]) -> Artifact:
    """Store a hyper-network with what a resumed training needs."""
    tensors = {name: value.cpu().contiguous() for name, value in state.items()}
    return put_artifact(store, NETWORK, {**recipe, "step": step}, {"network.safetensors": save(tensors)})


def networks_of(store: Store, lm: LanguageModel, run: RunSpec) -> tuple[HyperNetworks, str]:
    """Return a run's trained hyper-network and the digest of its content."""
    assert run.network_recipe is not None
    editor = make_editor(run.editor, run.hparams)
    assert isinstance(editor, TrainedEditor)
    state, digest = network_state(store, run.network_recipe, editor.steps)
    networks = editor.untrained(lm, run.layers)
    dtype = next(value.dtype for name, value in state.items() if name.startswith("net."))
    return load_networks(networks.to(lm.input_device, dtype), state).requires_grad_(False), digest


def geometry_of(
    store: Store, lm: LanguageModel, recipe: Recipe, layers: Sequence[int], factored: Factored
) -> tuple[dict[int, KeyGeometry], str]:
    """Return the factored second moments of some layers and the digest of their content.

    Args:
        factored: Those in use already, which are taken from there; new ones are added.

    Raises:
        MomentError: One of them is singular.
    """
    geometry, digests = {}, {}
    for layer in layers:
        artifact = _required(store, MOMENTS, layer_recipe(recipe, layer))
        device, digests[str(layer)] = lm.weight(layer).device, artifact.digest
        key = (artifact.digest, recipe["jitter"], str(device))
        known = factored.get(key)
        if known is None:
            matrix = load_file(artifact.path("moment.safetensors"))["moment"].to(device)
            name = f"the second moment of layer {layer}{_origin(store, recipe, layer)}"
            known = KeyGeometry.of(matrix, jitter=recipe["jitter"], name=name)
            factored[key] = known
        geometry[layer] = known
    return geometry, digest_of(digests)


def _origin(store: Store, recipe: Recipe, layer: int) -> str:
    """Return which file a published second moment was read from, where its unit has said so."""
    if recipe["texts"]["name"] != "npz":
        return ""
    specs = (commit.spec for commit in store.commits("prepare").values() if commit.kind == "moments")
    named = [spec["files"][str(layer)] for spec in specs if str(layer) in spec.get("files", {})]
    return f" ({named[-1]})" if named else ""


def artifacts_for(
    store: Store, lm: LanguageModel, run: RunSpec, factored: Factored
) -> tuple[Artifacts, Mapping[str, Any]]:
    """Return what a run's editor needs, with the content digests that its first commit records."""
    contexts: tuple[str, ...] = ("",)
    geometry: dict[int, KeyGeometry] = {}
    networks = None
    digests: dict[str, Any] = {"contexts": None, "moments": None, "network": None}
    if run.contexts_recipe is not None:
        artifact = _required(store, CONTEXTS, run.contexts_recipe)
        contexts, digests["contexts"] = texts_of(artifact), artifact.digest
    if run.moments_recipe is not None:
        geometry, digests["moments"] = geometry_of(store, lm, run.moments_recipe, run.layers, factored)
    if run.network_recipe is not None:
        networks, digests["network"] = networks_of(store, lm, run)
    return Artifacts(geometry=geometry, contexts=contexts, networks=networks), {
        **digests,
        "context_texts": list(contexts),
    }


def is_lost(store: Store, unit: Unit) -> bool:
    """Return whether the artifact of a committed unit is gone: deleted because it was damaged, or by accident."""
    if unit.kind == "contexts":
        return not has_artifact(store, CONTEXTS, unit.payload["recipe"])
    if unit.kind == "targets":
        return not has_artifact(store, TARGETS, targets_recipe(unit))
    if unit.kind == "train":
        recipe = {**unit.payload["recipe"], "step": unit.payload["last_round"]}
        return not has_artifact(store, NETWORK, recipe)
    if unit.kind == "moments":
        recipe, commit = unit.payload["recipe"], store.read_commit(*unit.key)
        made = {int(row["layer"]) for row in (store.rows(commit, "second_moments") if commit else ()) if row["digest"]}
        made |= {int(layer) for layer in (commit.spec["digests"] if commit else ())}
        return not all(has_artifact(store, MOMENTS, layer_recipe(recipe, layer)) for layer in made)
    return False


def _required(store: Store, kind: str, recipe: Recipe) -> Artifact:
    found = find_artifact(store, kind, recipe)
    if found is None:
        raise InputError(
            f"the store {store.location} lacks the {kind} of {dict(recipe)}; run the experiment's prepare stage"
        )
    return found
