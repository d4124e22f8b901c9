"""Small random models of every family, and a tokenizer built here; nothing is downloaded."""

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from editing.factworld.tokenizer import build_tokenizer
from editing.factworld.world import World
from editing.families import FAMILIES
from editing.lm import LanguageModel
from editing.requests import EditRequest

SHAPES = {
    "gpt2": {"n_embd": 32, "n_layer": 4, "n_head": 4, "n_positions": 96},
    "gptj": {"n_embd": 32, "n_layer": 4, "n_head": 4, "n_positions": 96, "rotary_dim": 4},
    "llama": {
        "hidden_size": 32,
        "intermediate_size": 80,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 96,
    },
}
assert set(SHAPES) == set(FAMILIES), "every row of the family table is tested"
# In a float64 model, HF still computes Llama's norms and rotary embeddings and GPT-J's attention in float32.
TOLERANCE = {"gpt2": 1e-10, "gptj": 1e-6, "llama": 1e-6}


def random_lm(family: str, *, dtype: torch.dtype = torch.float64, seed: int = 0) -> LanguageModel:
    torch.manual_seed(seed)
    tokenizer = build_tokenizer(bos=family == "llama")
    config = AutoConfig.for_model(
        family, vocab_size=len(tokenizer), bos_token_id=0, eos_token_id=0, pad_token_id=0, **SHAPES[family]
    )
    model = AutoModelForCausalLM.from_config(config)
    for parameter in model.parameters():  # HF's initial scale gives nearly equal logits
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    return LanguageModel(model.to(dtype), tokenizer, name=f"random-{family}")


def requests(count: int) -> list[EditRequest]:
    return World().requests()[:count]


def texts(count: int = 60) -> list[str]:
    return World().corpus(count)
