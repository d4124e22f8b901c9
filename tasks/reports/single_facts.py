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
    rows = query(store, f"SELECT * FROM edit_texts WHERE run_id = '{run_id}'").to_pylist()
    rows = rows if fact is None else _named(rows, fact, _place(store, run_id, fact))
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


def _place(store: Store, run_id: str, fact: str) -> str | None:
    """Return the id of the fact that is so many-th among a run's edits."""
    if not fact.isdecimal():
        return None
    sql = f"SELECT fact_id FROM edits WHERE run_id = '{run_id}' AND position = {int(fact)} - 1"
    found: list[Row] = query(store, sql).to_pylist()
    return found[0]["fact_id"] if found else None


def _named(rows: Sequence[Row], fact: str, at_place: str | None) -> list[Row]:
    """Return the rows of the fact with this id, or at this place; else of all that have such words in a prompt."""
    for named in (fact, at_place):
        if found := [row for row in rows if row["fact_id"] == named]:
            return found
    named_by = [row for row in rows if fact.lower() in (row["prompt"] or "").lower()]
    own = [row for row in named_by if row["kind"] == "rewrite"]  # else a neighbor's name would show other facts
    wanted = {(row["edited_at"], row["fact_id"]) for row in own or named_by}
    return [row for row in rows if (row["edited_at"], row["fact_id"]) in wanted]


def _probes(rows: Sequence[Row]) -> Iterator[str]:
    """Yield each probe's prompt with its answers, and below it what was said at each time."""
    for probe in dict.fromkeys(row["probe_id"] for row in rows):
        mine = [row for row in rows if row["probe_id"] == probe]
        first = mine[0]
        other = "" if first["other"] is None else f", not {first['other']!r}"
        yield f"  {first['kind']}: {first['prompt']!r} -> {first['expected']!r}{other}"
        for row in mine:
            when = _WHEN[row["scored"]].format(row["after_edits"])
            said = "(no text kept)" if row["text"] is None else repr(row["text"])
            yield f"    {'holds' if row['holds'] else 'fails'}  {when:18} {said}"
