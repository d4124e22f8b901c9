"""Hyper-parameters as data: one YAML per editor, defaults plus what differs per model.  Needs no torch."""

import hashlib
import json
from collections.abc import Mapping
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

    A model is known by the last part of its hub id or path, in any case.  A preset is the set of numbers of one source and
    takes the place of the model's, so that nothing of another source gets in.

    Raises:
        HparamsError: An unknown name, or a value of another type than the default's; names all of them.
    """
    if name not in editor_names():
        raise HparamsError(f"no editor {name!r}; expected one of {editor_names()}")
    if protocol not in PROTOCOLS:
        raise HparamsError(f"no protocol {protocol!r}; expected one of {list(PROTOCOLS)}")
    sheet = yaml.safe_load((SHEETS / f"{name}.yaml").read_text())
    defaults: dict[str, Any] = sheet["defaults"]
    special = next((row for key, row in sheet["models"].items() if _last_part(key) == _last_part(model)), None) or {}
    presets: dict[str, dict[str, Any]] = sheet.get("presets") or {}
    if preset is not None and preset not in presets:
        raise HparamsError(f"editor {name!r} has no preset {preset!r}; expected one of {sorted(presets) or 'none'}")
    chosen = presets[preset] if preset is not None else {}
    given = dict(overrides or {})
    unknown = sorted(set(given) - set(defaults))
    if unknown:
        raise HparamsError(f"editor {name!r} has no hyper-parameter {unknown}; expected some of {sorted(defaults)}")
    values = defaults | (special if preset is None else chosen) | given
    wrong = [
        f"{key} = {value!r} is {type(value).__name__}, expected {type(defaults[key]).__name__}"
        for key, value in values.items()
        if not _fits(value, defaults[key])
    ]
    if wrong:
        raise HparamsError(f"editor {name!r}: {'; '.join(wrong)} (write 1.0e-5, not 1e-5, in YAML)")
    numbers = {key: float(value) if isinstance(defaults[key], float) else value for key, value in values.items()}
    return {**numbers, "protocol": protocol}


def preset_names(name: str) -> list[str]:
    """Return the names of an editor's presets."""
    return sorted(yaml.safe_load((SHEETS / f"{name}.yaml").read_text()).get("presets") or {})


def hparams_digest(hparams: Mapping[str, Any]) -> str:
    """Return a short digest of resolved hyper-parameters, protocol included."""
    return hashlib.sha256(json.dumps(dict(hparams), sort_keys=True).encode()).hexdigest()[:12]


def _last_part(model: str) -> str:
    return Path(model).name.casefold()


def _fits(value: Any, default: Any) -> bool:
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(value, bool) and isinstance(default, bool)
    if isinstance(default, float):
        return isinstance(value, (int, float))
    return isinstance(value, type(default))
