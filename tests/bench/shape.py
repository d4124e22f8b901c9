"""The fixed shape of the benchmarks: 12 blocks of 768, vocabulary 50,257, random weights from a seed, for every family.

Facts and contexts are the fact world's; :data:`ROW_TOKENS` holds their token lengths, so that FLOPs can be compared
between versions: they are part of what the targets mean.
"""

from functools import cache
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from editing.factworld.tokenizer import build_tokenizer
from editing.factworld.world import World
from editing.lm import LanguageModel
from editing.requests import EditRequest
from editing.targets import KL_PROMPT

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
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        family, vocab_size=VOCABULARY, bos_token_id=0, eos_token_id=0, pad_token_id=0, **SHAPES[family]
    )
    model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    return LanguageModel(model.to(device), build_tokenizer(bos=False), name=f"random-{family}-{N_LAYERS}x{D}")


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
    """Return the first facts of the world.

    Raises:
        RuntimeError: Their rows no longer have the committed lengths, and the targets no longer mean what they meant.
    """
    found = World().requests()[:count]
    lengths = tuple(row_tokens(lm, request) for request in found[: len(ROW_TOKENS)])
    if lengths != ROW_TOKENS[: len(lengths)]:
        raise RuntimeError(f"the facts' rows have {lengths} tokens, expected {ROW_TOKENS}")
    return found


def corpus(lm: LanguageModel, count: int, length: int = 48) -> list[tuple[int, ...]]:
    """Return ``count`` token sequences of one length from the world's texts."""
    ids = [token for text in lm.format.prompts(World().corpus(count * length // 12)) for token in text]
    return [tuple(ids[i * length : (i + 1) * length]) for i in range(count)]


def random_moment(d_in: int = D_IN, seed: int = 0) -> Tensor:
    """Return a well-conditioned float64 second moment [d_in, d_in] as real ones look: a falling spectrum."""
    generator = torch.Generator().manual_seed(seed)
    keys = torch.randn(2 * d_in, d_in, generator=generator, dtype=torch.float64)
    keys *= torch.logspace(0, -2, d_in, dtype=torch.float64)
    return keys.T @ keys / len(keys)
