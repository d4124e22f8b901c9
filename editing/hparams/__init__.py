"""Hyper-parameters as data: one YAML per editor, defaults plus what differs per model.  Needs no torch."""

import hashlib
import json
from collections.abc import Mapping
from math import isfinite
from pathlib import Path
from typing import Any

import yaml

from editing.errors import HparamsError, did_you_mean

SHEETS = Path(__file__).parent
VARIANTS = {
    **dict.fromkeys(
        ("Llama-2-7b-chat-hf", "Llama-2-7b", "Llama-2-7b-chat", "Llama-2-13b-hf", "Llama-2-13b-chat-hf", "Llama-2-13b"),
        "Llama-2-7b-hf",
    ),
    **dict.fromkeys(
        ("Meta-Llama-3-8B-Instruct", "Llama-3-8B", "Llama-3-8B-Instruct", "Llama-3.1-8B", "Meta-Llama-3.1-8B"),
        "Meta-Llama-3-8B",
    ),
    **dict.fromkeys(("Llama-3.1-8B-Instruct", "Meta-Llama-3.1-8B-Instruct"), "Meta-Llama-3-8B"),
    "Llama-3.2-3B-Instruct": "Llama-3.2-3B",
    **dict.fromkeys(("Mistral-7B-v0.3", "Mistral-7B-Instruct-v0.1", "Mistral-7B-Instruct-v0.3"), "Mistral-7B-v0.1"),
    "Qwen2-7B-Instruct": "Qwen2-7B",
    "Qwen2.5-7B-Instruct": "Qwen2.5-7B",
    **dict.fromkeys(("SmolLM2-135M-Instruct.Q4_1", "SmolLM2-135M-Instruct"), "smollm2-135m"),
    **dict.fromkeys(("gpt2", "gpt2-medium", "gpt2-large"), "gpt2-xl"),
}
"""Chat and size variants, each with the model whose row it takes where a sheet has none of its own."""
_MODEL_OF_DEFAULTS = "gpt2-xl"
"""Whose numbers a sheet's defaults are, where it has a row for it; else they are for any model."""
_DEPTH_OF_DEFAULTS, _LAYER_OF_DEFAULTS = 48, 17
"""Its blocks, and the one in which ROME finds facts."""
_PARTS = ("defaults", "models", "presets", "variants", "layers", "relative")
TIMES_MEDIAN_Q = "times_median_q"
"""How a number is given relative to the median ``kᵀC⁻¹k`` of a batch's keys."""
PROTOCOLS = ("paper", "code", "corrected")


def editor_names() -> list[str]:
    """Return the names of all editors: one YAML each."""
    return sorted(path.stem for path in SHEETS.glob("*.yaml"))


def resolve_hparams(
    name: str,
    *,
    model: str,
    protocol: str = "corrected",
    overrides: Mapping[str, Any] | None = None,
    preset: str | None = None,
) -> dict[str, Any]:
    """Return an editor's hyper-parameters: its defaults, then those for the model or of the preset, then ``overrides``.

    A model is known by the last part of its hub id or path, in any case; a variant takes the row of its model (``VARIANTS``).
    A sheet's ``presets`` are the numbers of one source each and take the place of the model's, so that nothing of another
    source gets in; its ``variants`` change a few numbers and leave the model's others, as an ablation does.  Both are asked
    for as ``preset``.

    Raises:
        HparamsError: An unknown name, or a value of another type than the default's; names all of them.
    """
    if name not in editor_names():
        raise HparamsError(f"no editor {name!r}{did_you_mean(name, editor_names())}; expected one of {editor_names()}")
    if protocol not in PROTOCOLS:
        raise HparamsError(f"no protocol {protocol!r}; expected one of {list(PROTOCOLS)}")
    sheet = _sheet(name)
    defaults: dict[str, Any] = sheet["defaults"]
    special = sheet["models"].get(_row_for(sheet, model) or "") or {}
    presets, variants = sheet["presets"], sheet["variants"]
    if preset is not None and preset not in presets | variants:
        known = sorted(presets | variants) or "none"
        near = did_you_mean(preset, presets | variants)
        raise HparamsError(f"editor {name!r} has no preset {preset!r}{near}; expected one of {known}")
    if preset is not None:
        special = presets.get(preset) or special | variants[preset]
    given = dict(overrides or {})
    unknown = sorted(set(given) - set(defaults))
    if unknown:
        near = did_you_mean(unknown[0], defaults)
        raise HparamsError(
            f"editor {name!r} has no hyper-parameter {unknown}{near}; expected some of {sorted(defaults)}"
        )
    values = defaults | special | given
    wrong = [
        f"{key} = {value!r} is {_kind(value)}, expected {_kind(defaults[key])}"
        for key, value in values.items()
        if not (_fits(value, defaults[key]) or _is_relative(sheet, key, value))
    ]
    if wrong:
        textual = any(isinstance(values[key], str) and isinstance(defaults[key], float) for key in values)
        hint = " (write 1.0e-5, not 1e-5, in YAML)" if textual else ""
        raise HparamsError(f"editor {name!r}: {'; '.join(wrong)}{hint}")
    numbers = {
        key: float(value) if isinstance(defaults[key], float) and not isinstance(value, Mapping) else value
        for key, value in values.items()
    }
    return {**numbers, "protocol": protocol}


