"""Settings compared in pairs of facts, questions or samples, on hand-made rows."""

from pathlib import Path

import numpy as np
import pytest

from storage.commits import CommitInfo
from storage.store import Store
from tests.storage.test_settings import always, answered, ask, run


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store", create=True)


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
    assert row["p_holm"] == pytest.approx(3 * row["p"]), "three metrics, all as rare, and S"


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


def test_an_editor_that_needs_no_second_moments_has_none_of_its_own(store: Store) -> None:
    run(store, "tuned", always, facts=range(10), editor="ft_c")
    run(store, "located", always, facts=range(10), editor="memit", spec={"moments_recipe": {"texts": "b"}})
    (row,) = ask(store, "SELECT differs_in FROM comparisons WHERE metric = 'score'")
    assert row["differs_in"] == ["editor"]
    assert [row["moments"] is None for row in ask(store, "SELECT moments FROM settings ORDER BY editor")] == [
        True,
        False,
    ]


def test_questions_of_benchmarks_are_compared_in_pairs(store: Store) -> None:
    """Of the final model only; each question counts once, however many samples were asked it."""
    for sample in (0, 1):
        for name, editor, right in (("a", "memit", 190), ("b", "rome", 160)):
            run(store, f"{name}{sample}", always, facts=range(8 * sample, 8 * sample + 8), sample=sample, editor=editor)
            rows = answered(200, 4) + answered(right, 8) + answered(right, 8, benchmark="other")
            store.commit(f"{name}{sample}", "questions", {"benchmark_answers": rows}, CommitInfo(kind="questions"))
    (row,) = ask(store, "SELECT * FROM comparisons WHERE metric = 'benchmark_accuracy'")
    assert (row["editor"], row["other_editor"], row["scored"]) == ("memit", "rome", "final")
    assert (row["n_pairs"], row["n_differ"]) == (400, 60) and row["difference"] == pytest.approx(0.15)
    assert 0.11 < row["low"] < 0.15 < row["high"] < 0.19 and row["verdict"] == "higher"
    (mine,) = ask(store, "SELECT * FROM setting_summary WHERE metric = 'benchmark_accuracy' AND editor = 'rome'")
    assert mine["mean"] == pytest.approx(0.8) and mine["n_facts"] == 400 and mine["low"] < 0.8 < mine["high"]


def test_shares_of_tokens_are_compared_where_edits_are_joint(store: Store) -> None:
    for mode in ("independent", "sequential"):
        for editor, most in (("malmen", 40), ("mend", 20)):
            holds = lambda fact, kind, most=most: kind != "rewrite" or fact < most  # noqa: E731
            run(store, f"{editor}-{mode}", holds, facts=range(50), editor=editor, mode=mode)
    rows = ask(store, "SELECT * FROM comparisons WHERE metric LIKE '%_success' ORDER BY metric")
    assert [(row["metric"], row["mode"], row["verdict"]) for row in rows] == [
        ("edit_success", "independent", "higher"),
        ("generalisation_success", "independent", "not told apart"),
        ("locality_success", "independent", "not told apart"),
    ]
    assert rows[0]["difference"] == pytest.approx(0.4) and rows[0]["n_pairs"] == 50


def test_s_is_of_the_facts_that_both_have(store: Store) -> None:
    """What is alike on every fact that both have looked at does not differ, whatever else one of them has looked at."""
    facts = range(100)
    holds = lambda fact, kind: kind == "neighborhood" or fact < 30  # noqa: E731
    run(store, "a", holds, facts=facts, batch_size=5)
    run(store, "b", holds, facts=range(40), unscored=60, batch_size=50)
    (row,) = ask(store, "SELECT * FROM comparisons WHERE metric = 'score'")
    assert row["n_pairs"] == 40 and row["difference"] == 0 and row["verdict"] == "not told apart"
    assert row["mean"] == row["other_mean"] == pytest.approx(3 / (1 / 0.75 + 1 / 0.75 + 1))


def test_s_is_no_surer_than_the_kind_in_which_it_differs(store: Store) -> None:
    """S is no mean of values with signs: six neighborhoods of 200 make no p-value of 1e-60."""
    run(store, "a", lambda fact, kind: kind != "neighborhood" or fact < 6, facts=range(200), batch_size=5)
    run(store, "b", lambda fact, kind: kind != "neighborhood", facts=range(200), batch_size=50)
    rows = {row["metric"]: row for row in ask(store, "SELECT * FROM comparisons")}
    assert rows["neighborhood"]["p"] == pytest.approx(2 / 64) and 0.005 < rows["score"]["p"] < 0.1
    assert rows["score"]["p_holm"] == pytest.approx(4 * rows["score"]["p"]), "of four metrics"


def test_the_p_value_of_s_is_seldom_small_by_chance(store: Store) -> None:
    """Of pairs of settings that do not differ, with few neighborhoods that hold."""
    draw = np.random.default_rng(0)
    kept = {(name, fact): bool(draw.random() < 0.02) for name in range(40) for fact in range(200)}
    for name in range(40):
        good = lambda fact, kind, name=name: kind != "neighborhood" or kept[name, fact]  # noqa: E731
        run(
            store,
            f"r{name}",
            good,
            facts=range(200),
            n_neighbors=1,
            batch_size=name % 2 + 1,
            facts_run_id=f"facts-{name // 2}",
        )
    p = [row["p"] for row in ask(store, "SELECT p FROM comparisons WHERE metric = 'score'")]
    assert len(p) == 20 and sum(each < 0.05 for each in p) <= 4 and min(p) > 0.001
