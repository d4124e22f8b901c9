"""One run, from an editor with its numbers and a point of the grid; and why an editor cannot edit some layers."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from flows.inputs import Inputs
from flows.spec import EditorSpec
from flows.trainings import network_recipe
from tasks.errors import InputError
from tasks.specs.editor_card import EditorCard, editor_card, editor_needs, layers_problem
from tasks.specs.execution import Compute, Execution
from tasks.specs.recipes import ContextsRecipe, GivenTargets, SampledContexts, set_version
from tasks.specs.run import FactsRef, LayersFrom, ModelRef, RunSpec, Trajectory
from tasks.specs.scoring import Scoring
from tasks.units.contexts import SAMPLING, read_contexts


def card_of(spec: EditorSpec, inputs: Inputs, where: str, problems: list[str]) -> EditorCard | None:
    """Return an editor with its numbers for the experiment's model; None where that cannot be, and why is added."""
    texts, given = None, dict(spec.hparams)
    try:
        if spec.contexts_file is not None and "contexts" not in editor_needs(spec.name):
            raise ValueError(f"{spec.name} reads no context prefixes; leave contexts_file out")
        if spec.contexts_file is not None:
            texts = read_contexts(spec.contexts_file, lambda text: inputs.checked.form.plain(text))
            if clash := sorted(given.keys() & set(SAMPLING)):
                raise ValueError(
                    f"found {clash[0]} beside contexts_file, which holds all prefixes; leave one of them out"
                )
            given["contexts"] = len(texts)
        card = editor_card(
            spec.name,
            model=inputs.model.name,
            protocol=inputs.experiment.protocol,
            overrides=given,
            preset=spec.preset,
        )
        if own := sorted(set(card.seeds) & spec.hparams.keys()):
            raise ValueError(
                f"{own[0]} is the run's seed; write seeds: [{spec.hparams[own[0]]}] beside the editor's name"
            )
    except (ValueError, InputError) as error:
        problems.append(f"{where}: {error}")
        return None
    return replace(card, context_texts=texts)


def layers_refusal(inputs: Inputs, card: EditorCard, layers: tuple[int, ...], chosen: LayersFrom | None) -> str | None:
    """Return why an editor cannot edit these layers, None if it can."""
    if (why := card.layers_problem(inputs.model.family, layers, inputs.model.name)) is not None:
        return why
    if card.unsettled is not None:
        return f"{card.name}: {card.unsettled}"
    if "network" in card.needs and chosen is not None:
        return f"{card.name} is trained before layers are searched; give its layers as numbers, as layers: [[3, 4, 5]]"
    return None


def check_layers(model: ModelRef, layers: Iterable[int], where: str, problems: list[str]) -> None:
    """Add what is wrong with layers of a model."""
    if (why := layers_problem(list(layers), model.n_layers, model.name)) is not None:
        problems.append(f"{where}: {why}")


def run_of(
    inputs: Inputs,
    card: EditorCard,
    layers: tuple[int, ...],
    chosen: LayersFrom | None,
    *,
    batch_size: int,
    mode: Any,
    sample: int,
    seed: int,
    guard: dict[str, Any] | None = None,
    targets: GivenTargets | None = None,
) -> RunSpec:
    """Return one run of the grid.

    Args:
        layers: Empty where ``chosen`` is to find them.
    """
    experiment, card = inputs.experiment, card.seeded(seed)
    order = inputs.orders[sample]
    facts = FactsRef(
        name=Path(experiment.facts.name).name.removesuffix(".yaml"),  # of a layout of one's own its name, not its place
        run_id=inputs.facts_run_id,
        digest=inputs.digest,
        sample=sample,
        sample_seed=experiment.facts.seed,
        size=inputs.size,
        order=order.name,
        order_digest=order.digest,
    )
    trajectory = Trajectory(
        model=inputs.model,
        facts=facts,
        editor=card.name,
        version=card.version,
        hparams=card.hparams,
        layers=layers,
        batch_size=batch_size,
        mode=mode,
        seed=seed,
        contexts=_contexts(inputs.model, card, seed) if "contexts" in card.needs else None,
        moments=inputs.moments if "second_moment" in card.needs else None,
        network=network_recipe(inputs, card, layers, batch_size) if "network" in card.needs else None,
        guard=guard,
        targets=targets,
    )
    return RunSpec(
        trajectory=trajectory,
        scoring=_scoring(inputs),
        execution=Execution(
            commit_every=experiment.commit_every,
            compute=Compute(
                threads=experiment.compute.threads, tokens_per_forward=experiment.compute.tokens_per_forward
            ),
        ),
        experiment=experiment.name,
        protocol=experiment.protocol,
        preset=card.preset,
        layers_from=chosen,
    )


def _scoring(inputs: Inputs) -> Scoring:
    score = inputs.experiment.score
    return Scoring(
        every_edits=score.every_edits if isinstance(score.every_edits, int) else tuple(score.every_edits),
        benchmark_edits=tuple(score.benchmark_edits)
        if isinstance(score.benchmark_edits, list)
        else score.benchmark_edits,
        retention=score.retention,
        text_tokens=score.text_tokens,
        texts=score.texts,
        benchmarks=inputs.benchmarks,
        scores={
            **({"generation": score.generation.model_dump()} if score.generation else {}),
            **({"perplexity": inputs.perplexity} if inputs.perplexity else {}),
            **score.further,
        },
    )


def _contexts(model: ModelRef, card: EditorCard, seed: int) -> ContextsRecipe:
    if card.context_texts is not None:
        return {**model.identity, "texts": list(card.context_texts)}
    assert card.sampling is not None, "an editor that needs contexts says how they are sampled"
    contexts, tokens, starts = (card.sampling[name] for name in SAMPLING)
    sampled: SampledContexts = {
        **model.identity,
        "contexts": contexts,
        "context_tokens": tokens,
        "context_starts": starts,
        "seed": seed,
    }
    set_version(sampled, "contexts")
    return sampled
