"""The hyper-networks that an experiment's runs need, and what they are trained on."""

from flows.inputs import Inputs
from tasks.data.facts import (
    n_world_training_facts,
    world_training_digest,
)
from tasks.specs.editor_card import EditorCard, training_of
from tasks.specs.recipes import FactsTraining, NetworkRecipe, WorldTraining
from tasks.specs.run import RunSpec
from tasks.units.training import TrainingJob


def network_recipe(inputs: Inputs, card: EditorCard, layers: tuple[int, ...], batch_size: int) -> NetworkRecipe | None:
    """Return what a trained network is a function of; None if the editor has none."""
    training, wanted = training_of(card.name, card.hparams, batch_size), inputs.experiment.training
    if training is None:
        return None
    source: WorldTraining | FactsTraining
    if inputs.experiment.facts.name == "factworld":
        found = world_training_digest(inputs.model.name, unknown=wanted.unknown)
        source = {"name": "factworld", "model": inputs.model.name, "unknown": wanted.unknown, "digest": found}
    else:
        positions = inputs.tail(min(wanted.facts, len(inputs.requests)))
        source = {"name": "facts", "facts_run_id": inputs.facts_run_id, "positions": list(positions)}
    steps = training.steps or max(1, (_n_facts(source) - wanted.validation) // training.edits)
    return {
        **inputs.model.identity,
        "editor": card.name,
        "version": card.version,
        "hparams": {**card.hparams, "steps": steps},
        "layers": list(layers),
        "edits": training.edits,
        "facts": source,
        "validation": wanted.validation,
    }


def training_jobs(inputs: Inputs, runs: list[RunSpec], problems: list[str]) -> tuple[TrainingJob, ...]:
    """Return the trainings of all runs, each once; they must not see a fact that a run edits."""
    found = {}
    for run in runs:
        training = training_of(run.editor, run.hparams, run.batch_size)
        if run.trajectory.network is None or training is None:
            continue
        edited = inputs.orders[run.facts.sample].positions
        shared = set(edited[: run.facts.size]) & set(_positions(run.trajectory.network))
        if shared:
            problems.append(
                f"training.facts: {len(shared)} of the {inputs.experiment.training.facts} training facts are edited in sample "
                f"{run.facts.sample}; lower training.facts or facts.size (the data set has {len(inputs.requests)} facts), or "
                "use one sample"
            )
        problems += _problems(inputs, run.trajectory.network)
        job = TrainingJob(
            model=run.model,
            recipe=run.trajectory.network,
            steps=run.trajectory.network["hparams"]["steps"],
            steps_per_segment=inputs.experiment.training.steps_per_segment,
            compute=run.execution.compute,
        )
        found[job.run_id] = job
    return tuple(found.values())


def _problems(inputs: Inputs, recipe: NetworkRecipe) -> list[str]:
    """Return why a hyper-network cannot be trained on what the experiment keeps for it."""
    source, positions = recipe["facts"], _positions(recipe)
    # A factworld has facts of its own for training, each with every prompt.
    count, mend = _n_facts(source), "set training.unknown" if source["name"] == "factworld" else "raise training.facts"
    left = count - recipe["validation"]
    problems = []
    if left < recipe["edits"]:
        problems.append(
            f"training: {count} facts less {recipe['validation']} for validation leave {left}, fewer than the "
            f"{recipe['edits']} that one step edits; {mend}, "
            "lower training.validation or edit fewer at once"
        )
    kept = [inputs.requests[i] for i in positions]
    lacking = [r.request_id for r in kept if not r.paraphrase_prompts or not r.neighborhood_prompts]
    if lacking:
        problems.append(f"training: {len(lacking)} facts lack a paraphrase or neighborhood prompt, as {lacking[0]!r}")
    return problems


def _n_facts(source: WorldTraining | FactsTraining) -> int:
    if source["name"] == "factworld":
        return n_world_training_facts(source["model"], unknown=source["unknown"])
    return len(source["positions"])


def _positions(recipe: NetworkRecipe) -> list[int]:
    """Return which facts of the data set a hyper-network is trained on."""
    source = recipe["facts"]
    return source["positions"] if source["name"] == "facts" else []
