"""The fixed shape of the benchmarks: 12 blocks of 768, vocabulary 50,257, random weights from a seed, for every family.

Facts and contexts are the fact world's; :data:`ROW_TOKENS` holds their token lengths, so that FLOPs can be compared
between versions: they are part of what the targets mean.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from editing.factworld.tokenizer import build_tokenizer
from editing.factworld.world import World
from editing.methods.fact_rows import KL_PROMPT
from editing.model.lm import LanguageModel
from editing.requests import EditRequest, facts_with_variants

N_LAYERS, D, D_IN, VOCABULARY = 12, 768, 3072, 50257
_DECODER = {
    "hidden_size": D,
    "intermediate_size": D_IN,
    "num_hidden_layers": N_LAYERS,
    "num_attention_heads": 12,
    "num_key_value_heads": 4,
    "head_dim": 64,
}
_GPT = {"n_embd": D, "n_layer": N_LAYERS, "n_head": 12}
SHAPES: dict[str, dict[str, Any]] = {
    "gpt2": _GPT,
    "gptj": _GPT | {"rotary_dim": 32},
    "gpt_neox": {k: v for k, v in _DECODER.items() if k not in ("num_key_value_heads", "head_dim")},
    "llama": _DECODER,
    "mistral": _DECODER,
    "qwen2": {k: v for k, v in _DECODER.items() if k != "head_dim"},
    "qwen3": _DECODER,
    "gemma2": _DECODER,
    "gemma3_text": _DECODER,
    "phi3": {k: v for k, v in _DECODER.items() if k != "head_dim"},
}

LARGE: dict[str, tuple[str, dict[str, Any]]] = {
    "small": ("gpt2", _GPT | {"vocab_size": VOCABULARY}),
    "smollm2-135m": (
        "llama",
        {
            "hidden_size": 576,
            "intermediate_size": 1536,
            "num_hidden_layers": 30,
            "num_attention_heads": 9,
            "num_key_value_heads": 3,
            "vocab_size": 49152,
            "tie_word_embeddings": True,
        },
    ),
    "gptj-6b": ("gptj", {"n_embd": 4096, "n_layer": 28, "n_head": 16, "rotary_dim": 64, "vocab_size": 50400}),
    "llama-3-8b": (
        "llama",
        {
            "hidden_size": 4096,
            "intermediate_size": 14336,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "rope_theta": 500000.0,
            "vocab_size": 128256,
        },
    ),
}
"""Family and configuration of the shapes that are measured on an accelerator; ``small`` is the fixed one."""

ROW_TOKENS = (
    (6, 16, 16, 16, 15, 15, 4),
    (4, 14, 14, 14, 13, 13, 4),
    (7, 17, 17, 17, 16, 16, 5),
    (5, 15, 15, 15, 14, 14, 4),
    (6, 16, 16, 16, 15, 15, 4),
    (9, 19, 19, 19, 18, 18, 5),
    (5, 15, 15, 15, 14, 14, 5),
    (4, 14, 14, 14, 13, 13, 3),
)
"""Tokens of each row of the first facts' target search: the bare prompt, five prefixed ones, and the KL prompt.

Padded to the longest of a fact, 110 positions per fact on average."""


def fixed_shape(family: str = "gpt2", *, dtype: torch.dtype = torch.float32, device: str = "cpu") -> LanguageModel:
    """Return a random model of a family at the fixed shape."""
    return random_model(family, SHAPES[family] | {"vocab_size": VOCABULARY}, dtype=dtype, device=device)


def random_model(
    family: str, shape: Mapping[str, Any], *, dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> LanguageModel:
    """Return a model of a family and shape with random weights from a seed, made on its device."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, bos_token_id=0, eos_token_id=0, pad_token_id=0, **shape)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    return LanguageModel(model, build_tokenizer(bos=False), name=f"random-{family}")


@cache
def contexts(count: int = 5) -> tuple[str, ...]:
    """Return the bare context and ``count`` prefixes of about eleven tokens."""
    return ("", *(" ".join(World().corpus(1, seed=i)[0].split()[:8]) + ". " for i in range(count)))


def row_tokens(lm: LanguageModel, request: EditRequest) -> tuple[int, ...]:
    """Return the tokens of each row that a target search reads: prompts with all but the target's last, and the KL prompt."""
    prompts = lm.format.prompts([context + request.prompt for context in contexts()])
    (target,) = lm.format.answers([request.prompt], [request.target_new])
    (kl,) = lm.format.prompts([KL_PROMPT.replace("{}", request.subject)])
    return (*(len(ids) + len(target) - 1 for ids in prompts), len(kl))


def requests(lm: LanguageModel, count: int) -> list[EditRequest]:
    """Return the first facts of the world; behind them, those that it keeps for training, without their other answers.

    Raises:
        RuntimeError: There are fewer, or their rows no longer have the committed lengths, and the targets no longer mean
            what they meant.
    """
    world = World()
    found = world.requests()
    if count > len(found):
        found += [group[0] for group in facts_with_variants(world.training_requests(unknown=True))]
    if count > len(found):
        raise RuntimeError(f"the world has {len(found)} facts, {count} are wanted")
    found = found[:count]
    lengths = tuple(row_tokens(lm, request) for request in found[: len(ROW_TOKENS)])
    if lengths != ROW_TOKENS[: len(lengths)]:
        raise RuntimeError(f"the facts' rows have {lengths} tokens, expected {ROW_TOKENS}")
    return found


def corpus(lm: LanguageModel, count: int, length: int = 48) -> list[tuple[int, ...]]:
    """Return ``count`` token sequences of one length from the world's texts."""
    ids = [token for text in lm.format.prompts(World().corpus(count * length // 12)) for token in text]
    return [tuple(ids[i * length : (i + 1) * length]) for i in range(count)]


def random_moment(d_in: int = D_IN, seed: int = 0, device: str | torch.device = "cpu") -> Tensor:
    """Return a well-conditioned float64 second moment [d_in, d_in] as real ones look: a falling spectrum."""
    generator = torch.Generator(device).manual_seed(seed)
    keys = torch.randn(2 * d_in, d_in, generator=generator, dtype=torch.float64, device=device)
    keys *= torch.logspace(0, -2, d_in, dtype=torch.float64, device=device)
    return keys.T @ keys / len(keys)
