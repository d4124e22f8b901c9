"""Which entry of a model folder's JSON files a library stumbles over, where what it says names none."""

import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any


def blamed(folder: str | Path, files: tuple[str, ...], attempt: Callable[[str], object]) -> str:
    """Return the entry without which an attempt succeeds, or fails otherwise, as `` in tokenizer.json, normalizer: 'x'``.

    Every entry is left out once, in a copy of the folder that has links to its other files.  Empty if the folder is not local,
    or no entry alone makes a difference.

    Args:
        attempt: Reads a folder; raises as a library does.
    """
    root = Path(folder)
    if not root.is_dir():
        return ""
    first, changed = _attempted(attempt, str(root)), ""
    for name in files:
        path = root / name
        if not path.exists():
            continue
        try:
            table = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            return f" in {name}, which is not JSON ({error})"
        for keys in _entries(table):
            with tempfile.TemporaryDirectory() as copy:
                _linked(root, Path(copy), name, _without(table, keys))
                now = _attempted(attempt, copy)
            where = f" in {name}, {'.'.join(map(str, keys))}: {_short(_at(table, keys))}"
            if now is None:
                return where
            if now != first and not changed:
                changed = where
    return changed


def _attempted(attempt: Callable[[str], object], folder: str) -> str | None:
    """Return how an attempt fails, without the names of folders; None if it does not."""
    try:
        attempt(folder)
    except Exception as error:  # noqa: BLE001 - of all kinds, and only whether and how is asked
        return f"{type(error).__name__}: {error}".replace(folder, "")
    return None


def _entries(table: Any) -> Iterator[tuple[Any, ...]]:
    """Yield the keys of a table, and those of the tables and short lists in it."""
    for key, value in table.items() if isinstance(table, dict) else ():
        inner = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
        if len(inner) <= 16:
            yield from ((key, each) for each in inner)
        yield (key,)


def _without(table: Any, keys: tuple[Any, ...]) -> Any:
    copy = dict(table)
    if len(keys) == 1:
        # tokenizer.json wants every entry; null is its "none".
        copy[keys[0]] = None
        if keys[0] not in ("normalizer", "pre_tokenizer", "post_processor", "decoder", "truncation", "padding"):
            del copy[keys[0]]
        return copy
    inner = copy[keys[0]]
    copy[keys[0]] = (
        {k: v for k, v in inner.items() if k != keys[1]}
        if isinstance(inner, dict)
        else [v for i, v in enumerate(inner) if i != keys[1]]
    )
    return copy


def _at(table: Any, keys: tuple[Any, ...]) -> Any:
    for key in keys:
        table = table[key]
    return table


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _linked(root: Path, copy: Path, name: str, table: Any) -> None:
    for path in root.iterdir():
        if path.name != name and not path.name.endswith(".safetensors"):
            (copy / path.name).symlink_to(path.resolve())
    (copy / name).write_text(json.dumps(table), encoding="utf-8")
