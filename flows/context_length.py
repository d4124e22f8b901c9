"""Whether what facts are asked fits into the model's context, before any work."""

from collections.abc import Iterable

from flows.inputs import Inputs
from tasks.data.prompt_lengths import asked_of, edited_behind, too_long


def check_context_length(inputs: Inputs, prefixes: Iterable[str], problems: list[str]) -> None:
    """Add which prompts leave no room for their answers, or for the text that the model is to write.

    Args:
        prefixes: Given context prefixes, of which the longest stands before every fact that is edited.
    """
    size, score = inputs.size, inputs.experiment.score
    chosen = [inputs.requests[i] for i in sorted({i for order in inputs.orders for i in order.positions[:size]})]
    generated = None if score.generation is None else score.generation.tokens
    asked = [
        found
        for request in chosen
        for found in asked_of(request, text_tokens=score.text_tokens, generated_tokens=generated)
    ]
    if longest := max(prefixes, key=len, default=""):
        asked += edited_behind(longest, chosen)
    if (lost := too_long(inputs.checked, asked)) is None:
        return
    prompt = lost.longest.prompt
    shown = prompt if len(prompt) <= 80 else f"{prompt[:77]}..."
    problems.append(
        f"facts: {lost.n_prompts} prompts of {lost.n_facts} facts do not fit into the context of {inputs.model.name}, "
        f"{inputs.checked.context} tokens; the longest, of {lost.longest.of}, needs {lost.needed} with what follows it: "
        f"{shown!r}; give smaller score.text_tokens and score.generation.tokens or a shorter prefix, or take other facts "
        "(facts.seed, facts.order)"
    )
