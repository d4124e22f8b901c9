"""From an experiment to its plan: every run of the grid, checked against the model and the data before any work."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

from flows.context_length import check_context_length
from flows.corpora import check_files, moment_files, moment_layers, notes_on_texts, sampled_texts_of
from flows.given_targets import given_targets
from flows.inputs import Inputs, check_facts, check_subjects, notes_on, warnings_on
from flows.locating import searches_of, trace_of
from flows.run_specs import card_of, check_layers, layers_refusal, run_of
from flows.spec import EditorSpec, Experiment, errors_of
from flows.spec_values import Layers
from flows.trainings import training_jobs
from storage.digests import digest_of
from tasks.data.model_files import edited_shape
from tasks.driver.plan import Plan
from tasks.errors import InputError
from tasks.specs.editor_card import (
    EditorCard,
    borrowed_hparams,
    inherited_hparams,
    predicts,
)
from tasks.specs.placement import Placement
from tasks.specs.recipes import ContextsRecipe, MomentsRecipe, Recipe
from tasks.specs.run import LayersFrom, ModelRef, RunSpec, baseline_of
from tasks.units.contexts import Contexts
from tasks.units.moments import MOST_SHARDS, MomentsJob
from tasks.units.search import SearchPlan
from tasks.units.trace import TraceJob

R = TypeVar("R", bound=Recipe)
_HALF = 0.6
"""Of a symmetric sum, what is stored, in blocks."""
_MOST_SUMS = 4 * 2**30
"""Bytes that shards may take in a store so that workers end together; more are cut as large as they may be."""


def plan_experiment(inputs: Inputs) -> Plan:
    """Expand an experiment into its plan.

    Raises:
        SpecError: Lists everything that is wrong: editors, hyper-parameters, layers, batch sizes, facts, benchmarks.
    """
    experiment, problems = inputs.experiment, list(inputs.problems)
    searches, trace = searches_of(inputs, problems), trace_of(inputs)
    templates = [search.template for search in searches]
    runs = list(_runs(inputs, searches, trace, problems))
    trainings = training_jobs(inputs, runs, problems)
    if not problems:
        check_facts(inputs, problems)
        given = {text for run in [*runs, *templates] for text in _given(run)}
        check_context_length(inputs, given, problems)
        check_subjects(inputs, [*runs, *templates], problems)
    if problems:
        raise errors_of(experiment, problems)
    wanted = [*runs, *templates]
    of_moments = moment_layers(inputs.model, runs, searches)
    if of_moments:
        check_files(experiment, inputs.model, of_moments, problems)
    if problems:
        raise errors_of(experiment, problems)
    compute = experiment.compute
    prefixes: list[ContextsRecipe] = _different(run.trajectory.contexts for run in wanted)
    moments: list[MomentsRecipe] = _different(run.trajectory.moments for run in wanted)
    return Plan(
        name=experiment.name,
        store=experiment.store,
        runs=tuple([*_unique(baseline_of(run) for run in runs), *_unique(runs)]),
        knowledge=() if inputs.knowledge is None else (inputs.knowledge,),
        unasked=() if inputs.knowledge is None or inputs.is_asked else (inputs.knowledge,),
        contexts=tuple(Contexts(model=inputs.model, threads=compute.threads, prefixes=recipe) for recipe in prefixes),
        texts=sampled_texts_of(experiment, inputs.model, inputs.perplexity),
        moments=tuple(
            MomentsJob(
                model=inputs.model,
                recipe=recipe,
                layers=of_moments,
                files=moment_files(experiment),
                shard_texts=experiment.second_moment.shard_texts,
                threads=compute.threads,
                divided=bool(of_moments) and _divided(inputs.model, of_moments),
            )
            for recipe in moments
        ),
        trainings=trainings,
        searches=tuple(searches),
        traces=(trace,) if trace else (),
        placement=placement_of(experiment),
        start_timeout_s=compute.start_timeout_s,
        chains_in_step=compute.chains_in_step,
        max_attempts=compute.max_attempts,
        store_timeout_s=compute.store_timeout_s,
        notes=(
            *notes_on(inputs),
            *(notes_on_texts(inputs.moments, experiment) if of_moments else ()),
            *_notes_on_contexts(inputs, wanted),
            *_notes_on_hparams(wanted, inherited_hparams),
        ),
        warnings=(*warnings_on(inputs), *_notes_on_hparams(wanted, borrowed_hparams)),
    )


def _divided(model: ModelRef, layers: Sequence[int]) -> bool:
    """Return whether shards are divided so that workers end together; not where the sums of so many would fill the store."""
    each = 8 * _HALF * edited_shape(model)[1] ** 2 * len(layers)
    return each * MOST_SHARDS <= _MOST_SUMS


def placement_of(experiment: Experiment) -> Placement:
    """Return where an experiment wants its workers."""
    compute = experiment.compute
    return Placement(
        ray=compute.ray,
        actors=compute.actors,
        gpus_per_model=compute.gpus_per_model,
        threads=compute.threads,
        niceness=compute.niceness,
    )


def _runs(
    inputs: Inputs, searches: Sequence[SearchPlan], trace: TraceJob | None, problems: list[str]
) -> Iterator[RunSpec]:
    experiment = inputs.experiment
    for index, spec in enumerate(experiment.editors):
        where = f"editors.{index}"
        card = card_of(spec, inputs, where, problems)
        if card is None:
            continue
        seeds = _seeds(experiment, spec, card, where, problems)
        _check_guard(experiment, spec, where, problems)
        chosen = spec.layers if spec.layers is not None else experiment.layers
        assert chosen is not None, "an editor without layers is refused where the file is read"
        assert not isinstance(chosen, dict), "an experiment of one model has its layers"
        for layers, recipe in _layer_sets(inputs, chosen, _own(searches, card), trace, f"{where}.layers", problems):
            if (problem := layers_refusal(inputs, card, layers, recipe)) is not None:
                problems.append(f"{where}.layers: {problem}")
                continue
            try:
                targets = given_targets(spec, inputs, card, layers)
            except InputError as error:
                problems.append(f"{where}.{error}")
                continue
            _check_carried(experiment, spec, card, where, problems)
            for batch_size in spec.batch_sizes or experiment.batch_sizes:
                if (problem := _batch_problem(inputs, card, batch_size)) is not None:
                    problems.append(f"{where}: {problem}")
                    continue
                for sample in range(experiment.facts.samples):
                    for seed in seeds:
                        yield run_of(
                            inputs,
                            card,
                            layers,
                            recipe,
                            batch_size=batch_size,
                            mode=experiment.mode,
                            sample=sample,
                            seed=seed,
                            guard=None if spec.guard is None else spec.guard.model_dump(),
                            targets=targets,
                        )


def _check_carried(experiment: Experiment, spec: EditorSpec, card: EditorCard, where: str, problems: list[str]) -> None:
    """Add what passes from batch to batch where each starts from the unedited model."""
    asked_for = sorted(card.carried.keys() & spec.hparams.keys())
    if experiment.mode == "independent" and asked_for:
        problems.append(
            f"{where}: {asked_for[0]}: {card.carried[asked_for[0]]} carries something from batch to batch, and mode: "
            "independent starts each batch from the unedited model; leave one of them out"
        )


def _own(searches: Sequence[SearchPlan], card: EditorCard) -> SearchPlan | None:
    """Return the search whose layers an editor takes: that by itself, else the first one."""
    return next((search for search in searches if search.template.editor == card.name), next(iter(searches), None))


def _check_guard(experiment: Experiment, spec: EditorSpec, where: str, problems: list[str]) -> None:
    """Add why a guard cannot keep edits of an editor out."""
    if spec.guard is None:
        return
    if not predicts(spec.name):
        problems.append(
            f"{where}.guard: {spec.name} predicts nothing of an edit before it is written, so there is nothing to go by; leave "
            "guard out, or use an editor with a closed form (rome, memit, emmet, alphaedit)"
        )
    if experiment.mode == "independent":
        problems.append(
            f"{where}.guard: in mode: independent no batch has earlier ones to be compared with; leave it out"
        )


def _seeds(experiment: Experiment, spec: EditorSpec, card: EditorCard, where: str, problems: list[str]) -> list[int]:
    """Return the seeds of an editor's runs; none where they would all be one and the same."""
    seeds = spec.seeds or experiment.seeds
    if len(seeds) == 1 or card.is_random:
        return seeds
    given = " (contexts_file gives its context prefixes)" if card.context_texts is not None else ""
    problems.append(
        f"{where}: nothing in {card.name} is random{given}: runs with the seeds {seeds} would be one and the same, counted "
        f"{len(seeds)} times; give this editor seeds: [{seeds[0]}], and facts.samples for repetitions"
    )
    return []


