"""The one table of model families: where a transformer keeps the modules that editing needs.

Adding a family is one row.  Nothing else in the project looks at a model's type or name.
"""

from dataclasses import dataclass
from typing import Any, Literal

from editing.errors import ModelError

HeadKind = Literal["causal", "seq2seq", "classifier"]


@dataclass(frozen=True, kw_only=True)
class Stack:
    """Blocks of one kind, one after another; module paths are relative to a block, except the first."""

    blocks: str
    attention: str
    mlp_in: tuple[str, ...]
    """The MLP's first projection: the first of these names that the model has."""
    mlp_out: str
    """The edited projection: its input is the key, its output the value."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """Where a family keeps its modules, and how its head answers.

    Layers are counted through all stacks: an encoder's blocks first, then the decoder's.
    """

    stacks: tuple[Stack, ...]
    embeddings: str
    final_norm: str
    head: HeadKind = "causal"
    normed_value: bool = False
    """Whether a norm stands between the MLP's output and the residual stream (Gemma 2 and 3).

    Elsewhere what is added to the MLP's output arrives unchanged at the block's output.
    """


def _decoder(blocks: str, embeddings: str, norm: str, attention: str, first: str, second: str, **more: Any) -> Family:
    """Return the row of a decoder whose MLP is ``mlp``."""
    stack = Stack(blocks=blocks, attention=attention, mlp_in=(f"mlp.{first}",), mlp_out=f"mlp.{second}")
    return Family(stacks=(stack,), embeddings=embeddings, final_norm=norm, **more)


def _llama_like(first: str = "up_proj", **more: Any) -> Family:
    return _decoder("model.layers", "model.embed_tokens", "model.norm", "self_attn", first, "down_proj", **more)


FAMILIES: dict[str, Family] = {
    "gpt2": _decoder("transformer.h", "transformer.wte", "transformer.ln_f", "attn", "c_fc", "c_proj"),
    "gptj": _decoder("transformer.h", "transformer.wte", "transformer.ln_f", "attn", "fc_in", "fc_out"),
    "gpt_neox": _decoder(
        "gpt_neox.layers",
        "gpt_neox.embed_in",
        "gpt_neox.final_layer_norm",
        "attention",
        "dense_h_to_4h",
        "dense_4h_to_h",
    ),
    "llama": _llama_like(),
    "mistral": _llama_like(),
    "qwen2": _llama_like(),
    "qwen3": _llama_like(),
    "gemma2": _llama_like(normed_value=True),
    "gemma3_text": _llama_like(normed_value=True),
    "phi3": _llama_like("gate_up_proj"),
    "bert": Family(
        stacks=(
            Stack(
                blocks="bert.encoder.layer",
                attention="attention",
                mlp_in=("intermediate.dense",),
                mlp_out="output.dense",
            ),
        ),
        embeddings="bert.embeddings.word_embeddings",
        final_norm="bert.pooler",
        head="classifier",
        normed_value=True,
    ),
    "t5": Family(
        stacks=(
            Stack(
                blocks="encoder.block",
                attention="layer.0",
                mlp_in=("layer.1.DenseReluDense.wi", "layer.1.DenseReluDense.wi_0"),
                mlp_out="layer.1.DenseReluDense.wo",
            ),
            Stack(
                blocks="decoder.block",
                attention="layer.0",
                mlp_in=("layer.2.DenseReluDense.wi", "layer.2.DenseReluDense.wi_0"),
                mlp_out="layer.2.DenseReluDense.wo",
            ),
        ),
        embeddings="shared",
        final_norm="decoder.final_layer_norm",
        head="seq2seq",
    ),
}


def family_of(config: Any) -> Family:
    """Return the family of a Hugging Face configuration, by its ``model_type``.

    Raises:
        ModelError: The family has no row in the table.
    """
    try:
        return FAMILIES[config.model_type]
    except KeyError:
        raise ModelError(
            f"model type {config.model_type!r} is not supported; expected one of {sorted(FAMILIES)}; "
            "docs/add-a-family.md tells how to add its row to editing/model/families.py"
        ) from None


def context_of(config: Any) -> int | None:
    """Return how many tokens a model of this configuration reads at once; None if its positions are relative."""
    found = getattr(config, "max_position_embeddings", None)
    return None if found is None else int(found)


def submodule(module: Any, path: str) -> Any:
    """Return the submodule at a dotted path (``Any``: torch types every attribute as Tensor | Module)."""
    return module.get_submodule(path)
