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
    n_neighbors: int = 2, unscored: int = 0, **changes: Any,
) -> None:  # fmt: skip
    """A run of single edits: which probes of which fact hold right after its round, and on the final model.

    Args:
        unscored: How many further edits its first round has.
    """
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
    edits += [{"round": 0, "position": len(facts) + i, "fact_id": f"x{i}"} for i in range(unscored)]
    tables = {"runs": [row], "edits": edits, "fact_scores": rows}
    store.commit(run_id, "segment-000000", tables, CommitInfo(kind="segment", first_round=0, last_round=len(facts)))


def ask(store: Store, sql: str) -> list[dict[str, Any]]:
    return query(store, sql).to_pylist()


def answered(right: int, edits: int, n: int = 200, benchmark: str = "toy") -> list[dict[str, Any]]:
    """Answers to yes-or-no questions, of which the first so many are right."""
    return [
        {"benchmark": benchmark, "questions_run_id": f"questions-{benchmark}", "scored_at": edits - 1, "edits_so_far": edits,
         "example_id": f"e{i:03d}", "subset": "", "labels": ["no", "yes"], "gold": gold, "predicted": said,
         "correct": said == gold, "value": float(said == gold), "outcome": "answered", "n_shots": 0, "shots_from": "none"}
        for i in range(n)
        for gold in ("yes" if i % 2 else "no",)
        for said in (gold if i < right else "no" if gold == "yes" else "yes",)
    ]  # fmt: skip


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


def test_baselines_are_no_setting(store: Store) -> None:
    run(store, BASELINE, always, facts=range(4), editor="none")
    assert ask(store, "SELECT * FROM setting_summary") == [] and ask(store, "SELECT * FROM comparisons") == []


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


def test_what_a_run_took_is_its_edits_and_its_network(store: Store) -> None:
    recipe = {"editor": "malmen", "edits": 8}
    for name, seconds in (("a", 2.0), ("b", 3.0)):
        run(store, name, always, facts=range(8), spec={"network_recipe": recipe}, editor="malmen")
        rows = [{"stage": "segment", "seconds": seconds}, {"stage": "own", "seconds": 1.0}]
        store.commit(name, "more", {"timings": rows}, CommitInfo(kind="own"))
    run(store, "c", always, facts=range(8))
    store.commit("c", "more", {"timings": [{"stage": "segment", "seconds": 5.0}]}, CommitInfo(kind="own"))
    for step, seconds in ((0, 10.0), (1, 20.0)):
        info = CommitInfo(kind="train", spec={"compute": {}, "recipe": recipe})
        store.commit("train-1", f"steps-{step}", {"timings": [{"stage": "train", "seconds": seconds}]}, info)
    rows = ask(store, "SELECT run_id, edits, editing_s, scoring_s, training_s, total_s FROM run_times ORDER BY run_id")
    assert [tuple(row.values()) for row in rows] == [
        ("a", 8, 2.0, 1.0, 30.0, 32.0), ("b", 8, 3.0, 1.0, 30.0, 33.0), ("c", 8, 5.0, 0.0, 0.0, 5.0)
    ]  # fmt: skip


def test_an_unfinished_run_widens_no_other(store: Store) -> None:
    """A second seed that is half done: the first one's facts count as they are."""
    run(store, "whole", lambda fact, kind: fact % 2 == 0, facts=range(100), seed=0)
    (alone,) = ask(store, "SELECT n_facts, low, high FROM setting_summary WHERE metric = 'efficacy'")
    run(store, "half", lambda fact, kind: fact % 2 == 0, facts=range(50), seed=1)
    whole, _ = ask(
        store, "SELECT n_facts, low, high FROM setting_summary WHERE metric = 'efficacy' ORDER BY edits DESC"
    )
    assert whole == alone and alone["n_facts"] == 100
    (window,) = ask(
        store, "SELECT n_facts, n FROM setting_curve WHERE name = 'window 50' AND metric = 'efficacy' AND edits = 50"
    )
    assert window == {"n_facts": 50, "n": 100}


def test_benchmarks_of_a_model_that_is_not_final_are_no_summary(store: Store) -> None:
    run(store, "a", always, facts=range(60))
    store.commit("a", "questions", {"benchmark_answers": answered(150, 40)}, CommitInfo(kind="questions"))
    assert not ask(store, "SELECT * FROM setting_summary WHERE metric LIKE 'benchmark%'")
    store.commit("a", "more", {"benchmark_answers": answered(150, 60)}, CommitInfo(kind="questions"))
    rows = ask(store, "SELECT metric, edits, mean FROM setting_summary WHERE metric LIKE 'benchmark%' ORDER BY metric")
    assert [row["metric"] for row in rows] == ["benchmark_accuracy", "benchmark_f1"] and rows[0]["mean"] == 0.75


def plant_losses(store: Store, after: dict[int, int], n_samples: int = 1) -> None:
    """A baseline that was asked 200 questions of two benchmarks, and runs that were asked the first 100 of one."""
    store.commit(BASELINE, "b", {"runs": [run_row(BASELINE, editor="none")]}, CommitInfo(kind="baseline"))
    rows = answered(100, 0) + answered(50, 0, benchmark="hard")
    store.commit(BASELINE, "q", {"benchmark_answers": rows}, CommitInfo(kind="questions"))
    for sample in range(n_samples):
        run(store, f"r{sample}", always, facts=range(sample * 60, sample * 60 + 60), sample=sample)
        rows = [row for edits, n in after.items() for row in answered(n if not sample else 100, edits, n=100)]
        store.commit(f"r{sample}", "q", {"benchmark_answers": rows}, CommitInfo(kind="questions"))


def test_losses_are_of_the_same_questions(store: Store) -> None:
    """What the unedited model alone was asked, further questions and another benchmark, is no loss."""
    plant_losses(store, {20: 100, 60: 80})
    assert ask(store, "SELECT f1_lost FROM forgetting_summary")[0]["f1_lost"] == pytest.approx(0.2)
    starts = ask(store, "SELECT name, edits, mean FROM setting_curve WHERE curve = 'benchmarks' AND edits = 0")
    assert starts == [{"name": "toy, 0 shots: f1", "edits": 0, "mean": 1.0}]
    rows = ask(
        store, "SELECT * FROM benchmark_losses WHERE benchmark IS NULL AND sample IS NULL ORDER BY since_edits, edits"
    )
    assert [(row["since_edits"], row["edits"], row["lost"]) for row in rows] == [
        (0, 20, 0.0),
        (0, 60, 0.2),
        (20, 60, 0.2),
    ]
    assert all(row["n_questions"] == 100 and row["low"] < row["lost"] < row["high"] for row in rows)
    (judged,) = ask(store, "SELECT benchmark_level, benchmark_score FROM collapse_curve WHERE edits = 60")
    assert judged["benchmark_level"] == 1.0 and judged["benchmark_score"] == pytest.approx(0.8, abs=0.01)


def test_losses_that_differ_between_samples_are_judged_over_samples(store: Store) -> None:
    plant_losses(store, {60: 50}, n_samples=3)
    rows = {row["sample"]: row for row in ask(store, "SELECT * FROM benchmark_losses WHERE benchmark IS NULL")}
    assert rows[0]["lost"] == 0.5 and rows[0]["low"] > 0.3 and rows[1]["lost"] == 0
    assert (
        rows[None]["lost"] == pytest.approx(1 / 6) and rows[None]["clustered_by"] == "sample" and rows[None]["low"] < 0
    )
    assert (rows[None]["n_samples"], rows[None]["n_runs"], rows[None]["n_questions"]) == (3, 3, 100)
