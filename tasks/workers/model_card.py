"""The card of a checked-out model: which run, which edits, which digests, whose licence."""

import importlib.metadata
import re
from collections.abc import Mapping, Sequence
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
    facts = _facts(store, run, after)
    written = [row for row in facts if row["is_written"]]
    head: dict[str, Any] = {
        "tags": ["knowledge-editing", "palimpsest"],
        "library_name": "transformers",
    }
    # Of a folder of one's own the name says nothing: the hub may have another model that is called so.
    head |= licence | ({"base_model": run.model.name} if run.model.revision else {})
    adapter = run.model.adapter
    rows = {
        "base model": f"`{run.model.name}`" + (f" at `{run.model.revision}`" if run.model.revision else ""),
        "its digest": f"`{run.model.digest}`",
        "run": f"`{run.run_id}` of experiment `{run.experiment}`",
        "editor": f"{run.editor}, layers {list(run.layers)}, batches of {run.batch_size}, {run.mode}, protocol {run.protocol}",
        "hyper-parameters": f"`{dict(run.hparams)}`",
        "edits": f"{len(written)} written{_left_out(facts, written)}",
        "data set": f"`{run.facts.name}` (digest `{run.facts.digest}`), sample {run.facts.sample}",
        "adapter": "" if adapter is None else f"`{Path(adapter).name}`, merged (digest `{run.model.adapter_digest}`)",
        "checked": checked,
    }
    shown = [f"- {_line(row['prompt'])} → {_line(row['target_new'])}" for row in written[:_SHOWN]]
    more = [f"- … and {len(written) - _SHOWN} more"] if len(written) > _SHOWN else []
    text = _TEXT.format(
        title=f"{Path(run.model.name).name}, edited by {run.editor}",
        model=run.model.name,
        after=after,
        run_id=run.run_id,
        version=importlib.metadata.version("palimpsest-editing"),
        rows="\n".join(f"| {name} | {value} |" for name, value in rows.items() if value),
        licence=_said(licence),
        facts="\n".join(shown + more) or "none",
    )
    (folder / "README.md").write_text(f"---\n{yaml.safe_dump(head, sort_keys=False)}---\n{text}", encoding="utf-8")


def _facts(store: Store, run: RunSpec, after: int) -> list[Mapping[str, Any]]:
    first = 0 if run.mode == "sequential" else max(0, after - run.batch_size)
    sql = f"""
        SELECT f.prompt, f.target_new, (
            edits.round IN (SELECT round FROM ledger WHERE run_id = '{run.run_id}')
            AND edits.fact_id NOT IN (SELECT fact_id FROM guarded_edits WHERE run_id = '{run.run_id}')
        ) AS is_written
        FROM edits JOIN runs USING (run_id)
        JOIN facts AS f ON f.run_id = runs.facts_run_id AND f.fact_id = edits.fact_id
        WHERE edits.run_id = '{run.run_id}' AND edits.position >= {first} AND edits.position < {after} ORDER BY edits.position
    """
    found: list[Mapping[str, Any]] = query(store, sql).to_pylist()
    return found


def _left_out(facts: Sequence[Mapping[str, Any]], written: Sequence[Mapping[str, Any]]) -> str:
    lost = len(facts) - len(written)
    return f", {lost} left out: by a guard, or because their batch could not be solved" if lost else ""


def _line(text: str) -> str:
    """Return a text on one line, with nothing that Markdown would take for its own."""
    return re.sub(r"([|<>`*_#\[\]])", r"\\\1", " ".join(text.split()))


def _licence(folder: Path) -> dict[str, Any]:
    """Return what a model's own card says of its licence; nothing if it has no card, or the card names none."""
    card = folder / "README.md"
    if not card.is_file():
        return {}
    parts = card.read_text(encoding="utf-8", errors="replace").split("---\n", 2)
    try:
        head = yaml.safe_load(parts[1]) if len(parts) == 3 and not parts[0].strip() else None
    except yaml.YAMLError:
        return {}
    names = ("license", "license_name", "license_link")
    return {name: head[name] for name in names if head.get(name)} if isinstance(head, dict) else {}


def _said(licence: Mapping[str, Any]) -> str:
    if not licence:
        return (
            "The base model's folder names no licence; that of the base model holds for these weights, too: look where it came "
            "from."
        )
    return f"The licence is the base model's: `{', '.join(map(str, licence.values()))}`."
