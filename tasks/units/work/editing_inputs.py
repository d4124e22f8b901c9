"""What a run edits with: context prefixes, factored second moments and hyper-networks, read from the store."""

from collections.abc import Sequence
from typing import Any
from weakref import WeakValueDictionary

from safetensors.torch import load_file

from editing.methods.editor import Artifacts, make_editor
from editing.methods.geometry import KeyGeometry
from editing.model.lm import LanguageModel
from storage.digests import digest_of
from storage.store import Store
from tasks.runs.artifacts import required_artifact
from tasks.specs.recipes import MomentsRecipe
from tasks.specs.run import RunSpec
from tasks.units.contexts import CONTEXTS, texts_of
from tasks.units.given_targets import given_targets
from tasks.units.moments import MOMENTS, MomentMerge, MomentsRecord, layer_recipe
from tasks.units.unit import Inputs
from tasks.units.work.networks import networks_of

Factored = WeakValueDictionary[tuple[str, float, str], KeyGeometry]
"""Factored second moments by content, jitter and device: of all runs that use one at the same time there is one."""


def inputs_of(store: Store, lm: LanguageModel, run: RunSpec, factored: Factored) -> Inputs:
    """Return a run's editor and what it needs, with the content digests that its first commit records."""
    contexts: tuple[str, ...] = ("",)
    geometry: dict[int, KeyGeometry] = {}
    networks = None
    digests: dict[str, Any] = {"contexts": None, "moments": None, "network": None}
    if run.trajectory.contexts is not None:
        artifact = required_artifact(store, CONTEXTS, run.trajectory.contexts)
        contexts, digests["contexts"] = texts_of(artifact), artifact.digest
    if run.trajectory.moments is not None:
        geometry, digests["moments"] = geometry_of(store, lm, run.trajectory.moments, run.layers, factored)
    if run.trajectory.network is not None:
        networks, digests["network"] = networks_of(store, lm, run)
    values = {} if run.trajectory.targets is None else given_targets(store, run.trajectory.targets)
    artifacts = Artifacts(geometry=geometry, contexts=contexts, networks=networks, values=values)
    return Inputs(make_editor(run.editor, run.hparams), artifacts, {**digests, "context_texts": list(contexts)})


def geometry_of(
    store: Store, lm: LanguageModel, recipe: MomentsRecipe, layers: Sequence[int], factored: Factored
) -> tuple[dict[int, KeyGeometry], str]:
    """Return the factored second moments of some layers and the digest of their content.

    Args:
        factored: Those in use already, which are taken from there; new ones are added.

    Raises:
        MomentError: One of them is singular.
    """
    geometry, digests = {}, {}
    for layer in layers:
        artifact = required_artifact(store, MOMENTS, layer_recipe(recipe, layer))
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


def _origin(store: Store, recipe: MomentsRecipe, layer: int) -> str:
    """Return which file a published second moment was read from, where its unit has said so."""
    if recipe["texts"]["name"] != "npz":
        return ""
    commits = (commit for commit in store.commits("prepare").values() if commit.kind == MomentMerge.kind)
    files = [MomentsRecord.of_json(commit.spec).files or {} for commit in commits]
    named = [each[str(layer)] for each in files if str(layer) in each]
    return f" ({named[-1]})" if named else ""
