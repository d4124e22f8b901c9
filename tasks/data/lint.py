"""What is wrong with a data set's facts: which are refused, which only marked, and why."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from editing.errors import TokenizationError
from editing.measure.scores import probes_of
from editing.requests import EditRequest

if TYPE_CHECKING:
    from editing.model.tokens import PromptFormat


class Finding(NamedTuple):
    """One thing about one fact."""

    fact_id: str
    reason: str
    refused: bool
    """Whether the fact is left out; else it is only marked."""
    detail: str
    probe_id: str | None = None


def lint_requests(requests: Sequence[EditRequest]) -> list[Finding]:
    """Return what the texts alone show."""
    found: list[Finding] = []
    facts = set[tuple[str, str, str]]()
    for request in requests:
        ident, content = request.request_id, (request.prompt, request.target_new, request.target_true)
        if content in facts:
            found.append(
                Finding(ident, "duplicate fact", True, f"another fact says {request.prompt!r} with these targets")
            )
        elif request.target_new.strip() == request.target_true.strip():
            found.append(Finding(ident, "targets equal", True, f"both targets are {request.target_new!r}"))
        else:
            found += _prompts(request)
        facts.add(content)
    return found


def _prompts(request: EditRequest) -> Iterator[Finding]:
    """Yield what marks a fact's prompts; they are kept as they are."""
    subject, ident = request.subject.casefold(), request.request_id
    if any(brace in request.template.replace("{}", "", 1) + request.subject for brace in "{}"):
        yield Finding(
            ident, "braces", False, f"{request.prompt!r} has braces; other code fills templates with str.format"
        )
    for probe in probes_of(request, ("paraphrase", "neighborhood")):
        mine = subject and subject in probe.prompt.casefold()
        if probe.kind == "neighborhood":
            if mine:
                yield Finding(ident, "neighbor names the subject", False, probe.prompt, probe.probe_id)
        elif probe.prompt.strip() == request.prompt.strip():
            yield Finding(ident, "paraphrase is the prompt", False, probe.prompt, probe.probe_id)
        elif probe.prompt in request.generation_prompts:
            yield Finding(ident, "paraphrase is a generation prompt", False, probe.prompt, probe.probe_id)
        elif subject and not mine:
            yield Finding(ident, "paraphrase lacks the subject", False, probe.prompt, probe.probe_id)


def lint_tokens(form: "PromptFormat", requests: Sequence[EditRequest]) -> list[Finding]:
    """Return what a tokenizer does to facts: a subject whose last token is lost or the first of all, targets that it cannot
    carry or join, tokens for which the model has no embedding."""
    found: list[Finding] = []
    for start in range(0, len(requests), 256):
        some = requests[start : start + 256]
        try:
            found += _tokens(form, some)
        except TokenizationError:  # one of them, at least: one by one says which
            for request in some:
                try:
                    found += _tokens(form, [request])
                except TokenizationError as error:
                    found.append(Finding(request.request_id, error.reason, True, str(error)))
    return found


def _tokens(form: "PromptFormat", requests: Sequence[EditRequest]) -> Iterator[Finding]:
    named = [request for request in requests if request.subject]
    places = form.lookups([request.prompt for request in named], [request.subject_end for request in named])
    for request, prompt in zip(named, places, strict=True):
        wanted = _bare(request.prompt[: request.subject_end])
        up_to = _bare(form.decode(prompt.ids[: prompt.lookup + 1]))
        before = _bare(form.decode(prompt.ids[: prompt.lookup]))
        if wanted not in up_to or wanted in before:
            detail = f"{request.prompt!r}: decoding up to its last token gives {up_to!r}"
            yield Finding(request.request_id, "subject's last token not found", True, detail)
        elif prompt.lookup == 0:
            detail = f"{request.prompt!r}: its state is that of a text's first token, whatever the subject (text_start)"
            yield Finding(request.request_id, "nothing in front of the subject", False, detail)
    if form.oversized:
        probes = [probe for request in requests for probe in probes_of(request)]
        form.prompts([probe.prompt for probe in probes])
        for field in ("target_new", "target_true"):
            known = [probe for probe in probes if getattr(probe, field)]
            form.answers([probe.prompt for probe in known], [getattr(probe, field) for probe in known])
    for field in ("target_new", "target_true"):
        answered = [request for request in requests if getattr(request, field)]
        answers = [getattr(request, field) for request in answered]
        prompts = [request.prompt for request in answered]
        form.answers(prompts, answers)
        for request, answer, joins in zip(answered, answers, form.joins(prompts, answers), strict=True):
            if not joins:
                detail = f"{field} {answer!r} changes the tokens of {request.prompt!r}; it is tokenised by itself"
                yield Finding(request.request_id, "target unstable when joined", False, detail)


def _bare(text: str) -> str:
    """Return a text without what decoding may change: spaces and case."""
    return "".join(text.split()).casefold()


def summary(n_records: int, findings: Sequence[Finding]) -> list[dict[str, Any]]:
    """Return a row per reason: how many facts, and one of them; the first row counts all."""
    refused = {finding.fact_id for finding in findings if finding.refused}
    rows: list[dict[str, Any]] = [
        {"reason": "(records read)", "refused": "", "facts": n_records, "for example": ""},
        {"reason": "(facts refused)", "refused": "yes", "facts": len(refused), "for example": ""},
    ]
    counts = Counter((f.reason, f.refused) for f in {(f.fact_id, f.reason): f for f in findings}.values())
    for (reason, refuses), count in counts.most_common():
        first = next(f for f in findings if f.reason == reason)
        example = f"{first.probe_id or first.fact_id}: {first.detail}"
        rows.append(
            {"reason": reason, "refused": "yes" if refuses else "no", "facts": count, "for example": example[:300]}
        )
    return rows


def balance(requests: Sequence[EditRequest]) -> list[dict[str, Any]]:
    """Return how evenly facts are spread over relations and objects: a row per relation; none where facts have no relation."""
    mine: dict[str, list[EditRequest]] = {}
    for request in requests:
        if request.relation:
            mine.setdefault(request.relation, []).append(request)
    rows = []
    for relation, facts in sorted(mine.items()):
        true, new = (Counter(getattr(fact, name) for fact in facts) for name in ("target_true", "target_new"))
        neighbors = [len(fact.neighborhood_prompts) for fact in facts]
        rows.append(
            {
                "relation": relation,
                "facts": len(facts),
                "true answers": len(true),
                "facts per true answer": _range(true.values()),
                "new targets": len(new),
                "facts per new target": _range(new.values()),
                "neighbors": _range(neighbors),
            }
        )
    return rows


def _range(counts: Iterable[int]) -> str:
    least, most = min(counts := list(counts)), max(counts)
    return str(least) if least == most else f"{least}–{most}"
