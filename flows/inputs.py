"""What every part of a plan looks at: the model, the facts, and where second moments come from."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from editing.model.loading import load_context_tokens, load_format
from editing.model.tokens import PromptFormat
from flows.benchmarks import publish_benchmarks, read_benchmarks
from flows.corpora import moment_problems, moments_recipe, perplexity_recipe
from flows.spec import Experiment
from storage.store import Store
from tasks.data.facts import facts_digest, load_facts, publish_facts, without_refused
from tasks.data.layouts import Facts
from tasks.data.lint import lint_tokens
from tasks.data.model_files import resolve_model
from tasks.data.orders import Order, listed_order, publish_order, seeded_order
from tasks.data.weight_files import checked
from tasks.errors import InputError
from tasks.specs.editor_card import editor_needs
from tasks.specs.run import BenchmarkRef, ModelRef, Recipe, RunSpec


@dataclass(frozen=True)
class Inputs:
    experiment: Experiment
    model: ModelRef
    facts: Facts
    digest: str
    moments: Recipe
    orders: tuple[Order, ...]
    """Of each sample."""
    benchmarks: tuple[BenchmarkRef, ...]
    perplexity: Recipe | None

    @property
    def facts_run_id(self) -> str:
        return f"facts-{self.digest}"

    @property
    def requests(self) -> list[Any]:
        return self.facts.requests

    def tail(self, count: int) -> tuple[int, ...]:
        """Positions of facts for tracing and search: those that runs of sample 0 edit last, if at all."""
        return self.orders[0].positions[-count:]


def publish_inputs(experiment: Experiment) -> None:
    """Write the facts of an experiment to its store, so that workers can read them."""
    store = Store(experiment.store, create=True)
    facts = read_facts(experiment, read_model(experiment))
    facts_run_id = publish_facts(store, facts)
    for order in orders_of(experiment, facts.requests):
        publish_order(store, facts_run_id, facts.requests, order)
    publish_benchmarks(experiment, store)


def read_model(experiment: Experiment) -> ModelRef:
    """Return the model, its folder and its tokenizer looked at.

    Raises:
        InputError: It cannot be had, is not whole, or cannot be used as the experiment says.
    """
    spec = experiment.model
    return checked(
        resolve_model(
            spec.name,
            revision=spec.revision,
            dtype=spec.dtype,
            chat=spec.chat,
            text_start=spec.text_start,
            adapter=spec.adapter,
        )
    )


def format_of(model: ModelRef) -> PromptFormat:
    """Return how a model's prompts and answers are written."""
    return load_format(model.folder, chat=model.chat, text_start=model.text_start)


def read_facts(experiment: Experiment, model: ModelRef) -> Facts:
    """Return the facts that the texts themselves and the model's tokenizer allow."""
    spec = experiment.facts
    facts = load_facts(
        spec.name,
        path=spec.path,
        hub=spec.hub,
        revision=spec.revision,
        split=spec.split,
        completions=spec.completions,
        model=experiment.model.name,
    )
    form = format_of(model)
    if spec.name == "factworld" and not form.oversized:  # its words are plain
        return facts
    return without_refused(facts, lint_tokens(form, facts.requests))


def orders_of(experiment: Experiment, requests: list[Any]) -> tuple[Order, ...]:
    """Return the order in which each sample takes the facts; in a sequential run no subject comes twice."""
    spec, distinct = experiment.facts, experiment.mode == "sequential"
    samples = range(spec.samples)
    if spec.order is not None:
        return tuple(listed_order(requests, Path(spec.order), sample=i, distinct=distinct) for i in samples)
    return tuple(seeded_order(requests, sample=i, seed=spec.seed, distinct=distinct) for i in samples)


def read_inputs(experiment: Experiment, problems: list[str]) -> Inputs | None:
    model, facts = None, None
    try:
        model = read_model(experiment)
    except InputError as error:
        problems.append(f"model: {error}")
    try:
        facts = None if model is None else read_facts(experiment, model)
    except (InputError, ValueError) as error:
        problems.append(f"facts: {error}")
    form, context = (None, None) if model is None else (format_of(model), load_context_tokens(model.folder))
    benchmarks = read_benchmarks(experiment, form, problems, context=context)
    if model is None or facts is None:
        return None
    try:
        orders = orders_of(experiment, facts.requests)
    except InputError as error:
        problems.append(f"facts.order: {error}")
        return None
    digest = facts_digest(facts.requests)
    if unreadable := moment_problems(experiment):
        problems += unreadable
        return None
    facts_run_id = f"facts-{digest}"
    perplexity = perplexity_recipe(experiment, model, facts_run_id, problems)
    moments = moments_recipe(experiment, model, facts_run_id)
    return Inputs(experiment, model, facts, digest, moments, orders, benchmarks, perplexity)


def check_facts(inputs: Inputs, problems: list[str]) -> None:
    """Add what keeps the samples from being edited."""
    experiment = inputs.experiment
    size, count = experiment.facts.size, len(inputs.requests)
    for sample, order in enumerate(inputs.orders):
        if (found := len(order.positions)) < size:
            what = (
                "facts"
                if found == count
                else f"facts, {found} of them in the order of sample {sample}, no subject twice"
            )
            refused = next((f for f in inputs.facts.findings if f.refused), None)
            lint = f"; others are refused (`palimpsest lint` lists them): {refused.detail}" if refused else ""
            file = f" {experiment.facts.path}" if experiment.facts.path else ""
            problems.append(
                f"facts: facts.size is {size}, the data set{file} has {count} {what}; give a smaller size{lint}"
            )


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


def notes_on(inputs: Inputs) -> tuple[str, ...]:
    """Return what the lint found, in one line, and what is asked besides facts."""
    notes = []
    findings = inputs.facts.findings
    if findings:
        counts = Counter((finding.refused, finding.reason) for finding in findings)
        refused = ", ".join(f"{reason} {count}" for (is_refused, reason), count in counts.most_common() if is_refused)
        marked = ", ".join(
            f"{reason} {count}" for (is_refused, reason), count in counts.most_common() if not is_refused
        )
        notes.append(
            f"facts: {len(inputs.requests)} of {inputs.facts.n_records} records; refused: {refused or 'none'}; marked: "
            f"{marked or 'none'} (palimpsest lint)"
        )
    left_out = len(inputs.requests) - len(inputs.orders[0].positions)
    if left_out and inputs.experiment.facts.order is None:
        notes.append(f"facts: {left_out} repeat a subject and are left out of the order")
    notes += [f"benchmark {each.name}: {each.n_examples} questions ({each.run_id})" for each in inputs.benchmarks]
    return tuple(notes)
