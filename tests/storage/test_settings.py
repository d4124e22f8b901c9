"""Runs that are instances of one setting, put together and compared, on hand-made rows."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from storage.commits import CommitInfo
from storage.sql import query
from storage.store import Store
from tests.storage.test_views import BASELINE, run_row, score

Good = Callable[[int, str], bool]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store", create=True)


def run(
    store: Store, run_id: str, good: Good, *, facts: range, sample: int = 0, seed: int = 0, final: Good | None = None,
    n_neighbors: int = 2, **changes: Any,
) -> None:  # fmt: skip
    """A run of single edits: which probes of which fact hold right after its round, and on the final model."""
    spec = {
        "facts": {"sample_seed": 0, "order_digest": None}, "hparams": {"lr": 0.1, "training_seed": seed},
        "contexts_recipe": {"contexts": 5, "seed": seed}, "moments_recipe": None, "network_recipe": None,
        "model": {"chat": False, "text_start": "none", "adapter_digest": None, "particulars": {}},
    } | changes.pop("spec", {})  # fmt: skip
    what = {"model_digest": "d", "dtype": "float32", "facts_run_id": "facts-1", "spec": json.dumps(spec)}
    row = run_row(run_id, sample=sample, seed=seed, **what | changes)
    kinds = [("rewrite", 1), ("paraphrase", 2), ("neighborhood", n_neighbors)]

    def scores(purpose: str, holds: Good, last: int | None) -> list[dict[str, Any]]:
        return [
            score(fact, at, at if last is None else last, purpose=purpose, good=holds(fact, kind), kind=kind)
            | {"probe_id": f"f{fact}/{kind}/{number}"}
            for at, fact in enumerate(facts)
            for kind, count in kinds
            for number in range(count)
        ]

    rows = scores("own", good, None) + (scores("retention", final, len(facts) - 1) if final else [])
    edits = [{"round": at, "position": at, "fact_id": f"f{fact}"} for at, fact in enumerate(facts)]
    tables = {"runs": [row], "edits": edits, "fact_scores": rows}
    store.commit(run_id, "segment-000000", tables, CommitInfo(kind="segment", first_round=0, last_round=len(facts)))


def ask(store: Store, sql: str) -> list[dict[str, Any]]:
    return query(store, sql).to_pylist()


def always(fact: int, kind: str) -> bool:
    return True


def test_all_edits_on_the_final_model_stand_beside_each_at_its_own_time(store: Store) -> None:
    run(store, "a", always, facts=range(10), final=lambda fact, kind: kind == "neighborhood" or fact >= 4)
    run(store, "alone", always, facts=range(10), final=always, mode="independent")
    run(store, "unscored", always, facts=range(10))
    rows = {row["run_id"]: row for row in ask(store, "SELECT * FROM run_summary")}
    assert rows["a"]["efficacy"] == 1 and rows["a"]["score"] == 1
    assert rows["a"]["final_efficacy"] == rows["a"]["final_paraphrase"] == 0.6 and rows["a"]["final_neighborhood"] == 1
    assert rows["a"]["final_score"] == pytest.approx(3 / (1 / 0.6 + 1 / 0.6 + 1)) and rows["a"]["n_final"] == 10
    for name in ("alone", "unscored"):
        assert rows[name]["final_score"] is None and rows[name]["n_final"] == 0
    only = "scoring_protocol = 'nll_mean' AND run_id = 'a'"
    scored = ask(store, f"SELECT scored, after_edits, n_facts, efficacy FROM protocol_scores WHERE {only} ORDER BY ALL")
    assert [tuple(row.values()) for row in scored] == [("final", 10, 10, 0.6), ("own", None, 10, 1.0)]


def test_a_checkpoint_before_the_last_round_is_not_final(store: Store) -> None:
    run(store, "a", always, facts=range(10), final=always)
    more = {"edits": [{"round": 10, "position": 10, "fact_id": "f10"}],
            "fact_scores": [score(10, 10, 10, purpose="own", good=True)]}  # fmt: skip
    store.commit("a", "segment-000010", more, CommitInfo(kind="segment", first_round=10, last_round=11))
    (row,) = ask(store, "SELECT final_score, n_final FROM run_summary")
    assert row == {"final_score": None, "n_final": 0}
    assert {row["scored"] for row in ask(store, "SELECT scored FROM protocol_scores")} == {"own", "checkpoint"}


def test_a_setting_is_what_runs_share_but_for_sample_and_seed(store: Store) -> None:
    for sample in (0, 1):
        for seed in (0, 1):
            run(store, f"s{sample}{seed}", always, facts=range(10 * sample, 10 * sample + 10), sample=sample, seed=seed)
    run(store, "layers", always, facts=range(10), layers=[1])
    run(store, "numbers", always, facts=range(10), spec={"hparams": {"lr": 0.2}})
    run(store, "preset", always, facts=range(10), spec={"contexts_recipe": {"texts": ["a"]}})
    rows = ask(store, "SELECT * FROM setting_summary WHERE metric = 'score'")
    assert sorted((row["n_runs"], row["n_samples"], row["n_seeds"], row["n"], row["n_facts"]) for row in rows) == [
        (1, 1, 1, 10, 10), (1, 1, 1, 10, 10), (1, 1, 1, 10, 10), (4, 2, 2, 40, 20)
    ]  # fmt: skip
    assert len({row["setting"] for row in rows}) == 4


def test_the_spread_of_s_is_that_of_its_edits(store: Store) -> None:
    """An edit's value adds to S what S loses without it, to first order; facts without a paraphrase included."""
    rng = np.random.default_rng(0)
    holds = {
        (fact, kind): bool(rng.random() < 0.8)
        for fact in range(300)
        for kind in ("rewrite", "paraphrase", "neighborhood")
    }
    run(store, "a", lambda fact, kind: holds[fact, kind], facts=range(300))
    (row,) = ask(store, "SELECT mean, low, high FROM setting_summary WHERE metric = 'score'")
    rates = np.array(
        [[holds[fact, kind] for kind in ("rewrite", "paraphrase", "neighborhood")] for fact in range(300)], float
    )
    assert row["mean"] == pytest.approx(3 / np.sum(1 / rates.mean(0)), rel=1e-12)
    drawn = rates[rng.integers(0, 300, (4000, 300))].mean(1)
    low, high = np.quantile(3 / np.sum(1 / drawn, axis=1), [0.025, 0.975])
    assert (row["low"], row["high"]) == pytest.approx((low, high), abs=0.005), "as a bootstrap of the facts"


