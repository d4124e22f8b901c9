"""What every part of a plan looks at: the model, the facts, and where second moments come from."""

from dataclasses import dataclass
from typing import Any

from flows.benchmarks import publish_benchmarks, read_benchmarks
from flows.second_moments import moment_problems, moments_recipe, perplexity_recipe
from flows.spec import Experiment
from storage.store import Store
from tasks.catalog import editor_needs
from tasks.datasets import (
    check_sample,
    facts_digest,
    load_requests,
    publish_facts,
    sample_order,
)
from tasks.errors import InputError
from tasks.identity import BenchmarkRef, ModelRef, Recipe, RunSpec
from tasks.models import resolve_model


@dataclass(frozen=True)
class Inputs:
    experiment: Experiment
    model: ModelRef
    requests: list[Any]
    digest: str
    moments: Recipe
    benchmarks: tuple[BenchmarkRef, ...]
    perplexity: Recipe | None

    @property
    def facts_run_id(self) -> str:
        return f"facts-{self.digest}"

    def tail(self, count: int) -> tuple[int, ...]:
        """Positions of facts for tracing and search: those that runs of sample 0 edit last, if at all."""
        order = sample_order(len(self.requests), sample=0, seed=self.experiment.facts.seed)
        return tuple(order[-count:])


def publish_inputs(experiment: Experiment) -> None:
    """Write the facts of an experiment to its store, so that workers can read them."""
    store = Store(experiment.store, create=True)
    publish_facts(store, read_requests(experiment))
    publish_benchmarks(experiment, store)


def read_requests(experiment: Experiment) -> list[Any]:
    facts = experiment.facts
    return load_requests(
        facts.name, path=facts.path, hub=facts.hub, revision=facts.revision, model=experiment.model.name
    )


def read_inputs(experiment: Experiment, problems: list[str]) -> Inputs | None:
    model, requests = None, None
    try:
        spec = experiment.model
        model = resolve_model(spec.name, revision=spec.revision, dtype=spec.dtype, chat=spec.chat)
    except InputError as error:
        problems.append(f"model: {error}")
    try:
        requests = read_requests(experiment)
    except (InputError, ValueError) as error:
        problems.append(f"facts: {error}")
    benchmarks = read_benchmarks(experiment, problems)
    if model is None or requests is None:
        return None
    digest = facts_digest(requests)
    if unreadable := moment_problems(experiment):
        problems += unreadable
        return None
    facts_run_id = f"facts-{digest}"
    perplexity = perplexity_recipe(experiment, model, facts_run_id, problems)
    moments = moments_recipe(experiment, model, facts_run_id)
    return Inputs(experiment, model, requests, digest, moments, benchmarks, perplexity)


def check_facts(inputs: Inputs, problems: list[str]) -> None:
    """Add what keeps the samples from being edited."""
    experiment = inputs.experiment
    for sample in range(experiment.facts.samples):
        order = sample_order(len(inputs.requests), sample=sample, seed=experiment.facts.seed)
        try:
            check_sample([inputs.requests[i] for i in order], size=experiment.facts.size, mode=experiment.mode)
        except (InputError, ValueError) as error:
            problems.append(f"facts: {error}")


def check_subjects(inputs: Inputs, runs: list[RunSpec], problems: list[str]) -> None:
    """Add which tracing and editors look for subjects that the facts do not have."""
    without = [request.request_id for request in inputs.requests if not request.subject]
    if without and inputs.experiment.locate.trace is not None:
        problems.append(f"locate.trace: it corrupts each fact's subject; {len(without)} facts have none; leave it out")
    for run in runs if without else ():
        if "subject" in editor_needs(run.editor):
            problems.append(
                f"editors: {run.editor} looks for each fact's subject; found {len(without)} facts without one (the first is "
                f"{without[0]!r}); give subjects, or an editor that needs none"
            )
