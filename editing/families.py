"""The one table of model families: where a decoder keeps the modules that editing needs.

Adding a family is one row.  Nothing else in the project looks at a model's type or name.
"""

from dataclasses import dataclass
from typing import Any

from editing.errors import ModelError


@dataclass(frozen=True, kw_only=True)
class Family:
    """Module paths of a pre-norm decoder; the last three are relative to a block.

    Pre-norm matters: what is added to the MLP's output arrives unchanged at the block's output.
    """

    blocks: str
    embeddings: str
    final_norm: str
    attention: str
    mlp: str
    mlp_out: str
    """The edited projection: its input is the key, its output the value."""


FAMILIES: dict[str, Family] = {
    "gpt2": Family(
        blocks="transformer.h",
        embeddings="transformer.wte",
        final_norm="transformer.ln_f",
        attention="attn",
        mlp="mlp",
        mlp_out="mlp.c_proj",
    ),
    "gptj": Family(
        blocks="transformer.h",
        embeddings="transformer.wte",
        final_norm="transformer.ln_f",
        attention="attn",
        mlp="mlp",
        mlp_out="mlp.fc_out",
    ),
    "llama": Family(
        blocks="model.layers",
        embeddings="model.embed_tokens",
        final_norm="model.norm",
        attention="self_attn",
        mlp="mlp",
        mlp_out="mlp.down_proj",
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
            "a pre-norm decoder is added by one row in editing/families.py"
        ) from None


def submodule(module: Any, path: str) -> Any:
    """Return the submodule at a dotted path (``Any``: torch types every attribute as Tensor | Module)."""
    return module.get_submodule(path)