def default_layers(name: str, *, model: str, n_layers: int) -> tuple[list[int], str]:
    """Return the layers that an editor's sources edit in a model, and where they come from, in words.

    Where none names any, they are as deep in the model as those of gpt2-xl, which a layer search may well improve on.
    """
    known: dict[str, list[int]] = _sheet(name)["layers"]
    row = next((key for key in known if _last_part(key) == _last_part(model)), None)
    row = row or next((key for key in known if is_variant(model, key) and key != _MODEL_OF_DEFAULTS), None)
    if row is not None and max(known[row]) < n_layers:
        return known[row], f"those of {row} in editing/hparams/{name}.yaml"
    of_defaults = known.get(_MODEL_OF_DEFAULTS, [_LAYER_OF_DEFAULTS])
    last = min(n_layers - 1, round(of_defaults[-1] / _DEPTH_OF_DEFAULTS * n_layers))
    found = list(range(max(0, last - len(of_defaults) + 1), last + 1))
    return found, (
        f"no source names any for {model or 'this model'}; as deep as {of_defaults} of {_MODEL_OF_DEFAULTS}'s "
        f"{_DEPTH_OF_DEFAULTS} (a layer search finds where facts are: locate.search)"
    )


def borrowed_from(name: str, *, model: str, preset: str | None = None) -> str | None:
    """Return the model whose numbers an editor takes for ``model``, where they are another's; None where they are its own.

    They are its own with a row of that name, with a preset (the numbers of one source), and where a sheet has none by model.
    """
    sheet = _sheet(name)
    if preset in sheet["presets"]:
        return None
    row = _row_for(sheet, model)
    if row is None:
        return _MODEL_OF_DEFAULTS if _MODEL_OF_DEFAULTS in sheet["models"] else None
    return None if _last_part(row) == _last_part(model) else row


def is_variant(model: str, row: str) -> bool:
    """Return whether a model takes a row as a chat or size variant of it."""
    return VARIANTS_BY_NAME.get(_last_part(model)) == _last_part(row)


def _row_for(sheet: Mapping[str, Mapping[str, Any]], model: str) -> str | None:
    """Return the key of the row that a model takes: its own, or that of which it is a variant."""
    rows = {_last_part(key): key for key in sheet["models"]}
    name = _last_part(model)
    return rows.get(name) or rows.get(VARIANTS_BY_NAME.get(name, ""))


def preset_names(name: str) -> list[str]:
    """Return the names of an editor's presets and variants."""
    sheet = _sheet(name)
    return sorted(sheet["presets"] | sheet["variants"])


def hparams_digest(hparams: Mapping[str, Any]) -> str:
    """Return a short digest of resolved hyper-parameters, protocol included."""
    return hashlib.sha256(json.dumps(dict(hparams), sort_keys=True).encode()).hexdigest()[:12]


def _sheet(name: str) -> dict[str, dict[str, Any]]:
    """Return an editor's sheet; with ``like: OTHER`` it has all that the other one has, and its own numbers on top."""
    own = yaml.safe_load((SHEETS / f"{name}.yaml").read_text())
    base = _sheet(own["like"]) if "like" in own else {}
    return {part: base.get(part, {}) | (own.get(part) or {}) for part in _PARTS}


def _last_part(model: str) -> str:
    return Path(model).name.casefold().removesuffix(".gguf")


def _fits(value: Any, default: Any) -> bool:
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(value, bool) and isinstance(default, bool)
    if isinstance(default, float):
        return isinstance(value, (int, float)) and isfinite(value)
    if isinstance(default, list):
        return isinstance(value, list) and all(_fits(item, (default or [0.0])[0]) for item in value)
    return isinstance(value, type(default))


def _is_relative(sheet: Mapping[str, Any], key: str, value: Any) -> bool:
    """Return whether a value is given relative to what is measured, where its sheet allows that."""
    if not isinstance(value, Mapping) or key not in sheet["relative"] or list(value) != [sheet["relative"][key]]:
        return False
    (number,) = value.values()
    return _fits(number, 1.0)


def _kind(value: Any) -> str:
    """Return what a value is, as a message says it: ``int``, ``list of str``."""
    if not isinstance(value, list):
        return type(value).__name__ if not isinstance(value, float) or isfinite(value) else "not finite"
    kinds = sorted({type(item).__name__ for item in value or [0.0]})
    return f"list of {' and '.join(kinds)}"


VARIANTS_BY_NAME = {_last_part(model): _last_part(row) for model, row in VARIANTS.items()}