def test_facts_that_samples_share_count_once(store: Store) -> None:
    """Two samples of the same facts are worth no more than one."""
    half = lambda fact, kind: fact % 2 == 0  # noqa: E731
    run(store, "a", half, facts=range(40), sample=0)
    (alone,) = ask(store, "SELECT low, high, n_facts FROM setting_summary WHERE metric = 'efficacy'")
    run(store, "b", half, facts=range(40), sample=1)
    (both,) = ask(store, "SELECT low, high, n_facts, n, n_samples FROM setting_summary WHERE metric = 'efficacy'")
    assert both["n"] == 80 and both["n_facts"] == alone["n_facts"] == 40 and both["n_samples"] == 2
    assert (both["low"], both["high"]) == pytest.approx((alone["low"], alone["high"]))


def test_seeds_widen_an_interval_by_their_spread(store: Store) -> None:
    for seed, wrong in enumerate((0, 10, 20)):
        run(store, f"s{seed}", lambda fact, kind, wrong=wrong: fact >= wrong, facts=range(40), seed=seed)
    (row,) = ask(store, "SELECT * FROM setting_summary WHERE metric = 'efficacy'")
    assert row["mean"] == 0.75 and row["n_seeds"] == 3 and row["n_samples"] == 1
    assert row["high"] - row["low"] > 0.6, "three seeds at 1.0, 0.75 and 0.5: t of two degrees of freedom is 4.3"


def test_curves_have_an_interval_at_every_point(store: Store) -> None:
    for sample in range(3):
        run(store, f"s{sample}", lambda fact, kind: fact % 4 != 0, facts=range(60 * sample, 60 * sample + 60), sample=sample,
            final=always)  # fmt: skip
    rows = ask(store, "SELECT * FROM setting_curve WHERE curve = 'editing' AND metric = 'efficacy'")
    assert {row["name"] for row in rows} == {"window 5", "window 50"} and len(rows) == 120
    last = next(row for row in rows if row["name"] == "window 50" and row["edits"] == 60)
    assert last["n"] == 150 and last["n_samples"] == 3 and last["low"] < last["mean"] < last["high"]
    assert all(row["high"] > row["low"] for row in rows)
    forgotten = ask(store, "SELECT * FROM setting_curve WHERE curve = 'forgetting' AND metric = 'forgotten'")
    assert [row["mean"] for row in forgotten] == [0.0] and forgotten[0]["high"] > 0


def test_settings_are_compared_over_the_facts_that_both_edited(store: Store) -> None:
    run(store, "a5", lambda fact, kind: fact >= 4, facts=range(40), batch_size=5)
    run(store, "a50", lambda fact, kind: fact >= 20, facts=range(40), batch_size=50)
    run(store, "fewer", always, facts=range(20), batch_size=10)
    run(store, "other", always, facts=range(40), editor="emmet", model_digest="another")
    (row,) = ask(store, "SELECT * FROM comparisons WHERE metric = 'efficacy'")
    assert (row["batch_size"], row["other_batch_size"]) == (5, 50) and row["n_pairs"] == 40 and row["n_differ"] == 16
    assert row["mean"] == 0.9 and row["other_mean"] == 0.5 and row["difference"] == pytest.approx(0.4)
    assert row["p"] < 2.5e-4 and row["verdict"] == "higher" and row["differs_in"] == ["batch_size"]
    # Half a pair for, half a pair against, and one that is equal, are added (Agresti and Min).
    middle = 16 / 42
    width = 2.0227 * np.sqrt((17 / 42 - middle**2) / 41)
    assert (row["low"], row["high"]) == pytest.approx((middle - width, middle + width), rel=1e-4)
    assert row["p_holm"] == pytest.approx(4 * row["p"]), "four metrics, all as rare"