def _batch_problem(inputs: Inputs, card: EditorCard, batch_size: int) -> str | None:
    """Return why an editor cannot edit batches of this size, None if it can."""
    if (why := card.batch_problem(batch_size)) is not None:
        return why
    size = inputs.size
    return (
        f"batch size {batch_size} with facts.size {size} gives no full batch" if not 1 <= batch_size <= size else None
    )


def _layer_sets(
    inputs: Inputs,
    chosen: Layers,
    search: SearchPlan | None,
    trace: TraceJob | None,
    where: str,
    problems: list[str],
) -> list[tuple[tuple[int, ...], LayersFrom | None]]:
    if isinstance(chosen, str):
        source = search if chosen == "search" else trace
        if source is None:
            problems.append(f"{where}: {chosen!r} needs locate.{chosen}; add it, or give layers as numbers")
            return []
        return [((), LayersFrom(by=chosen, run_id=source.run_id, recipe=source.recipe))]
    sets = [tuple(entry) if isinstance(entry, list) else (entry,) for entry in chosen]
    for layers in sets:
        check_layers(inputs.model, layers, where, problems)
    return [(layers, None) for layers in sets]


def _unique(runs: Iterable[RunSpec]) -> list[RunSpec]:
    """Return the runs, each once; those whose layers are not known yet differ by what will choose them."""
    found: dict[Any, RunSpec] = {}
    for run in runs:
        found.setdefault((run.run_id, run.searched_by), run)
    return list(found.values())


