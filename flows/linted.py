"""What `palimpsest lint` says of an experiment's facts."""

from typing import Any

from flows.inputs import knowledge_job, read_facts, read_model
from flows.spec import Experiment
from storage.locations import is_store
from storage.store import Store
from tasks.data.facts import facts_digest
from tasks.data.lint import balance, summary
from tasks.units.knowledge import RULES


def linted(experiment: Experiment) -> tuple[list[list[dict[str, Any]]], list[str]]:
    """Return what was found wrong and how facts are spread, as tables, and what else there is to say.

    Raises:
        InputError: Model or facts cannot be had.
    """
    model = read_model(experiment)
    facts = read_facts(experiment, model)
    named = sum(bool(request.subject) for request in facts.requests)
    said = [
        f"facts that can be edited: {len(facts.requests)}; of {named} the subject's last token was decoded and is right"
    ]
    trace, rule = experiment.locate.trace, experiment.facts.known
    knowledge = knowledge_job(experiment, model.ref, facts_digest(facts.requests), len(facts.requests))
    store = Store(experiment.store) if is_store(experiment.store) else None
    if store is not None and knowledge.is_done(store):
        known = {each: len(knowledge.known(store, each)) for each in RULES}
        counts = ", ".join(f"{count} by {each}" for each, count in known.items())
        said.append(f"facts that {model.ref.name} knows: {counts}")
        if trace is not None and (count := known[rule or "first_token"]) < trace.facts:
            said.append(f"locate.trace.facts is {trace.facts}, and {count} are known: only these are traced")
    elif rule is not None:
        said.append(f"facts.known: {rule}: nobody has asked the model yet; palimpsest run asks it first")
    return [summary(facts.n_records, facts.findings), balance(facts.requests)], said
