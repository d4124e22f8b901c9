"""Hyper-parameters as data: one YAML per editor, defaults plus what differs per model.  Needs no torch."""

import hashlib
import json
from collections.abc import Mapping
from math import isfinite
from pathlib import Path
from typing import Any

import yaml

from editing.errors import HparamsError

SHEETS = Path(__file__).parent
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

    A model is known by the last part of its hub id or path, in any case.  A sheet's ``presets`` are the numbers of one
    source each and take the place of the model's, so that nothing of another source gets in; its ``variants`` change a few
    numbers and leave the model's others, as an ablation does.  Both are asked for as ``preset``.

    Raises:
        HparamsError: An unknown name, or a value of another type than the default's; names all of them.
    """
    if name not in editor_names():
        raise HparamsError(f"no editor {name!r}; expected one of {editor_names()}")
    if protocol not in PROTOCOLS:
        raise HparamsError(f"no protocol {protocol!r}; expected one of {list(PROTOCOLS)}")
    sheet = _sheet(name)
    defaults: dict[str, Any] = sheet["defaults"]
    special = next((row for key, row in sheet["models"].items() if _last_part(key) == _last_part(model)), None) or {}
    presets, variants = sheet["presets"], sheet["variants"]
    if preset is not None and preset not in presets | variants:
        known = sorted(presets | variants) or "none"
        raise HparamsError(f"editor {name!r} has no preset {preset!r}; expected one of {known}")
    if preset is not None:
        special = presets.get(preset) or special | variants[preset]
    given = dict(overrides or {})
    unknown = sorted(set(given) - set(defaults))
    if unknown:
        raise HparamsError(f"editor {name!r} has no hyper-parameter {unknown}; expected some of {sorted(defaults)}")
    values = defaults | special | given
    wrong = [
        f"{key} = {value!r} is {_kind(value)}, expected {_kind(defaults[key])}"
        for key, value in values.items()
        if not _fits(value, defaults[key])
    ]
    if wrong:
        textual = any(isinstance(values[key], str) and isinstance(defaults[key], float) for key in values)
        hint = " (write 1.0e-5, not 1e-5, in YAML)" if textual else ""
        raise HparamsError(f"editor {name!r}: {'; '.join(wrong)}{hint}")
    numbers = {key: float(value) if isinstance(defaults[key], float) else value for key, value in values.items()}
    return {**numbers, "protocol": protocol}


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
    return {part: base.get(part, {}) | (own.get(part) or {}) for part in ("defaults", "models", "presets", "variants")}


def _last_part(model: str) -> str:
    return Path(model).name.casefold()


def _fits(value: Any, default: Any) -> bool:
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(value, bool) and isinstance(default, bool)
    if isinstance(default, float):
        return isinstance(value, (int, float)) and isfinite(value)
    if isinstance(default, list):
        return isinstance(value, list) and all(_fits(item, (default or [0.0])[0]) for item in value)
    return isinstance(value, type(default))


def _kind(value: Any) -> str:
    """Return what a value is, as a message says it: ``int``, ``list of str``."""
    if not isinstance(value, list):
        return type(value).__name__ if not isinstance(value, float) or isfinite(value) else "not finite"
    kinds = sorted({type(item).__name__ for item in value or [0.0]})
    return f"list of {' and '.join(kinds)}"
