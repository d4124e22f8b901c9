"""Layers of a search compared in pairs, beside a slow version of the same thing."""

import math
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from storage.commits import CommitInfo
from storage.sql import query
from storage.store import Store
from tests.storage.test_views import score

KINDS = ("rewrite", "paraphrase", "neighborhood")
N = 24


def holds(editor: str, layer: int, fact: int, kind: str) -> bool:
    """Facts 0 to 5 fail everywhere; the other layers and kinds differ by a few more."""
    more = {0: 0, 1: 2, 2: 8}[layer] + (1 if editor == "memit" else 0) + (3 if kind == "neighborhood" else 0)
    return fact >= 6 + more


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path, create=True)
    kept = ("fact_id", "probe_id", "kind", "nll_new", "n_new", "nll_true", "n_true")
    for editor in ("rome", "memit"):
        rows = []
        for layer in range(3):
            for fact in range(N):
                for kind in KINDS:
                    probe = score(fact, 0, 0, purpose="own", good=holds(editor, layer, fact, kind), kind=kind)
                    at = {"model": "m", "editor": editor, "protocol": "corrected", "layer": layer}
                    rows.append({name: probe[name] for name in kept} | at)
        store.commit(f"search-{editor}", "u", {"layer_scores": rows}, CommitInfo(kind="search"))
    return store


def slowly(first: tuple[str, int], second: tuple[str, int], metric: str) -> tuple[float, float, float]:
    """Return the difference and its interval."""

    def of(editor: str, layer: int) -> list[float]:
        rates = {kind: [float(holds(editor, layer, fact, kind)) for fact in range(N)] for kind in KINDS}
        if metric != "score":
            return rates[{"efficacy": "rewrite"}.get(metric, metric)]
        means = {kind: sum(values) / N for kind, values in rates.items()}
        s = 3 / sum(1 / mean for mean in means.values())
        return [s + sum(s**2 / (3 * means[k] ** 2) * (rates[k][fact] - means[k]) for k in KINDS) for fact in range(N)]

    differences = [a - b for a, b in zip(of(*first), of(*second), strict=True)]
    padded = [*differences, math.sqrt(0.5), -math.sqrt(0.5)]  # half a pair for, and half a pair against
    middle = sum(differences) / (N + 2)
    error = (sum(value**2 for value in padded) / (N + 2) - middle**2) / (N + 1)
    half = float(stats.t.ppf(0.975, N - 1)) * math.sqrt(error)
    return sum(differences) / N, middle - half, middle + half


def row_of(store: Store, first: tuple[str, int], second: tuple[str, int], metric: str) -> dict[str, Any]:
    which = f"(editor, layer, other_editor, other_layer, metric) = {(*first, *second, metric)}"
    sql = f"FROM layer_comparisons WHERE {which}"
    (row,) = query(store, sql).to_pylist()
    return row


@pytest.mark.parametrize("metric", ["efficacy", "paraphrase", "neighborhood", "score"])
@pytest.mark.parametrize(
    ("first", "second"), [(("rome", 0), ("rome", 2)), (("rome", 0), ("rome", 1)), (("memit", 1), ("rome", 1))]
)
def test_a_pair_is_compared_over_the_facts_that_both_have(
    store: Store, first: tuple[str, int], second: tuple[str, int], metric: str
) -> None:
    row = row_of(store, first, second, metric)
    assert (row["difference"], row["low"], row["high"]) == pytest.approx(slowly(first, second, metric), abs=1e-9)
    assert row["n_pairs"] == N


def test_what_fails_at_both_layers_does_not_hide_the_difference(store: Store) -> None:
    """Of each layer's own interval a quarter of the width is of facts that fail at every layer."""
    row = row_of(store, ("rome", 0), ("rome", 2), "score")
    assert row["verdict"] == "higher"
    sql = "SELECT layer, score_low, score_high FROM layer_summary WHERE editor = 'rome'"
    own = {each["layer"]: each for each in query(store, sql).to_pylist()}
    assert own[0]["score_low"] < own[2]["score_high"], "the intervals of the two overlap"


def test_every_pair_stands_once(store: Store) -> None:
    rows = query(store, "FROM layer_comparisons").to_pylist()
    assert len(rows) == 4 * (3 + 3 + 3)
    assert {(row["editor"], row["other_editor"]) for row in rows} == {
        ("rome", "rome"),
        ("memit", "memit"),
        ("memit", "rome"),
    }
    assert row_of(store, ("rome", 0), ("rome", 1), "score")["verdict"] == "not told apart"