def _notes_on_hparams(runs: Iterable[RunSpec], of: Callable[[str, str, str | None], str | None]) -> list[str]:
    """Return what is said of the runs' hyper-parameters, each once."""
    different = dict.fromkeys((run.editor, run.model.name, run.preset) for run in runs)
    return list(dict.fromkeys(filter(None, (of(*each) for each in different))))


def _notes_on_contexts(inputs: Inputs, runs: Iterable[RunSpec]) -> Iterator[str]:
    """Say where prefixes are sampled from a lone first token, from which a model may not go on as from a text's beginning."""
    sampled = [run for run in runs if run.trajectory.contexts is not None and "texts" not in run.trajectory.contexts]
    if sampled and not inputs.checked.begins:
        yield (
            "context prefixes: nothing stands in front of their first token; read what was sampled (palimpsest "
            "export-contexts), and where it is no text, set model.text_start or give contexts_file (docs/editors.md)"
        )


def _given(run: RunSpec) -> list[str]:
    """Return the context prefixes that a file gives."""
    recipe = run.trajectory.contexts
    return recipe["texts"] if recipe is not None and "texts" in recipe else []


def _different(recipes: Iterable[R | None]) -> list[R]:
    """Return each recipe once."""
    found: dict[str, R] = {}
    for recipe in recipes:
        if recipe is not None:
            found.setdefault(digest_of(recipe), recipe)
    return list(found.values())
