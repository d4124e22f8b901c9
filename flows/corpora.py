"""Where an experiment's second moments come from: its part of the plan."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from flows.score_spec import PerplexitySpec
from flows.spec import Experiment, SecondMomentSpec
from storage.digests import digest_of_file
from tasks.data.corpora import file_texts
from tasks.data.model_files import edited_shape
from tasks.errors import InputError
from tasks.specs.recipes import Drawn, MomentsRecipe, OwnTexts, Recipe, Texts, set_version
from tasks.specs.run import ModelRef, RunSpec
from tasks.units.sampled_texts import SampledTexts
from tasks.units.search import SearchPlan


def moments_recipe(
    experiment: Experiment, model: ModelRef, facts_run_id: str, requests: Sequence[Any]
) -> MomentsRecipe:
    """Return what a second moment is a function of: weights, tokenizer and its special tokens, dtype, texts, their length."""
    wanted = experiment.second_moment
    if wanted.files is not None:
        files = {str(layer): digest_of_file(Path(path)) for layer, path in wanted.files.items()}
        return {
            **model.identity,
            "texts": {"name": "npz", "files": files, "provenance": wanted.provenance},
            "max_tokens": None,
            "jitter": wanted.jitter,
        }
    source = texts_source(experiment, wanted, model, facts_run_id)
    if source["name"] == "facts" and not any(r.neighborhood_prompts for r in requests):
        source = own_texts_of(wanted)
    recipe: MomentsRecipe = {
        **model.identity,
        "texts": source,
        "max_tokens": wanted.max_tokens,
        "jitter": wanted.jitter,
    }
    set_version(recipe, "moments")
    if wanted.stop_change is not None:
        recipe["stop"] = {
            "change": wanted.stop_change,
            "first_texts": wanted.first_texts,
            "facts": wanted.stop_facts,
            "facts_run_id": facts_run_id,
        }
    return recipe


def texts_source(
    experiment: Experiment, wanted: SecondMomentSpec | PerplexitySpec, model: ModelRef, facts_run_id: str
) -> Texts:
    """Return where texts come from: the hub, a file by its content, the facts' own world, or the facts."""
    drawn: Drawn = {"n_texts": wanted.n_texts, "seed": wanted.seed}
    if wanted.texts is not None:
        return own_texts_of(wanted)
    if wanted.hub is not None:
        assert wanted.revision is not None, "a missing one is a problem, and no recipe is made"
        return {
            **drawn,
            "name": "hub",
            "hub": wanted.hub,
            "revision": wanted.revision,
            "config": wanted.config,
            "split": wanted.split,
            "column": wanted.column,
        }
    if wanted.path is not None:
        return {**drawn, "name": "file", "digest": digest_of_file(Path(wanted.path))}
    if experiment.facts.name == "factworld":
        return {**drawn, "name": "factworld", "model": model.name}
    return {**drawn, "name": "facts", "facts_run_id": facts_run_id}


def own_texts_of(wanted: SecondMomentSpec | PerplexitySpec) -> OwnTexts:
    """Return how the unedited model samples texts; what stands at its usual value is left out where it was not always there."""
    found: OwnTexts = {
        "n_texts": wanted.n_texts,
        "seed": wanted.seed,
        "name": "own",
        "tokens": wanted.text_tokens,
        "top_k": wanted.top_k,
    }
    if wanted.temperature != 1.0:
        found["temperature"] = wanted.temperature
    set_version(found, "own texts")
    return found


def sampled_texts_of(experiment: Experiment, model: ModelRef, perplexity: Recipe | None) -> tuple[SampledTexts, ...]:
    """Return the texts that are sampled before anything is edited, for what is asked of edited models."""
    if perplexity is None or perplexity["texts"]["name"] != "own":
        return ()
    return (SampledTexts(model=model, threads=experiment.compute.threads, source=perplexity["texts"]),)


