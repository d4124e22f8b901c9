"""Where facts are looked for: the layer searches and traces of an experiment."""

from flows.inputs import Inputs
from flows.run_specs import card_of, check_layers, layers_refusal, run_of
from flows.spec import EditorSpec, SearchSpec
from tasks.units.search import SearchPlan
from tasks.units.trace import TraceJob


def searches_of(inputs: Inputs, problems: list[str]) -> list[SearchPlan]:
    """Return the layer search of each editor that is to make one; add what is wrong with them."""
    wanted = inputs.experiment.locate.search
    if wanted is None:
        return []
    candidates = tuple(range(inputs.model.n_layers)) if wanted.layers == "all" else tuple(wanted.layers)
    check_layers(inputs.model, candidates, "locate.search.layers", problems)
    if wanted.edits > len(inputs.requests):
        problems.append(f"locate.search.edits is {wanted.edits}, the data set has {len(inputs.requests)} facts")
        return []
    editors = [wanted.editor] if isinstance(wanted.editor, str) else wanted.editor
    found = [_search(inputs, wanted, name, candidates, problems) for name in dict.fromkeys(editors)]
    return [search for search in found if search is not None]


def _search(
    inputs: Inputs, wanted: SearchSpec, editor: str, candidates: tuple[int, ...], problems: list[str]
) -> SearchPlan | None:
    spec = EditorSpec(name=editor, contexts_file=wanted.contexts_file)
    card = card_of(spec, inputs, "locate.search.editor", problems)
    if card is None:
        return None
    if (why := layers_refusal(inputs, card, candidates[:1], None)) is not None or "network" in card.needs:
        problems.append(
            f"locate.search.editor: {why or f'{card.name} is trained for its layers, so it cannot search them'}"
        )
        return None
    template = run_of(inputs, card, (), None, batch_size=1, mode="independent", sample=0, seed=0)
    return SearchPlan(
        template=template,
        layers=candidates,
        facts_run_id=inputs.facts_run_id,
        positions=inputs.tail(wanted.edits),
        keep=wanted.keep,
    )


def trace_of(inputs: Inputs) -> TraceJob | None:
    """Return what is traced; None if nothing is."""
    wanted = inputs.experiment.locate.trace
    if wanted is None:
        return None
    order = inputs.orders[0]
    return TraceJob(
        model=inputs.model,
        facts_run_id=inputs.facts_run_id,
        facts_digest=inputs.digest,
        order={"name": order.name, "digest": order.digest, "seed": inputs.experiment.facts.seed},
        # Those that runs of sample 0 edit last, if at all, come first.
        candidates=tuple(reversed(order.positions)),
        wanted=min(wanted.facts, len(order.positions)),
        rule="whole_answer" if inputs.experiment.protocol == "code" else "first_token",
        samples=wanted.samples,
        window=wanted.window,
        noise=wanted.noise,
        threads=inputs.experiment.compute.threads,
    )