def test_what_is_alike_is_not_told_apart_and_no_interval_has_no_width(store: Store) -> None:
    run(store, "a5", always, facts=range(40), batch_size=5)
    run(store, "a50", always, facts=range(40), batch_size=50)
    for row in ask(store, "SELECT * FROM comparisons"):
        assert row["difference"] == 0 and row["low"] < 0 < row["high"] and row["verdict"] == "not told apart"


def test_differences_that_differ_from_sample_to_sample_are_judged_over_samples(store: Store) -> None:
    for sample, wrong in enumerate((0, 0, 30)):
        facts = range(40 * sample, 40 * sample + 40)
        run(store, f"a{sample}", always, facts=facts, sample=sample, batch_size=5)
        run(store, f"b{sample}", lambda fact, kind, first=facts.start + wrong: fact >= first, facts=facts, sample=sample,
            batch_size=50)  # fmt: skip
    (row,) = ask(store, "SELECT * FROM comparisons WHERE metric = 'efficacy'")
    assert row["clustered_by"] == "sample" and row["n_samples"] == 3 and row["difference"] == pytest.approx(0.25)
    assert row["p"] > 0.1 and row["verdict"] == "not told apart", "one sample in three"


def test_baselines_are_no_setting(store: Store) -> None:
    run(store, BASELINE, always, facts=range(4), editor="none")
    assert ask(store, "SELECT * FROM setting_summary") == [] and ask(store, "SELECT * FROM comparisons") == []


def test_a_fact_that_samples_share_is_one_pair(store: Store) -> None:
    for sample in range(3):
        run(store, f"a{sample}", lambda fact, kind: fact >= 4, facts=range(40), sample=sample, batch_size=5)
        run(store, f"b{sample}", lambda fact, kind: fact >= 9, facts=range(40), sample=sample, batch_size=50)
    (row,) = ask(store, "SELECT * FROM comparisons WHERE metric = 'efficacy'")
    assert row["n_pairs"] == 40 and row["n_samples"] == 3 and row["n_differ"] == 5
    assert row["p"] == 2 * 0.5**5, "five facts, all one way"


def test_one_pair_is_no_comparison(store: Store) -> None:
    for size in (1, 2):
        run(store, f"b{size}", always, facts=range(1), batch_size=size)
    assert ask(store, "SELECT * FROM comparisons") == []


def test_seeds_do_not_hide_what_hundreds_of_facts_show(store: Store) -> None:
    for seed in range(2):
        run(
            store,
            f"a{seed}",
            lambda fact, kind, seed=seed: fact >= 10 + seed,
            facts=range(200),
            seed=seed,
            batch_size=5,
        )
        run(
            store,
            f"b{seed}",
            lambda fact, kind, seed=seed: fact >= 70 + seed,
            facts=range(200),
            seed=seed,
            batch_size=50,
        )
    (row,) = ask(store, "SELECT * FROM comparisons WHERE metric = 'efficacy'")
    assert row["verdict"] == "higher" and row["p"] < 1e-6 and row["low"] > 0.15


def test_what_settings_differ_in_is_named_once(store: Store) -> None:
    run(store, "plain", always, facts=range(10))
    run(store, "preset", always, facts=range(10), preset="paper", spec={"hparams": {"lr": 0.3}})
    run(store, "moments", always, facts=range(10), spec={"moments_recipe": {"texts": "b"}})
    run(store, "texts", always, facts=range(10), spec={"moments_recipe": {"texts": "c"}}, batch_size=5)
    run(store, "numbers", always, facts=range(10), spec={"hparams": {"lr": 0.7}})
    rows = ask(store, "SELECT batch_size, other_batch_size, differs_in FROM comparisons WHERE metric = 'score'")
    found = {tuple(row["differs_in"]) for row in rows}
    assert {("preset",), ("hparams",)} <= found and ("preset", "hparams") not in found
    both = [row["differs_in"] for row in rows if {row["batch_size"], row["other_batch_size"]} == {1, 5}]
    assert all("batch_size" in each for each in both) and ["batch_size", "moments"] in both


def test_no_neighbor_of_many_is_no_certain_zero(store: Store) -> None:
    """S near 0 is three times the least rate: with no neighbor kept of 200 facts it may well be 0.015."""
    run(store, "a", lambda fact, kind: kind != "neighborhood", facts=range(200))
    (row,) = ask(store, "SELECT mean, low, high FROM setting_summary WHERE metric = 'score'")
    assert row["mean"] == row["low"] == 0 and row["high"] > 0.035


def test_forgetting_is_told_of_the_final_model_only(store: Store) -> None:
    run(store, "a", always, facts=range(10), final=always)
    more = {"edits": [{"round": at, "position": at, "fact_id": f"f{at}"} for at in range(10, 20)],
            "fact_scores": [score(at, at, at, purpose="own", good=True) for at in range(10, 20)]}  # fmt: skip
    store.commit("a", "segment-000010", more, CommitInfo(kind="segment", first_round=10, last_round=20))
    assert ask(store, "SELECT * FROM setting_summary WHERE metric = 'forgotten'") == []
