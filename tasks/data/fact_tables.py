"""What was understood of a file of facts: counts, first records with their subjects marked, and refusals."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from editing.requests import SLOT, EditRequest
from tasks.data.layouts import Facts

OPEN, CLOSE = "⟦", "⟧"
"""Around a subject in its prompt: brackets that texts hardly have."""
_FIELDS = {
    "paraphrase_prompts": "paraphrases",
    "neighborhood_prompts": "neighbors",
    "question_prompts": "questions",
    "completion_prompts": "completions",
    "generation_prompts": "generations",
}


def fact_rows(facts: Facts, count: int) -> list[dict[str, Any]]:
    """Return a row for each of the first facts: its prompt with the subject marked, both answers, and how many prompts."""
    shown = facts.requests[:count]
    kept = [name for name in _FIELDS if any(getattr(request, name) for request in facts.requests)]
    return [
        {
            "fact": request.request_id,
            "prompt": marked(request),
            "target_new": request.target_new,
            "target_true": request.target_true or None,
            **{_FIELDS[name]: len(getattr(request, name)) for name in kept},
        }
        for request in shown
    ]


def marked(request: EditRequest) -> str:
    """Return a request's prompt with its subject in brackets."""
    return request.template.replace(SLOT, f"{OPEN}{request.subject}{CLOSE}", 1) if request.subject else request.template


def fact_lines(facts: Facts) -> Iterator[str]:
    """Yield in sentences how many facts there are, what they lack, and which subjects stand twice."""
    requests = facts.requests
    refused = facts.n_records - len(requests)
    yield f"{facts.n_records} records, {len(requests)} of them facts that can be edited" + (
        f", {refused} refused" if refused else ""
    )
    named = [request for request in requests if request.subject]
    if len(named) < len(requests):
        yield f"{len(requests) - len(named)} have no subject: only editors that look for none take them (ft, grace, malmen ...)"
    lacking = sum(not request.target_true for request in requests)
    if lacking:
        yield (
            f"{lacking} have no target_true: an edit of theirs counts where every token of target_new is the likeliest; with "
            "it an edit counts where target_new is likelier than target_true"
        )
    if not any(request.paraphrase_prompts for request in requests):
        yield "no paraphrase_prompts: whether edits carry over to other words is not scored (PS, and S)"
    if not any(request.neighborhood_prompts for request in requests):
        yield "no neighborhood_prompts: whether other facts are left alone is not scored (NS, and S)"
    counts = Counter(request.subject.casefold().strip() for request in named)
    if again := sum(count - 1 for count in counts.values() if count > 1):
        yield f"{again} repeat a subject: a sequential run edits each subject once and leaves them out"
