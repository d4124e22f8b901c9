"""Loading models: bundled ones by name, Hugging Face's by hub id or folder."""

import torch
from transformers import AutoConfig, AutoTokenizer

from editing.errors import ModelError
from editing.families import context_of, family_of
from editing.heads import HEADS
from editing.lm import LanguageModel
from editing.tokens import PromptFormat


def load(
    name_or_path: str,
    *,
    revision: str | None = None,
    dtype: str | torch.dtype = "auto",
    device: str = "cpu",
    chat: bool = False,
) -> LanguageModel:
    """Load a bundled model by its name, or a Hugging Face model by hub id or folder.

    Args:
        name_or_path: ``factworld-gpt2`` and the like, a folder with ``config.json``, or a hub id.
        revision: Commit of the hub repository; pin it in experiments.
        dtype: A torch dtype or its name; ``"auto"`` takes the checkpoint's.
        device: Where the whole model goes; ``"auto"`` spreads it over all accelerators (needs accelerate).
        chat: Put every prompt into the tokenizer's chat template, as a user's message.

    Raises:
        ModelError: No such model, a family without a row in the table, quantised or NaN weights, or more of them than the
            accelerators hold.
    """
    from editing.factworld.bundled import bundled_folder

    folder = bundled_folder(name_or_path) or name_or_path
    try:
        config = AutoConfig.from_pretrained(folder, revision=revision)
        if getattr(config, "quantization_config", None) is not None:
            raise ModelError(
                f"model {name_or_path!r} is quantised ({config.quantization_config}); expected float32, bfloat16 or "
                "float16 weights; an update cannot be added to packed ones: load the unquantised checkpoint"
            )
        auto_class = HEADS[family_of(config).head].auto_class
        tokenizer = AutoTokenizer.from_pretrained(folder, revision=revision)
        spread = {"device_map": "auto"} if device == "auto" else {}
        model = auto_class.from_pretrained(folder, revision=revision, dtype=dtype, **spread)
    except ModelError:
        raise
    except (OSError, ValueError) as error:
        raise ModelError(
            f"model {name_or_path!r} could not be loaded: {error}; expected a bundled model, a local folder in Hugging "
            "Face's layout (config.json, model.safetensors, tokenizer.json), or a hub id that this machine can reach"
        ) from error
    if device == "auto":
        refuse_offloaded(model, str(name_or_path))
    else:
        model = model.to(device)
    return LanguageModel(model, tokenizer, name=str(name_or_path), chat=chat)


def refuse_offloaded(model: torch.nn.Module, name: str) -> None:
    """Refuse a model of which accelerate keeps a part elsewhere and fetches it for each pass: it cannot be edited there.

    Raises:
        ModelError: Some weights are on no device.
    """
    away = [parameter for parameter, weight in model.named_parameters() if weight.is_meta]
    if away:
        raise ModelError(
            f"model {name!r} does not fit the accelerators: {len(away)} of its tensors, {away[0]} first, were left in memory "
            "or on disk, where they cannot be edited; spread it over more (compute.gpus_per_model), or take a smaller dtype"
        )


def load_format(folder: str, *, chat: bool = False) -> PromptFormat:
    """Return how a model in a local folder writes prompts and answers, without its weights.

    Raises:
        TokenizationError: ``chat`` is asked for and the tokenizer has no chat template.
    """
    config = AutoConfig.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return PromptFormat(tokenizer, head=family_of(config).head, labels=config.label2id, chat=chat)


def load_context_tokens(folder: str) -> int | None:
    """Return how many tokens a model in a local folder reads at once; None if its positions are relative."""
    return context_of(AutoConfig.from_pretrained(folder))
