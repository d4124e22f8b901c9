"""What every part of a plan looks at: the model, the facts, and where second moments come from."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flows.benchmarks import AskedBenchmark, publish_benchmark, read_benchmarks
from flows.corpora import moment_problems, moments_recipe, perplexity_recipe
from flows.given_targets import publish_given_targets
from flows.spec import Experiment, FactsSpec, ModelSpec, errors_of
from storage.locations import is_store
from storage.store import Store
from tasks.cache import remembered
from tasks.data.checked_model import CheckedModel, checked_model
from tasks.data.facts import facts_digest, load_facts, publish_facts, without_refused
from tasks.data.layouts import Facts
from tasks.data.lint import Finding, lint_tokens
from tasks.data.model_files import resolve_model
from tasks.data.orders import Order, check_disjoint, disjoint_orders, listed_order, publish_order, seeded_order
from tasks.errors import InputError
from tasks.specs.editor_card import editor_needs
from tasks.specs.recipes import MomentsRecipe, Recipe
from tasks.specs.run import ModelRef, RunSpec
from tasks.specs.scoring import BenchmarkRef
from tasks.units.knowledge import KnowledgeJob


@dataclass(frozen=True)
class Inputs:
    """What an experiment's plan is made of, each read once; what is wrong with it is kept for the plan to tell."""

    experiment: Experiment
    checked: CheckedModel
    facts: Facts
    digest: str
    moments: MomentsRecipe
    orders: tuple[Order, ...]
    """Of each sample."""
    size: int
    """Facts of each sample."""
    asked: tuple[AskedBenchmark, ...]
    perplexity: Recipe | None
    knowledge: KnowledgeJob | None = None
    """What the model is asked before the facts that it knows are taken."""
    known: frozenset[int] | None = None
    """The places of these facts; None if all are taken, or nobody has asked yet."""
    problems: list[str] = field(default_factory=list)

    @property
    def model(self) -> ModelRef:
        return self.checked.ref

    @property
    def benchmarks(self) -> tuple[BenchmarkRef, ...]:
        return tuple(each.reference for each in self.asked)

    @property
    def facts_run_id(self) -> str:
        return f"facts-{self.digest}"

    @property
    def requests(self) -> list[Any]:
        return self.facts.requests

    @property
    def is_asked(self) -> bool:
        """Whether it is settled which facts are taken."""
        return self.knowledge is None or self.known is not None

    def tail(self, count: int) -> tuple[int, ...]:
        """Positions of facts for tracing and search: those that runs of sample 0 edit last, if at all."""
        return self.orders[0].positions[-count:]


def publish_inputs(inputs: Inputs) -> None:
    """Write an experiment's facts and questions to its store, so that workers can read them."""
    store = Store(inputs.experiment.store, create=True)
    store.refuse_summary("run")
    facts_run_id = publish_facts(store, inputs.facts)
    for order in inputs.orders if inputs.is_asked else ():
        publish_order(store, facts_run_id, inputs.requests, order)
    for benchmark in inputs.asked:
        publish_benchmark(benchmark, store)
    publish_given_targets(inputs, store)


def read_model(experiment: Experiment) -> CheckedModel:
    """Return the model, its folder and its tokenizer looked at.

    Raises:
        InputError: It cannot be had, is not whole, or cannot be used as the experiment says.
    """
    return model_of(experiment.model)


def model_of(spec: ModelSpec) -> CheckedModel:
    """Return a model as it is asked for; raises as :func:`read_model` does."""
    return checked_model(
        resolve_model(
            spec.name,
            revision=spec.revision,
            dtype=spec.dtype,
            chat=spec.chat,
            text_start=spec.text_start,
            adapter=spec.adapter,
        )
    )


def read_facts(experiment: Experiment, model: CheckedModel) -> Facts:
    """Return the facts that the texts themselves and the model's tokenizer allow."""
    return checked_facts(experiment.facts, model)


def checked_facts(spec: FactsSpec, model: CheckedModel) -> Facts:
    """Return the facts of a data set, as a model reads them."""
    facts = load_facts(
        spec.name,
        path=spec.path,
        hub=spec.hub,
        revision=spec.revision,
        split=spec.split,
        completions=spec.completions,
        model=model.ref.name,
    )
    if spec.name == "factworld" and not model.oversized:  # its words are plain
        return facts
    made_of = {"form": model.form_key, "facts": facts_digest(facts.requests)}
    found = remembered("lint", made_of, lambda: lint_tokens(model.form, facts.requests))
    return without_refused(facts, [Finding(*each) for each in found])


