"""Stores with hand-made fact scores."""

from pathlib import Path
from typing import Any

from storage.commits import CommitInfo
from storage.sql import query
from storage.store import Store
from tests.storage.test_views import run_row

FACTS = "facts-hand"


def probe(fact: str, kind: str = "rewrite", number: int = 0, **changes: Any) -> dict[str, Any]:
    """One probe of two-token targets, right under every protocol, scored right after its round."""
    keeps = kind == "neighborhood"
    wanted, other = {"nll": 1.0, "n": 2, "right": 2}, {"nll": 4.0, "n": 2, "right": 0}
    new, true = (other, wanted) if keeps else (wanted, other)
    row = {
        "purpose": "own",
        "fact_id": fact,
        "probe_id": f"{fact}/{kind}/{number}",
        "kind": kind,
        "edited_at": 0,
        "scored_at": 0,
        "edits_so_far": 1,
        "nll_new": new["nll"],
        "n_new": new["n"],
        "n_correct_new": new["right"],
        "argmax_new": [1, 2],
        "nll_true": true["nll"],
        "n_true": true["n"],
        "n_correct_true": true["right"],
        "argmax_true": [3, 4],
        "text": " Old York." if keeps else " New York.",
        "is_nan": False,
    }
    return row | changes


def store_of(root: Path, runs: dict[str, dict[str, Any]], scores: dict[str, list[dict[str, Any]]]) -> Store:
    """Write runs with their scores; every probe's new target is "New York", its true one "Old York"."""
    store = Store(root / "store", create=True)
    everything = [row for rows in scores.values() for row in rows]
    ids = {(row["fact_id"], row["probe_id"], row["kind"]) for row in everything}
    probes = [
        {"fact_id": f, "probe_id": p, "kind": k, "prompt": p, "target_new": "New York", "target_true": "Old York"}
        for f, p, k in sorted(ids)
    ]
    store.commit(FACTS, "facts", {"probes": probes}, CommitInfo(kind="facts"))
    for run_id, changes in runs.items():
        row = run_row(run_id, facts_run_id=FACTS, **changes)
        info = CommitInfo(kind="own", recipe="v")
        store.commit(run_id, "own", {"runs": [row], "fact_scores": scores[run_id]}, info)
    return store


def ask(store: Store, sql: str) -> list[dict[str, Any]]:
    return query(store.location, sql).to_pylist()
