"""Small random models of every family, and a tokenizer built here; nothing is downloaded."""

from functools import lru_cache
from typing import Any

import torch
from transformers import AutoConfig

from editing.factworld.tokenizer import build_tokenizer
from editing.factworld.world import World
from editing.model.families import FAMILIES
from editing.model.heads import HEADS
from editing.model.lm import LanguageModel
from editing.requests import EditRequest

_DECODER = {
    "hidden_size": 32,
    "intermediate_size": 80,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 96,
}
_GEMMA = _DECODER | {"head_dim": 8, "sliding_window": 96}
SHAPES: dict[str, dict[str, Any]] = {
    "gpt2": {"n_embd": 32, "n_layer": 4, "n_head": 4, "n_positions": 96},
    "gptj": {"n_embd": 32, "n_layer": 4, "n_head": 4, "n_positions": 96, "rotary_dim": 4},
    "gpt_neox": {k: v for k, v in _DECODER.items() if k != "num_key_value_heads"},
    "llama": _DECODER,
    "mistral": _DECODER | {"sliding_window": 96},
    "qwen2": _DECODER,
    "qwen3": _DECODER | {"head_dim": 8},
    "gemma2": _GEMMA | {"final_logit_softcapping": 3.0},
    "gemma3_text": _GEMMA,
    "phi3": _DECODER,
    "bert": {
        "hidden_size": 32,
        "intermediate_size": 80,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "max_position_embeddings": 96,
        "id2label": {0: "false", 1: "true"},
        "label2id": {"false": 0, "true": 1},
    },
    "t5": {"d_model": 32, "d_kv": 8, "d_ff": 80, "num_layers": 2, "num_heads": 4, "decoder_start_token_id": 0},
}
assert set(SHAPES) == set(FAMILIES), "every row of the family table is tested"
DECODERS = sorted(name for name, family in FAMILIES.items() if family.head == "causal")
# In a float64 model, HF still computes Llama's norms and rotary embeddings and GPT-J's attention in float32.
TOLERANCE = dict.fromkeys(FAMILIES, 2e-6) | {"gpt2": 1e-10}
WITHOUT_START = ("qwen2", "qwen3")
"""Families whose tokenizers have no start-of-text token at all."""
WITHOUT_BOS = ("gpt2", "gptj", "gpt_neox", "qwen2", "qwen3")


def random_lm(
    family: str, *, dtype: torch.dtype = torch.float64, seed: int = 0, std: float = 0.3, **changes: Any
) -> LanguageModel:
    """Return a small random model of a family, built from its real configuration class."""
    torch.manual_seed(seed)
    tokenizer = build_tokenizer(bos=family not in WITHOUT_BOS)
    if family in WITHOUT_START:
        tokenizer.bos_token = None
    config = AutoConfig.for_model(
        family,
        vocab_size=len(tokenizer),
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
        attn_implementation="eager",
        **(SHAPES[family] | changes),
    )
    model = HEADS[FAMILIES[family].head].auto_class.from_config(config)
    for parameter in model.parameters():  # HF's initial scale gives nearly equal logits
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=std)
    return LanguageModel(model.to(dtype), tokenizer, name=f"random-{family}")


def requests(count: int) -> list[EditRequest]:
    return list(_requests()[:count])


@lru_cache(maxsize=1)
def _requests() -> tuple[EditRequest, ...]:
    return tuple(World().requests())


def texts(count: int = 60) -> list[str]:
    return World().corpus(count)


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Return the distance of two tensors in norms of the expected one."""
    return float((found.double() - expected.double()).norm() / expected.double().norm())


def chat_lm() -> tuple[LanguageModel, LanguageModel]:
    """Return a model without and with its chat template, whose special tokens and roles are words of the vocabulary."""
    plain = random_lm("llama")
    plain.tokenizer.chat_template = (
        "{% for m in messages %}<|endoftext|>{{ m['role'] }}: {{ m['content'] | trim }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    return plain, LanguageModel(plain.model, plain.tokenizer, chat=True)