def orders_of(
    experiment: Experiment, requests: list[Any], known: frozenset[int] | None = None
) -> tuple[tuple[Order, ...], int]:
    """Return the order in which each sample takes the facts, in a sequential run no subject twice, and how many it takes.

    Args:
        known: The places of the facts that are taken; all unless given.
    """
    spec = experiment.facts
    how: dict[str, Any] = {"distinct": experiment.mode == "sequential", "among": known}
    samples = range(spec.samples)
    first = None if spec.order is not None else seeded_order(requests, sample=0, seed=spec.seed, **how)
    if spec.disjoint and first is not None:
        size = _share(experiment, len(first.positions), spec.samples) if spec.size == "all" else spec.size
        return disjoint_orders(requests, first, size=size, samples=spec.samples), size
    if spec.order is not None:
        orders = tuple(listed_order(requests, Path(spec.order), sample=i, **how) for i in samples)
    else:
        orders = tuple(seeded_order(requests, sample=i, seed=spec.seed, **how) for i in samples)
    size = _share(experiment, min(len(order.positions) for order in orders), 1) if spec.size == "all" else spec.size
    if spec.disjoint and spec.order is not None:
        check_disjoint(requests, [order.positions[:size] for order in orders], spec.order)
    return orders, size


def _trained_on(experiment: Experiment) -> int:
    """Return how many of a data set's facts hyper-networks are trained on."""
    trained = experiment.facts.name != "factworld" and any(
        "network" in editor_needs(e.name) for e in experiment.editors
    )
    return experiment.training.facts if trained else 0


def _share(experiment: Experiment, count: int, samples: int) -> int:
    """Return how many facts there are for each of some samples, beside those that hyper-networks are trained on.

    Raises:
        InputError: There is none for one of them.
    """
    kept = _trained_on(experiment)
    size = (count - kept) // samples
    if size < 1:
        of = f" and {kept} are kept for training (training.facts)" if kept else ""
        raise InputError(
            f"there are {count} facts for {samples} disjoint samples{of}, so that none is left for one; give more facts, or "
            f"lower {'training.facts' if kept else 'facts.samples'}"
        )
    return size


def read_inputs(experiment: Experiment) -> Inputs:
    """Read all that an experiment's plan is made of, and publishes, once.

    Raises:
        SpecError: Model, facts, their order or their texts cannot be had; lists everything that was found by then.
    """
    problems: list[str] = []
    model, facts = None, None
    try:
        model = read_model(experiment)
    except InputError as error:
        problems.append(f"model: {error}")
    try:
        facts = None if model is None else read_facts(experiment, model)
    except (InputError, ValueError) as error:
        problems.append(f"facts: {error}")
    asked = read_benchmarks(experiment, model, problems)
    if model is None or facts is None:
        raise errors_of(experiment, problems)
    digest = facts_digest(facts.requests)
    knowledge, known = knowledge_of(experiment, model.ref, digest, len(facts.requests))
    try:
        orders, size = orders_of(experiment, facts.requests, known)
    except InputError as error:
        where = (
            "facts.order: "
            if known is None
            else f"facts.known: the model knows {len(known)} facts by {experiment.facts.known}: "
        )
        raise errors_of(experiment, [*problems, f"{where}{error}"]) from error
    if unreadable := moment_problems(experiment):
        raise errors_of(experiment, [*problems, *unreadable])
    facts_run_id = f"facts-{digest}"
    has_texts = any(request.neighborhood_prompts for request in facts.requests)
    perplexity = perplexity_recipe(experiment, model.ref, facts_run_id, problems, has_texts=has_texts)
    moments = moments_recipe(experiment, model.ref, facts_run_id, facts.requests)
    return Inputs(
        experiment, model, facts, digest, moments, orders, size, asked, perplexity, knowledge, known, problems
    )


def knowledge_of(
    experiment: Experiment, model: ModelRef, digest: str, n_facts: int
) -> tuple[KnowledgeJob | None, frozenset[int] | None]:
    """Return what the model is to be asked before facts are taken, and which it knows, if it has been asked already."""
    rule = experiment.facts.known
    if rule is None:
        return None, None
    job = knowledge_job(experiment, model, digest, n_facts)
    store = Store(experiment.store) if is_store(experiment.store) else None
    return job, job.known(store, rule) if store is not None and job.is_done(store) else None


