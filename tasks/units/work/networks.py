"""Hyper-networks: what they are trained on, their states as artifacts of the store, and what a training reports."""

from collections.abc import Mapping, Sequence
from typing import Any

from safetensors.torch import load_file, save
from torch import Tensor

from editing.methods.editor import make_editor
from editing.methods.hypernetwork import HyperNetworks
from editing.methods.meta import MetaLoss
from editing.methods.trained import TrainedEditor
from editing.methods.training import Trainer, load_networks
from editing.model.lm import LanguageModel
from editing.requests import EditRequest, facts_with_variants
from storage.artifacts import Artifact, put_artifact
from storage.store import Store
from tasks.data.facts import read_facts, world_for
from tasks.runs.artifacts import required_artifact
from tasks.specs.recipes import FactsTraining, NetworkRecipe, WorldTraining
from tasks.specs.run import RunSpec
from tasks.units.fact_scores import finite
from tasks.units.training import NETWORK


def trainer_of(store: Store, lm: LanguageModel, recipe: NetworkRecipe) -> tuple[Trainer, list[EditRequest]]:
    """Return an untrained trainer by its recipe, and the facts to validate it on."""
    facts = training_facts(store, recipe["facts"])
    groups = facts_with_variants(facts)
    held_out = {fact.request_id for group in groups[-recipe["validation"] :] for fact in group}
    editor = make_editor(recipe["editor"], recipe["hparams"])
    assert isinstance(editor, TrainedEditor)
    plan = editor.training_plan(recipe["layers"], recipe["edits"])
    trainer = Trainer(lm, [f for f in facts if f.request_id not in held_out], plan, editor.network_shape())
    return trainer, [group[0] for group in groups[-recipe["validation"] :]]


def training_facts(store: Store, source: WorldTraining | FactsTraining) -> list[EditRequest]:
    """Return the facts that a hyper-network is trained on: none of them is edited by a run."""
    if source["name"] == "factworld":
        return world_for(source["model"]).training_requests(unknown=source["unknown"])
    facts = read_facts(store, source["facts_run_id"])
    return [facts[i] for i in source["positions"]]


def network_state(store: Store, recipe: NetworkRecipe, step: int) -> tuple[dict[str, Tensor], str]:
    """Return a hyper-network and its optimiser as they were after ``step`` steps, and the digest of that content."""
    artifact = required_artifact(store, NETWORK, {**recipe, "step": step})
    return load_file(artifact.path("network.safetensors")), artifact.digest


def put_network(store: Store, recipe: NetworkRecipe, step: int, state: Mapping[str, Tensor]) -> Artifact:
    """Store a hyper-network with what a resumed training needs."""
    tensors = {name: value.cpu().contiguous() for name, value in state.items()}
    return put_artifact(store, NETWORK, {**recipe, "step": step}, {"network.safetensors": save(tensors)})


def networks_of(store: Store, lm: LanguageModel, run: RunSpec) -> tuple[HyperNetworks, str]:
    """Return a run's trained hyper-network and the digest of its content."""
    assert run.trajectory.network is not None
    editor = make_editor(run.editor, run.hparams)
    assert isinstance(editor, TrainedEditor)
    state, digest = network_state(store, run.trajectory.network, int(run.trajectory.network["hparams"]["steps"]))
    networks = editor.untrained(lm, run.layers)
    dtype = next(value.dtype for name, value in state.items() if name.startswith("net."))
    return load_networks(networks.to(lm.input_device, dtype), state).requires_grad_(False), digest


def train_rows(
    trainer: Trainer, validation: Sequence[EditRequest], last: int, recipe: NetworkRecipe, model: str
) -> list[dict[str, Any]]:
    """Train up to ``last`` steps; return a row per step, and one of what the network does to unseen facts by then."""
    common = {"editor": recipe["editor"], "model": model, "n_edits": trainer.plan.edits}
    rows: list[dict[str, Any]] = []

    def note(step: int, loss: MetaLoss) -> None:
        rows.append(
            {
                **common,
                "step": step,
                "split": "train",
                "generalisation_loss": finite(loss.generalisation),
                "locality_loss": finite(loss.locality),
                "gradient_norm": finite(loss.gradient_norm),
            }
        )

    trainer.train(last, note)
    size = min(trainer.plan.edits, len(validation))
    found = [trainer.validate(validation[at : at + size]) for at in range(0, len(validation) - size + 1, size)]
    ridges = [float(trainer.networks.ridge(module).detach()) for module in trainer.modules]
    rows.append(
        {
            **common,
            "step": last,
            "split": "validation",
            "n_edits": size,
            "edit_success": sum(a.edit for a in found) / len(found),
            "generalisation_success": sum(a.equivalent for a in found) / len(found),
            "locality_success": sum(a.unrelated for a in found) / len(found),
            "mean_residual": finite(sum(a.mean_residual for a in found) / len(found)),
            "mean_ridge": sum(ridges) / len(ridges),
        }
    )
    return rows