def perplexity_recipe(
    experiment: Experiment, model: ModelRef, facts_run_id: str, problems: list[str], *, has_texts: bool
) -> dict[str, Any] | None:
    """Return what a perplexity is a function of, beside the model; add what is wrong with its texts.

    Args:
        has_texts: Whether the facts have neighborhood prompts, which texts are made of where nothing is given.
    """
    wanted = experiment.score.perplexity
    if wanted is None:
        return None
    if len(wanted.sources) > 1:
        problems.append(f"score.perplexity: found {' and '.join(wanted.sources)}; expected one of them")
        return None
    if wanted.hub is not None and not wanted.revision:
        problems.append(f"score.perplexity.revision is missing; expected a commit of the hub data set {wanted.hub!r}")
        return None
    try:
        if wanted.path is not None:
            file_texts(Path(wanted.path), n_texts=wanted.n_texts, setting="score.perplexity.n_texts")
        source = texts_source(experiment, wanted, model, facts_run_id)
    except (InputError, OSError) as error:
        problems.append(f"score.perplexity: {error}")
        return None
    if source["name"] == "facts" and not has_texts:
        problems.append(
            "score.perplexity: the facts have no neighborhood_prompts to make texts of; give path: or hub:, or texts: self"
        )
        return None
    files = {source["digest"]: wanted.path} if source["name"] == "file" else {}
    return {"texts": source, "n_texts": wanted.n_texts, "max_tokens": wanted.max_tokens, "files": files}


def moment_files(experiment: Experiment) -> dict[str, str]:
    """Return ``{digest: path}`` of the files that second moments are read from."""
    wanted = experiment.second_moment
    paths = [*(wanted.files or {}).values(), *([wanted.path] if wanted.path else [])]
    return {digest_of_file(Path(path)): path for path in paths}


def moment_problems(experiment: Experiment) -> list[str]:
    """Return what is wrong with where second moments shall come from."""
    wanted = experiment.second_moment
    sources = [*wanted.sources, *(["files"] if wanted.files is not None else [])]
    if len(sources) > 1:
        return [f"second_moment: found {' and '.join(sources)}; expected one of them"]
    if wanted.hub is not None and not wanted.revision:
        return [f"second_moment.revision is missing; expected a commit of the hub data set {wanted.hub!r}"]
    if wanted.files is None:
        try:
            if wanted.path is not None:
                file_texts(Path(wanted.path), n_texts=wanted.n_texts)
        except InputError as error:
            return [f"second_moment.path: {error}"]
        return []
    problems = [
        f"second_moment.files.{layer}: no file {path}"
        for layer, path in wanted.files.items()
        if not Path(path).is_file()
    ]
    if not (wanted.provenance or "").strip():
        problems.append(
            "second_moment.provenance is missing; expected where the files come from (model, corpus, documents, repository "
            "and commit): it becomes part of every run's identity"
        )
    return problems


def moment_layers(model: ModelRef, runs: Sequence[RunSpec], searches: Sequence[SearchPlan]) -> tuple[int, ...]:
    """Return the layers whose second moments somebody needs."""
    need = [run for run in runs if run.trajectory.moments]
    # A layer that tracing will choose is not known yet; then all of them are collected, in the same one pass.
    if any(run.layers_from and run.layers_from.by == "trace" for run in need):
        return tuple(range(model.n_layers))
    searched = any(run.layers_from and run.layers_from.by == "search" for run in need)
    candidates = {
        layer for search in searches if searched or search.template.trajectory.moments for layer in search.layers
    }
    return tuple(sorted({layer for run in need for layer in run.layers} | candidates))


def check_files(experiment: Experiment, model: ModelRef, layers: Iterable[int], problems: list[str]) -> None:
    """Add what is wrong with published files: ``layers`` that are missing or do not exist, other shapes."""
    files, needed = experiment.second_moment.files, set(layers)
    if files is None:
        return
    if missing := sorted(needed - set(files)):
        problems.append(f"second_moment.files: found layers {sorted(files)}, the editors also need {missing}")
    beyond = [layer for layer in files if not 0 <= layer < model.n_layers]
    if beyond:
        problems.append(f"second_moment.files: no layers {beyond} in {model.name}; expected 0 to {model.n_layers - 1}")
    from tasks.units.work.moment_artifacts import published_problem

    _, d_in = edited_shape(model)
    for layer in sorted(needed & set(files)):
        if (problem := published_problem(Path(files[layer]), d_in=d_in)) is not None:
            problems.append(f"second_moment.files.{layer}: {problem}")


def notes_on_texts(recipe: MomentsRecipe, experiment: Experiment) -> Iterator[str]:
    """Say that the model samples the texts of second moments itself, where nobody has asked for it."""
    if recipe["texts"]["name"] == "own" and experiment.second_moment.texts is None:
        yield (
            f"second moments: of {experiment.second_moment.n_texts} texts that the model samples itself, as the facts have no "
            "neighborhood_prompts to take texts from (second_moment: path, hub or files gives others, texts: self these)"
        )
