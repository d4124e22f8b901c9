"""A PEFT adapter merged into its model: the weights become ordinary ones, which can be edited."""

import json
from pathlib import Path
from typing import Any

import transformers

from editing.errors import ModelError
from editing.model.checkpoint import listed

FILES = ("adapter_config.json", "adapter_model.safetensors")
"""What a folder holds of an adapter, as ``save_pretrained`` of the package peft writes it."""


def check_adapter_folder(folder: Path) -> None:
    """Refuse a folder without an adapter's two files.

    Raises:
        ModelError: One is missing, or the first is no JSON table.
    """
    lacking = [name for name in FILES if not (folder / name).is_file()]
    if lacking:
        raise ModelError(
            f"adapter {folder}: {listed(lacking)} not found; expected {' and '.join(FILES)}, as peft saves them"
        )
    try:
        settings = json.loads((folder / FILES[0]).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{folder / FILES[0]} is not JSON ({error}); expected what peft saves") from error
    if not isinstance(settings, dict) or not isinstance(settings.get("peft_type"), str):
        raise ModelError(f"{folder / FILES[0]}: peft_type is not a text; expected a table with the adapter's settings")


def merge_adapter(model: "transformers.PreTrainedModel", folder: str | Path) -> "transformers.PreTrainedModel":
    """Return the model with an adapter added to its weights, in their dtype.

    A model whose weights are on the meta device stays there: nothing is added, but every name and shape is looked at.

    Raises:
        ModelError: The package peft is missing, or the adapter is of another model, incomplete, or cannot be merged.
    """
    check_adapter_folder(Path(folder))
    try:
        from peft import PeftConfig, get_peft_model, set_peft_model_state_dict
        from peft.utils import load_peft_weights
    except ImportError as error:
        raise ModelError(
            f"adapter {folder}: merging it needs the package peft; run: pip install 'peft>=0.17'"
        ) from error
    try:
        settings = PeftConfig.from_pretrained(str(folder))
        settings.inference_mode = True
        wrapped: Any = get_peft_model(model, settings)
        state = load_peft_weights(str(folder), device="cpu")
        found: Any = set_peft_model_state_dict(wrapped, state, low_cpu_mem_usage=model.device.type == "meta")
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError, OSError) as error:
        raise ModelError(
            f"adapter {folder} does not fit the model ({error}); expected one that was trained on this model: check "
            "base_model_name_or_path and target_modules in its adapter_config.json"
        ) from error
    prefix = getattr(wrapped.base_model, "prefix", "")
    missing = [name for name in found.missing_keys if prefix and prefix in name]
    if missing or found.unexpected_keys:
        raise ModelError(
            f"adapter {folder}: missing {listed(missing) or 'nothing'}, without a place in the model "
            f"{listed(found.unexpected_keys) or 'nothing'}; expected exactly the adapter's weights: take the adapter that "
            "belongs to this model"
        )
    if not prefix or not hasattr(wrapped.base_model, "merge_and_unload"):
        raise ModelError(
            f"adapter {folder} is of kind {settings.peft_type}, which cannot be merged into weights; expected LoRA or another "
            "that can"
        )
    if model.device.type == "meta":
        return model
    merged: transformers.PreTrainedModel = wrapped.merge_and_unload()
    return merged
