"""Loading models: bundled ones by name, Hugging Face's by hub id or folder."""

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoConfig, AutoTokenizer

from editing.errors import ModelError, did_you_mean
from editing.model.blame import blamed
from editing.model.bundled import MODELS
from editing.model.checkpoint import refuse_incomplete
from editing.model.families import context_of, family_of
from editing.model.heads import HEADS
from editing.model.lm import LanguageModel
from editing.model.named import known_as, known_names, named_folder
from editing.model.progress import without_bars
from editing.model.tokens import PromptFormat

_TOKENIZER_FILES = ("tokenizer_config.json", "tokenizer.json", "special_tokens_map.json", "added_tokens.json")
ADAPTER = "adapter_config.json"
"""What a folder has that holds an adapter."""


def load(
    name_or_path: str,
    *,
    revision: str | None = None,
    dtype: str | torch.dtype = "auto",
    device: str = "cpu",
    chat: bool | Mapping[str, Any] = False,
    text_start: str = "none",
    adapt: "Callable[[transformers.PreTrainedModel], transformers.PreTrainedModel] | None" = None,
) -> LanguageModel:
    """Load a bundled model or one of the catalogue by its name, or a Hugging Face model by hub id or folder.

    Args:
        name_or_path: ``factworld-gpt2`` or ``smollm2-135m``, a folder with ``config.json``, a GGUF file, or a hub id.
        revision: Commit of the hub repository; pin it in experiments.
        dtype: A torch dtype or its name; ``"auto"`` takes the checkpoint's.
        device: Where the whole model goes; ``"auto"`` spreads it over all accelerators (needs accelerate).
        chat: Put every prompt into the tokenizer's chat template, as a user's message; or the template's variables.
        text_start: What stands in front of every text: ``bos``, ``eos``, a token, or ``none``: what the tokenizer puts there.
        adapt: What is done to the weights before they are looked at, as merging an adapter.

    Raises:
        ModelError: No such model, a family without a row in the table, quantised, missing or NaN weights, or more of them than
            the accelerators hold.
        TokenizationError: The tokenizer has no chat template or no such start of texts, where one is asked for.
    """
    if isinstance(dtype, str) and dtype != "auto" and not isinstance(getattr(torch, dtype, None), torch.dtype):
        raise ModelError(f"dtype {dtype!r}; expected auto, float32, float64, bfloat16 or float16")
    there = named_folder(name_or_path, dtype=str(dtype).removeprefix("torch."))
    if there is None and (near := did_you_mean(name_or_path, known_names(), cutoff=0.85)):
        raise ModelError(f"no model {name_or_path!r}{near}")
    folder = there or name_or_path
    refuse_adapter_beside(Path(folder))
    config = read_config(folder, revision=revision)
    tokenizer = read_tokenizer(folder, revision=revision)
    auto_class = HEADS[family_of(config).head].auto_class
    spread = {"device_map": "auto"} if device == "auto" else {}
    try:
        with without_bars(where=there is not None and there.parent == MODELS):  # it takes no time
            model, info = auto_class.from_pretrained(
                folder, revision=revision, dtype=dtype, output_loading_info=True, ignore_mismatched_sizes=True, **spread
            )
    except (OSError, ValueError) as error:
        raise ModelError(
            f"model {name_or_path!r} could not be loaded: {error}; expected a bundled model, a local folder in Hugging "
            "Face's layout (config.json, model.safetensors, tokenizer.json), or a hub id that this machine can reach"
        ) from error
    if getattr(model, "_hf_peft_config_loaded", False):  # of a hub's repository, whose files were not looked at
        raise ModelError(_beside(str(name_or_path)))
    refuse_incomplete(info, model, str(name_or_path))
    if adapt is not None:
        model = adapt(model)
    if device == "auto":
        refuse_offloaded(model, str(name_or_path))
    else:
        try:
            model = model.to(device)
        except (AssertionError, RuntimeError) as error:
            raise ModelError(f"device {device!r} cannot be used here: {error}; give cpu, or auto") from error
    return LanguageModel(
        model, tokenizer, name=known_as(str(name_or_path)) or str(name_or_path), chat=chat, text_start=text_start
    )


