"""Whether what facts are asked fits into the model's context, before any work."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from editing.measure.scores import probes_of
from editing.requests import EditRequest
from flows.inputs import Inputs
from flows.spec import ScoreSpec
from storage.digests import digest_of
from tasks.cache import remembered

if TYPE_CHECKING:
    from editing.model.tokens import PromptFormat


def check_context_length(inputs: Inputs, prefixes: Iterable[str], problems: list[str]) -> None:
    """Add which prompts leave no room for their answers, or for the text that the model is to write.

    Args:
        prefixes: Given context prefixes, of which the longest stands before every fact that is edited.
    """
    context = inputs.checked.context
    if context is None:
        return
    experiment = inputs.experiment
    chosen = sorted({i for order in inputs.orders for i in order.positions[: experiment.facts.size]})
    asked = [found for i in chosen for found in _asked(inputs.requests[i], experiment.score)]
    if longest := max(prefixes, key=len, default=""):
        edited = (inputs.requests[i] for i in chosen)
        asked += [(f"{r.request_id} behind a context prefix", longest + r.prompt, r.target_new, 0) for r in edited]
    # A text has at most as many tokens as bytes (a template's aside): most need no tokenizer.
    near = [each for each in asked if inputs.model.chat is not False or _n_bytes(each) + 3 > context]
    made_of = {"form": inputs.checked.form_key, "asked": digest_of(near)}
    needs = remembered("lengths", made_of, lambda: _needs(inputs.checked.form, near)) if near else []
    lost = [(need, each) for need, each in zip(needs, near, strict=True) if need > context]
    if not lost:
        return
    need, (fact_id, prompt, _, _) = max(lost)
    shown = prompt if len(prompt) <= 80 else f"{prompt[:77]}..."
    n_prompts, n_facts = len({each[:2] for _, each in lost}), len({each[0] for _, each in lost})
    problems.append(
        f"facts: {n_prompts} prompts of {n_facts} facts do not fit into the model's context of {context} tokens; the longest, "
        f"of {fact_id}, needs {need} with what follows it: {shown!r}; give smaller score.text_tokens and "
        "score.generation.tokens or a shorter prefix, or leave these facts out"
    )


Asked = tuple[str, str, str, int]
"""A fact's id, a prompt of it, an answer that is scored after it (may be empty), and how many tokens are written after it."""


def _asked(request: EditRequest, score: ScoreSpec) -> Iterator[Asked]:
    for probe in probes_of(request):
        for answer in (probe.target_new, probe.target_true):
            yield request.request_id, probe.prompt, answer, score.text_tokens
    if score.generation is not None:
        for prompt in request.generation_prompts or (request.prompt,):
            yield request.request_id, prompt, "", score.generation.tokens


def _n_bytes(asked: Asked) -> int:
    _, prompt, answer, n_tokens = asked
    return len(prompt.encode()) + max(len(answer.encode()) + 1, n_tokens)


def _needs(prompt_format: "PromptFormat", asked: list[Asked]) -> list[int]:
    prompts = [prompt for _, prompt, _, _ in asked]
    answered = [place for place, (_, _, answer, _) in enumerate(asked) if answer]
    answers = prompt_format.answers([prompts[i] for i in answered], [asked[i][2] for i in answered])
    tails = [n_tokens for *_, n_tokens in asked]
    for place, answer in zip(answered, answers, strict=True):
        tails[place] = max(tails[place], len(answer))
    return [len(head) + tail for head, tail in zip(prompt_format.prompts(prompts), tails, strict=True)]
