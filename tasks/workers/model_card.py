"""The card of a checked-out model: which run, which edits, which digests, whose licence."""

import importlib.metadata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from storage.sql import query
from storage.store import Store
from tasks.specs.run import RunSpec

_TEXT = """
# {title}

{model} after {after} edits of the run `{run_id}`, as Palimpsest {version} rebuilt it from its ledger.
It says what it was edited to say, and may have forgotten other things: look at the run's scores before you use it.

| | |
|---|---|
{rows}

{licence}

## Edited facts

{facts}
"""
_SHOWN = 20


def write_card(store: Store, run: RunSpec, folder: Path, *, after: int, checked: str) -> None:
    """Write ``README.md`` into a model's folder, with the fields that Hugging Face reads."""
    licence = _licence(Path(run.model.folder))
    head: dict[str, Any] = {
        "base_model": run.model.name,
        "tags": ["knowledge-editing", "palimpsest"],
        "library_name": "transformers",
    }
    head |= {} if licence is None else {"license": licence}
    rows = {
        "base model": f"`{run.model.name}`" + (f" at `{run.model.revision}`" if run.model.revision else ""),
        "its digest": f"`{run.model.digest}`",
        "run": f"`{run.run_id}` of experiment `{run.experiment}`",
        "editor": f"{run.editor}, layers {list(run.layers)}, batches of {run.batch_size}, {run.mode}, protocol {run.protocol}",
        "hyper-parameters": f"`{dict(run.hparams)}`",
        "edits": f"{after}, of the data set `{run.facts.name}` (digest `{run.facts.digest}`), sample {run.facts.sample}",
        "checked": checked,
    }
    facts = _facts(store, run, after)
    shown = [f"- {row['prompt']} → {row['target_new']}" for row in facts[:_SHOWN]]
    more = [f"- … and {len(facts) - _SHOWN} more"] if len(facts) > _SHOWN else []
    text = _TEXT.format(
        title=f"{Path(run.model.name).name}, edited by {run.editor}",
        model=run.model.name,
        after=after,
        run_id=run.run_id,
        version=importlib.metadata.version("palimpsest-editing"),
        rows="\n".join(f"| {name} | {value} |" for name, value in rows.items()),
        licence=_said(licence),
        facts="\n".join(shown + more) or "none",
    )
    (folder / "README.md").write_text(f"---\n{yaml.safe_dump(head, sort_keys=False)}---\n{text}", encoding="utf-8")


def _facts(store: Store, run: RunSpec, after: int) -> list[Mapping[str, Any]]:
    first = 0 if run.mode == "sequential" else max(0, after - run.batch_size)
    sql = f"""
        SELECT f.prompt, f.target_new FROM edits JOIN runs USING (run_id)
        JOIN facts AS f ON f.run_id = runs.facts_run_id AND f.fact_id = edits.fact_id
        WHERE edits.run_id = '{run.run_id}' AND edits.position >= {first} AND edits.position < {after} ORDER BY edits.position
    """
    found: list[Mapping[str, Any]] = query(store, sql).to_pylist()
    return found


def _licence(folder: Path) -> str | None:
    """Return the licence that a model's own card names; None if it has no card, or the card names none."""
    card = folder / "README.md"
    if not card.is_file():
        return None
    parts = card.read_text(encoding="utf-8", errors="replace").split("---\n", 2)
    try:
        head = yaml.safe_load(parts[1]) if len(parts) == 3 and not parts[0].strip() else None
    except yaml.YAMLError:
        return None
    found = head.get("license") if isinstance(head, dict) else None
    return found if isinstance(found, str) else None


def _said(licence: str | None) -> str:
    if licence is None:
        return (
            "The base model's folder names no licence; that of the base model holds for these weights, too: look where it came "
            "from."
        )
    return f"The licence is the base model's: `{licence}`."
