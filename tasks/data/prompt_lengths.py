"""How many tokens what facts are asked takes, with what is answered or written behind it."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from editing.measure.scores import probes_of
from editing.requests import EditRequest
from storage.digests import digest_of
from tasks.cache import remembered
from tasks.data.checked_model import CheckedModel

if TYPE_CHECKING:
    from editing.model.tokens import PromptFormat


class Asked(NamedTuple):
    """One prompt, and what stands behind it."""

    of: str
    """The fact, and what of it."""
    prompt: str
    answer: str
    """What is scored behind it; may be empty."""
    n_tokens: int
    """How many tokens are written behind it."""


class TooLong(NamedTuple):
    """What does not fit into a model's context."""

    longest: Asked
    needed: int
    """The tokens of the longest, with what follows it."""
    n_prompts: int
    n_facts: int


def asked_of(request: EditRequest, *, text_tokens: int, generated_tokens: int | None) -> Iterator[Asked]:
    """Yield what one fact is asked: its probes with either answer, and its texts.

    Args:
        text_tokens: Tokens that are written behind each probe.
        generated_tokens: Tokens of a free text about its subject; None if there is none.
    """
    for probe in probes_of(request):
        for answer in filter(None, (probe.target_new, probe.target_true)):
            yield Asked(request.request_id, probe.prompt, answer, text_tokens)
    if generated_tokens is not None:
        for prompt in request.generation_prompts or (request.prompt,):
            yield Asked(request.request_id, prompt, "", generated_tokens)


def edited_behind(prefix: str, requests: Iterable[EditRequest]) -> list[Asked]:
    """Return what is edited behind a context prefix."""
    return [Asked(f"{r.request_id} behind a context prefix", prefix + r.prompt, r.target_new, 0) for r in requests]


def too_long(model: CheckedModel, asked: Sequence[Asked]) -> TooLong | None:
    """Return what does not fit into the model's context; None if all does."""
    if model.context is None:
        return None
    # A text has at most as many tokens as bytes (a template's aside): most need no tokenizer.
    near = [each for each in asked if model.ref.chat is not False or _n_bytes(each) + 3 > model.context]
    made_of = {"form": model.form_key, "asked": digest_of(near)}
    needs = remembered("lengths", made_of, lambda: _needs(model.form, near)) if near else []
    lost = [(need, each) for need, each in zip(needs, near, strict=True) if need > model.context]
    if not lost:
        return None
    needed, longest = max(lost)
    n_prompts, n_facts = len({each[:2] for _, each in lost}), len({each.of for _, each in lost})
    return TooLong(longest, needed, n_prompts, n_facts)


def _n_bytes(asked: Asked) -> int:
    return len(asked.prompt.encode()) + max(len(asked.answer.encode()) + 1, asked.n_tokens)


def _needs(form: "PromptFormat", asked: Sequence[Asked]) -> list[int]:
    prompts = [each.prompt for each in asked]
    answered = [place for place, each in enumerate(asked) if each.answer]
    answers = form.answers([prompts[i] for i in answered], [asked[i].answer for i in answered])
    tails = [each.n_tokens for each in asked]
    for place, answer in zip(answered, answers, strict=True):
        tails[place] = max(tails[place], len(answer))
    return [len(head) + tail for head, tail in zip(form.prompts(prompts), tails, strict=True)]
