"""Whether a model's folder holds all of the model: transformers says it of tensors that have a shape and no content."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from transformers.utils import logging as transformers_logging

from editing.errors import EditingError, ModelError
from editing.model.blame import blamed
from editing.model.checkpoint import refuse_incomplete
from editing.model.families import family_of
from editing.model.heads import HEADS
from editing.model.loading import load_context_tokens, load_format, read_config
from tasks.data.adapters import merge_adapter
from tasks.errors import InputError
from tasks.specs.run import ModelRef

INDEX = "model.safetensors.index.json"
_PLAIN = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
"""Plain floating point, by its name in a file's header."""


class Header(NamedTuple):
    """What a file says of a tensor."""

    shape: tuple[int, ...]
    dtype: str
    file: str


class LookedAt(NamedTuple):
    """What is found of a model's folder that its files say only to transformers."""

    particulars: dict[str, Any]
    """Of its prompts (:class:`editing.model.tokens.PromptFormat`)."""
    begins: bool
    """Whether something stands in front of every text."""
    oversized: bool
    """Whether its tokenizer gives tokens for which it has no embedding."""
    context: int | None
    """How many tokens it reads at once; None if its positions are relative."""


def look_at(model: ModelRef) -> LookedAt:
    """Look at a model's weights and tokenizer.

    Raises:
        InputError: Weights are missing, without a place, of another shape or no plain floating point; the adapter does not
            fit; or the tokenizer cannot be used as it is asked for.
    """
    try:
        check_checkpoint(Path(model.folder), model.name, adapter=model.adapter)
        form = load_format(model.folder, chat=model.chat, text_start=model.text_start)
        context = load_context_tokens(model.folder)
    except EditingError as error:
        raise InputError(str(error)) from error
    return LookedAt(form.particulars, form.begins, bool(form.oversized), context)


def check_checkpoint(folder: Path, name: str, *, adapter: str | None = None) -> None:
    """Have transformers load the folder's tensors by their names and shapes alone, and refuse what it reports.

    Ties, renamed tensors and buffers that a model does not use are its own affair.

    Raises:
        ModelError: As :func:`look_at` says.
    """
    config = read_config(folder)
    headers = read_headers(folder)
    auto_class = HEADS[family_of(config).head].auto_class

    def built(place: str) -> Any:
        with _quiet(), torch.device("meta"):
            return auto_class.from_config(read_config(place))

    try:
        model_class = type(built(str(folder)))
    except Exception as error:
        # Of many kinds: a value that cannot be a key, a size that is none, heads that do not divide the width.
        said = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise ModelError(
            f"model {name!r}: no model can be made from its config.json ({said}{blamed(folder, ('config.json',), built)}); "
            "expected what save_pretrained writes: fetch it again"
        ) from error
    model = _loaded(model_class, config, headers, name)
    packed = {tensor: header for tensor, header in headers.items() if header.dtype not in _PLAIN}
    if packed:
        try:
            _loaded(model_class, config, {t: h for t, h in headers.items() if t not in packed}, name)
        except ModelError as error:
            first, header = next(iter(packed.items()))
            raise ModelError(
                f"model {name!r}: {len(packed)} of its tensors are no plain floating point numbers, {first} first "
                f"({header.dtype} in {header.file}); expected float32, bfloat16 or float16 weights: load the unquantised "
                "checkpoint"
            ) from error
    if adapter is not None:
        with _quiet():
            merge_adapter(model, adapter)


def _loaded(model_class: Any, config: Any, headers: Mapping[str, Header], name: str) -> Any:
    """Return the model on the meta device, if these tensors are exactly its weights."""
    with torch.device("meta"):
        state = {
            tensor: torch.empty(header.shape, dtype=_PLAIN.get(header.dtype, torch.float32))
            for tensor, header in headers.items()
        }
    with _quiet():
        try:
            model, info = model_class.from_pretrained(
                None,
                config=config,
                state_dict=state,
                device_map="meta",
                output_loading_info=True,
                ignore_mismatched_sizes=True,
            )
        except (ValueError, RuntimeError) as error:
            raise ModelError(
                f"model {name!r}: transformers cannot make its tensors into a {model_class.__name__} ({error}); expected the "
                "weights that config.json describes: fetch the checkpoint again, or save it anew with save_pretrained"
            ) from error
    where = sorted({header.file for header in headers.values()})
    refuse_incomplete(info, model, name, where[0] if len(where) == 1 else f"{len(where)} files, by {INDEX}")
    return model


def read_headers(folder: Path) -> dict[str, Header]:
    """Return what the files that transformers reads say of their tensors.

    Raises:
        ModelError: A file is missing, cut off or no safetensors file.
    """
    found: dict[str, Header] = {}
    for path in weight_files(folder):
        try:
            with safe_open(path, framework="numpy") as weights:  # mapped for reading: "pt" also reserves memory
                for name in weights.keys():  # noqa: SIM118 - not a dictionary
                    part = weights.get_slice(name)
                    found[name] = Header(tuple(part.get_shape()), str(part.get_dtype()), path.name)
        except (SafetensorError, OSError) as error:
            raise ModelError(
                f"{path} cannot be read ({error}); expected a whole safetensors file: fetch it again"
            ) from error
    return found


def weight_files(folder: Path) -> list[Path]:
    """Return the files of a folder that transformers reads weights from.

    Raises:
        ModelError: There are none, the index cannot be used, or it names files that are not there.
    """
    whole, index = folder / "model.safetensors", folder / INDEX
    if whole.is_file():
        return [whole]
    if not index.is_file():
        there = sorted(path.name for path in folder.glob("*.safetensors"))
        raise ModelError(
            f"model folder {folder}: found {there}; expected model.safetensors, or {INDEX} beside its shards, as "
            "save_pretrained writes them"
        )
    try:
        named = dict(json.loads(index.read_text(encoding="utf-8"))["weight_map"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"{index} has no usable weight_map ({type(error).__name__}: {error}); expected names of tensors with their files: "
            "fetch it again"
        ) from error
    for tensor, file in named.items():
        if not isinstance(file, str) or not (folder / file).is_file():
            raise ModelError(
                f"{index}: {tensor} is to stand in {file!r}, which is no file of the folder; expected one of its shards: "
                "fetch the folder again"
            )
    files = sorted({folder / name for name in named.values()})
    if not files:
        raise ModelError(f"{index} names no file; expected the folder's shards: fetch the folder again")
    return files


@contextmanager
def _quiet() -> Iterator[None]:
    """Inside, transformers says nothing: what it reports is told by the error."""
    before = transformers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(before)
        if bars:
            transformers_logging.enable_progress_bar()