def read_config(folder: str | Path, *, revision: str | None = None) -> "transformers.PretrainedConfig":
    """Return a model's configuration.

    Raises:
        ModelError: There is none, it cannot be used, or it is of quantised weights.
    """
    try:
        config = AutoConfig.from_pretrained(folder, revision=revision)
    except Exception as error:
        # Of many kinds: a type in a field, a name that torch lacks, a value that cannot be a key.
        where = blamed(folder, ("config.json",), AutoConfig.from_pretrained)
        raise ModelError(
            f"model {str(folder)!r}: its config.json cannot be used ({_all_lines(error)}{where}); expected a bundled model, a "
            "folder as save_pretrained writes it, or a hub id that this machine can reach"
        ) from error
    if getattr(config, "quantization_config", None) is not None:
        raise ModelError(
            f"model {str(folder)!r} is quantised ({config.quantization_config}); expected float32, bfloat16 or "
            "float16 weights; an update cannot be added to packed ones: load the unquantised checkpoint"
        )
    return config


def read_tokenizer(folder: str | Path, *, revision: str | None = None) -> "transformers.PreTrainedTokenizerBase":
    """Return a model's tokenizer, the same whatever other packages are installed.

    Raises:
        ModelError: There is none, or its files cannot be used.
    """
    try:
        # Else transformers reads tekken.json in its place, where the package mistral-common happens to be installed.
        found = AutoTokenizer.from_pretrained(folder, revision=revision, mistral_format=False)
        _check_specials(found)
        return found
    except Exception as error:
        # Of many kinds: the tokenizers' own code raises bare ones for a file that it cannot read.
        where = "" if "tokenizer_config.json: " in str(error) else blamed(folder, _TOKENIZER_FILES, _tokenizer_of)
        raise ModelError(
            f"model {str(folder)!r}: its tokenizer cannot be used ({_first_line(error)}{where}); expected tokenizer.json (or "
            "the tokenizer's own files) and tokenizer_config.json, as save_pretrained writes them"
        ) from error


_tokenizer_of = partial(AutoTokenizer.from_pretrained, mistral_format=False)


def _check_specials(tokenizer: "transformers.PreTrainedTokenizerBase") -> None:
    """Raise a ValueError for settings that are taken as they are and fail in use."""
    for name, token in tokenizer.special_tokens_map.items():
        for each in token if isinstance(token, list) else [token]:
            if tokenizer.convert_tokens_to_ids(str(each)) is None:
                raise ValueError(f"tokenizer_config.json: {name} is {str(each)!r}, which is no token of tokenizer.json")
    if not isinstance(tokenizer.model_max_length, int | float):
        raise ValueError(f"tokenizer_config.json: model_max_length is {tokenizer.model_max_length!r}, no number")


def refuse_adapter_beside(folder: Path) -> None:
    """Refuse a folder that holds an adapter: transformers adds it to the model only where the package peft is installed.

    Raises:
        ModelError: There is one.
    """
    if (folder / ADAPTER).is_file():
        whole = (folder / "config.json").is_file()
        raise ModelError(_beside(str(folder)) if whole else _alone(folder))


def _beside(name: str) -> str:
    return (
        f"model {name!r} has an adapter beside its weights ({ADAPTER}), which would be used or not by what is "
        "installed; expected one model; merge the adapter and save the result, or move its files to a folder of their own and "
        "give that as adapter (model: {name: ..., adapter: FOLDER})"
    )


def _alone(folder: Path) -> str:
    base = "the model it was trained on"
    with suppress(OSError, ValueError, KeyError, TypeError):
        base = repr(json.loads((folder / ADAPTER).read_text())["base_model_name_or_path"])
    return (
        f"model folder {folder} holds an adapter ({ADAPTER}) and no model; expected config.json and weights; give "
        f"{base} as the model's name and this folder as its adapter: model: {{name: ..., adapter: {folder}}}"
    )


def _all_lines(error: Exception) -> str:
    """Return what a library says, which may name the field behind its first line."""
    return f"{type(error).__name__}: {' '.join(str(error).split()) or 'no more is known'}"


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).strip() or 'no more is known').splitlines()[0]}"


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


def load_format(folder: str, *, chat: bool | Mapping[str, Any] = False, text_start: str = "none") -> PromptFormat:
    """Return how a model in a local folder writes prompts and answers, without its weights.

    Raises:
        ModelError: Its configuration or its tokenizer cannot be used.
        TokenizationError: The tokenizer has no chat template or no such start of texts, where one is asked for.
    """
    config = read_config(folder)
    return PromptFormat(
        read_tokenizer(folder),
        head=family_of(config).head,
        labels=config.label2id,
        chat=chat,
        text_start=text_start,
        n_rows=getattr(config, "vocab_size", None),
    )


def load_context_tokens(folder: str) -> int | None:
    """Return how many tokens a model in a local folder reads at once; None if its positions are relative."""
    return context_of(read_config(folder))
