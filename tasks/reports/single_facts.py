"""What an edit did, fact by fact, for the terminal."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from storage.sql import query
from storage.store import Store
from tasks.errors import InputError

Row = Mapping[str, Any]
_WHEN = {"before": "before", "own": "right after", "checkpoint": "after {} edits", "final": "final, {} edits"}


def fact_lines(store: Store, run_id: str, fact: str | None) -> Iterator[str]:
    """Yield what a run's model said before and after each edit, or one edit with all its prompts.

    Args:
        fact: A fact's id, its place among the run's edits from 1 on, or words of its prompt; None for the first ten edits.

    Raises:
        InputError: The run edited no such fact, or scored none.
    """
    rows = query(store, f"SELECT * FROM edit_texts WHERE run_id = '{run_id}' {_only(fact)}").to_pylist()
    order = list(dict.fromkeys((row["edited_at"], row["fact_id"]) for row in rows))
    if not rows:
        raise InputError(
            f"run {run_id!r} has no scored edit{f' that {fact!r} names' if fact else ''} in {store.location}; expected a "
            'id, words of its prompt, or nothing for the first ones (`palimpsest query "FROM edit_texts"` has all)'
        )
    shown = order[:10]
    for key in shown:
        mine = [row for row in rows if (row["edited_at"], row["fact_id"]) == key]
        kinds = mine if fact is not None and len(order) == 1 else [row for row in mine if row["kind"] == "rewrite"]
        yield f"{key[1]}  (round {key[0]})"
        yield from _probes(kinds)
    if len(order) > len(shown):
        yield f"... and {len(order) - len(shown)} more edits; name one: palimpsest show {run_id} FACT"


def _only(fact: str | None) -> str:
    if fact is None:
        return ""
    text = fact.replace("'", "''")
    named = f"fact_id = '{text}' OR fact_id IN (SELECT fact_id FROM edit_texts WHERE contains(lower(prompt), lower('{text}')))"
    return f"AND ({named})"


def _probes(rows: Sequence[Row]) -> Iterator[str]:
    """Yield each probe's prompt with its answers, and below it what was said at each time."""
    for probe in dict.fromkeys(row["probe_id"] for row in rows):
        mine = [row for row in rows if row["probe_id"] == probe]
        first = mine[0]
        yield f"  {first['kind']}: {first['prompt']!r} -> {first['expected']!r}, not {first['other']!r}"
        for row in mine:
            when = _WHEN[row["scored"]].format(row["after_edits"])
            said = "(no text kept)" if row["text"] is None else repr(row["text"])
            yield f"    {'holds' if row['holds'] else 'fails'}  {when:18} {said}"
