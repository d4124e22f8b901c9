"""Checkpoints with the real headers and sizes, and no data: a model is known by its config before its weights are fetched."""

import json
import shutil
import struct
from collections.abc import Mapping
from pathlib import Path

import torch
import transformers

from editing.model.families import family_of
from editing.model.heads import HEADS

_KINDS = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16", torch.float64: "F64"}


def write_hollow(
    config: "transformers.PretrainedConfig", folder: Path, beside: Mapping[str, Path] | None = None
) -> None:
    """Write a checkpoint of a config's shapes and dtype into a new folder; its weights take no room on a disk.

    Args:
        beside: Files to copy into it by their places there, as a tokenizer's.
    """
    folder.mkdir(parents=True)
    with torch.device("meta"):
        model = HEADS[family_of(config).head].auto_class.from_config(config)
    dtype = config.dtype or torch.float32
    tied = set(getattr(model, "_tied_weights_keys", None) or ()) if config.tie_word_embeddings else set()
    entries, end = {}, 0
    for name, tensor in model.state_dict().items():
        if name not in tied:
            start, end = end, end + tensor.numel() * dtype.itemsize
            entries[name] = {"dtype": _KINDS[dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
    header = json.dumps(entries | {"__metadata__": {"format": "pt"}}).encode()
    header += b" " * (-len(header) % 8)
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(8 + len(header) + end)
    config.save_pretrained(folder)
    for place, path in (beside or {}).items():
        (folder / place).parent.mkdir(exist_ok=True)
        shutil.copyfile(path, folder / place)