def knowledge_job(experiment: Experiment, model: ModelRef, digest: str, n_facts: int) -> KnowledgeJob:
    """Return the questions that a model is asked of the facts."""
    return KnowledgeJob(
        model=model,
        facts_run_id=f"facts-{digest}",
        facts_digest=digest,
        n_facts=n_facts,
        threads=experiment.compute.threads,
        every=experiment.facts.ask_every,
    )


def check_facts(inputs: Inputs, problems: list[str]) -> None:
    """Add what keeps the samples from being edited."""
    experiment = inputs.experiment
    size, count = inputs.size, len(inputs.requests)
    if inputs.knowledge is not None:
        if not any(request.target_true for request in inputs.requests):
            problems.append(
                "facts.known: none of the facts has target_true, which is what the model would be asked for"
            )
        wanted = size * (experiment.facts.samples if experiment.facts.disjoint else 1)
        if not inputs.is_asked and experiment.facts.size != "all" and wanted > inputs.knowledge.n_asked:
            problems.append(
                f"facts.ask_every: the model is asked {inputs.knowledge.n_asked} of {count} facts, and {wanted} are to be "
                "edited; ask more of them, or give a smaller size"
            )
    for sample, order in enumerate(inputs.orders):
        if (found := len(order.positions)) < size:
            what = (
                "facts"
                if found == count
                else f"facts, of which the model knows {len(inputs.known)} by {experiment.facts.known} and {found} are of "
                f"different subjects in sample {sample}"
                if inputs.known is not None
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


def warnings_on(inputs: Inputs) -> Iterator[str]:
    """Say where facts of one data set are scored by two rules."""
    lacking = sum(not request.target_true for request in inputs.requests)
    if 0 < lacking < len(inputs.requests):
        yield (
            f"facts: {lacking} of {len(inputs.requests)} have no target_true: theirs count where every token of target_new is "
            "the likeliest, the others' where it is likelier than target_true, and ES and PS are means over both; give it to "
            "all, or to none"
        )


def notes_on(inputs: Inputs) -> tuple[str, ...]:
    """Return what the lint found, in one line, and what is asked besides facts."""
    notes = [] if inputs.model.source is None else [f"model {inputs.model.name}: {inputs.model.source}"]
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
    if not any(request.target_true for request in inputs.requests):
        notes.append(
            "facts: none has target_true: an edit counts where every token of target_new is the likeliest (docs/scores.md)"
        )
    notes += _notes_on_knowledge(inputs)
    taken = len(inputs.requests) if inputs.known is None else len(inputs.known)
    left_out = taken - len(inputs.orders[0].positions)
    if left_out and inputs.experiment.facts.order is None:
        notes.append(f"facts: {left_out} repeat a subject and are left out of the order")
    if inputs.experiment.facts.size == "all":
        kept = _trained_on(inputs.experiment)
        beside = f" beside the {kept} that networks are trained on" if kept else ""
        notes.append(f"facts: all {inputs.size} that there are{beside} (facts.size takes fewer)")
    notes += [f"benchmark {each.name}: {each.n_examples} questions ({each.run_id})" for each in inputs.benchmarks]
    return tuple(notes)


def _notes_on_knowledge(inputs: Inputs) -> Iterator[str]:
    """Say how many facts the model knows, or that it is asked first."""
    if inputs.knowledge is None:
        return
    rule, count, n_facts = inputs.experiment.facts.known, inputs.knowledge.n_asked, len(inputs.requests)
    asked = f"all {count} facts" if count == n_facts else f"{count} of {n_facts} facts"
    if inputs.known is None:
        yield (
            f"facts.known: {rule}: the model is asked {asked} first (view knowledge); the runs below are those if it "
            "knew them all, and get their names once it has been asked"
        )
        return
    of = f"{count}" if count == n_facts else f"{count} that it was asked"
    yield f"facts.known: {rule}: the model knows {len(inputs.known)} of {of} (view knowledge)"
    trace = inputs.experiment.locate.trace
    if trace is not None and trace.facts > len(inputs.known):
        yield f"locate.trace.facts is {trace.facts}, and the model knows {len(inputs.known)}: only these are traced"
